"""The forms of the codecs, for tests that are run in each: where msgspec is missing only one of them is there.

A test in the fast form bears the marker `fast_form`. `make portable`, which runs the tests without msgspec, holds it
to that: such a test has to fail there for want of the form, and every other one has to pass.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest

FORMS = (pytest.param("fast", marks=pytest.mark.fast_form), "portable")
"""For `parametrize` and `fixture(params=...)`: a test of its own in each form."""

HERE = ("fast", "portable") if find_spec("msgspec") else ("portable",)
"""For tests that hold one form against another, and against a third party: what is there to be held."""
