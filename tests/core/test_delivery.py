"""The events of one connection: credit, cursor, gaps, back-pressure (`dwp_core.delivery`)."""

from __future__ import annotations

import pytest

from dwp_core.delivery import PAGE
from dwp_core.hub import Hub
from dwp_core.server_events import ReadLog, ServerConfig
from tests.core.serving import JOB, Client, error_of, event, numbers


def connected(
    *, credits: int = 1000, features: list[str] | None = None, hub: Hub | None = None, base: bool = False
) -> Client:
    client = Client(hub=hub, config=ServerConfig(credits=credits))
    client.login(features=None if base else features or ["resume"])
    return client


def events(first: int, last: int) -> list:
    return [event(n) for n in range(first, last + 1)]


# ── subscribing ──


def test_the_answer_tells_a_resuming_peer_where_the_log_is() -> None:
    client = connected(hub=Hub(head=41))
    assert client.subscribe("jobs") == {"channel": "jobs", "status": "subscribed", "seq": 41}
    assert connected(base=True).subscribe("jobs") == {"channel": "jobs", "status": "subscribed"}


@pytest.mark.parametrize("channel", ["", "nope", "JOBS", "job:", "x" * 600])
def test_a_channel_that_does_not_exist_is_400(channel: str) -> None:
    code, text = error_of(connected().ask("subscribe", {"channel": channel}))
    assert code == 400
    assert text.startswith("invalid channel")


def test_subscriptions_have_a_bound() -> None:
    client = Client(config=ServerConfig(subscriptions=2))
    client.login()
    client.subscribe("jobs")
    client.subscribe("firehose")
    client.subscribe("jobs")
    assert error_of(client.ask("subscribe", {"channel": "workflows"})) == (
        429,
        "subscribe: at most 2 channels at a time",
    )
    client.ask("unsubscribe", {"channel": "jobs"})
    client.subscribe("workflows")


def test_unsubscribing_from_what_was_never_subscribed_is_answered() -> None:
    client = connected()
    for _ in range(2):
        [answer] = client.ask("unsubscribe", {"channel": "never"})
        assert answer["data"] == {"channel": "never", "status": "unsubscribed"}
        client.subscribe("jobs")


def test_unsubscribed_channels_stop_at_once() -> None:
    client = connected(credits=1)
    client.subscribe("jobs")
    client.subscribe("workflows")
    assert numbers(client.publish(*events(1, 3))) == [1]
    client.ask("unsubscribe", {"channel": "jobs"})
    assert client.send({"id": "c", "type": "request", "credits": 10}) == []
    assert numbers(client.publish(event(4), event(5, "workflow.started", queue=""))) == [5]


# ── credit ──


def test_at_zero_credit_events_wait_and_continue_from_where_they_stopped() -> None:
    client = connected(credits=3)
    client.subscribe("jobs")
    assert numbers(client.publish(*events(1, 2))) == [1, 2]
    assert numbers(client.publish(*events(3, 5))) == [3]
    assert numbers(client.publish(*events(6, 8))) == []
    assert numbers(client.send({"id": "c", "type": "request", "credits": 4})) == [4, 5, 6, 7]
    assert numbers(client.send({"id": "c", "type": "request", "credits": 4})) == [8]
    assert numbers(client.publish(*events(9, 12))) == [9, 10, 11]


def test_a_request_that_carries_credits_adds_them_and_is_carried_out() -> None:
    client = connected(credits=1)
    client.subscribe("jobs")
    client.publish(*events(1, 3))
    answer, *rest = client.ask("unsubscribe", {"channel": "never"}, credits=1)
    assert answer["type"] == "response"
    assert numbers(rest) == [2]


def test_subscribe_may_carry_credits() -> None:
    client = connected(credits=1)
    client.subscribe("jobs", credits=2)
    assert numbers(client.publish(*events(1, 5))) == [1, 2, 3]


def test_a_credits_frame_gets_no_answer_and_takes_nothing_back() -> None:
    client = connected(credits=2)
    client.subscribe("jobs")
    assert client.send({"id": "c", "type": "request", "credits": 1}) == []
    assert client.send({"id": "c", "type": "request", "credits": -5}) == []
    client.ask("stats", id="s", credits=-5)
    assert client.requests() == ["s"]
    assert numbers(client.publish(*events(1, 5))) == [1, 2, 3]


def test_a_base_peer_that_never_granted_is_not_limited() -> None:
    client = connected(credits=3, base=True)
    client.subscribe("jobs")
    assert len(client.publish(*events(1, 100))) == 100


def test_a_base_peer_that_has_granted_is_limited_frame_by_frame() -> None:
    client = connected(credits=3, base=True)
    client.subscribe("firehose")
    client.subscribe("jobs")
    client.subscribe("queue:mail")
    client.send({"id": "c", "type": "request", "credits": 1})
    assert [frame["channel"] for frame in client.publish(*events(1, 3))] == [
        "firehose",
        "jobs",
        "queue:mail",
        "firehose",
    ]
    said = client.send({"id": "c", "type": "request", "credits": 1})
    assert [(frame["channel"], frame["data"]["data"]["n"]) for frame in said] == [("jobs", 2)]
    said = client.send({"id": "c", "type": "request", "credits": 2})
    assert [(frame["channel"], frame["data"]["data"]["n"]) for frame in said] == [
        ("queue:mail", 2),
        ("firehose", 3),
    ]


# ── the socket ──


def test_a_peer_whose_socket_is_full_gets_its_events_later() -> None:
    client = connected(base=True)
    client.subscribe("jobs")
    client.session.write_blocked(now=client.now)
    assert client.publish(*events(1, 3)) == []
    client.session.write_resumed(now=client.now)
    assert numbers(client.take()) == [1, 2, 3]
    assert numbers(client.publish(event(4))) == [4]


def test_a_peer_that_subscribes_while_its_socket_is_full_gets_nothing_until_it_is_not() -> None:
    client = connected()
    client.session.write_blocked(now=client.now)
    client.subscribe("jobs", since=0)
    assert client.publish(event(1)) == []
    client.session.write_blocked(now=client.now)
    client.session.write_resumed(now=client.now)
    assert numbers(client.take()) == [1]


def test_a_slow_peer_costs_the_others_nothing_and_has_no_queue() -> None:
    hub = Hub()
    slow, quick = connected(credits=1, hub=hub), connected(credits=10_000, hub=hub)
    slow.subscribe("jobs")
    quick.subscribe("jobs")
    hub.publish(events(1, 2), now=0.0)
    assert hub.take_behind() == [slow]
    [fanout] = hub.publish(events(3, 50), now=0.0)
    assert fanout.to == [quick]
    assert hub.take_behind() == []
    assert numbers(slow.take()) == [1]


def test_an_audience_of_which_all_are_behind_costs_nothing() -> None:
    client = connected(credits=1)
    client.subscribe("jobs")
    assert numbers(client.publish(*events(1, 2))) == [1]
    assert client.publish(*events(3, 4)) == []
    assert client.hub.encodings == 1


# ── going back ──


def test_since_brings_what_came_after_it_and_then_what_comes() -> None:
    hub = Hub()
    hub.publish(events(1, 5), now=0.0)
    client = connected(hub=hub)
    assert client.subscribe("jobs", since=2) == {"channel": "jobs", "status": "subscribed", "seq": 5}
    assert numbers(client.received) == [3, 4, 5]
    assert numbers(client.publish(event(6))) == [6]


def test_since_start_brings_everything_that_is_retained() -> None:
    hub = Hub(head=0, oldest=1)
    hub.publish(events(1, 5), now=0.0)
    client = connected(hub=hub)
    assert "gap" not in client.subscribe("jobs", since="start")
    assert numbers(client.received) == [1, 2, 3, 4, 5]


def test_since_above_the_head_is_400() -> None:
    client = connected(hub=Hub(head=5, log="log-1"))
    assert error_of(client.ask("subscribe", {"channel": "jobs", "since": 6})) == (
        400,
        "subscribe: since is 6, but log log-1 ends at 5; give the seq of one of its events",
    )
    client.subscribe("jobs", since=5)


def test_what_retention_has_removed_is_told_once() -> None:
    client = Client(hub=Hub(head=9, oldest=6), log=events(6, 9))
    client.login()
    assert client.subscribe("jobs", since=2)["gap"] == {"from": 3, "to": 5}
    assert numbers(client.received) == [6, 7, 8, 9]
    assert "gap" not in client.subscribe("firehose", since=5)
    assert "gap" not in client.subscribe("workflows", since="start")


def test_what_the_ring_no_longer_has_is_read_from_the_log() -> None:
    client = Client(hub=Hub(ring=4))
    client.login()
    client.publish(*events(1, 700))
    client.subscribe("jobs", since=0)
    assert numbers(client.received) == list(range(1, 701))
    assert numbers(client.publish(event(701))) == [701]


def test_only_one_page_is_read_at_a_time() -> None:
    client = Client(hub=Hub(head=700), log=events(1, 700))
    client.login()
    client.session.receive_message(
        b'{"id":"s","type":"request","method":"subscribe","data":{"channel":"jobs","since":0}}',
        now=client.now,
    )
    client.session.take_messages()
    assert client.session.take_effects() == [ReadLog(0, PAGE, "", "")]
    assert client.session.take_messages() == []
    assert client.session.take_effects() == []
    client.read_log(ReadLog(0, PAGE, "", ""))
    assert len(client.session.take_messages()) == PAGE
    assert client.session.take_effects() == [ReadLog(PAGE, PAGE, "", "")]


def test_a_long_way_back_through_the_ring_is_gone_in_steps() -> None:
    client = connected(credits=10_000)
    client.publish(*events(1, 3 * PAGE))
    client.subscribe("jobs", since=0)
    assert len(client.received) == PAGE
    assert len(client.sleep(0.01)) == 2 * PAGE
    assert client.session.next_deadline == pytest.approx(client.now + 20, abs=0.1)
    assert numbers(client.publish(event(3 * PAGE + 1))) == [3 * PAGE + 1]


def test_going_back_for_one_channel_repeats_nothing_for_the_others() -> None:
    client = connected()
    client.subscribe("queue:mail")
    assert numbers(client.publish(event(1), event(2, queue="other"), event(3))) == [1, 3]
    client.subscribe("jobs", since=1)
    assert numbers(client.received) == [2, 3]
    assert numbers(client.publish(event(4))) == [4]


def test_going_back_for_the_same_channel_repeats_its_events() -> None:
    client = connected()
    client.subscribe("jobs")
    client.publish(*events(1, 3))
    client.subscribe("jobs", since=1)
    assert numbers(client.received) == [2, 3]
    client.received.clear()
    client.subscribe("jobs")
    client.subscribe("jobs", since=3)
    assert client.received == []
    assert numbers(client.publish(event(4))) == [4]


def test_going_back_again_while_behind_loses_and_repeats_nothing() -> None:
    client = connected(credits=2)
    client.publish(*events(1, 6))
    client.subscribe("jobs", since=3)
    assert numbers(client.received) == [4, 5]
    client.received.clear()
    client.subscribe("queue:mail", since=0)
    client.subscribe("workflows")
    client.subscribe("firehose", since=6)
    said = client.send({"id": "c", "type": "request", "credits": 100})
    assert numbers(said) == [1, 2, 3, 4, 5, 6]


def test_a_page_that_was_read_for_another_place_is_void() -> None:
    client = Client(hub=Hub(head=9), log=events(1, 9))
    client.login()
    for since in (5, 2):
        client.session.receive_message(
            b'{"id":"s","type":"request","method":"subscribe","data":{"channel":"jobs","since":%d}}' % since,
            now=client.now,
        )
        client.session.take_messages()
    first, second = client.session.take_effects()
    assert isinstance(first, ReadLog)
    assert isinstance(second, ReadLog)
    client.read_log(first)
    assert client.session.take_messages() == []
    client.read_log(second)
    assert len(client.session.take_messages()) == 7
    client.read_log(second)
    assert client.session.take_messages() == []


def test_a_page_that_comes_while_the_socket_is_full_is_read_again() -> None:
    client = Client(hub=Hub(head=9), log=events(1, 9))
    client.login()
    client.session.receive_message(
        b'{"id":"s","type":"request","method":"subscribe","data":{"channel":"jobs","since":5}}',
        now=client.now,
    )
    client.session.take_messages()
    [effect] = client.session.take_effects()
    assert isinstance(effect, ReadLog)
    client.session.write_blocked(now=client.now)
    client.read_log(effect)
    assert client.session.take_messages() == []
    client.session.write_resumed(now=client.now)
    assert numbers(client.take()) == [6, 7, 8, 9]


def test_what_the_hub_has_not_published_yet_comes_once() -> None:
    client = Client(hub=Hub(head=3), log=events(1, 5))
    client.login()
    client.subscribe("jobs", since=1)
    assert numbers(client.received) == [2, 3]
    assert numbers(client.publish(*events(4, 5))) == [4, 5]


def test_the_log_is_read_for_the_tenant_only() -> None:
    client = Client(hub=Hub(), log=[])
    client.login()
    client.publish(event(1), event(2, app="a"), event(3))
    client.subscribe("jobs", since=0)
    assert numbers(client.received) == [1, 3]


# ── too slow for the log ──


def test_a_resuming_peer_whose_next_events_are_gone_is_told_when_it_comes_back() -> None:
    client = connected(credits=1)
    client.subscribe("jobs")
    client.publish(*events(1, 5))
    client.hub.retained(4)
    client.send({"id": "c", "type": "request", "credits": 100})
    assert client.close_code == 1013


def test_it_is_told_also_when_they_went_while_the_log_was_read() -> None:
    client = Client(hub=Hub(head=9), log=events(1, 9))
    client.login()
    client.session.receive_message(
        b'{"id":"s","type":"request","method":"subscribe","data":{"channel":"jobs","since":2}}',
        now=client.now,
    )
    client.session.take_messages()
    [effect] = client.session.take_effects()
    assert isinstance(effect, ReadLog)
    client.hub.retained(6)
    client.read_log(effect)
    client.take()
    assert client.close_code == 1013


def test_a_base_peer_goes_on_with_what_is_left() -> None:
    client = connected(base=True)
    client.subscribe("jobs")
    client.session.write_blocked(now=client.now)
    client.publish(*events(1, 5))
    client.hub.retained(4)
    client.session.write_resumed(now=client.now)
    assert numbers(client.take()) == [4, 5]
    assert client.close_code is None


def test_a_closed_connection_is_forgotten() -> None:
    client = connected(credits=1)
    client.subscribe(f"job:{JOB}")
    client.publish(*events(1, 2))
    client.session.close(now=client.now)
    assert client.hub.publish(events(3, 4), now=0.0) == []
    assert client.hub.subscribers == 0
