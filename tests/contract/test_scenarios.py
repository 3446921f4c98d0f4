"""The suite is the documentation of what every binding does: so each scenario says what it promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.scenarios import README, files, renewed, scenarios


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_every_scenario_says_its_promise(path: Path) -> None:
    """In its docstring."""
    about, found = scenarios(path)
    assert about
    assert [each.name for each in found if not each.promise] == []


def test_the_list_of_scenarios_is_complete() -> None:
    """README.md beside this file has them all."""
    assert renewed(README.read_text()) == README.read_text(), "run: python -m tests.contract.scenarios"
