"""Calls over HTTP: what is asked, what answers mean, what is asked again and what never."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dwp_core.client_events import (
    Closed,
    Connected,
    Disconnected,
    RequestFailed,
    RequestOutcomeUnknown,
    RequestSucceeded,
)
from dwp_core.errors import (
    AuthError,
    ClosedError,
    ConflictError,
    ConnectionError,
    DispatchError,
    InvalidRequest,
    LimitError,
    NotFoundError,
    OutcomeUnknown,
    TimeoutError,
    UnsupportedError,
)
from dwp_core.frames import Limits
from dwp_core.http_calls import LONG_WAITS, MOST_EXCHANGES, MOST_WAITS
from dwp_core.http_exchange import read_head
from dwp_core.requests import Purpose, Retry
from tests.core.http_world import GOS, OURS, World, connected, frame_of, result

KEYED: dict[str, Any] = {
    "method": "job.enqueue",
    "data": {"name": "a"},
    "retry": Retry.IDEMPOTENT,
    "key": "k",
}
ONCE: dict[str, Any] = {"method": "job.cancel", "data": {"job_id": "j"}, "retry": Retry.NEVER}


# ── finding the server ──


def test_connecting_is_a_ping_in_json_with_the_token() -> None:
    world = World(format="msgpack")
    world.session.start(now=0.0)
    assert world.session.state == "connecting"
    ping = world.take()
    assert frame_of(ping, "dk_1") == {"type": "ping", "method": "", "token": "dk_1", "data": None}
    assert ping.codec.name == "json"
    world.respond(ping, kind="pong")
    peer = world.the(Connected).peer
    assert (peer.session_id, peer.log, peer.format) == ("", "log-1", "msgpack")
    assert peer.features == {"batch", "idempotency", "options", "wait"}
    assert (world.session.state, world.session.peer) == ("ready", peer)


@pytest.mark.parametrize("code", [405, 403])
def test_the_existing_server_knows_no_pings_and_says_so_to_whom_it_lets_in(code: int) -> None:
    world = World(GOS, format="msgpack")
    world.session.start(now=0.0)
    world.refuse(world.take(), code)
    connected = world.the(Connected)
    assert (connected.peer.is_base, connected.peer.format, connected.resumed) == (True, "json", False)


@pytest.mark.parametrize(("head", "code"), [(OURS, 401), (OURS, 403), (OURS, 405), (GOS, 401)])
def test_a_token_that_is_refused_closes_the_client(head: list[tuple[str, str]], code: int) -> None:
    world = World(head, wait_for_server=5.0 if code != 405 else 0.0)
    world.session.start(now=0.0)
    world.refuse(world.take(), code, "who are you")
    error = world.the(Closed).cause
    assert isinstance(error, UnsupportedError if code == 405 else AuthError)
    assert "the test refused the login: who are you" in str(error)
    assert world.session.state == "closed"


def test_an_error_frame_that_says_nothing_is_still_an_error() -> None:
    world = World()
    world.session.start(now=0.0)
    world.answer(world.take(), 500, b'{"id":"s","type":"error"}', OURS)
    assert "refused the login: error 0" in str(world.the(Closed).cause)


def test_where_nobody_listens_connecting_fails() -> None:
    world = World()
    world.session.start(now=0.0)
    world.fail(world.take(), "Connection refused", sent=False)
    error = world.the(Closed).cause
    assert isinstance(error, ConnectionError)
    assert str(error) == "cannot connect to the test: Connection refused"


def test_a_server_that_is_not_up_yet_is_looked_for_as_long_as_allowed() -> None:
    world = World(wait_for_server=5.0)
    world.session.start(now=0.0)
    world.fail(world.take(), sent=False)
    assert world.session.state == "backing_off"
    assert world.the(Disconnected).retry_at == 0.5
    assert world.nothing_begun()
    world.sleep(0.5)
    world.answer(world.take(), 502, b"not yet", [])
    world.sleep(5.0)
    world.found()


def test_a_bad_certificate_is_not_tried_again() -> None:
    world = World(wait_for_server=5.0)
    world.session.start(now=0.0)
    world.fail(world.take(), "its certificate is not trusted", fatal=True)
    assert "not trusted" in str(world.the(Closed).cause)


def test_a_server_that_does_not_answer_is_given_up() -> None:
    world = World(connect_timeout=2.0)
    world.session.start(now=0.0)
    ping = world.take()
    world.sleep(2.0)
    assert world.aborted == [ping.id]
    assert "no answer within 2 s" in str(world.the(Closed).cause)
    world.respond(ping, kind="pong")  # too late
    assert world.said(Connected) == []


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"<h1>what?</h1>"), (200, b"<h1>Welcome</h1>"), (200, b""), (301, b""), (400, b"")],
)
def test_what_is_no_dispatch_server_is_said_to_be_none(status: int, body: bytes) -> None:
    world = World()
    world.session.start(now=0.0)
    world.answer(world.take(), status, body, [])
    assert isinstance(world.the(Closed).cause, ConnectionError)


def test_where_somebody_on_the_way_sends_us_elsewhere_waiting_is_of_no_use() -> None:
    world = World(wait_for_server=5.0)
    world.session.start(now=0.0)
    world.answer(world.take(), 301, b"", [("location", "https://x/")])
    assert "https://x/" in str(world.the(Closed).cause)


# ── calls ──


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_a_call_is_one_exchange(format: str) -> None:
    world = connected(format=format)
    world.ask("job.get", {"job_id": "j"}, tag="me")
    begin = world.take()
    assert (begin.codec.name, begin.is_stream) == (format, False)
    assert frame_of(begin, "t") == {
        "type": "request",
        "method": "job.get",
        "token": "t",
        "data": {"job_id": "j"},
    }
    world.respond(begin, {"id": "j"})
    assert result(world) == {"id": "j"}


def test_the_existing_server_is_asked_in_plain_json_whatever_was_wished() -> None:
    world = connected(GOS, format="msgpack")
    world.ask()
    assert world.take().sealed("dk").headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("code", "kind"), [(404, NotFoundError), (403, AuthError), (409, ConflictError), (500, DispatchError)]
)
def test_an_error_frame_is_the_error_of_its_call_alone(code: int, kind: type) -> None:
    world = connected()
    world.ask(**ONCE)
    world.refuse(world.take(), code, "because")
    error = world.the(RequestFailed).error
    assert type(error) is kind
    assert (error.code, str(error)) == (code, "because")
    assert world.session.state == "ready"


def test_an_answer_that_nobody_waits_for_any_more_is_left_out() -> None:
    world = connected()
    request = world.ask()
    begin = world.take()
    world.session.cancel_request(request, now=world.now)
    world.session.cancel_request(request, now=world.now)
    world.pump()
    assert world.aborted == [begin.id]
    world.respond(begin, 1)
    world.fail(begin)
    assert world.said(RequestSucceeded) == []


def test_a_call_that_runs_out_of_time_is_dropped() -> None:
    world = connected()
    world.ask(timeout=3.0)
    begin = world.take()
    world.sleep(2.9)
    assert world.aborted == []
    world.sleep(0.2)
    assert world.aborted == [begin.id]
    assert isinstance(world.the(RequestFailed).error, TimeoutError)


def test_calls_before_the_server_is_found_wait_for_it() -> None:
    world = World()
    with pytest.raises(ClosedError, match="not connected"):
        world.ask()
    with pytest.raises(ClosedError, match="not connected"):
        world.session.subscribe("jobs", tag="s", now=0.0)
    world.session.start(now=0.0)
    world.ask()
    world.found()
    world.respond(world.take(), 1)
    assert result(world) == 1


def test_only_so_many_exchanges_are_under_way_at_a_time() -> None:
    world = connected()
    for _ in range(MOST_EXCHANGES + 1):
        world.ask()
    world.pump()
    assert len(world.begun) == MOST_EXCHANGES
    first, *world.begun = world.begun
    world.respond(first)
    assert len(world.begun) == MOST_EXCHANGES


def test_too_many_open_requests_are_refused_at_once() -> None:
    world = connected(max_requests=1)
    world.ask()
    with pytest.raises(LimitError, match="limit is 1"):
        world.ask()


def test_what_cannot_be_sent_is_refused_at_once() -> None:
    world = connected()
    with pytest.raises(InvalidRequest):
        world.ask("x\udc80")
    world.ask("job.enqueue_many", {"jobs": []}, feature="batch")
    assert frame_of(world.take())["method"] == "job.enqueue_many"
    world = connected(GOS)
    world.ask("job.enqueue_many", {"jobs": []}, feature="batch")
    assert isinstance(world.the(RequestFailed).error, UnsupportedError)
    assert world.nothing_begun()


def test_a_key_goes_to_servers_that_honour_it_only() -> None:
    world = connected()
    world.ask(**KEYED)
    assert frame_of(world.take())["data"] == {"name": "a", "idempotency_key": "k"}
    world = connected(GOS)
    world.ask(**KEYED)
    assert frame_of(world.take())["data"] == {"name": "a"}


@pytest.mark.parametrize("head", [OURS, GOS])
def test_a_ping_is_answered_by_either_server(head: list[tuple[str, str]]) -> None:
    world = connected(head)
    world.ask("", purpose=Purpose.PING)
    begin = world.take()
    assert frame_of(begin)["type"] == "ping"
    if head is GOS:
        world.refuse(begin, 405)
    else:
        world.respond(begin, kind="pong")
    world.the(RequestSucceeded)


def test_a_ping_that_is_refused_fails() -> None:
    world = connected(GOS)
    world.ask("", purpose=Purpose.PING)
    world.refuse(world.take(), 401)
    assert isinstance(world.the(RequestFailed).error, AuthError)


# ── what is lost ──


@pytest.mark.parametrize("ask", [{}, KEYED], ids=["read", "keyed"])
def test_what_may_be_repeated_is_asked_again_when_the_server_is_back(ask: dict[str, Any]) -> None:
    world = connected()
    world.ask(**ask)
    first = world.take()
    asked = frame_of(first)
    world.fail(first, "reset")
    assert str(world.the(Disconnected).cause) == "the connection to the test was lost: reset"
    assert (world.session.state, world.session.peer) == ("backing_off", None)
    assert world.nothing_begun()
    world.sleep(1.0)
    world.respond(world.take(), kind="pong")
    assert world.the(Connected).resumed
    again = world.take()
    assert frame_of(again) == asked
    world.respond(again, 1)
    assert result(world) == 1


@pytest.mark.parametrize(
    ("head", "ask"), [(OURS, ONCE), (GOS, KEYED), (GOS, ONCE)], ids=["ours-once", "go-keyed", "go-once"]
)
def test_what_may_not_be_repeated_has_an_unknown_outcome(
    head: list[tuple[str, str]], ask: dict[str, Any]
) -> None:
    world = connected(head)
    world.ask(**ask)
    world.fail(world.take())
    error = world.the(RequestOutcomeUnknown).error
    assert isinstance(error, OutcomeUnknown)
    assert isinstance(error.__cause__, ConnectionError)


def test_what_was_never_sent_is_sent_later_whatever_it_is() -> None:
    world = connected(GOS)
    world.ask(**ONCE)
    world.fail(world.take(), "Connection refused", sent=False)
    world.sleep(1.0)
    world.found()
    assert frame_of(world.take())["method"] == "job.cancel"


def test_a_key_that_another_log_cannot_know_is_not_tried() -> None:
    world = connected()
    world.ask(**KEYED)
    world.fail(world.take())
    world.head = [OURS[0], ("dwp-log", "log-2")]
    world.sleep(1.0)
    world.found()
    assert world.nothing_begun()
    world.the(RequestOutcomeUnknown)


def test_one_exchange_that_is_lost_leaves_the_others_alone() -> None:
    world = connected()
    world.ask(**ONCE)
    world.ask(tag="other")
    world.pump()
    lost, kept = world.begun
    world.begun.clear()
    world.fail(lost)
    world.respond(kept, 2)
    assert world.the(RequestSucceeded).tag == "other"
    assert world.session.state == "backing_off"


def test_many_exchanges_that_are_lost_together_are_one_loss() -> None:
    world = connected()
    for _ in range(5):
        world.ask()
    world.pump()
    flying, world.begun = world.begun, []
    for begin in flying:
        world.fail(begin)
    world.the(Disconnected)
    world.sleep(0.5)
    world.found()
    world.pump()
    assert len(world.begun) == 5


def test_a_loss_from_before_the_server_was_found_again_is_no_new_one() -> None:
    world = connected()
    world.ask()
    world.ask()
    world.pump()
    first, late = world.begun
    world.begun.clear()
    world.fail(first)
    world.sleep(0.5)
    world.found()
    again = world.take()
    world.fail(late)
    assert world.session.state == "ready"
    assert frame_of(world.take()) == frame_of(again)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_that_has_lost_the_server_leaves_the_outcome_unknown(status: int) -> None:
    world = connected()
    world.ask(**ONCE)
    world.answer(world.take(), status, b"gateway", [])
    world.the(RequestOutcomeUnknown)
    assert world.session.state == "backing_off"


def test_a_server_that_goes_away_has_not_carried_it_out() -> None:
    world = connected()
    world.ask(**ONCE)
    world.refuse(world.take(), 503, "going away")
    assert "going away" in str(world.the(Disconnected).cause)
    world.sleep(1.0)
    world.found()
    assert frame_of(world.take())["method"] == "job.cancel"


def test_the_existing_server_that_is_overloaded_is_an_error() -> None:
    world = connected(GOS)
    world.ask()
    world.refuse(world.take(), 503)
    assert isinstance(world.the(RequestFailed).error, ConnectionError)


def test_whoever_refuses_on_the_way_has_passed_nothing_on() -> None:
    world = connected()
    world.ask(**ONCE)
    world.answer(world.take(), 404, b"no such page", [])
    error = world.the(RequestFailed).error
    assert type(error) is ConnectionError
    assert world.session.state == "ready"


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"id":"1","type":"event"}'])
def test_an_answer_that_cannot_be_read_is_asked_for_once(body: bytes) -> None:
    world = connected()
    world.ask()
    world.answer(world.take(), 200, body, OURS)
    assert "does not speak DWP" in str(world.the(RequestFailed).error)
    world.ask(**ONCE)
    world.answer(world.take(), 200, body, OURS)
    world.the(RequestOutcomeUnknown)


def test_an_answer_beyond_the_limit_is_not_kept() -> None:
    world = connected()
    limit = world.session.config.limits.message
    world.ask()
    begin = world.take()
    world.session.exchange_head(begin.id, 200, OURS, now=0.0)
    for _ in range(3):
        assert world.session.exchange_data(begin.id, bytes(limit), now=0.0)
    world.session.exchange_end(begin.id, now=0.0)
    assert "does not speak DWP" in str(world.the(RequestFailed).error)


def test_an_answer_without_end_is_read_up_to_the_limit() -> None:
    """Then it is known that it cannot be read, and the rest is not waited for."""
    world = connected(limits=Limits(message=100))
    world.ask()
    begin = world.take()
    world.session.exchange_head(begin.id, 200, OURS, now=world.now)
    for _ in range(3):
        world.session.exchange_data(begin.id, b"x" * 50, now=world.now)
    assert isinstance(world.the(RequestFailed).error, ConnectionError)
    assert begin.id in world.aborted
    assert world.session.state == "ready"


def test_a_server_that_wants_a_rest_gets_it_and_its_attempts_count_all_the_same() -> None:
    world = connected(max_retries=2)
    world.ask()
    world.answer(world.take(), 503, b"", [("Retry-After", "30")])
    for _ in range(2):
        world.sleep(29.0)
        assert world.nothing_begun()
        world.sleep(17.0)
        world.answer(world.take(), 503, b"", [("Retry-After", "30")])
    assert world.session.state == "closed"


@pytest.mark.parametrize("rest", ["soon", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "1e9"])
def test_a_rest_that_is_no_number_of_seconds_is_none(rest: str) -> None:
    assert read_head(503, [("Retry-After", rest)]).retry_after == 0.0


def test_nobody_rests_for_days() -> None:
    assert read_head(503, [("Retry-After", "86400000")]).retry_after == 60.0


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (308, [("Location", "https://h/dwp/rpc?key=dk_1&token=dk_1")], b""),
        (502, [], b"<a href='http://h/dwp/sse?token=dk_1'>that</a> did not answer"),
    ],
)
def test_what_others_repeat_of_our_query_is_not_shown(
    status: int, headers: list[tuple[str, str]], body: bytes
) -> None:
    """The token may be in it."""
    world = World()
    world.session.start(now=0.0)
    world.answer(world.take(), status, body, headers)
    error = world.the(Closed).cause
    assert "?…" in str(error)
    assert "dk_1" not in str(error)


def test_a_proxy_that_wants_a_login_is_called_a_proxy() -> None:
    world = World()
    world.session.start(now=0.0)
    world.answer(world.take(), 407, b"", [])
    assert "the proxy did not let us through" in str(world.the(Closed).cause)


def test_a_client_gives_up_after_so_many_attempts_in_a_row() -> None:
    world = connected(max_retries=2)
    world.ask()
    world.fail(world.take())
    for _ in range(2):
        world.sleep(10.0)
        world.fail(world.take(), "Connection refused", sent=False)
    assert isinstance(world.the(Closed).cause, ConnectionError)
    assert "refused" in str(world.the(RequestFailed).error)
    with pytest.raises(ClosedError, match="because cannot connect"):
        world.ask()


@pytest.mark.parametrize(
    ("ask", "sent", "kind"),
    [({}, True, RequestFailed), (ONCE, False, RequestFailed), (KEYED, True, RequestOutcomeUnknown)],
)
def test_without_reconnecting_a_loss_is_the_error_of_its_call(
    ask: dict[str, Any], sent: bool, kind: Any
) -> None:
    world = connected(reconnect=False)
    world.ask(**ask)
    world.fail(world.take(), sent=sent)
    world.the(kind)
    assert world.session.state == "ready"
    world.ask()
    world.respond(world.take(), 1)
    assert result(world) == 1


def test_a_call_that_waits_for_the_server_says_why_when_its_time_is_over() -> None:
    world = connected()
    world.ask(timeout=5.0)
    world.fail(world.take(), "reset", sent=False)
    world.sleep(0.5)
    ping = world.take()
    world.sleep(6.0)
    error = world.the(RequestFailed).error
    assert isinstance(error, TimeoutError)
    assert "reset" in str(error)
    world.respond(ping, kind="pong")
    assert world.session.state == "ready"


# ── waiting ──


def wait(world: World, timeout: float | None = None, method: str = "job.wait") -> None:
    world.ask(method, {"job_id": "j"}, purpose=Purpose.WAIT, timeout=timeout)


def test_waiting_is_asked_again_until_it_has_ended() -> None:
    world = connected()
    wait(world)
    first = world.take()
    assert frame_of(first)["data"] == {"job_id": "j", "timeout_ms": 20_000}
    world.respond(first, {"job_id": "j", "state": "running", "timed_out": True})
    second = world.take()
    assert second.id != first.id
    world.respond(second, {"job_id": "j", "state": "completed"})
    assert result(world)["state"] == "completed"


def test_waiting_never_asks_for_longer_than_its_caller_waits() -> None:
    world = connected()
    wait(world, timeout=3.0)
    assert frame_of(world.take())["data"]["timeout_ms"] == 3000
    world.sleep(3.0)
    assert isinstance(world.the(RequestFailed).error, TimeoutError)


def test_the_existing_server_is_asked_now_and_then() -> None:
    world = connected(GOS, poll_interval=0.25)
    wait(world)
    begin = world.take()
    assert (frame_of(begin)["method"], frame_of(begin)["data"]) == ("job.get", {"job_id": "j"})
    world.respond(begin, {"id": "j", "state": "running"})
    world.sleep(0.2)
    assert world.nothing_begun()
    world.sleep(0.1)
    world.respond(world.take(), {"id": "j", "state": "failed"})
    assert result(world)["state"] == "failed"


def test_a_crowd_that_waits_takes_turns_and_leaves_room_for_other_calls() -> None:
    world = connected(poll_interval=0.25)
    for _ in range(MOST_WAITS + 8):
        wait(world)
    world.ask("stats")
    world.pump()
    waits = [each for each in world.begun if frame_of(each)["method"] == "job.wait"]
    others = [each for each in world.begun if each not in waits]
    assert (len(waits), len(others)) == (MOST_WAITS, 1)
    patience = [frame_of(each)["data"]["timeout_ms"] for each in waits]
    assert patience == [20_000] * LONG_WAITS + [1] * (MOST_WAITS - LONG_WAITS)
    world.begun.clear()
    for short in waits[LONG_WAITS:]:
        world.respond(short, {"state": "running", "timed_out": True})
    assert len(world.begun) == 8  # those that had no turn yet
    waits[LONG_WAITS:] = world.begun
    world.begun = []
    world.respond(waits[0], {"state": "completed"})
    world.the(RequestSucceeded)
    world.sleep(0.25)
    [long] = world.begun  # one of those that had theirs
    assert frame_of(long)["data"]["timeout_ms"] == 20_000


# ── the end ──


def test_closing_ends_everything_at_once() -> None:
    world = connected()
    world.ask(**ONCE)
    begin = world.take()
    world.session.close(now=world.now)
    assert world.the(Closed).cause is None
    assert isinstance(world.the(RequestFailed).error, ClosedError)
    assert world.aborted == [begin.id]
    assert world.session.state == "closed"
    world.session.close(now=world.now)
    world.session.leave(now=world.now)
    assert world.said(Closed) == []
    with pytest.raises(ClosedError, match="make a new one"):
        world.ask()
    with pytest.raises(ClosedError, match="started before"):
        world.session.start(now=world.now)


def test_closing_with_patience_waits_for_answers() -> None:
    world = connected()
    world.ask()
    begin = world.take()
    world.session.close(now=world.now, drain=5.0)
    assert world.session.state == "finishing"
    with pytest.raises(ClosedError):
        world.ask()
    world.respond(begin, 1)
    assert result(world) == 1
    world.the(Closed)


@pytest.mark.parametrize(
    "end", [lambda world, begin: world.sleep(5.0), lambda world, begin: world.fail(begin)]
)
def test_closing_with_patience_ends_in_bounded_time(end: Callable[[World, Any], None]) -> None:
    world = connected()
    world.ask()
    begin = world.take()
    world.session.close(now=world.now, drain=5.0)
    end(world, begin)
    assert world.the(Closed).cause is None
    assert isinstance(world.the(RequestFailed).error, ConnectionError)


def test_closing_while_looking_for_the_server_gives_that_up() -> None:
    world = World()
    world.session.close(now=0.0)
    assert world.said(Closed) == []
    world.session.start(now=0.0)
    begin = world.take()
    world.session.close(now=0.0, drain=5.0)
    world.the(Closed)
    assert world.aborted == [begin.id]
    assert world.session.next_deadline is None


def test_every_recorded_error_of_the_existing_server_reaches_its_caller() -> None:
    world = connected(GOS)
    body = json.dumps(
        {"id": "s", "type": "error", "error": {"code": 400, "message": "invalid request body"}}
    ).encode()
    world.ask(**ONCE)
    world.answer(world.take(), 400, body, [])
    assert isinstance(world.the(RequestFailed).error, InvalidRequest)


# ── figures ──


def test_a_session_tells_how_many_calls_and_subscriptions_are_open() -> None:
    world = connected()
    session = world.session
    assert (session.open_calls, session.subscriptions) == (0, [])
    session.request("job.get", b'{"job_id":"j"}', tag="call", now=world.now, retry=Retry.READ)
    subscription = session.subscribe("jobs", tag="sub", now=world.now)
    assert (session.open_calls, session.subscriptions) == (1, [subscription])
    session.close(now=world.now)
    assert (session.open_calls, session.subscriptions) == (0, [])
