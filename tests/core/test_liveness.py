from __future__ import annotations

from dwp_core.liveness import Liveness, Verdict


def test_silence_for_an_interval_asks_and_for_one_more_is_death() -> None:
    liveness = Liveness(interval=10.0, now=0.0)
    assert liveness.deadline == 10.0
    assert liveness.check(10.0) is Verdict.PING
    assert liveness.deadline == 20.0
    assert liveness.check(20.0) is Verdict.DEAD


def test_any_message_is_a_sign_of_life() -> None:
    liveness = Liveness(interval=10.0, now=0.0)
    liveness.last_heard = 4.0
    assert liveness.check(10.0) is Verdict.ALIVE
    assert liveness.deadline == 14.0
    assert liveness.check(14.0) is Verdict.PING
    liveness.last_heard = 15.0
    assert liveness.check(24.0) is Verdict.ALIVE
    assert liveness.check(25.0) is Verdict.PING, "it is asked anew, not called dead at once"


def test_a_peer_that_answers_at_once_and_says_no_more_is_asked_again() -> None:
    liveness = Liveness(interval=10.0, now=0.0)
    assert liveness.check(10.0) is Verdict.PING
    liveness.last_heard = 10.0
    assert liveness.check(20.0) is Verdict.PING
    assert liveness.check(30.0) is Verdict.DEAD


def test_a_timer_that_comes_much_too_late_buys_one_more_round() -> None:
    liveness = Liveness(interval=10.0, now=0.0)
    assert liveness.check(10.0) is Verdict.PING
    assert liveness.check(3600.0) is Verdict.PING, "a laptop was closed; the peer may be well"
    assert liveness.deadline == 3610.0
    assert liveness.check(3610.0) is Verdict.DEAD


def test_a_timer_that_comes_a_little_late_is_no_excuse() -> None:
    liveness = Liveness(interval=10.0, now=0.0)
    liveness.check(10.0)
    assert liveness.check(24.0) is Verdict.DEAD


def test_a_peer_that_is_known_to_be_busy_is_not_asked() -> None:
    liveness = Liveness(interval=10.0, now=0.0)
    liveness.suspend(10.0)
    assert liveness.check(10.0) is Verdict.ALIVE
    assert liveness.deadline == 20.0
