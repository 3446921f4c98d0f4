from __future__ import annotations

from dwp_core.codec.events import PlainEvent
from dwp_core.subscriptions import Gap, Since, Subscription, SubscriptionTable


def event(kind: str = "job.completed", topic: str = "job:j", seq: int | None = None) -> PlainEvent:
    return PlainEvent(kind, topic, seq, "", b"{}")


def table(*channels: str, bound: int = 100) -> tuple[SubscriptionTable, list[Subscription]]:
    table = SubscriptionTable(bound)
    made = [Subscription(channel, f"{channel}#{n}", None) for n, channel in enumerate(channels)]
    for subscription in made:
        table.add(subscription)
    return table, made


def confirmed(since: Since = None, head: int = 0) -> tuple[SubscriptionTable, Subscription]:
    table = SubscriptionTable(100)
    subscription = Subscription("jobs", "s", since)
    table.add(subscription)
    table.confirm(subscription, head, None)
    return table, subscription


def test_an_event_is_matched_against_all_subscriptions() -> None:
    everything, made = table("firehose", "jobs", "workflows", "job:j", "job:other", "queue:mail", "jobs")
    got = everything.match(event(), "mail")
    assert {s.tag for s in got} == {"firehose#0", "jobs#1", "job:j#3", "queue:mail#5", "jobs#6"}
    assert len(got) == 5
    assert everything.match(event("cron.fired", ""), "") == [made[0]]


def test_the_queue_is_looked_at_only_when_somebody_wants_it() -> None:
    some, made = table("jobs", "queue:mail")
    assert some.wants_queues
    some.remove(made[1])
    assert not some.wants_queues


def test_the_last_one_of_a_channel_is_told_apart() -> None:
    some, made = table("jobs", "jobs", "firehose")
    assert (len(some), some.channels, list(some)) == (3, ["jobs", "firehose"], made)
    assert not some.remove(made[0])
    assert not some.remove(made[0]), "it was not there any more"
    assert some.remove(made[1])
    assert not some.remove(made[1])
    assert some.on("jobs") == []
    assert some.clear() == [made[2]]
    assert len(some) == 0


def test_without_numbers_everything_is_taken_up_to_the_bound() -> None:
    some, [subscription] = table("jobs", bound=2)
    assert [some.accept(subscription, None) for _ in range(4)] == [True, True, False, False]
    assert (subscription.buffered, subscription.dropped) == (2, 2)


def test_with_numbers_nothing_comes_twice_and_nothing_before_it_began() -> None:
    some, subscription = confirmed(head=5)
    assert [some.accept(subscription, seq) for seq in (4, 5, 6, 6, 9, 7)] == [
        False,
        False,
        True,
        False,
        True,
        False,
    ]
    assert (subscription.position, some.head) == (9, 9)


def test_what_comes_before_the_answer_belongs_to_the_time_before_it() -> None:
    some, [subscription] = table("jobs")
    assert not some.accept(subscription, 3)
    some.confirm(subscription, 3, None)
    assert some.accept(subscription, 4)


def test_a_position_is_where_the_next_question_starts() -> None:
    assert Subscription("jobs", None, None).start is None
    assert Subscription("jobs", None, "start").start == "start"
    assert Subscription("jobs", None, 7).start == 7
    some, subscription = confirmed("start", head=4)
    assert subscription.position == 0, "everything from the oldest on, and not only what is new"
    some.accept(subscription, 2)
    assert subscription.start == 2


def test_a_gap_is_cut_to_what_the_subscription_has_not_seen() -> None:
    some, subscription = confirmed(10, head=30)
    assert some.confirm(subscription, 30, Gap(first=5, last=20)) == Gap(first=11, last=20)
    assert subscription.position == 20
    assert some.confirm(subscription, 30, Gap(first=5, last=20)) is None, "it is told once"
    assert some.confirm(subscription, 30, Gap(first=5)) is None
    assert some.confirm(subscription, 30, Gap(first=40, last=50)) == Gap(first=40, last=50)


def test_a_server_that_numbers_nothing_confirms_without_a_position() -> None:
    some, [subscription] = table("jobs")
    assert some.confirm(subscription, None, Gap(first=1, last=2)) is None
    assert (subscription.confirmed, subscription.position) == (True, None)


def test_a_lost_connection_leaves_the_positions() -> None:
    some, subscription = confirmed(head=8)
    subscription.awaits, subscription.lagging = object(), True
    some.lost_connection()
    assert (subscription.confirmed, subscription.started, subscription.awaits, subscription.lagging) == (
        False,
        True,
        None,
        False,
    )
    assert subscription.position == 8


def test_another_log_is_a_gap_for_those_that_stood_somewhere() -> None:
    some, subscription = confirmed(head=8)
    fresh = Subscription("jobs", "fresh", 3)
    some.add(fresh)
    assert some.another_log() == [(subscription, Gap(first=9))]
    assert (subscription.start, fresh.start, some.head) == (None, 3, 0)


def test_the_slowest_is_sought_among_those_that_take_events() -> None:
    some, (one, other) = table("jobs", "firehose")
    assert some.held() == 0
    one.buffered, other.buffered = 9, 4
    assert (some.slowest(), some.held()) == (one, 9)
    one.lagging = True
    assert (some.slowest(), some.held()) == (other, 4)
    other.lagging = True
    assert (some.slowest(), some.held()) == (None, 0)
