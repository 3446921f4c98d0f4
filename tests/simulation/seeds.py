"""Seeds that found a bug once, each with what it was.

A seed stands for a history only as long as the simulation draws the same things in the same order; after a change of
the simulation it is one more seed among many. So what can be said as a promise has a test of its own as well.
"""

from __future__ import annotations

FOUND: dict[int, str] = {}

EVERY_TIME = range(30)
"""What the test suite runs beside them."""
