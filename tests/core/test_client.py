"""A `ClientSession` as a whole: what it takes, what it refuses, what it leaves out (`dwp_core.client`)."""

from __future__ import annotations

from typing import Any

import pytest

from dwp_core.client import frame_ids
from dwp_core.client_events import (
    ClientConfig,
    Closed,
    Connected,
    Discarded,
    Disconnected,
    RequestFailed,
    SubscriptionEnded,
)
from dwp_core.effects import CloseTransport
from dwp_core.errors import ClosedError, ConnectionError, InvalidRequest, LimitError
from dwp_core.frames import ErrorDetail
from tests.core.scripted_server import EPOCH_NS, Script, aborted, connecting


def test_nothing_happens_before_it_is_started() -> None:
    script = Script()
    assert (script.session.state, script.session.next_deadline) == ("idle", None)
    script.session.transport_opened(0, token="t", now=0.0)
    script.receive(b"{}")
    script.fail()
    script.cut()
    script.blocked()
    assert script.silent


def test_it_is_started_once() -> None:
    script = Script().start()
    assert connecting(script).attempt == 1
    with pytest.raises(ClosedError, match="was started before; make a new one"):
        script.session.start(now=0.0)


def test_commands_need_a_session_that_was_started() -> None:
    script = Script()
    with pytest.raises(ClosedError, match="not connected: call connect"):
        script.ask()
    with pytest.raises(ClosedError, match="not connected"):
        script.subscribe()
    assert script.session.next_deadline is None


def test_commands_are_refused_by_a_closed_session_with_the_reason() -> None:
    script = Script().start()
    script.fail("connection refused")
    with pytest.raises(
        ClosedError, match="closed, because cannot connect to the server: connection refused; make"
    ):
        script.ask()
    script = Script().connect()
    script.cut()
    script.connect()
    script.close()
    with pytest.raises(ClosedError, match="the client is closed; make a new one"):
        script.subscribe()


@pytest.mark.parametrize(
    "wrong", [{"method": "job.\ud800"}, {"key": "\udfff"}, {"key": "k" * 256}, {"key": "ä" * 256}]
)
def test_texts_that_cannot_be_sent_are_refused_before_anything_changes(wrong: dict[str, Any]) -> None:
    script = Script().connect_negotiated()
    script.sent()
    before = script.session.next_deadline
    with pytest.raises(InvalidRequest):
        script.ask(**wrong)
    assert (script.sent(), script.events()[1:], script.session.next_deadline) == ([], [], before)


def test_texts_of_any_language_are_sent() -> None:
    script = Script().connect_negotiated()
    script.ask("job.ümläut", {}, key="schlüssel")
    assert script.asked()[-1] == ("job.ümläut", {"idempotency_key": "schlüssel"})


def test_there_is_no_waiting_by_other_methods() -> None:
    script = Script().connect()
    with pytest.raises(InvalidRequest, match=r'expected one of job\.wait, workflow\.wait, got "stats"'):
        script.session.wait("stats", b"", tag="t", now=0.0)


@pytest.mark.parametrize("since", [-1, True, "end", 1.5, 2**63])
def test_a_position_that_is_none_is_refused(since: Any) -> None:
    script = Script().connect_negotiated()
    with pytest.raises(InvalidRequest, match="since must be a seq"):
        script.subscribe(since=since)
    assert script.methods() == []


@pytest.mark.parametrize("channel", ["jbos", "job:\ud800"])
def test_a_channel_that_is_none_is_refused(channel: str) -> None:
    script = Script().connect_negotiated()
    with pytest.raises(InvalidRequest, match="channel"):
        script.subscribe(channel)
    assert script.methods() == []


def test_too_many_open_requests_are_refused_and_one_more_fits_when_one_has_ended() -> None:
    script = Script(ClientConfig(max_requests=2)).start()
    script.read(tag=1)
    second = script.read(tag=2)
    with pytest.raises(
        LimitError, match="2 requests to the server are open, the limit is 2: wait for some"
    ) as refused:
        script.read(tag=3)
    assert refused.value.code == 429
    script.cancel(second)
    script.read(tag=3)


def test_a_ping_of_the_server_is_answered_with_its_id_and_its_time() -> None:
    script = Script().connect()
    script.say("ping", id="s9")
    [pong] = script.sent()
    assert (pong.type, pong.correl_id, pong.ts) == ("pong", "s9", EPOCH_NS)


def test_a_request_of_the_server_is_refused() -> None:
    script = Script().connect()
    script.say("request", id="s9", method="function.run")
    [refusal] = script.sent()
    assert (refusal.type, refusal.correl_id, refusal.error) == (
        "error",
        "s9",
        ErrorDetail(405, "this client takes no requests"),
    )


def test_answers_that_answer_nothing_are_left_out() -> None:
    script = Script().connect()
    script.one(Connected)
    script.say("response", correl_id="c99")
    script.say("pong", correl_id="c99")
    script.say("response")
    assert script.events() == []
    script.say("error", error=ErrorDetail(405, "unknown method: "))
    assert script.one(Discarded).reason == "error 405 that answers nothing here: unknown method: "
    script.say("error", correl_id="c99")
    assert script.one(Discarded).reason == "error 0 that answers nothing here: "


def test_frames_that_make_no_sense_are_left_out() -> None:
    script = Script().connect()
    script.events()
    script.say("event", data={"no": "type"})
    assert script.one(Discarded).reason == "an event whose data cannot be read"
    script.receive(b'{"id":"s1","type":"gossip"}')
    assert script.one(Discarded).reason == 'a frame of unknown type "gossip"'


def test_a_message_that_is_no_frame_ends_the_connection_in_order() -> None:
    script = Script().connect()
    script.events()
    script.transport()
    script.receive(b"\xff\xfe")
    lost = script.one(Disconnected)
    assert isinstance(lost.cause, ConnectionError)
    assert "sent a message that is no frame" in str(lost.cause)
    assert [type(e).__name__ for e in script.transport()] == ["CloseTransport", "AbortTransport"]


def test_what_an_older_attempt_says_is_not_heard() -> None:
    script = Script().connect()
    old = script.generation
    script.cut()
    script.connect()
    script.events()
    script.sent()
    session = script.session
    session.receive_message(old, b"garbage", now=script.now)
    session.transport_closed(old, now=script.now)
    session.transport_failed(old, "x", now=script.now)
    session.transport_opened(old, token="t", now=script.now)
    session.write_blocked(old, now=script.now)
    session.write_progress(old, now=script.now)
    session.write_resumed(old, now=script.now)
    assert script.events() == []
    assert script.sent() == []
    assert session.state == "ready"


def test_messages_before_the_login_was_sent_are_not_heard() -> None:
    script = Script().start()
    script.receive(b'{"id":"s1","type":"response","correl_id":"c1","data":{"format":"json"}}')
    assert script.session.state == "connecting"


def test_frame_ids_are_those_that_were_given() -> None:
    script = Script(ids=iter(["auth-1", "req-1"])).connect()
    script.ask()
    assert [frame.id for frame in script.sent()] == ["req-1"]


def test_the_time_of_a_frame_is_derived_from_the_monotonic_time() -> None:
    script = Script(now=2.5).connect()
    script.ask()
    assert script.sent()[-1].ts == EPOCH_NS + 2_500_000_000


def test_two_sessions_share_nothing() -> None:
    one, other = Script().connect(), Script().start()
    assert (one.session.state, other.session.state) == ("ready", "connecting")
    assert next(frame_ids()) == "c1"


# ── the end ──


def test_closing_an_idle_session_is_the_end_of_it() -> None:
    script = Script()
    script.close()
    assert script.events() == [Closed(None)]
    with pytest.raises(ClosedError):
        script.start()


@pytest.mark.parametrize("step", ["connecting", "authenticating", "restoring", "backing_off"])
def test_closing_before_it_is_connected_is_immediate(step: str) -> None:
    script = Script()
    if step in ("restoring", "backing_off"):
        script.connect()
        script.subscribe()
        script.cut()
        script.events()
    if step != "backing_off":
        script.start() if step != "restoring" else script.timer()
        if step != "connecting":
            script.open()
        if step == "restoring":
            script.welcome()
    assert script.session.state == step
    script.read(tag="r")
    script.close()
    *_, failed, closed = [e for e in script.events() if not isinstance(e, SubscriptionEnded)]
    assert isinstance(failed, RequestFailed)
    assert "closed before this could be sent" in str(failed.error)
    assert closed == Closed(None)
    assert aborted(script) == "closed by the application"
    assert (script.session.state, script.session.next_deadline) == ("closed", None)


def test_closing_says_farewell_and_waits_for_the_servers() -> None:
    script = Script().connect()
    script.subscribe(tag="s")
    script.read(tag="r")
    script.events()
    script.transport()
    script.close()
    assert script.transport() == [CloseTransport(1, 1000)]
    assert (script.session.state, script.events()) == ("closing", [])
    script.cut(1000)
    failed, ended, closed = script.events()
    assert isinstance(failed, RequestFailed)
    assert isinstance(failed.error, ClosedError)
    assert str(failed.error) == "job.get: the client was closed before the answer came"
    assert (ended, closed) == (SubscriptionEnded("s", None), Closed(None))
    assert script.session.next_deadline is None


def test_a_server_that_does_not_answer_the_farewell_is_not_waited_for_long() -> None:
    script = Script(ClientConfig(close_timeout=5.0)).connect()
    script.close()
    script.transport()
    assert script.timer() == 105.0
    assert aborted(script) == "no answer to the close"
    assert script.events()[-1] == Closed(None)


def test_an_answer_that_comes_during_the_farewell_counts() -> None:
    script = Script().connect()
    script.ask(tag="t")
    asked = script.sent()[-1]
    script.close()
    script.answer(asked, {"n": 1})
    assert script.values() == [("t", {"n": 1})]
    script.cut(1000)
    assert script.events() == [Closed(None)]


def test_nothing_is_said_after_the_farewell() -> None:
    script = Script().connect()
    subscription = script.subscribe()
    script.confirm(script.sent()[-1])
    script.ask(tag="t")
    script.wait(tag="w")
    asked = script.sent()[-1]
    script.close()
    script.say("ping")
    script.say("request", method="function.run")
    script.answer(asked, {"state": "running"})
    script.unsubscribe(subscription)
    script.blocked()
    script.resumed()
    assert script.sent() == []
    for command in (script.ask, script.subscribe, script.wait):
        with pytest.raises(ClosedError):
            command()


def test_a_closed_session_is_silent() -> None:
    script = Script().connect()
    subscription = script.subscribe()
    request = script.read()
    script.close()
    script.close()
    script.cut(1000)
    script.events()
    script.transport()
    script.sent()
    session, generation = script.session, script.generation
    script.blocked()
    script.progress()
    for some in (generation, generation - 1):
        session.receive_message(some, b"{}", now=script.now)
        session.transport_closed(some, now=script.now)
        session.transport_opened(some, token="t", now=script.now)
        session.write_blocked(some, now=script.now)
    script.cancel(request)
    script.unsubscribe(subscription)
    script.consumed(subscription, 3)
    script.close(drain=5.0)
    session.handle_timer(now=1e9)
    assert script.silent
    assert session.next_deadline is None


def test_a_lost_connection_during_the_farewell_is_the_end_as_well() -> None:
    script = Script().connect()
    script.close()
    script.receive(b"garbage")
    assert script.events()[-1] == Closed(None)


# ── finishing ──


def test_closing_can_wait_for_the_answers_that_are_under_way() -> None:
    script = Script().connect()
    script.ask(tag=1)
    script.ask(tag=2)
    one, two = script.sent()[-2:]
    script.transport()
    script.close(drain=3.0)
    assert (script.session.state, script.transport()) == ("finishing", [])
    with pytest.raises(ClosedError):
        script.ask()
    script.answer(one)
    script.refuse(two, 404)
    assert script.outcomes()[-2:] == [(1, "answer"), (2, "failed")]
    assert script.transport() == [CloseTransport(1, 1000)]


def test_there_is_nothing_to_wait_for_when_nothing_is_under_way() -> None:
    script = Script().connect()
    script.close(drain=3.0)
    assert script.session.state == "closing"


def test_the_wait_for_answers_ends_when_its_time_is_over() -> None:
    script = Script().connect()
    script.ask(tag=1)
    script.close(drain=3.0)
    assert script.timer() == 103.0
    assert script.session.state == "closing"
    script.cut(1000)
    assert script.outcomes() == [(1, "failed")]


def test_closing_again_does_not_wait_any_more() -> None:
    script = Script().connect()
    script.ask(tag=1)
    script.close(drain=3.0)
    script.close(drain=3.0)
    assert script.session.state == "closing"


def test_what_waits_for_room_is_still_sent_while_finishing() -> None:
    script = Script().connect_negotiated(limits={"in_flight": 2})
    script.read(tag=1)
    script.read(tag=2)
    [one] = [f for f in script.sent() if f.method == "job.get"]
    script.close(drain=3.0)
    script.answer(one)
    [two] = script.sent()
    script.answer(two)
    assert script.outcomes() == [(1, "answer"), (2, "answer")]
    assert script.session.state == "closing"


def test_a_request_that_runs_out_of_time_is_no_longer_waited_for() -> None:
    script = Script().connect()
    script.read(tag=1, timeout=1.0)
    script.close(drain=30.0)
    script.timer()
    assert script.outcomes() == [(1, "failed")]
    assert script.session.state == "closing"


def test_a_request_that_nobody_wants_any_more_is_no_longer_waited_for() -> None:
    script = Script().connect()
    request = script.read(tag=1)
    script.close(drain=30.0)
    script.cancel(request)
    assert script.session.state == "closing"


def test_a_connection_that_is_lost_while_finishing_is_not_made_again() -> None:
    script = Script().connect()
    script.read(tag=1)
    script.close(drain=30.0)
    script.cut()
    assert script.outcomes() == [(1, "failed")]
    assert script.session.state == "closed"
