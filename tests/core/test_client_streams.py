"""Live events as every server sends them: matched here, bounded here, asked for again after a reconnect."""

from __future__ import annotations

from unittest.mock import ANY

import pytest

from dwp_core.client_events import (
    ClientConfig,
    Closed,
    SubscriptionEnded,
    SubscriptionGap,
    SubscriptionItem,
    SubscriptionStarted,
)
from dwp_core.errors import AuthError, TimeoutError, UnsupportedError
from dwp_core.subscriptions import Gap
from tests.core.scripted_server import JOB, Script

SMALL = ClientConfig(event_buffer=4)


def kinds(script: Script, tag: object = None) -> list[str]:
    """The types of the items since the last call."""
    return [e.event.type for e in script.told(SubscriptionItem) if tag is None or e.tag == tag]


def items(script: Script) -> list[object]:
    """Who got an item since the last call."""
    return [e.tag for e in script.told(SubscriptionItem)]


def test_a_subscription_is_confirmed_and_gets_events() -> None:
    script = Script().connect()
    script.events()
    script.subscribe("jobs", tag="me")
    [_, asked] = script.sent()
    assert (asked.method, asked.data) == ("subscribe", {"channel": "jobs"})
    script.confirm(asked)
    assert script.events() == [SubscriptionStarted("me")]
    script.happen(kind="job.started")
    item = script.one(SubscriptionItem)
    assert (item.tag, item.event.type, item.event.topic) == ("me", "job.started", f"job:{JOB}")


def test_an_event_that_comes_before_the_answer_is_not_lost() -> None:
    script = Script().connect()
    script.subscribe()
    script.happen()
    assert kinds(script) == ["job.completed"]


def test_an_event_is_matched_against_all_subscriptions_whatever_its_label() -> None:
    script = Script().connect()
    for channel in ("firehose", "jobs", "workflows", f"job:{JOB}", "queue:mail", "queue:other"):
        script.subscribe(channel, tag=channel)
    script.happen(data={"queue": "mail"})
    assert items(script) == ["firehose", "jobs", f"job:{JOB}", "queue:mail"]
    script.happen(kind="workflow.started", topic="workflow:w")
    assert items(script) == ["firehose", "workflows"]
    script.happen(kind="cron.fired", topic="")
    assert items(script) == ["firehose"]


@pytest.mark.parametrize("inner", [b"", b"5", b'{"queue":5}', b'{"queue":"\\ud800"}', b"[1e999]"])
def test_an_event_without_a_readable_queue_is_on_no_queues_channel(inner: bytes) -> None:
    script = Script().connect()
    script.subscribe("queue:mail", tag="queue")
    script.subscribe("jobs", tag="jobs")
    data = b',"data":' + inner if inner else b""
    script.receive(b'{"id":"e","type":"event","data":{"type":"job.started","topic":"job:x"%b}}' % data)
    assert items(script) == ["jobs"]


def test_two_subscriptions_to_one_channel_share_one_on_the_wire() -> None:
    script = Script().connect()
    one = script.subscribe(tag=1)
    two = script.subscribe(tag=2)
    asked = [frame for frame in script.sent() if frame.method]
    assert len(asked) == 1
    script.events()
    script.confirm(asked[0])
    assert script.events() == [SubscriptionStarted(1), SubscriptionStarted(2)]
    three = script.subscribe(tag=3)
    assert (script.methods(), script.events()) == ([], [SubscriptionStarted(3)])
    script.happen()
    assert items(script) == [1, 2, 3]
    script.unsubscribe(one)
    script.unsubscribe(three)
    assert script.methods() == []
    script.unsubscribe(two)
    assert script.asked() == [("unsubscribe", {"channel": "jobs"})]


def test_who_leaves_is_told_at_once_and_gets_nothing_more() -> None:
    script = Script().connect()
    subscription = script.subscribe(tag="me")
    asked = script.sent()[-1]
    script.events()
    script.unsubscribe(subscription)
    script.unsubscribe(subscription)
    assert script.events() == [SubscriptionEnded("me", None)]
    assert script.methods() == ["unsubscribe"]
    script.happen()
    script.confirm(asked)
    script.consumed(subscription, 1)
    assert script.events() == []


def test_who_leaves_before_a_refusal_comes_is_not_told_of_it() -> None:
    script = Script().connect()
    subscription = script.subscribe(tag="me")
    asked = script.sent()[-1]
    script.unsubscribe(subscription)
    script.events()
    script.refuse(asked, 403)
    assert script.events() == []


def test_a_refused_subscription_ends_and_can_be_asked_for_again() -> None:
    script = Script().connect()
    script.subscribe(tag="me")
    script.events()
    script.refuse(script.sent()[-1], 403, "insufficient permissions")
    ended = script.one(SubscriptionEnded)
    assert (ended.tag, type(ended.error), str(ended.error)) == ("me", AuthError, "insufficient permissions")
    script.subscribe(tag="again")
    assert script.methods() == ["subscribe"]


def test_a_subscription_that_is_not_answered_in_time_ends() -> None:
    script = Script(ClientConfig(ask_timeout=3.0)).connect()
    script.subscribe(tag="me")
    script.timer()
    ended = script.told(SubscriptionEnded)[0]
    assert isinstance(ended.error, TimeoutError)
    assert str(ended.error) == "subscribe: no answer from the server in time"


@pytest.mark.parametrize("outcome", ["answer", "refusal", "silence"])
def test_what_the_server_says_to_an_unsubscribe_is_nobodys_business(outcome: str) -> None:
    script = Script(ClientConfig(ask_timeout=3.0)).connect()
    subscription = script.subscribe()
    script.confirm(script.sent()[-1])
    script.unsubscribe(subscription)
    asked = script.sent()[-1]
    script.events()
    if outcome == "answer":
        script.answer(asked)
    elif outcome == "refusal":
        script.refuse(asked, 404)
    else:
        script.timer()
    assert script.events() == []


def test_leaving_without_a_connection_tells_nobody_but_the_application() -> None:
    script = Script().connect()
    subscription = script.subscribe(tag="me")
    script.cut()
    script.events()
    script.unsubscribe(subscription)
    assert script.events() == [SubscriptionEnded("me", None)]
    script.connect()
    assert script.methods() == []


def test_an_answer_that_cannot_be_read_ends_the_connection() -> None:
    script = Script().connect()
    script.subscribe()
    asked = script.sent()[-1]
    script.receive(b'{"id":"s","type":"response","correl_id":"%b","data":{"seq":1e999}}' % asked.id.encode())
    assert script.session.state == "backing_off"
    script.connect()
    assert script.methods() == ["subscribe"]


def test_an_answer_without_data_is_an_answer() -> None:
    script = Script().connect()
    script.subscribe(tag="me")
    script.events()
    script.say("response", correl_id=script.sent()[-1].id)
    assert script.events() == [SubscriptionStarted("me")]


# ── over connections ──


def test_subscriptions_come_back_in_order_before_anybody_hears_of_the_connection() -> None:
    script = Script().connect()
    for channel in ("jobs", "firehose", "queue:mail"):
        script.subscribe(channel)
        script.confirm(script.sent()[-1])
    script.cut()
    script.read(tag="r")
    script.events()
    script.connect()
    asked = [frame for frame in script.sent() if frame.method]
    assert [frame.data["channel"] for frame in asked] == ["jobs", "firehose", "queue:mail"]
    for frame in reversed(asked):
        assert (script.session.state, script.methods(), script.events()) == ("restoring", [], [])
        script.confirm(frame)
    assert script.methods() == ["job.get"]
    assert [type(e).__name__ for e in script.events()] == ["Connected"]


def test_a_subscription_that_does_not_come_back_ends_and_keeps_nobody_waiting() -> None:
    script = Script().connect()
    script.subscribe(tag="me")
    script.cut()
    script.connect()
    script.events()
    script.refuse(script.sent()[-1], 403)
    assert [type(e).__name__ for e in script.events()] == ["SubscriptionEnded", "Connected"]


def test_a_subscription_made_while_others_come_back_is_asked_for_and_keeps_nobody_waiting() -> None:
    script = Script().connect()
    script.subscribe("jobs", tag="old")
    script.cut()
    script.connect()
    [_, old] = script.sent()
    script.subscribe("firehose", tag="new")
    script.subscribe("jobs", tag="joins")
    [new] = script.sent()
    assert new.data == {"channel": "firehose"}
    script.events()
    script.confirm(old)
    assert [type(e).__name__ for e in script.events()] == [
        "SubscriptionStarted",
        "SubscriptionStarted",
        "Connected",
    ]
    script.confirm(new)
    assert script.events() == [SubscriptionStarted("new")]


@pytest.mark.parametrize("state", ["connecting", "authenticating", "backing_off", "draining"])
def test_a_subscription_can_be_made_in_any_state_and_is_asked_for_when_that_is_possible(state: str) -> None:
    script = Script()
    if state == "draining":
        script.connect_negotiated()
        script.ask()
        script.drain()
    elif state == "backing_off":
        script.connect()
        script.cut()
    else:
        script.start()
    if state == "authenticating":
        script.open()
    assert script.session.state == state
    script.subscribe(tag="me")
    assert "subscribe" not in script.methods()
    if state == "draining":
        script.cut()
    if state == "authenticating":
        script.welcome()
    elif state == "connecting":
        script.open()
        script.welcome()
    else:
        script.connect()
    assert script.methods() == ["subscribe"]


def test_somebody_who_leaves_while_subscriptions_come_back_keeps_nobody_waiting() -> None:
    script = Script().connect()
    subscription = script.subscribe(tag="me")
    script.cut()
    script.connect()
    asked = script.sent()[-1]
    script.unsubscribe(subscription)
    assert script.methods() == ["unsubscribe"]
    script.events()
    script.confirm(asked)
    assert [type(e).__name__ for e in script.events()] == ["Connected"]


# ── credit and bounds, towards a server that drops what has none ──


def test_credit_is_granted_ahead_before_the_first_event_can_come() -> None:
    script = Script(ClientConfig(event_buffer=5000)).connect()
    script.ask()
    assert script.granted() == 0, "not before somebody subscribes"
    script.subscribe()
    credit, asked = script.sent()
    assert (credit.credits, credit.method, credit.type, asked.method) == (4000, "", "request", "subscribe")


def test_the_window_is_kept_wide_open_whether_anybody_reads_or_not() -> None:
    script = Script(ClientConfig(event_buffer=5000)).connect()
    script.subscribe()
    script.granted()
    for _ in range(1249):
        script.happen()
    assert script.granted() == 0
    script.happen()
    assert script.granted() == 1250


def test_the_next_connection_starts_with_the_servers_own_credit() -> None:
    script = Script(ClientConfig(event_buffer=5000)).connect()
    script.subscribe()
    script.cut()
    script.granted()
    script.connect()
    assert script.granted() == 4000


def test_what_nobody_reads_is_bounded_and_the_overflow_is_a_gap_in_its_place() -> None:
    script = Script(SMALL).connect()
    slow = script.subscribe(tag="slow")
    fast = script.subscribe(tag="fast")
    script.events()
    for _ in range(7):
        script.happen()
        script.consumed(fast, 1)
    assert items(script) == ["slow", "fast"] * 4 + ["fast"] * 3
    script.consumed(slow, 1)
    script.happen(kind="job.failed")
    assert script.events()[:2] == [SubscriptionGap("slow", Gap(dropped=3)), SubscriptionItem("slow", ANY)]


def test_a_reader_that_has_caught_up_is_told_of_its_gap_at_once() -> None:
    script = Script(SMALL).connect()
    slow = script.subscribe(tag="slow")
    for _ in range(6):
        script.happen()
    script.events()
    script.consumed(slow, 3)
    assert script.events() == []
    script.consumed(slow, 99)
    assert script.events() == [SubscriptionGap("slow", Gap(dropped=2))]


def test_a_gap_is_told_before_the_end() -> None:
    script = Script(SMALL).connect()
    script.subscribe(tag="slow")
    for _ in range(6):
        script.happen()
    script.events()
    script.close()
    script.cut(1000)
    assert script.events() == [
        SubscriptionGap("slow", Gap(dropped=2)),
        SubscriptionEnded("slow", None),
        Closed(None),
    ]


def test_a_gap_outlives_a_connection() -> None:
    script = Script(SMALL).connect()
    slow = script.subscribe(tag="slow")
    for _ in range(6):
        script.happen()
    script.cut()
    script.events()
    script.consumed(slow, 4)
    assert script.events() == [SubscriptionGap("slow", Gap(dropped=2))]


# ── what such a server cannot do ──


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("since", [7, "start"])
def test_a_server_that_keeps_no_events_cannot_start_in_the_past(since: int, early: bool) -> None:
    script = Script()
    if early:
        script.start()
    else:
        script.connect()
    script.subscribe(tag="other")
    script.subscribe(tag="me", since=since)
    if early:
        script.open()
        script.welcome()
    [ended] = script.told(SubscriptionEnded)
    assert (ended.tag, type(ended.error)) == ("me", UnsupportedError)
    assert "keeps no events, so since cannot be used" in str(ended.error)
    assert script.asked() == [("subscribe", {"channel": "jobs"})]


def test_a_channel_is_not_asked_for_when_nobody_is_left() -> None:
    script = Script().start()
    script.subscribe(since=5)
    script.open()
    script.welcome()
    assert script.methods() == []
    assert script.session.state == "ready"


def test_numbers_of_a_server_that_does_not_resume_mean_nothing() -> None:
    script = Script().connect()
    script.subscribe()
    script.confirm(script.sent()[-1], seq=100, gap={"from": 1, "to": 9})
    script.happen(5)
    script.happen(5)
    assert len(items(script)) == 2
