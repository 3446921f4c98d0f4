"""Leaving at once, owing answers to a peer that does not read, and what a session says of itself meanwhile."""

from __future__ import annotations

import pytest

from dwp_core.client_events import ClientConfig, Closed, Disconnected, RequestFailed, SubscriptionEnded
from dwp_core.effects import AbortTransport, CloseTransport
from dwp_core.errors import ClosedError
from tests.core.scripted_server import Script, aborted

# ── leaving ──


def test_leaving_says_goodbye_and_waits_for_nothing() -> None:
    script = Script().connect()
    script.read(tag="asked")
    script.subscribe(tag="sub")
    script.events()
    script.transport()
    script.session.leave(now=script.now)
    assert [type(effect) for effect in script.transport()] == [CloseTransport, AbortTransport]
    assert script.session.state == "closed"
    failed, ended, closed = script.events()
    assert isinstance(failed, RequestFailed)
    assert isinstance(failed.error, ClosedError)
    assert ended == SubscriptionEnded("sub", None)
    assert closed == Closed(None)
    assert script.session.next_deadline is None


@pytest.mark.parametrize("stage", ["connecting", "authenticating", "backing off", "closing"])
def test_it_can_be_left_at_any_stage(stage: str) -> None:
    script = Script()
    script.start()
    if stage != "connecting":
        script.open()
    if stage == "backing off":
        script.welcome()
        script.cut()
    elif stage == "closing":
        script.welcome()
        script.close()
    script.events()
    script.transport()
    script.session.leave(now=script.now)
    script.pump()
    assert [type(effect) for effect in script.transport()] == [AbortTransport], (
        "there is nobody to say goodbye to"
    )
    assert script.session.state == "closed"
    assert script.one(Closed).cause is None


def test_what_was_never_started_or_has_ended_cannot_be_left() -> None:
    script = Script()
    script.session.leave(now=script.now)
    assert script.session.state == "idle"
    script.start()
    script.session.leave(now=script.now)
    script.pump()
    script.events()
    script.session.leave(now=script.now)
    script.pump()
    assert script.events() == []


def test_a_run_over_a_connection_of_its_own_is_left_too() -> None:
    script = Script().connect()
    script.start_workflow()
    [delegate] = script.delegates
    assert script.session.open_calls == 1
    script.session.leave(now=script.now)
    assert delegate.session.state == "closed"


# ── owing ──


def test_a_peer_that_asks_on_and_reads_nothing_is_left() -> None:
    script = Script(ClientConfig(most_owed=1000)).connect()
    script.events()
    script.blocked()
    session = script.session
    session.write_owed(script.generation, 1000, now=script.now)
    script.pump()
    assert session.state == "ready"
    session.write_owed(script.generation - 1, 5000, now=script.now)
    assert session.state == "ready", "that was another connection"
    session.write_owed(script.generation, 1001, now=script.now)
    script.pump()
    assert aborted(script) == "it reads nothing"
    assert str(script.one(Disconnected).cause) == "the server keeps asking and reads no answers"


def test_a_peer_that_reads_again_owes_nothing() -> None:
    script = Script(ClientConfig(most_owed=1000)).connect()
    script.blocked()
    script.resumed()
    script.session.write_owed(script.generation, 5000, now=script.now)
    assert script.session.state == "ready"


# ── figures ──


def test_a_session_tells_how_many_calls_and_subscriptions_are_open() -> None:
    script = Script().connect()
    first = script.subscribe(tag=1)
    script.confirm(script.sent()[-1])
    assert (script.session.open_calls, script.session.subscriptions) == (0, [first])
    script.read()
    assert script.session.open_calls == 1
    script.unsubscribe(first)
    assert script.session.subscriptions == []
