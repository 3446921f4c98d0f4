"""A pytest plugin: writes down which tests there are and what became of each, for `python -m tests.portable`.

Behind the blockade it also holds the tests of the fast form to their marker: each has to fail for want of the form.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

from dwp_core.errors import InvalidRequest

MARKER = "fast_form"
SHARE = 5
"""Behind the blockade state machines run one in so many of their histories."""


@dataclass(slots=True)
class Tally:
    """What a run of pytest found and saw.

    Attributes:
        here: every test that was collected.
        fast: those that bear the marker.
        outcomes: "passed", "failed", "skipped", or "refused": a test of the fast form failed for want of it.
    """

    here: list[str] = field(default_factory=list)
    fast: list[str] = field(default_factory=list)
    outcomes: dict[str, str] = field(default_factory=dict)

    def having(self, outcome: str) -> set[str]:
        """The tests that ended like this."""
        return {test for test, came in self.outcomes.items() if came == outcome}


class _Clerk:
    def __init__(self, file: Path) -> None:
        self.file = file
        self.tally = Tally()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.tally.here = [item.nodeid for item in session.items]
        self.tally.fast = [item.nodeid for item in session.items if item.get_closest_marker(MARKER)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        known = self.tally.outcomes.get(report.nodeid, "passed")
        refused = report.skipped and hasattr(report, "wasxfail")
        outcome = "refused" if refused else report.outcome
        # Setting up and tearing down count: what failed once has failed.
        self.tally.outcomes[report.nodeid] = outcome if known == "passed" else known

    def pytest_sessionfinish(self) -> None:
        self.file.write_text(json.dumps(asdict(self.tally)))


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--tally FILE`."""
    parser.addoption(
        "--tally", type=Path, help="write there, as JSON, what tests there are and how each ended"
    )


def pytest_configure(config: pytest.Config) -> None:
    """The clerk sits where the reports come together: not in the workers of xdist."""
    file = config.getoption("--tally")
    if file is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Clerk(file))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where there is no msgspec, a test of the fast form is expected to find that out."""
    if find_spec("msgspec") is not None:
        return
    expected = pytest.mark.xfail(
        reason="there is no fast form here", raises=(ImportError, InvalidRequest), strict=True
    )
    for item in items:
        if item.get_closest_marker(MARKER):
            item.add_marker(expected)
    machines = {item.cls for item in items if isinstance(item, pytest.Function) and item.cls is not None}
    for machine in machines:
        _shorten(machine)


def _shorten(machine: type) -> None:
    """State machines are about what the sessions decide, and run at length where there is everything."""
    given = getattr(machine, "settings", None)
    if isinstance(given, settings):
        machine.settings = settings(given, max_examples=max(given.max_examples // SHARE, 1))  # type: ignore[attr-defined]
