"""Subscriptions over HTTP: streams that go on where they were cut off, tell gaps, wait for slow readers, and end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dwp_core.client_events import (
    Closed,
    Discarded,
    SubscriptionEnded,
    SubscriptionGap,
    SubscriptionItem,
    SubscriptionStarted,
)
from dwp_core.errors import AuthError, ConnectionError, DispatchError, InvalidRequest, UnsupportedError
from dwp_core.frames import Limits
from dwp_core.http_exchange import BeginExchange, Credentials
from dwp_core.subscriptions import Gap, Since, Subscription
from tests.core.http_world import GOS, STREAM, STREAMS, World, connected, event_block

RECORDED = Path(__file__).parents[1] / "vectors" / "http" / "sse.jsonl"
BEGINNING = "retry: 3000\nid: 6\n\n"
ELSEWHERE = [("dwp-features", "resume"), ("dwp-log", "log-2"), *STREAM]
GO_BEGINNING = "retry: 3000\n\n"


def subscribe(world: World, since: Since = None, channel: str = "jobs") -> Subscription:
    return world.session.subscribe(channel, tag="s", now=world.now, since=since)


def listening(world: World, since: Since = None) -> tuple[Subscription, BeginExchange]:
    """A subscription whose stream has begun."""
    subscription = subscribe(world, since)
    begin = world.take()
    world.stream(begin, BEGINNING)
    world.the(SubscriptionStarted)
    return subscription, begin


def seqs(world: World) -> list[int | None]:
    return [item.event.seq for item in world.said(SubscriptionItem)]


def gaps(world: World) -> list[Gap]:
    return [event.gap for event in world.said(SubscriptionGap)]


def asked_from(begin: BeginExchange) -> Any:
    """Where a stream is to begin."""
    return dict(begin.headers).get("last-event-id") or dict(begin.query).get("since")


# ── beginning ──


def test_a_subscription_is_a_stream_that_is_confirmed_when_it_begins() -> None:
    world = connected()
    subscription = subscribe(world)
    begin = world.take()
    assert (begin.is_stream, begin.query, asked_from(begin)) == (True, (("channel", "jobs"),), None)
    assert begin.credentials is Credentials.HEADER
    assert world.said(SubscriptionStarted) == []
    assert world.stream(begin, BEGINNING)
    assert world.the(SubscriptionStarted).tag == "s"
    assert subscription.position == 6
    world.data(begin, ":\n\n", event_block(7), event_block(9))
    assert seqs(world) == [7, 9]
    assert subscription.position == 9


def test_a_subscription_is_confirmed_when_it_is_known_where_it_begins() -> None:
    """Not by the head alone: cut off then, it would begin later than it was said to, and lose what is in between."""
    world = connected()
    subscribe(world)
    begin = world.take()
    world.stream(begin)
    assert world.said(SubscriptionStarted) == []
    world.fail(begin)
    world.sleep(2.0)
    world.stream(world.take(), BEGINNING)
    world.the(SubscriptionStarted)


def test_two_subscriptions_are_two_streams() -> None:
    world = connected()
    subscribe(world)
    subscribe(world)
    world.pump()
    assert len({begin.id for begin in world.begun}) == 2


@pytest.mark.parametrize(("since", "asked"), [(41, "41"), (0, "0"), ("start", "start")])
def test_a_stream_begins_where_it_is_asked_to(since: Since, asked: str) -> None:
    world = connected()
    subscription = subscribe(world, since)
    begin = world.take()
    assert asked_from(begin) == asked
    world.stream(begin, "id: 3\n\n" if since == "start" else f"id: {since}\n\n")
    assert subscription.position == (3 if since == "start" else since)


@pytest.mark.parametrize(
    ("channel", "since"), [("nonsense", None), ("jobs", -1), ("jobs", "x"), ("job:\udc80", None)]
)
def test_a_subscription_that_makes_no_sense_is_refused_at_once(channel: str, since: Any) -> None:
    world = connected()
    with pytest.raises(InvalidRequest):
        subscribe(world, since, channel)
    assert world.nothing_begun()


def test_a_subscription_from_before_the_server_is_found_waits_for_it() -> None:
    world = World()
    world.session.start(now=0.0)
    subscribe(world)
    world.found()
    assert world.take().is_stream


# ── refusals ──


@pytest.mark.parametrize(
    ("code", "kind"), [(401, AuthError), (403, AuthError), (400, InvalidRequest), (429, DispatchError)]
)
def test_a_refused_stream_ends_its_subscription(code: int, kind: type) -> None:
    world = connected()
    subscribe(world)
    world.refuse(world.take(), code, "because")
    error = world.the(SubscriptionEnded).error
    assert isinstance(error, kind)
    assert str(error) == "because"
    assert world.session.state == "ready"
    assert world.session.next_deadline is None


@pytest.mark.parametrize("body", [b"<h1>", b"", b'{"id":"1","type":"response"}'])
def test_where_there_are_no_streams_a_subscription_ends(body: bytes) -> None:
    world = connected()
    subscribe(world)
    world.answer(world.take(), 404, body, [])
    assert "HTTP 404" in str(world.the(SubscriptionEnded).error)


def test_an_answer_that_is_no_stream_ends_a_subscription() -> None:
    world = connected()
    subscribe(world)
    begin = world.take()
    world.stream(begin, "<h1>Hello</h1>", headers=[("content-type", "text/html")])
    assert "no stream of events" in str(world.the(SubscriptionEnded).error)
    world.session.exchange_end(begin.id, now=0.0)


def test_a_bad_certificate_ends_a_subscription() -> None:
    world = connected()
    subscribe(world)
    world.fail(world.take(), "its certificate is not trusted", fatal=True)
    assert "not trusted" in str(world.the(SubscriptionEnded).error)


# ── cut off and made again ──


@pytest.mark.parametrize("how", ["ended", "failed", "silent", "502", "503", "too large"])
def test_a_stream_that_is_cut_off_goes_on_after_its_last_event(how: str) -> None:
    world = connected()
    subscription, begin = listening(world)
    world.data(begin, event_block(7))
    if how == "ended":
        world.session.exchange_end(begin.id, now=world.now)
    elif how == "silent":
        world.sleep(40.0)
        assert begin.id in world.aborted
    elif how == "too large":
        world.data(begin, "data: " + "x" * world.session.config.limits.message)
        assert begin.id in world.aborted
    else:
        world.fail(begin)
    if how in ("502", "503"):
        world.sleep(1.0)
        world.refuse(world.take(), int(how))
    world.sleep(10.0)
    again = world.take()
    assert asked_from(again) == "7"
    world.stream(again, "id: 7\n\n", event_block(7), event_block(8))
    assert seqs(world) == [7, 8]
    assert world.said(SubscriptionStarted) == []
    assert subscription.position == 8
    assert world.session.state == "ready"  # calls do not suffer from that


def test_a_stream_that_was_refused_for_the_moment_is_tried_again_once_it_had_begun() -> None:
    world = connected()
    _, begin = listening(world)
    world.fail(begin)
    world.sleep(1.0)
    world.refuse(world.take(), 429)
    world.sleep(10.0)
    assert asked_from(world.take()) == "6"


def test_a_token_that_is_refused_later_ends_the_subscription() -> None:
    world = connected()
    _, begin = listening(world)
    world.fail(begin)
    world.sleep(1.0)
    world.refuse(world.take(), 401, "expired")
    assert isinstance(world.the(SubscriptionEnded).error, AuthError)


def test_comments_keep_a_stream() -> None:
    world = connected()
    _, begin = listening(world)
    for _ in range(10):
        world.sleep(15.0)
        world.data(begin, ":\n\n")
    assert world.aborted == []


def test_a_client_that_was_asleep_does_not_take_that_for_silence() -> None:
    world = connected()
    _, begin = listening(world)
    world.now = 3600.0
    world.session.handle_timer(now=world.now)
    world.pump()
    assert world.aborted == []
    world.sleep(40.0)
    assert world.aborted == [begin.id]


def test_a_stream_that_does_not_begin_is_tried_again() -> None:
    world = connected(connect_timeout=2.0)
    subscribe(world)
    begin = world.take()
    world.sleep(2.1)
    assert world.aborted == [begin.id]
    world.sleep(1.0)
    world.stream(world.take(), BEGINNING)
    world.the(SubscriptionStarted)


def test_streams_are_given_up_after_so_many_attempts_in_a_row() -> None:
    world = connected(max_retries=2)
    _, begin = listening(world)
    world.fail(begin)
    for _ in range(2):
        world.sleep(10.0)
        world.fail(world.take(), "reset")
    error = world.the(SubscriptionEnded).error
    assert isinstance(error, ConnectionError)
    assert str(error) == "subscribe: the stream of the test was lost: reset"


def test_without_reconnecting_a_stream_that_is_cut_off_is_the_end() -> None:
    world = connected(reconnect=False)
    _, begin = listening(world)
    world.fail(begin)
    assert isinstance(world.the(SubscriptionEnded).error, ConnectionError)


def test_a_server_that_goes_away_says_when_to_come_back() -> None:
    world = connected()
    _, begin = listening(world)
    drain = {"type": "drain", "data": {"deadline_ms": 100, "retry_after_ms": 20_000}}
    world.data(begin, f"event: drain\ndata: {json.dumps(drain)}\n\n")
    world.session.exchange_end(begin.id, now=world.now)
    world.sleep(29.0)
    assert world.nothing_begun()
    world.sleep(1.1)
    assert asked_from(world.take()) == "6"


def test_while_the_server_is_away_no_stream_is_made() -> None:
    world = connected()
    _, begin = listening(world)
    world.ask()
    world.fail(world.take(), "refused", sent=False)
    world.fail(begin)
    world.sleep(5.0)
    ping = world.take()
    assert not ping.is_stream
    world.respond(ping, kind="pong")
    assert [each.is_stream for each in world.begun] == [True, False]


# ── gaps ──


def test_what_the_server_has_removed_is_a_gap() -> None:
    world = connected()
    subscription = subscribe(world, since=3)
    begin = world.take()
    gap = {"type": "gap", "data": {"from": 1, "to": 5}}
    block = f"id: 5\nevent: gap\ndata: {json.dumps(gap)}\n\n"
    world.stream(begin, "id: 3\n\n", block, block, event_block(6))
    assert gaps(world) == [Gap(first=4, last=5)]
    assert seqs(world) == [6]
    assert subscription.position == 6


def test_a_gap_before_anything_else_is_told_whole() -> None:
    world = connected()
    subscribe(world)
    world.stream(world.take(), 'event: gap\ndata: {"type":"gap","data":{"from":1,"to":5}}\n\n')
    assert gaps(world) == [Gap(first=1, last=5)]


@pytest.mark.parametrize(
    "data",
    [
        "{",
        "{}",
        '{"type":"gap"}',
        '{"type":"gap","data":{"from":1}}',
        '{"type":"gap","data":{"from":1,"to":"x"}}',
    ],
)
def test_what_makes_no_sense_is_left_out(data: str) -> None:
    world = connected()
    subscription, begin = listening(world)
    world.data(begin, f"id: x\nevent: gap\ndata: {data}\n\n", event_block(7))
    world.the(Discarded)
    assert seqs(world) == [7]
    assert subscription.position == 7


def test_a_gap_whose_bounds_are_no_json_is_left_out() -> None:
    world = connected()
    _, begin = listening(world)
    world.data(begin, 'event: gap\ndata: {"type":"gap","data":1e999}\n\n')
    world.the(Discarded)


@pytest.mark.parametrize("how", ["by its head", "by refusing the position"])
def test_another_log_is_a_gap_and_the_stream_goes_on_from_now_on(how: str) -> None:
    world = connected()
    subscription, begin = listening(world)
    world.data(begin, event_block(7))
    world.fail(begin)
    world.sleep(1.0)
    again = world.take()
    if how == "by its head":
        world.stream(again, "id: 7\n\n", event_block(8), headers=ELSEWHERE)
        assert again.id in world.aborted
    else:
        world.refuse(again, 400, "above the head")
    assert gaps(world) == [Gap(first=8)]
    fresh = world.take()
    assert asked_from(fresh) is None
    world.stream(fresh, "id: 2\n\n", event_block(3), headers=ELSEWHERE)
    assert seqs(world) == [7, 3]
    assert subscription.position == 3


def test_a_position_that_the_server_never_had_is_an_error_at_first() -> None:
    world = connected()
    subscribe(world, since=10**6)
    world.refuse(world.take(), 400, "above the head")
    assert isinstance(world.the(SubscriptionEnded).error, InvalidRequest)


# ── slow readers ──


def test_a_stream_whose_events_nobody_takes_is_not_read_until_somebody_does() -> None:
    world = connected(event_window=4)
    subscription, begin = listening(world)
    assert world.data(begin, event_block(7), event_block(8), event_block(9))
    assert not world.data(begin, event_block(10))
    world.sleep(3600.0)  # it is we who are silent
    assert world.aborted == []
    world.session.consumed(subscription, 1, now=world.now)
    world.pump()
    assert world.resumed == []
    world.session.consumed(subscription, 1, now=world.now)
    world.session.consumed(subscription, 1, now=world.now)
    world.pump()
    assert world.resumed == [begin.id]
    assert world.data(begin, event_block(11))
    world.sleep(40.0)
    assert begin.id in world.aborted


# ── the end ──


def test_leaving_ends_the_stream_at_once() -> None:
    world = connected()
    subscription, begin = listening(world)
    world.session.unsubscribe(subscription, now=world.now)
    assert world.the(SubscriptionEnded).error is None
    assert world.aborted == [begin.id]
    world.session.unsubscribe(subscription, now=world.now)
    world.session.consumed(subscription, 1, now=world.now)
    assert world.said(SubscriptionEnded) == []
    assert world.data(begin, event_block(9))
    world.session.exchange_head(begin.id, 200, STREAMS, now=world.now)
    assert world.said(SubscriptionItem) == []


def test_leaving_while_a_stream_is_to_be_made_again_ends_that_too() -> None:
    world = connected()
    subscription, begin = listening(world)
    world.fail(begin)
    other, _ = listening(world)
    world.session.unsubscribe(subscription, now=world.now)
    world.the(SubscriptionEnded)
    world.sleep(3.0)
    assert world.nothing_begun()
    assert other.confirmed


def test_closing_ends_every_subscription_without_an_error() -> None:
    world = connected()
    listening(world)
    world.session.close(now=world.now)
    assert world.the(SubscriptionEnded).error is None
    world.the(Closed)


# ── the existing server ──


def recorded(title: str) -> tuple[list[tuple[str, str]], list[str], bool]:
    """Headers, chunks and whether the stream has ended, of a recorded stream."""
    exchange = next(e for e in map(json.loads, RECORDED.read_text().splitlines()) if e["title"] == title)
    text = exchange["response"]["body"]["text"]
    chunks: list[str] = []
    while text:
        size, _, text = text.partition("\r\n")
        length = int(size, 16)
        if not length:
            return [tuple(pair) for pair in exchange["response"]["headers"]], chunks, True
        chunks.append(text[:length])
        text = text[length + 2 :]
    return [tuple(pair) for pair in exchange["response"]["headers"]], chunks, False


def replay(world: World, begin: BeginExchange, title: str) -> None:
    headers, chunks, ended = recorded(title)
    world.stream(begin, *chunks, headers=headers)
    if ended:
        world.session.exchange_end(begin.id, now=world.now)
        world.pump()


@pytest.mark.parametrize("channel", ["jobs", "firehose"])
def test_recorded_events_reach_the_subscriber(channel: str) -> None:
    world = connected(GOS)
    subscribe(world, channel=channel)
    begin = world.take()
    assert begin.credentials is Credentials.QUERY
    replay(world, begin, channel)
    world.the(SubscriptionStarted)
    kinds = [item.event.type for item in world.said(SubscriptionItem)]
    assert kinds[:3] == ["job.enqueued", "job.started", "job.completed"]


@pytest.mark.parametrize("title", ["wrong token", "scope missing", "no token", "token in header"])
def test_a_recorded_refusal_is_an_error_although_it_came_with_200(title: str) -> None:
    world = connected(GOS)
    subscribe(world)
    replay(world, world.take(), title)
    assert world.said(SubscriptionStarted) == []
    assert isinstance(world.the(SubscriptionEnded).error, AuthError)


def test_a_recorded_stream_without_events_is_confirmed_when_it_stays() -> None:
    world = connected(GOS, poll_interval=0.25)
    subscribe(world)
    begin = world.take()
    replay(world, begin, "two channels")
    world.sleep(0.2)
    assert world.said(SubscriptionStarted) == []
    world.sleep(0.1)
    world.the(SubscriptionStarted)
    world.data(begin, event_block(None))
    world.sleep(3600.0)  # it sends nothing when there is nothing
    assert world.aborted == []


def test_the_existing_server_has_no_events_of_before() -> None:
    world = connected(GOS)
    subscribe(world, since="start")
    assert isinstance(world.the(SubscriptionEnded).error, UnsupportedError)
    assert world.nothing_begun()


def test_a_stream_that_cannot_be_resumed_says_so() -> None:
    world = connected()
    subscribe(world, since=7)
    begin = world.take()
    world.stream(begin, headers=[("dwp-features", "drain"), *STREAM])
    assert isinstance(world.the(SubscriptionEnded).error, UnsupportedError)


def test_towards_the_existing_server_a_stream_is_made_again_from_now_on() -> None:
    world = connected(GOS)
    subscribe(world)
    begin = world.take()
    replay(world, begin, "jobs")
    world.fail(begin)
    world.sleep(1.0)
    again = world.take()
    assert asked_from(again) is None
    world.stream(again, GO_BEGINNING, headers=STREAM)
    world.sleep(1.0)
    assert len(world.said(SubscriptionStarted)) == 1
    assert world.said(SubscriptionEnded) == []


def test_unread_events_of_the_existing_server_are_dropped_counted_and_told() -> None:
    world = connected(GOS, event_buffer=2)
    subscription = subscribe(world)
    begin = world.take()
    world.stream(begin, GO_BEGINNING, *[event_block(None)] * 5, headers=STREAM)
    assert len(world.said(SubscriptionItem)) == 2
    world.session.consumed(subscription, 2, now=world.now)
    assert gaps(world) == [Gap(dropped=3)]
    world.data(begin, *[event_block(None)] * 3)
    world.session.consumed(subscription, 1, now=world.now)
    world.data(begin, event_block(None))
    assert gaps(world) == [Gap(dropped=1)]
    world.data(begin, event_block(None))
    world.session.unsubscribe(subscription, now=world.now)
    assert gaps(world) == [Gap(dropped=1)]


# ── answers that are rough ──


def test_a_token_that_is_refused_when_a_stream_is_made_again_ends_the_session() -> None:
    """As a login that is refused after a reconnect: no retry mends it, and everybody hears so."""
    world = connected()
    _, begin = listening(world)
    world.ask()
    world.pump()
    world.fail(begin)
    world.sleep(20.0)
    [again] = [begin for begin in world.begun if begin.is_stream]
    world.refuse(again, 401, "authentication failed")
    error = world.the(SubscriptionEnded).error
    assert isinstance(error, AuthError)
    assert str(error) == "the test refused the login: authentication failed"
    assert world.the(Closed).cause is error
    assert world.session.state == "closed"


def test_a_refusal_without_end_is_read_up_to_the_limit() -> None:
    world = connected(limits=Limits(message=100))
    subscribe(world)
    begin = world.take()
    world.session.exchange_head(begin.id, 403, [], now=world.now)
    for _ in range(3):
        world.session.exchange_data(begin.id, b"x" * 50, now=world.now)
    error = world.the(SubscriptionEnded).error
    assert isinstance(error, AuthError)
    assert "HTTP 403: xxx" in str(error)
    assert begin.id in world.aborted


def test_a_refusal_that_trickles_in_has_the_time_of_an_attempt() -> None:
    world = connected(connect_timeout=5.0)
    subscribe(world)
    begin = world.take()
    world.session.exchange_head(begin.id, 403, [], now=world.now)
    for _ in range(6):
        world.session.exchange_data(begin.id, b"x", now=world.now)
        world.sleep(1.0)
    assert isinstance(world.the(SubscriptionEnded).error, AuthError)


def test_a_stream_is_made_again_no_sooner_than_it_is_told_to() -> None:
    world = connected()
    _, begin = listening(world)
    world.fail(begin)
    world.sleep(20.0)
    world.answer(world.take(), 503, b"", [("retry-after", "30")])
    world.sleep(29.0)
    assert world.nothing_begun()
    world.sleep(17.0)
    assert world.take().is_stream
