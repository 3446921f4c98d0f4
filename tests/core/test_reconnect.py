from __future__ import annotations

from dwp_core.backoff import Backoff
from dwp_core.client_events import ClientConfig
from dwp_core.reconnect import Reconnection

BACKOFF = Backoff(base=1.0, cap=8.0, stable_after=10.0)


def attempts(*, connected: bool = True, **config: float) -> Reconnection:
    reconnection = Reconnection(ClientConfig(backoff=BACKOFF, **config))  # type: ignore[arg-type]
    reconnection.started(0.0)
    if connected:
        reconnection.ready(0.0)
    return reconnection


def test_the_first_connection_is_one_attempt() -> None:
    assert attempts(connected=False).next_attempt_at(0.0, 0.5) is None


def test_the_first_connection_is_tried_again_for_as_long_as_was_asked() -> None:
    reconnection = attempts(connected=False, wait_for_server=6.0)
    assert reconnection.next_attempt_at(1.0, 1.0) == 2.0
    assert reconnection.next_attempt_at(2.0, 1.0) == 4.0
    assert reconnection.next_attempt_at(4.0, 1.0) == 6.0, "the last attempt is made when the time is over"
    assert reconnection.next_attempt_at(6.0, 1.0) is None


def test_waiting_for_the_server_does_not_need_reconnect() -> None:
    reconnection = attempts(connected=False, wait_for_server=6.0, reconnect=False)
    assert reconnection.next_attempt_at(1.0, 0.0) == 1.0
    reconnection.ready(2.0)
    assert reconnection.next_attempt_at(3.0, 0.0) is None


def test_attempts_follow_until_so_many_in_a_row_have_failed() -> None:
    reconnection = attempts(max_retries=3)
    assert [reconnection.next_attempt_at(0.0, 1.0) for _ in range(4)] == [1.0, 2.0, 4.0, None]


def test_no_limit_of_attempts_is_written_as_zero() -> None:
    reconnection = attempts(max_retries=0)
    assert [reconnection.next_attempt_at(0.0, 1.0) for _ in range(50)][-1] == 8.0


def test_only_a_connection_that_stayed_up_makes_the_count_start_again() -> None:
    reconnection = attempts(max_retries=3)
    assert reconnection.next_attempt_at(5.0, 1.0) == 6.0
    reconnection.ready(6.0)
    assert reconnection.next_attempt_at(7.0, 1.0) == 9.0, (
        "it was let in and lost at once: the second failure in a row"
    )
    reconnection.ready(9.0)
    assert reconnection.next_attempt_at(19.0, 1.0) == 20.0


def test_a_server_that_goes_away_says_when_to_come_back_and_that_is_no_failure() -> None:
    reconnection = attempts(max_retries=1)
    reconnection.come_back_after(3.0)
    assert reconnection.next_attempt_at(0.0, 0.5) == 4.5, "spread out, so that not everybody comes at once"
    reconnection.ready(4.5)
    reconnection.come_back_after(3.0)
    assert reconnection.next_attempt_at(5.0, 0.0) == 8.0


def test_a_server_that_goes_away_again_and_again_is_not_hammered() -> None:
    reconnection = attempts(max_retries=1)
    waits = []
    for _ in range(5):
        reconnection.come_back_after(0.0)
        at = reconnection.next_attempt_at(0.0, 1.0)
        waits.append(at)
        reconnection.ready(0.0)
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0]


def test_looking_for_a_server_that_is_not_up_yet_does_not_count() -> None:
    reconnection = attempts(connected=False, wait_for_server=60.0)
    for now in (1.0, 2.0, 4.0, 8.0):
        reconnection.next_attempt_at(now, 1.0)
    reconnection.ready(16.0)
    assert reconnection.next_attempt_at(17.0, 1.0) == 18.0, "the first loss of a connection"
