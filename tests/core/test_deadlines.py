from __future__ import annotations

from dwp_core.deadlines import Deadlines


def test_the_earliest_deadline_is_the_next() -> None:
    deadlines: Deadlines[str] = Deadlines()
    assert deadlines.next is None
    deadlines.set("late", 9.0)
    deadlines.set("early", 3.0)
    assert deadlines.next == 3.0
    assert len(deadlines) == 2


def test_setting_a_deadline_again_moves_it() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("ping", 3.0)
    deadlines.set("ping", 5.0)
    assert deadlines.next == 5.0
    deadlines.set("ping", 4.0)
    assert (deadlines.pop_due(4.5), deadlines.pop_due(9.0)) == ("ping", None)


def test_a_cancelled_deadline_does_not_come() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 1.0)
    deadlines.cancel("a")
    deadlines.cancel("never set")
    assert deadlines.next is None
    assert deadlines.pop_due(10.0) is None


def test_deadlines_come_in_order_and_not_before_their_time() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for key, when in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        deadlines.set(key, when)
    assert deadlines.pop_due(0.9) is None
    assert [deadlines.pop_due(2.0) for _ in range(3)] == ["a", "b", None]
    deadlines.clear()
    assert (deadlines.next, len(deadlines)) == (None, 0)


def test_setting_and_cancelling_for_ever_keeps_the_heap_small() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("stays", 0.0)
    for number in range(10_000):
        deadlines.set(f"call-{number}", float(number))
        deadlines.cancel(f"call-{number}")
    assert len(deadlines._heap) < 200
    assert deadlines.next == 0.0
