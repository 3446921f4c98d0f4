"""EventStreamSession: what a reader of server-sent events may have, and gets (PROTOCOL.md section 8)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dwp_core.effects import AbortTransport, CloseTransport
from dwp_core.errors import DispatchError
from dwp_core.events import LoggedEvent
from dwp_core.http_events import EventStreamSession
from dwp_core.hub import Hub
from dwp_core.server_events import Identity, LoginReceived, ReadLog, ServerConfig, SessionClosed
from dwp_core.sse import COMMENT
from tests.core.serving import EPOCH_NS, event

READER = Identity("reader", scopes=frozenset(("subscribe",)))


class Reader:
    """One stream, seen from its reader."""

    def __init__(
        self, *channels: str, hub: Hub | None = None, config: ServerConfig | None = None, **more: str
    ) -> None:
        self.hub = hub or Hub(log="log-1", epoch_ns=EPOCH_NS)
        self.session = EventStreamSession(
            config=config or ServerConfig(),
            hub=self.hub,
            session_id="sse_1",
            now=0.0,
            epoch_ns=EPOCH_NS,
            owner=self,
            channels=channels,
            **more,
        )

    def accepted(self, identity: Identity = READER) -> Reader:
        assert self.session.take_events() == [LoginReceived("")]
        self.session.accept(identity, now=0.0)
        return self

    def refusal(self) -> tuple[int, str]:
        """Status and message; there was no stream."""
        [message] = self.session.take_messages()
        assert self.session.next_deadline is None
        assert self.hub.subscribers == 0
        error = json.loads(message)["error"]
        assert error["code"] == self.session.status
        return self.session.status, error["message"]

    def blocks(self) -> list[dict[str, str]]:
        """What came, block by block."""
        text = b"".join(self.session.take_messages()).decode()
        blocks = [block.split("\n") for block in text.split("\n\n")[:-1]]
        return [dict(line.split(": ", 1) for line in block if line != ":") for block in blocks]

    def ids(self) -> list[str]:
        return [block["id"] for block in self.blocks() if "event" in block]

    def publish(self, *events: LoggedEvent) -> None:
        """The hub's part and the driver's."""
        for fanout in self.hub.publish(events, now=0.0):
            assert not fanout.binary
            for owner in fanout.to:
                owner.session._out.messages += fanout.messages
        for owner in self.hub.take_behind():
            owner.session.pump(now=0.0)


# ── who may have what ──


def test_the_token_is_judged_first() -> None:
    reader = Reader("nope", token="dk_1", since="never")
    assert reader.session.take_events() == [LoginReceived("dk_1")]
    reader.session.reject(now=0.0)
    assert reader.refusal() == (401, "authentication failed")
    reader.session.accept(READER, now=0.0)
    assert reader.session.take_messages() == []


def test_then_the_scope() -> None:
    reader = Reader("nope").accepted(Identity("admin", scopes=frozenset(("admin",))))
    assert reader.refusal() == (403, "insufficient permissions")


def test_then_the_channels() -> None:
    assert Reader("jobs", "nope").accepted().refusal()[0] == 400
    assert Reader().accepted().refusal() == (
        400,
        "channel is missing: name at least one, as in ?channel=jobs",
    )


def test_one_stream_has_so_many_channels() -> None:
    config = ServerConfig(subscriptions=2)
    assert Reader("jobs", "workflows", "firehose", config=config).accepted().refusal() == (
        429,
        "at most 2 channels at a time",
    )
    assert Reader("jobs", "jobs", "firehose", config=config).accepted().session.status == 200


@pytest.mark.parametrize("text", ["-1", "1.5", "٣", "soon", "1" * 20])
def test_a_place_in_the_log_is_a_number_or_its_start(text: str) -> None:
    expected = f'must be the seq of an event or "start", got "{text}"'
    assert Reader("jobs", since=text).accepted().refusal() == (400, f"since {expected}")
    assert Reader("jobs", last_event_id=text).accepted().refusal() == (400, f"Last-Event-ID {expected}")


def test_what_the_log_has_not_reached_is_400() -> None:
    status, message = Reader("jobs", since="8", hub=Hub(head=7, log="log-1")).accepted().refusal()
    assert status == 400
    assert "log log-1 ends at 7" in message


def test_what_its_server_does_not_serve_is_405() -> None:
    config = ServerConfig(methods=frozenset(("stats",)))
    assert Reader("jobs", config=config).accepted().refusal()[0] == 405


def test_the_driver_may_refuse_first() -> None:
    reader = Reader("jobs")
    reader.session.refuse(DispatchError("no", code=403), now=0.0)
    reader.session.accept(READER, now=0.0)
    assert reader.refusal() == (403, "no")


def test_a_key_that_is_not_judged_in_time_is_401() -> None:
    reader = Reader("jobs", config=ServerConfig(auth_timeout=5.0))
    assert reader.session.next_deadline == 5.0
    reader.session.handle_timer(now=5.0)
    assert reader.refusal() == (401, "authentication timed out")


# ── the stream ──


def test_a_stream_begins_with_where_it_begins_and_brings_what_is_published() -> None:
    reader = Reader("jobs", hub=Hub(head=7, epoch_ns=EPOCH_NS)).accepted()
    assert reader.session.status == 200
    assert reader.blocks() == [{"retry": "3000", "id": "7"}]
    reader.publish(event(8), event(9, "workflow.started"), event(10))
    first, second = reader.blocks()
    assert (first["id"], first["event"]) == ("8", "job.completed")
    assert json.loads(first["data"])["seq"] == 8
    assert second["id"] == "10"


def test_an_event_on_two_channels_comes_once_and_another_tenants_never() -> None:
    reader = Reader("jobs", "queue:mail").accepted()
    reader.blocks()
    reader.publish(event(1), event(2, app="other"))
    assert reader.ids() == ["1"]


def test_an_event_is_written_once_for_all_readers() -> None:
    hub = Hub(epoch_ns=EPOCH_NS)
    readers = [Reader("jobs", hub=hub).accepted() for _ in range(5)]
    for reader in readers:
        reader.blocks()
    readers[0].publish(event(1))
    assert [reader.ids() for reader in readers] == [["1"]] * 5
    assert hub.encodings == 1


def test_a_reader_goes_on_where_it_was_and_the_header_counts() -> None:
    hub = Hub(epoch_ns=EPOCH_NS)
    hub.publish([event(n) for n in range(1, 6)], now=0.0)
    reader = Reader("jobs", "firehose", hub=hub, since="1", last_event_id="3").accepted()
    assert [block["id"] for block in reader.blocks()] == ["3", "4", "5"]
    reader.publish(event(6))
    assert reader.ids() == ["6"]


def test_from_the_start_is_from_the_oldest_without_a_gap() -> None:
    hub = Hub(head=2, oldest=3, epoch_ns=EPOCH_NS)
    hub.publish([event(3), event(4)], now=0.0)
    reader = Reader("jobs", hub=hub, since="start").accepted()
    assert [block["id"] for block in reader.blocks()] == ["2", "3", "4"]


def test_what_retention_has_removed_is_told_once() -> None:
    hub = Hub(head=9, oldest=10, epoch_ns=EPOCH_NS)
    hub.publish([event(10)], now=0.0)
    reader = Reader("jobs", "firehose", hub=hub, since="4").accepted()
    beginning, gap, first = reader.blocks()
    assert beginning["id"] == "4"
    assert (gap["event"], gap["id"]) == ("gap", "9")
    assert json.loads(gap["data"]) == {"type": "gap", "data": {"from": 5, "to": 9}}
    assert first["id"] == "10"


def test_what_the_hub_does_not_have_any_more_is_read_from_the_log() -> None:
    hub = Hub(head=5, oldest=1, epoch_ns=EPOCH_NS)
    reader = Reader("jobs", hub=hub, since="2").accepted()
    assert [block["id"] for block in reader.blocks()] == ["2"]
    [read] = reader.session.take_effects()
    assert isinstance(read, ReadLog)
    assert read.after == 2
    reader.session.log_read([event(3), event(4), event(5)], after=2, through=5, now=0.0)
    assert reader.ids() == ["3", "4", "5"]


def test_a_reader_that_is_too_slow_is_told_what_it_missed_and_goes_on() -> None:
    hub = Hub(head=5, oldest=1, epoch_ns=EPOCH_NS)
    reader = Reader("jobs", hub=hub, since="2").accepted()
    reader.blocks()
    reader.session.take_effects()
    hub.retained(5)
    reader.session.log_read([event(3), event(4), event(5)], after=2, through=5, now=0.0)
    [gap] = reader.blocks()
    assert json.loads(gap["data"])["data"] == {"from": 3, "to": 4}
    assert reader.session.next_deadline is not None
    reader.session.handle_timer(now=reader.session.next_deadline)
    reader.blocks()
    [read] = reader.session.take_effects()
    assert isinstance(read, ReadLog)
    assert read.after == 4


# ── time ──


def test_a_comment_comes_every_15_seconds() -> None:
    reader = Reader("jobs").accepted()
    reader.session.take_messages()
    assert reader.session.next_deadline == 15.0
    reader.session.handle_timer(now=14.0)
    assert reader.session.take_messages() == []
    reader.session.handle_timer(now=15.0)
    assert reader.session.take_messages() == [COMMENT]
    assert reader.session.next_deadline == 30.0


def test_a_reader_that_takes_nothing_gets_no_comments_and_is_left() -> None:
    config = ServerConfig(stall_timeout=20.0)
    reader = Reader("jobs", config=config).accepted()
    reader.session.take_messages()
    reader.session.write_blocked(now=1.0)
    reader.session.handle_timer(now=15.0)
    assert reader.session.take_messages() == []
    assert reader.session.next_deadline == 21.0
    reader.session.handle_timer(now=21.0)
    assert reader.session.take_effects() == [AbortTransport(0, "the peer took nothing for 20 s")]
    assert reader.session.next_deadline is None
    assert reader.hub.subscribers == 0


def test_what_a_slow_reader_does_not_take_stays_in_the_log() -> None:
    reader = Reader("jobs").accepted()
    reader.blocks()
    reader.session.write_blocked(now=0.0)
    reader.publish(*[event(n) for n in range(1, 11)])
    assert reader.session.take_messages() == []
    reader.session.write_progress(now=1.0)
    reader.session.write_resumed(now=1.0)
    assert reader.ids() == [str(n) for n in range(1, 11)]


# ── the end ──


def test_a_reader_that_leaves_leaves_nothing_behind() -> None:
    reader = Reader("jobs").accepted()
    reader.publish(event(1))
    reader.session.transport_closed(now=0.0)
    assert reader.session.take_events() == [SessionClosed("the connection was closed")]
    assert (reader.hub.subscribers, reader.hub.channels) == (0, 0)
    assert reader.session.next_deadline is None


def test_a_server_that_stops_says_so_and_ends_the_stream() -> None:
    reader = Reader("jobs").accepted()
    reader.blocks()
    reader.session.drain(deadline=5.0, retry_after=1.0, now=0.0)
    [drain] = reader.blocks()
    assert drain["event"] == "drain"
    assert "id" not in drain
    assert json.loads(drain["data"])["data"] == {"deadline_ms": 5000, "retry_after_ms": 1000}
    assert reader.session.take_effects() == [CloseTransport(0, 1001, "the server is going away")]


def test_a_stream_that_has_not_begun_is_503_then() -> None:
    reader = Reader("jobs")
    reader.session.drain(deadline=5.0, retry_after=1.0, now=0.0)
    reader.session.accept(READER, now=0.0)
    assert reader.refusal()[0] == 503


def test_a_reader_has_nothing_to_say() -> None:
    reader = Reader("jobs").accepted()
    said: Any = reader.session.take_messages()
    reader.session.receive_message(b"hello", now=0.0)
    assert said
    assert reader.session.take_messages() == []
