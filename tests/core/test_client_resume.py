"""Live events of a server that keeps them: nothing lost, nothing twice, gaps told (PROTOCOL.md section 9, `resume`)."""

from __future__ import annotations

from typing import Any

import pytest

from dwp_core.client_events import (
    ClientConfig,
    Connected,
    SubscriptionEnded,
    SubscriptionGap,
    SubscriptionItem,
    SubscriptionStarted,
)
from dwp_core.errors import InvalidRequest
from dwp_core.subscriptions import Gap, Since, Subscription
from tests.core.scripted_server import Script, Sent

WINDOW = ClientConfig(event_window=80)


def subscribed(
    script: Script,
    channel: str = "jobs",
    *,
    tag: object = "me",
    since: Since = None,
    head: int = 10,
    **answer: Any,
) -> Subscription:
    """A confirmed subscription."""
    subscription = script.subscribe(channel, tag=tag, since=since)
    script.confirm(question(script), seq=head, **answer)
    script.events()
    return subscription


def question(script: Script) -> Sent:
    """The only `subscribe` sent since the last call."""
    [asked] = questions(script)
    return asked


def questions(script: Script) -> list[Sent]:
    """Every `subscribe` sent since the last call."""
    return [frame for frame in script.sent() if frame.method == "subscribe"]


def gaps(script: Script) -> list[SubscriptionGap]:
    """The gaps told since the last call."""
    return script.told(SubscriptionGap)


def test_a_subscription_begins_with_the_answer() -> None:
    script = Script().connect_negotiated()
    subscription = script.subscribe()
    script.happen(9)
    script.happen(10)
    script.confirm(question(script), seq=10)
    script.happen(10)
    script.happen(12)
    assert script.seqs() == [12]
    assert subscription.position == 12


def test_after_a_reconnect_nothing_is_lost_and_nothing_comes_twice() -> None:
    script = Script().connect_negotiated()
    subscribed(script)
    script.happen(11)
    script.happen(14)
    script.cut()
    script.connect_negotiated()
    asked = question(script)
    assert asked.data == {"channel": "jobs", "since": 14}
    script.confirm(asked, seq=20)
    script.events()
    for seq in (14, 15, 20, 21):
        script.happen(seq)
    assert script.seqs() == [15, 20, 21]


def test_a_subscription_that_has_seen_nothing_goes_on_from_where_it_began() -> None:
    script = Script().connect_negotiated()
    subscribed(script, head=10)
    script.cut()
    script.connect_negotiated()
    assert question(script).data == {"channel": "jobs", "since": 10}


def test_a_subscription_that_was_never_confirmed_is_asked_for_as_at_first() -> None:
    script = Script().connect_negotiated()
    script.subscribe(tag="now")
    script.subscribe("firehose", tag="past", since=3)
    script.subscribe("queue:q", tag="all", since="start")
    script.cut()
    script.sent()
    script.connect_negotiated()
    assert [frame.data for frame in questions(script)] == [
        {"channel": "jobs"},
        {"channel": "firehose", "since": 3},
        {"channel": "queue:q", "since": "start"},
    ]


def test_everything_that_is_kept_can_be_asked_for() -> None:
    script = Script().connect_negotiated()
    subscribed(script, since="start", head=10, gap={"from": 1, "to": 4})
    for seq in (5, 9, 11):
        script.happen(seq)
    assert script.seqs() == [5, 9, 11]
    script.cut()
    script.connect_negotiated()
    assert question(script).data == {"channel": "jobs", "since": 11}


def test_who_asked_for_everything_and_has_seen_nothing_still_wants_everything() -> None:
    script = Script().connect_negotiated()
    subscribed(script, since="start", head=10)
    script.cut()
    script.connect_negotiated()
    assert question(script).data == {"channel": "jobs", "since": 0}


# ── several subscriptions to one channel ──


def test_one_question_brings_back_all_that_stand_somewhere_from_the_lowest_position() -> None:
    script = Script().connect_negotiated()
    subscribed(script, tag="late", head=10)
    subscribed(script, tag="early", since=4, head=10)
    for seq in (5, 6):
        script.happen(seq)
    assert script.seqs("late") == []
    script.cut()
    script.subscribe(tag="new")
    script.connect_negotiated()
    asked = question(script)
    assert asked.data == {"channel": "jobs", "since": 6}
    script.confirm(asked, seq=12)
    assert [e.tag for e in script.told(SubscriptionStarted)] == ["new"]
    for seq in (7, 11, 12, 13):
        script.happen(seq)
    by_tag: dict[object, list[int | None]] = {}
    for item in script.told(SubscriptionItem):
        by_tag.setdefault(item.tag, []).append(item.event.seq)
    assert by_tag == {"early": [7, 11, 12, 13], "late": [11, 12, 13], "new": [13]}


def test_who_wants_everything_is_asked_for_apart() -> None:
    script = Script().connect_negotiated()
    subscribed(script, tag="stands", head=10)
    script.subscribe(tag="all", since="start")
    script.cut()
    script.sent()
    script.connect_negotiated()
    assert [frame.data.get("since") for frame in questions(script)] == [10, "start"]


def test_who_joins_a_confirmed_channel_starts_from_the_newest_that_was_seen() -> None:
    script = Script().connect_negotiated()
    subscribed(script, tag="first", head=10)
    script.happen(15)
    script.events()
    script.subscribe(tag="second")
    assert questions(script) == []
    assert script.events() == [SubscriptionStarted("second")]
    script.happen(15)
    script.happen(16)
    assert script.seqs("second") == [16]


def test_who_joins_and_wants_the_past_asks_for_himself() -> None:
    script = Script().connect_negotiated()
    subscribed(script, tag="first", head=10)
    subscribed(script, tag="second", since=3, head=10)
    for seq in (4, 9, 11):
        script.happen(seq)
    assert [(e.tag, e.event.seq) for e in script.told(SubscriptionItem)] == [
        ("second", 4),
        ("second", 9),
        ("first", 11),
        ("second", 11),
    ]


def test_who_joins_a_question_about_the_past_asks_for_himself() -> None:
    script = Script().connect_negotiated()
    script.subscribe(tag="past", since=3)
    script.subscribe(tag="now")
    assert [frame.data.get("since") for frame in questions(script)] == [3, None]


# ── gaps ──


def test_what_retention_has_removed_is_told_once_at_its_place() -> None:
    script = Script().connect_negotiated()
    subscribed(script, head=10)
    script.happen(12)
    script.cut()
    script.connect_negotiated()
    script.events()
    script.confirm(question(script), seq=50, gap={"from": 3, "to": 40})
    assert script.events()[0] == SubscriptionGap("me", Gap(first=13, last=40))
    script.happen(41)
    assert script.seqs() == [41]


def test_a_gap_that_concerns_others_is_not_told() -> None:
    script = Script().connect_negotiated()
    subscribed(script, tag="me", head=10)
    subscribed(script, tag="behind", since=2, head=10)
    script.happen(6)
    script.cut()
    script.connect_negotiated()
    script.confirm(question(script), seq=10, gap={"from": 7, "to": 9})
    assert gaps(script) == [SubscriptionGap("behind", Gap(first=7, last=9))]


@pytest.mark.parametrize(
    "gap", [None, 5, [], {}, {"from": 1}, {"from": "1", "to": 2}, {"from": 1, "to": 2**63}]
)
def test_a_gap_that_makes_no_sense_is_left_out(gap: Any) -> None:
    script = Script().connect_negotiated()
    subscription = script.subscribe(since=0)
    script.confirm(question(script), seq=10, gap=gap)
    assert gaps(script) == []
    assert subscription.position == 0


@pytest.mark.parametrize("head", [None, "10", -1, True, 2**63, 10**30])
def test_a_head_that_makes_no_sense_is_left_out(head: Any) -> None:
    script = Script().connect_negotiated()
    subscription = script.subscribe()
    script.confirm(question(script), seq=head)
    assert subscription.confirmed
    assert subscription.position is None
    script.happen(7)
    assert script.seqs() == [7]
    script.cut()
    script.connect_negotiated()
    assert question(script).data["since"] == 7


def test_another_log_is_a_gap_from_the_last_seq_on() -> None:
    script = Script().connect_negotiated()
    subscribed(script, head=10)
    script.happen(12)
    script.cut()
    script.events()
    script.connect_negotiated(log="log-2")
    assert script.events() == [SubscriptionGap("me", Gap(first=13))]
    asked = question(script)
    assert asked.data == {"channel": "jobs"}
    script.confirm(asked, seq=3)
    script.happen(4)
    assert script.seqs() == [4]


def test_a_server_that_keeps_no_events_any_more_is_a_gap_too() -> None:
    script = Script().connect_negotiated()
    subscribed(script, head=10, since="start")
    script.cut()
    script.connect()
    assert gaps(script) == [SubscriptionGap("me", Gap(first=1))]
    assert question(script).data == {"channel": "jobs"}


def test_the_same_log_is_none() -> None:
    script = Script().connect_negotiated()
    subscribed(script, head=10)
    script.cut()
    script.connect_negotiated()
    assert gaps(script) == []


@pytest.mark.parametrize("restoring", [True, False])
def test_a_position_that_the_server_does_not_know_is_a_gap_and_not_the_end(restoring: bool) -> None:
    script = Script().connect_negotiated()
    subscription = subscribed(script, head=10)
    if restoring:
        script.cut()
        script.connect_negotiated()
    else:
        _make_it_lag(script, subscription)
    script.events()
    script.refuse(question(script), 400, "since is 10, but the log ends at 5")
    assert script.events() == [SubscriptionGap("me", Gap(first=subscription_position(restoring)))]
    again = question(script)
    assert again.data == {"channel": "jobs"}
    script.confirm(again, seq=5)
    assert script.session.state == "ready"
    assert bool(script.told(Connected)) == restoring


def subscription_position(restoring: bool) -> int:
    """The first event that is missing, in the test above."""
    return 11 if restoring else 81


def _make_it_lag(script: Script, subscription: Subscription) -> None:
    """By hand, as `test_one_that_does_not_read…` does by events."""
    subscription.lagging, subscription.position = True, 80
    script.consumed(subscription, 1)


def test_an_answer_about_a_running_subscription_that_stays_out_is_asked_for_again() -> None:
    script = Script(ClientConfig(ask_timeout=3.0)).connect_negotiated()
    subscription = subscribed(script, head=10)
    _make_it_lag(script, subscription)
    asked = question(script)
    script.timer()
    assert question(script).data == asked.data
    assert script.told(SubscriptionEnded) == []


def test_a_position_that_was_wrong_from_the_start_is_the_callers_error() -> None:
    script = Script().connect_negotiated()
    script.subscribe(tag="me", since=999)
    script.refuse(question(script), 400, "since is 999, but the log ends at 5")
    [ended] = script.told(SubscriptionEnded)
    assert isinstance(ended.error, InvalidRequest)


def test_who_has_no_position_and_is_refused_is_asked_for_again_without_a_gap() -> None:
    script = Script().connect_negotiated()
    script.subscribe(tag="nowhere")
    script.confirm(question(script))
    subscribed(script, tag="stands", since=5, head=10)
    script.cut()
    script.connect_negotiated()
    asked = question(script)
    assert asked.data == {"channel": "jobs", "since": 5}
    script.refuse(asked, 400)
    assert gaps(script) == [SubscriptionGap("stands", Gap(first=6))]
    assert question(script).data == {"channel": "jobs"}


# ── credit: the application opens the window by consuming ──


def test_credit_follows_what_was_consumed_in_steps() -> None:
    script = Script(WINDOW).connect_negotiated(credits=80)
    subscription = subscribed(script, head=0)
    for seq in range(1, 61):
        script.happen(seq)
    assert script.granted() == 0, "nothing was consumed"
    script.consumed(subscription, 30)
    assert script.granted() == 30
    script.consumed(subscription, 19)
    assert script.granted() == 0, "less than a step"
    script.consumed(subscription, 1)
    assert script.granted() == 20


def test_a_server_that_starts_with_less_than_the_window_is_given_the_rest() -> None:
    script = Script(WINDOW).connect_negotiated(credits=10)
    script.subscribe()
    assert script.granted() == 70


def test_one_reader_that_does_not_read_is_bounded_by_credit() -> None:
    script = Script(WINDOW).connect_negotiated(credits=80)
    subscribed(script, head=0)
    for seq in range(1, 81):
        script.happen(seq)
    assert len(script.seqs()) == 80
    assert script.granted() == 0


def test_one_that_does_not_read_lags_and_the_others_are_not_affected() -> None:
    script = Script(WINDOW).connect_negotiated(credits=80)
    slow = subscribed(script, tag="slow", head=0)
    fast = script.subscribe(tag="fast")
    credit, sent = 80, 0
    got: dict[object, list[int]] = {"slow": [], "fast": []}
    while sent < 500:
        assert credit > 0, "the fast one would wait for the slow one"
        sent, credit = sent + 1, credit - 1
        script.happen(sent)
        for item in script.told(SubscriptionItem):
            got[item.tag].append(item.event.seq or 0)
            if item.tag == "fast":
                script.consumed(fast, 1)
        credit += script.granted()
    assert got["fast"] == list(range(1, 501))
    assert len(got["slow"]) <= 80
    assert slow.lagging

    script.consumed(slow, len(got["slow"]))
    asked = question(script)
    assert asked.data == {"channel": "jobs", "since": got["slow"][-1]}
    script.consumed(slow, 1)
    assert questions(script) == [], "it is asked for once"
    script.happen(501)
    assert script.seqs("slow") == [], "what comes before the answer comes again"
    script.confirm(asked, seq=500)
    for seq in range(got["slow"][-1] + 1, 502):
        script.happen(seq)
        script.consumed(slow, 1)
    assert script.seqs("slow") == list(range(got["slow"][-1] + 1, 502))
    assert not slow.lagging


def test_nobody_lags_where_all_are_slow() -> None:
    script = Script(WINDOW).connect_negotiated(credits=80)
    one = subscribed(script, tag=1, head=0)
    two = script.subscribe(tag=2)
    for seq in range(1, 81):
        script.happen(seq)
    assert not one.lagging
    assert not two.lagging
    assert script.granted() == 0


def test_two_that_never_read_do_not_silence_one_that_comes_later() -> None:
    script = Script(WINDOW).connect_negotiated(credits=80)
    one = subscribed(script, tag=1, head=0)
    two = script.subscribe(tag=2)
    for seq in range(1, 81):
        script.happen(seq)
    assert script.granted() == 0
    later = script.subscribe(tag=3)
    assert one.lagging
    assert two.lagging
    assert script.granted() == 80
    script.happen(81)
    assert (later.buffered, one.buffered, two.buffered) == (1, 80, 80)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_the_smallest_windows_do_not_make_the_others_wait_either(size: int) -> None:
    script = Script(ClientConfig(event_window=size)).connect_negotiated(credits=size)
    slow = subscribed(script, "job:slow", tag="slow", head=0)
    fast = script.subscribe("jobs", tag="fast")
    script.confirm(question(script), seq=0)
    credit = size + script.granted()
    for seq in range(1, 40):
        assert credit > 0, "the fast one would wait for the slow one"
        script.happen(seq, topic="job:slow")
        script.consumed(fast, 1)
        credit += script.granted() - 1
    assert slow.lagging
    assert script.seqs("fast") == list(range(1, 40))


def test_one_that_reads_in_bursts_does_not_wait_for_one_that_does_not_read() -> None:
    script = Script(WINDOW).connect_negotiated(credits=80)
    slow = subscribed(script, tag="slow", head=0)
    fast = script.subscribe(tag="fast")
    for seq in range(1, 81):
        script.happen(seq)
    assert script.granted() == 0
    script.consumed(fast, 80)
    assert slow.lagging
    assert script.granted() == 80


def test_nobody_lags_who_holds_little() -> None:
    script = Script(WINDOW).connect_negotiated(credits=11)
    one = subscribed(script, "job:a", tag=1, head=0)
    subscribed(script, "job:b", tag=2, head=0)
    script.happen(1, topic="job:a")
    for seq in range(2, 12):
        script.happen(seq, topic="job:other")
    assert not one.lagging


def test_what_nobody_reads_does_not_grow_with_each_reconnect() -> None:
    script = Script(WINDOW).connect_negotiated(credits=80)
    slow = subscribed(script, tag="slow", head=0)
    seq = 0
    for _ in range(80):
        seq += 1
        script.happen(seq)
    for _ in range(10):
        script.cut()
        script.connect_negotiated(credits=80)
        assert script.session.state == "ready", "nobody waits for one that lags"
        assert questions(script) == []
        script.happen(seq + 1)
    assert slow.buffered == 80
    script.consumed(slow, 80)
    assert question(script).data == {"channel": "jobs", "since": 80}


def test_who_lags_and_leaves_is_not_asked_for() -> None:
    script = Script(WINDOW).connect_negotiated()
    slow = subscribed(script, head=0)
    slow.lagging, slow.buffered = True, 5
    script.unsubscribe(slow)
    script.consumed(slow, 5)
    assert questions(script) == []


def test_events_for_nobody_cost_credit_and_are_paid_back() -> None:
    script = Script(WINDOW).connect_negotiated(credits=80)
    subscribed(script, "job:a", head=0)
    for seq in range(1, 21):
        script.happen(seq, topic="job:other")
    assert script.granted() == 20
