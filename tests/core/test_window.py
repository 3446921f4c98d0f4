from __future__ import annotations

import pytest

from dwp_core.window import ReceiveWindow


def test_what_was_consumed_is_granted_again_in_steps() -> None:
    window = ReceiveWindow(size=8, granted=8)
    for _ in range(6):
        window.received()
    assert window.remaining == 2
    assert window.due(held=6) == 0, "nothing was consumed"
    assert window.due(held=5) == 0, "less than a step"
    assert window.due(held=2) == 4
    assert window.remaining == 6


def test_a_server_that_starts_with_less_is_given_the_rest_at_once() -> None:
    assert ReceiveWindow(size=100, granted=10).due(held=0) == 90


def test_a_server_that_starts_with_more_is_given_nothing() -> None:
    assert ReceiveWindow(size=10, granted=100).due(held=0) == 0


def test_credit_is_never_negative() -> None:
    window = ReceiveWindow(size=2, granted=1)
    window.received()
    window.received()
    assert window.remaining == 0


def test_it_is_low_well_before_it_runs_dry_and_starving_when_it_is_about_to() -> None:
    window = ReceiveWindow(size=80, granted=80)
    seen = []
    for _ in range(80):
        window.received()
        seen.append((window.low, window.starving))
    assert seen.index((True, False)) == 19
    assert seen.index((True, True)) == 69


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_the_smallest_windows_still_move(size: int) -> None:
    window = ReceiveWindow(size=size, granted=1)
    for _ in range(10):
        window.received()
        window.due(held=0)
        assert window.remaining == window.size
