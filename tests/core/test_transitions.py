from __future__ import annotations

import pytest

from dwp_core.errors import ConflictError
from dwp_core.jobs import TRANSITIONS
from dwp_core.transitions import Table, mermaid

DOOR: Table[str] = Table(
    "door",
    "closed",
    {("closed", "open"): "open", ("open", "close"): "closed", ("closed", "weld"): "welded"},
)


def test_a_step_gives_the_state_that_follows() -> None:
    assert DOOR.step("closed", "open") == "open"
    assert DOOR.allows("open", "close")
    assert DOOR.triggers("closed") == ["open", "weld"]


def test_a_table_knows_its_states_and_which_are_final() -> None:
    assert DOOR.states == {"open", "closed", "welded"}
    assert DOOR.final == {"welded"}


@pytest.mark.parametrize(
    ("state", "trigger", "text"),
    [
        ("open", "weld", "a open door cannot weld; it can close"),
        ("welded", "open", "a welded door cannot open: welded is final"),
        ("ajar", "open", 'door: there is no state "ajar"; the states are closed, open, welded'),
    ],
)
def test_a_step_that_is_not_in_the_table_says_what_would_be_possible(
    state: str, trigger: str, text: str
) -> None:
    assert not DOOR.allows(state, trigger)
    with pytest.raises(ConflictError) as caught:
        DOOR.step(state, trigger)
    assert str(caught.value) == text


def test_a_state_that_nothing_leads_to_is_refused_when_the_table_is_made() -> None:
    with pytest.raises(ValueError) as caught:
        Table("door", "closed", {("closed", "open"): "open", ("ajar", "close"): "closed"})
    assert str(caught.value) == "door: nothing leads to ajar"


def test_a_table_is_rendered_as_a_diagram() -> None:
    assert mermaid(DOOR).splitlines() == [
        "stateDiagram-v2",
        "    [*] --> closed",
        "    closed --> open: open",
        "    open --> closed: close",
        "    closed --> welded: weld",
        "    welded --> [*]",
    ]


def test_the_diagram_of_jobs_has_every_step() -> None:
    lines = mermaid(TRANSITIONS).splitlines()
    assert len(lines) == 2 + len(TRANSITIONS.rules) + len(TRANSITIONS.final)
