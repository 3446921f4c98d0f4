"""What was committed goes to everybody who wants it, encoded once (`dwp_core.hub`)."""

from __future__ import annotations

import pytest

from dwp_core.codec import get_codec
from dwp_core.events import event_data
from dwp_core.hub import Entry, Hub
from dwp_core.server_events import Identity
from tests.core.serving import EPOCH_NS, JOB, Client, event, numbers

OTHER = "job_01h455vb4pex5vsknk084sn02r"


def clients(hub: Hub, count: int, channel: str = "jobs", **login: object) -> list[Client]:
    made = []
    for _ in range(count):
        client = Client(hub=hub)
        client.login(**login)  # type: ignore[arg-type]
        client.subscribe(channel)
        made.append(client)
    return made


# ── what an event looks like ──


def test_a_negotiated_peer_gets_an_event_under_its_own_topic_with_its_seq() -> None:
    [client] = clients(Hub(epoch_ns=EPOCH_NS), 1)
    [frame] = client.publish(event(7))
    assert frame["type"] == "event"
    assert frame["channel"] == f"job:{JOB}"
    assert frame["data"] == {
        "type": "job.completed",
        "ts": "2026-01-02T03:04:05Z",
        "topic": f"job:{JOB}",
        "seq": 7,
        "data": {"n": 7},
    }


def test_a_base_peer_gets_it_labelled_with_the_subscribed_channel_and_without_seq() -> None:
    [client] = clients(Hub(epoch_ns=EPOCH_NS), 1, features=None)
    [frame] = client.publish(event(7))
    assert frame["channel"] == "jobs"
    assert frame["data"]["topic"] == f"job:{JOB}"
    assert "seq" not in frame["data"]


def test_a_peer_without_resume_gets_it_once_and_without_seq() -> None:
    [client] = clients(Hub(epoch_ns=EPOCH_NS), 1, features=["wait"])
    client.subscribe("firehose", since=0)
    [frame] = client.publish(event(7))
    assert frame["channel"] == f"job:{JOB}"
    assert "seq" not in frame["data"]


def test_a_cron_event_has_no_channel() -> None:
    [client] = clients(Hub(epoch_ns=EPOCH_NS), 1, "firehose")
    [frame] = client.publish(event(1, "cron.fired", queue=""))
    assert "channel" not in frame


def test_text_is_written_as_json() -> None:
    odd = event(1)._replace(type='job."x"', topic="job:é\n")
    assert event_data(odd, numbered=False).startswith(
        '{"type":"job.\\"x\\"","ts":"2026-01-02T03:04:05Z","topic":"job:é\\n","data":'.encode()
    )


# ── who gets it ──


@pytest.mark.parametrize(
    ("channel", "wanted"),
    [
        ("firehose", [1, 2, 3, 4]),
        ("jobs", [1, 2]),
        ("workflows", [3]),
        (f"job:{JOB}", [1]),
        (f"workflow:{JOB}", [3]),
        ("queue:mail", [1]),
        ("queue:other", [2]),
    ],
)
@pytest.mark.parametrize("features", [None, ["resume"]])
def test_an_event_is_on_its_channels(channel: str, wanted: list[int], features: list[str] | None) -> None:
    [client] = clients(Hub(), 1, channel, features=features)
    said = client.publish(
        event(1),
        event(2, job=OTHER, queue="other"),
        event(3, "workflow.started", queue=""),
        event(4, "cron.fired", queue=""),
    )
    assert numbers(said) == wanted


def test_overlapping_subscriptions_bring_an_event_once() -> None:
    [client] = clients(Hub(), 1, "firehose")
    client.subscribe("jobs")
    client.subscribe("queue:mail")
    assert numbers(client.publish(event(1), event(2))) == [1, 2]


def test_overlapping_subscriptions_of_a_base_peer_bring_it_once_for_each() -> None:
    [client] = clients(Hub(), 1, "firehose", features=None)
    client.subscribe("jobs")
    client.subscribe("queue:mail")
    client.subscribe("queue:other")
    said = client.publish(event(1), event(2))
    assert [(frame["channel"], frame["data"]["data"]["n"]) for frame in said] == [
        ("firehose", 1),
        ("jobs", 1),
        ("queue:mail", 1),
        ("firehose", 2),
        ("jobs", 2),
        ("queue:mail", 2),
    ]


def test_a_tenant_gets_its_own_events_only() -> None:
    hub = Hub()
    tenants = [("", ""), ("a", ""), ("a", "o"), ("b", "o")]
    made = [
        clients(hub, 1, "firehose", identity=Identity("me", *each, frozenset("*")))[0] for each in tenants
    ]
    fanouts = hub.publish([event(n, app=app, org=org) for n, (app, org) in enumerate(tenants)][1:], now=0.0)
    assert [fanout.to for fanout in fanouts] == [[client] for client in made[1:]]
    assert all(len(fanout.messages) == 1 for fanout in fanouts)


def test_what_was_published_before_is_passed_over() -> None:
    [client] = clients(Hub(), 1)
    assert numbers(client.publish(event(1), event(2))) == [1, 2]
    assert numbers(client.publish(event(1), event(2), event(3))) == [3]
    assert client.hub.published == 3


# ── once for all ──


def test_an_event_is_encoded_once_per_codec_and_label_whatever_the_number_of_subscribers() -> None:
    hub = Hub()
    negotiated = clients(hub, 20)
    base = clients(hub, 20, features=None)
    fanouts = hub.publish([event(n) for n in range(1, 9)], now=0.0)
    assert hub.encodings == 2 * 8
    assert [len(fanout.to) for fanout in fanouts] == [20, 20]
    assert [fanout.to for fanout in fanouts] == [negotiated, base]
    clients(hub, 20)
    hub.publish([event(9)], now=0.0)
    assert hub.encodings == 2 * 8 + 2


def test_an_audience_that_ends_leaves_the_others_on_its_channels() -> None:
    hub = Hub()
    [json], [other] = clients(hub, 1), clients(hub, 1, features=None)
    hub.publish([event(1)], now=0.0)
    json.session.transport_closed(now=0.0)
    assert numbers(other.publish(event(2))) == [2]
    assert hub.channels == 1


def test_connections_that_want_the_same_share_an_audience_and_leave_none_behind() -> None:
    hub = Hub()
    made = clients(hub, 5) + clients(hub, 5, "firehose")
    hub.publish([event(1)], now=0.0)
    assert hub.channels == 2
    assert hub.subscribers == 10
    for client in made:
        client.ask("unsubscribe", {"channel": "jobs"})
    assert numbers(made[0].publish(event(2))) == []
    assert hub.channels == 1
    for client in made:
        client.session.transport_closed(now=0.0)
    assert (hub.channels, hub.subscribers) == (0, 0)
    assert hub.publish([event(3)], now=0.0) == []


# ── the ring ──


def test_the_ring_has_the_newest_events_and_says_how_far_it_reaches_back() -> None:
    hub = Hub(head=10, ring=4)
    assert hub.after(9, 5) is None
    assert hub.after(10, 5) == []
    hub.publish([event(n) for n in range(11, 20)], now=0.0)
    assert hub.after(14, 5) is None
    entries = hub.after(15, 2)
    assert entries is not None
    assert [entry.event.seq for entry in entries] == [16, 17]
    assert len(hub.after(15, 100) or []) == 4


def test_the_ring_is_bounded_in_bytes_as_well() -> None:
    hub = Hub(ring=1000, ring_bytes=100)
    big = [event(n)._replace(data=b'"%b"' % (b"x" * 38)) for n in range(1, 7)]
    hub.publish(big, now=0.0)
    assert hub.after(0, 10) is None
    assert len(hub.after(4, 10) or []) == 2
    hub.publish([event(7)._replace(data=b'"%b"' % (b"x" * 1000))], now=0.0)
    assert hub.after(7, 10) == []
    assert hub.after(6, 10) is None


def test_a_message_is_made_once_for_each_label() -> None:
    hub = Hub()
    entry, codec = Entry(event(1)), get_codec("json")
    one = hub.message(entry, codec, "jobs", numbered=False)
    assert hub.message(entry, codec, "jobs", numbered=False) is one
    assert hub.message(entry, codec, "jobs", numbered=True) != one
    assert hub.message(entry, get_codec("msgpack"), "jobs", numbered=False) != one
    assert hub.encodings == 3


def test_retention_only_moves_forward() -> None:
    hub = Hub(head=10, oldest=3)
    hub.retained(5)
    hub.retained(4)
    assert hub.oldest == 5
