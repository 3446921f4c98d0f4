"""A connection while it lasts, when it is lost, and how the next one is made."""

from __future__ import annotations

import pytest

from dwp_core.client_events import ClientConfig, Closed, Connected, Disconnected
from dwp_core.effects import AbortTransport, CloseTransport, Connect
from dwp_core.errors import AuthError, ConnectionError
from dwp_core.frames import ErrorDetail
from tests.core.scripted_server import Script, aborted, connecting

HEARTBEAT = 20.0


def test_a_lost_connection_is_made_again() -> None:
    script = Script().connect()
    script.events()
    script.transport()
    script.cut(1001, "bye")
    lost = script.one(Disconnected)
    assert isinstance(lost.cause, ConnectionError)
    assert str(lost.cause) == "the server closed the connection (code 1001, bye)"
    assert script.session.peer is None
    assert script.timer() == lost.retry_at
    assert connecting(script) == Connect(script.generation, 2)
    script.open()
    script.welcome()
    assert script.one(Connected).resumed


def test_a_lost_connection_is_not_made_again_where_that_is_not_wanted() -> None:
    script = Script(ClientConfig(reconnect=False)).connect()
    script.events()
    script.cut()
    assert "closed the connection" in str(script.one(Closed).cause)


def test_so_many_attempts_in_a_row_and_no_more() -> None:
    script = Script(ClientConfig(max_retries=3)).connect()
    script.cut()
    for _ in range(3):
        script.timer()
        script.fail("connection refused")
    assert "connection refused" in str(script.events()[-1].cause)  # type: ignore[union-attr]
    assert script.session.state == "closed"


def test_no_limit_of_attempts_is_written_as_zero() -> None:
    script = Script(ClientConfig(max_retries=0)).connect()
    script.cut()
    for _ in range(100):
        script.timer()
        script.fail()
    assert script.session.state == "backing_off"


def test_a_server_that_accepts_and_closes_is_not_hammered() -> None:
    script = Script(ClientConfig(max_retries=0), jitter=1.0).connect()
    for _ in range(8):
        script.cut()
        script.connect()
    assert script.now - 100.0 > 30.0


def test_a_login_that_is_refused_after_a_reconnect_is_fatal() -> None:
    script = Script().connect()
    script.cut()
    script.timer()
    script.open()
    script.events()
    script.read(tag=1)
    script.say("error", error=ErrorDetail(401, "authentication failed"))
    assert isinstance(script.events()[-1].cause, AuthError)  # type: ignore[union-attr]


def test_everybody_who_waits_hears_why_it_gave_up_with_an_error_of_his_own() -> None:
    script = Script(ClientConfig(max_retries=1)).connect()
    script.cut()
    script.read(tag=1)
    script.read(tag=2)
    script.timer()
    script.events()
    script.fail("connection refused")
    one, two, closed = script.events()
    assert isinstance(closed, Closed)
    assert str(one.error) == str(two.error) == str(closed.cause)  # type: ignore[union-attr]
    assert one.error is not two.error  # type: ignore[union-attr]


# ── liveness ──


def test_a_silent_server_is_asked_and_then_given_up() -> None:
    script = Script(ClientConfig(heartbeat=HEARTBEAT)).connect()
    script.events()
    assert script.timer() == 120.0
    [ping] = script.sent()
    assert (ping.type, ping.method) == ("ping", "")
    assert script.timer() == 140.0
    assert str(script.one(Disconnected).cause) == "the server has been silent for 40.0 s"
    assert aborted(script) == "silent"


def test_any_message_keeps_it_alive() -> None:
    script = Script(ClientConfig(heartbeat=HEARTBEAT)).connect()
    for _ in range(10):
        script.now += 15.0
        script.say("event", data={"type": "cron.fired", "data": {}})
        while (script.session.next_deadline or 0.0) <= script.now:
            script.timer()
    assert script.session.state == "ready"
    assert script.sent() == []


def test_the_answer_to_its_own_ping_is_nobodys_business() -> None:
    script = Script(ClientConfig(heartbeat=HEARTBEAT)).connect()
    script.events()
    script.timer()
    [ping] = script.sent()
    script.say("pong", correl_id=ping.id)
    assert script.events() == []
    script.timer()
    assert script.session.state == "ready"


def test_the_server_says_how_long_it_may_be_silent() -> None:
    script = Script(ClientConfig(heartbeat=HEARTBEAT)).connect(features=["wait"], heartbeat_ms=3000)
    assert script.timer() == 103.0
    assert script.timer() == 106.0
    assert script.session.state == "backing_off"


def test_a_suspended_laptop_asks_before_it_gives_up() -> None:
    script = Script(ClientConfig(heartbeat=HEARTBEAT)).connect()
    script.timer()
    script.sent()
    script.timer(late=8 * 3600.0)
    assert script.session.state == "ready"
    [ping] = script.sent()
    assert ping.type == "ping"
    script.timer()
    assert script.session.state == "backing_off"


def test_a_suspended_laptop_gives_the_server_one_more_round_to_let_us_in() -> None:
    script = Script(ClientConfig(connect_timeout=10.0)).start()
    script.open()
    script.timer(late=3600.0)
    assert script.session.state == "authenticating"
    script.welcome()
    assert script.session.state == "ready"


def test_a_suspended_laptop_gives_a_blocked_write_one_more_round() -> None:
    script = Script(ClientConfig(stall_timeout=7.0, heartbeat=1e6)).connect()
    script.blocked()
    script.timer(late=3600.0)
    assert script.session.state == "ready"
    assert script.timer() == 100.0 + 7.0 + 3600.0 + 7.0
    assert script.session.state == "backing_off"


# ── writes that block ──


def test_nothing_is_asked_while_the_transport_takes_nothing() -> None:
    script = Script().connect()
    script.blocked()
    script.read(tag=1)
    script.read(tag=2)
    assert script.methods() == []
    script.resumed()
    assert script.methods() == ["job.get", "job.get"]


def test_a_write_that_makes_no_progress_ends_the_connection() -> None:
    script = Script(ClientConfig(stall_timeout=7.0)).connect()
    script.events()
    script.blocked()
    script.read(tag=1)
    assert script.timer() == 107.0
    assert str(script.one(Disconnected).cause) == "the server took no data for 7 s"
    assert aborted(script) == "write stalled"
    script.connect()
    assert script.methods() == ["job.get"], "the next connection is not blocked"


def test_a_write_that_makes_progress_may_take_as_long_as_it_likes() -> None:
    script = Script(ClientConfig(stall_timeout=7.0, heartbeat=1000.0)).connect()
    script.blocked()
    for _ in range(5):
        script.now += 6.0
        script.progress()
    script.now += 1.0
    script.blocked()
    assert script.session.next_deadline == 137.0, "being told again that it is blocked is no progress"
    script.resumed()
    assert script.session.next_deadline == 1100.0


def test_progress_of_what_was_not_blocked_means_nothing() -> None:
    script = Script(ClientConfig(heartbeat=1000.0)).connect()
    script.progress()
    script.resumed()
    assert script.session.next_deadline == 1100.0


# ── a server that goes away ──


def test_a_server_that_goes_away_is_left_without_an_error() -> None:
    script = Script().connect_negotiated()
    script.events()
    script.transport()
    script.drain(deadline_ms=2000, retry_after_ms=400)
    lost = script.one(Disconnected)
    assert str(lost.cause) == "the server is going away"
    assert lost.retry_at == pytest.approx(100.6)
    assert script.transport() == [CloseTransport(1, 1000), AbortTransport(1, "drained")]


def test_what_is_in_flight_is_answered_before_it_is_left_and_the_rest_goes_elsewhere() -> None:
    script = Script().connect_negotiated()
    script.ask(tag="in flight")
    asked = script.sent()[-1]
    script.drain()
    script.enqueue(tag="later")
    assert (script.session.state, script.methods()) == ("draining", [])
    script.answer(asked)
    assert script.outcomes() == [("in flight", "answer")]
    assert script.session.state == "backing_off"
    script.connect_negotiated()
    assert script.methods() == ["job.enqueue"]


def test_a_server_that_goes_away_is_not_waited_for_beyond_its_time() -> None:
    script = Script().connect_negotiated()
    script.read(tag="read")
    script.cancel_job(tag="cancel")
    script.drain(deadline_ms=2000)
    assert script.timer() == 102.0
    assert script.outcomes() == [("cancel", "unknown")]
    script.connect_negotiated()
    assert script.methods() == ["job.get"]


def test_requests_that_were_refused_because_it_goes_away_were_not_carried_out_and_go_elsewhere_in_order() -> (
    None
):
    script = Script().connect_negotiated()
    for tag in (1, 2, 3):
        script.ask("job.cancel", {"job_id": str(tag)}, tag=tag)
    one, two, three = script.sent()
    script.refuse(one, 503)
    script.refuse(two, 503)
    script.answer(three)
    assert script.outcomes() == [(3, "answer")]
    script.connect_negotiated()
    assert [data["job_id"] for _, data in script.asked()] == ["1", "2"]


def test_a_base_server_that_cannot_take_running_subscriptions_back_is_left() -> None:
    script = Script().connect()
    script.subscribe()
    script.confirm(script.sent()[-1])
    script.cut()
    script.connect()
    script.events()
    script.refuse(script.sent()[-1], 503, "draining")
    assert str(script.one(Disconnected).cause) == "the server is going away"
    script.connect()
    assert script.methods() == ["subscribe"]


def test_a_base_server_that_refuses_because_it_goes_away_is_believed() -> None:
    script = Script().connect()
    script.ask(tag=1)
    script.refuse(script.sent()[-1], 503, "draining")
    error = script.failure()
    assert (type(error), error.code, str(error)) == (ConnectionError, 503, "draining")
    assert script.session.state == "ready"


def test_a_refused_request_is_not_sent_again_by_a_client_that_is_finishing() -> None:
    script = Script().connect_negotiated()
    script.read(tag=1)
    [asked] = script.sent()
    script.close(drain=10.0)
    script.refuse(asked, 503)
    assert script.outcomes() == [(1, "failed")]
    assert script.session.state == "closing"


def test_a_refused_unsubscribe_does_not_end_a_later_subscription() -> None:
    script = Script().connect_negotiated()
    subscription = script.subscribe()
    script.confirm(script.sent()[-1], seq=1)
    script.unsubscribe(subscription)
    script.subscribe(tag="new")
    unsubscribe, _ = script.sent()
    script.refuse(unsubscribe, 503)
    script.timer()
    script.connect_negotiated()
    assert script.methods() == ["subscribe"]


@pytest.mark.parametrize("refused", [False, True])
def test_a_server_that_goes_away_while_subscriptions_come_back_is_left_at_once(refused: bool) -> None:
    script = Script().connect_negotiated()
    script.subscribe()
    script.confirm(script.sent()[-1], seq=1)
    script.cut()
    script.connect_negotiated()
    [asked] = script.sent()
    script.events()
    if refused:
        script.refuse(asked, 503)
    else:
        script.drain(retry_after_ms=0)
    assert str(script.one(Disconnected).cause) == "the server is going away"
    script.connect_negotiated()
    assert script.methods() == ["subscribe"]


def test_being_told_twice_changes_nothing() -> None:
    script = Script().connect_negotiated()
    script.ask()
    script.drain(deadline_ms=2000)
    script.now += 1.0
    script.drain(deadline_ms=60_000)
    assert script.session.next_deadline == 102.0


@pytest.mark.parametrize(
    "times",
    [b"{}", b"null", b"[]", b'{"deadline_ms":-1,"retry_after_ms":true}', b'{"deadline_ms":"soon"}', b"1e999"],
)
def test_times_that_make_no_sense_get_their_defaults(times: bytes) -> None:
    script = Script(jitter=0.0).connect_negotiated()
    script.ask()
    script.receive(b'{"id":"s1","type":"event","data":{"type":"drain","data":%b}}' % times)
    assert script.session.next_deadline == 105.0
    script.timer()
    assert script.events()[-1].retry_at == 106.0  # type: ignore[union-attr]


def test_closing_a_client_whose_server_goes_away_waits_for_what_is_in_flight() -> None:
    script = Script().connect_negotiated()
    script.ask(tag=1)
    asked = script.sent()[-1]
    script.drain(deadline_ms=60_000)
    script.close(drain=3.0)
    assert script.session.state == "finishing"
    script.answer(asked)
    assert script.session.state == "closing"


def test_a_server_that_leaves_a_finishing_client_ends_it() -> None:
    script = Script().connect_negotiated()
    script.ask(tag=1)
    script.drain(deadline_ms=1000)
    script.close(drain=30.0)
    script.timer()
    assert script.session.state == "closed"
    assert script.outcomes() == [(1, "failed")]


def test_a_closed_connection_of_a_draining_server_is_no_news() -> None:
    script = Script().connect_negotiated()
    script.ask(tag=1)
    script.drain()
    script.cut(1001)
    assert script.session.state == "backing_off"
    assert script.outcomes() == [(1, "unknown")]
