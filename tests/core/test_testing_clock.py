"""Virtual time passes when a test lets it, and in one order (dwp_core/testing/clock.py)."""

from __future__ import annotations

from dwp_core.testing import VirtualClock


def test_what_is_due_happens_in_the_order_of_time_and_then_of_asking() -> None:
    clock = VirtualClock()
    seen: list[str] = []
    clock.call_at(2.0, lambda: seen.append("late"))
    clock.call_at(1.0, lambda: seen.append("first"))
    clock.call_at(1.0, lambda: seen.append("second"))
    clock.run_until(5.0)
    assert seen == ["first", "second", "late"]
    assert clock.now == 5.0


def test_what_is_asked_for_in_the_past_happens_now() -> None:
    clock = VirtualClock(10.0)
    when: list[float] = []
    clock.call_at(3.0, lambda: when.append(clock.now))
    assert clock.step()
    assert when == [10.0]


def test_what_was_cancelled_does_not_happen() -> None:
    clock = VirtualClock()
    appointment = clock.call_later(1.0, lambda: None)
    appointment.cancel()
    assert clock.next is None
    assert not clock.step()


def test_time_does_not_go_back() -> None:
    clock = VirtualClock(10.0)
    clock.run_until(3.0)
    assert clock.now == 10.0


def test_the_wall_clock_runs_along() -> None:
    clock = VirtualClock(epoch_ns=1_000)
    clock.run_for(2.0)
    assert clock.wall_ns == 2_000_001_000
