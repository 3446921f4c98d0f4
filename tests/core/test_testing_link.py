"""A simulated connection keeps order and loses nothing until it is told to (dwp_core/testing/link.py, framing.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest

from dwp_core.testing import Link, VirtualClock, Weather
from dwp_core.testing.framing import CLOSE, TEXT, Unpacker, pack, pack_close, read_close


@dataclass
class Recorder:
    """A handler that remembers what it was told."""

    clock: VirtualClock
    messages: list[bytes] = field(default_factory=list)
    ends: list[tuple[int, str]] = field(default_factory=list)
    pressure: list[str] = field(default_factory=list)

    def message(self, data: bytes) -> None:
        self.messages.append(data)

    def closed(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))

    def write_blocked(self) -> None:
        self.pressure.append("blocked")

    def write_progress(self) -> None:
        self.pressure.append("progress")

    def write_resumed(self) -> None:
        self.pressure.append("resumed")


class Joined:
    """A link with a recorder at each end."""

    def __init__(self, to_server: Weather | None = None, to_client: Weather | None = None) -> None:
        self.clock = VirtualClock()
        self.link = Link(
            self.clock, Random(1), to_server=to_server or Weather(), to_client=to_client or Weather()
        )
        self.client, self.server = Recorder(self.clock), Recorder(self.clock)
        self.link.client.attach(self.client)
        self.link.server.attach(self.server)


MESSAGES = [b"", b"{}", b"x" * 300, b'{"a":1}']


@pytest.mark.parametrize("chunk", [0, 1, 2, 5, 100])
def test_messages_arrive_whole_and_in_order_in_whatever_pieces_they_travel(chunk: int) -> None:
    joined = Joined(Weather(latency=0.1, jitter=0.5, chunk=chunk))
    for message in MESSAGES:
        joined.link.client.send(message)
    joined.clock.run_for(1.0)
    assert joined.server.messages == MESSAGES


def test_an_unpacker_gives_nothing_before_a_message_is_whole() -> None:
    unpacker = Unpacker()
    whole = pack(TEXT, b"hello")
    for byte in whole[:-1]:
        unpacker.feed(bytes((byte,)))
        assert unpacker.next() is None
    unpacker.feed(whole[-1:])
    assert unpacker.next() == (TEXT, b"hello")


def test_a_close_travels_with_its_code_and_reason() -> None:
    unpacker = Unpacker()
    unpacker.feed(pack_close(1001, "good bye"))
    unit = unpacker.next()
    assert unit is not None
    assert unit[0] == CLOSE
    assert read_close(unit[1]) == (1001, "good bye")


def test_a_close_is_answered_and_both_ends_know_the_code() -> None:
    joined = Joined()
    joined.link.server.send(b"last")
    joined.link.server.close(1001, "bye")
    joined.link.server.close(1000, "again")
    joined.link.server.send(b"too late")
    joined.clock.run_for(1.0)
    assert joined.client.messages == [b"last"]
    assert joined.client.ends == joined.server.ends == [(1001, "bye")]
    assert joined.link.over


def test_two_closes_at_once_end_the_connection_once() -> None:
    joined = Joined()
    joined.link.server.close(1001)
    joined.link.client.close(1000)
    joined.clock.run_for(1.0)
    assert len(joined.client.ends) == len(joined.server.ends) == 1


def test_after_an_abort_the_other_end_learns_of_it_and_this_one_is_silent() -> None:
    joined = Joined()
    joined.link.client.send(b"never sent")
    joined.link.client.abort()
    joined.link.client.abort()
    joined.link.client.close(1000)
    joined.link.server.send(b"to nobody")
    joined.clock.run_for(1.0)
    assert joined.server.ends == [(1006, "the connection was lost")]
    assert joined.client == Recorder(joined.clock)


def test_a_cut_loses_what_is_under_way_and_tells_both_ends_at_once() -> None:
    joined = Joined(Weather(latency=1.0), Weather(latency=1.0))
    joined.link.client.send(b"under way")
    joined.clock.run_for(0.5)
    joined.link.client.send(b"not yet gone")
    joined.link.cut()
    joined.link.cut()
    assert joined.client.ends == joined.server.ends == [(1006, "the connection was lost")]
    joined.clock.run_for(5.0)
    assert joined.server.messages == []


def test_a_connection_can_be_cut_between_any_two_bytes() -> None:
    wire = b"".join(pack(TEXT, message) for message in MESSAGES)
    ends = [len(b"".join(pack(TEXT, m) for m in MESSAGES[: n + 1])) for n in range(len(MESSAGES))]
    for cut in range(len(wire) + 1):
        joined = Joined(Weather(chunk=7))
        joined.link.to_server.cut_after = cut
        for message in MESSAGES:
            joined.link.client.send(message)
        joined.clock.run_for(1.0)
        assert joined.server.messages == MESSAGES[: sum(end <= cut for end in ends)]
        assert joined.link.over
        assert joined.link.to_server.delivered == cut


@pytest.mark.parametrize("direction", ["to_server", "to_client", "both"])
def test_a_half_open_connection_is_silent_in_the_dead_direction_and_tells_nobody(direction: str) -> None:
    joined = Joined()
    joined.link.client.send(b"on its way")
    joined.link.vanish(to_server=direction != "to_client", to_client=direction != "to_server")
    joined.link.server.send(b"hello")
    joined.clock.run_for(60.0)
    joined.link.client.abort()
    joined.clock.run_for(60.0)
    assert joined.server.messages == ([b"on its way"] if direction == "to_client" else [])
    assert joined.client.messages == ([b"hello"] if direction == "to_server" else [])
    assert bool(joined.server.ends) == (direction == "to_client")


def test_what_travels_when_a_direction_dies_does_not_arrive() -> None:
    joined = Joined(Weather(latency=1.0))
    joined.link.client.send(b"under way")
    joined.clock.run_for(0.5)
    joined.link.vanish()
    joined.clock.run_for(5.0)
    assert joined.server.messages == []


def test_a_stalled_link_goes_on_afterwards() -> None:
    joined = Joined()
    joined.link.client.send(b"first")
    joined.link.stall(5.0)
    joined.clock.run_for(4.0)
    assert joined.server.messages == []
    joined.link.client.send(b"second")
    joined.clock.run_for(2.0)
    assert joined.server.messages == [b"first", b"second"]


def test_who_writes_too_much_is_told_to_wait_and_when_to_go_on() -> None:
    joined = Joined(Weather(buffer=100, window=40))
    joined.link.client.send(b"x" * 400)
    assert joined.client.pressure == ["blocked"]
    joined.link.client.send(b"y")
    joined.clock.run_for(10.0)
    assert joined.client.pressure[-1] == "resumed"
    assert set(joined.client.pressure[1:-1]) == {"progress"}
    assert joined.server.messages == [b"x" * 400, b"y"]


def test_a_full_buffer_that_nobody_listens_to_empties_all_the_same() -> None:
    clock = VirtualClock()
    link = Link(clock, Random(1), to_server=Weather(buffer=10, window=10))
    server = Recorder(clock)
    link.server.attach(server)
    link.client.send(b"x" * 100)
    clock.run_for(1.0)
    assert server.messages == [b"x" * 100]


def test_who_does_not_read_slows_the_writer_down() -> None:
    joined = Joined(Weather(buffer=100, window=40))
    joined.link.server.pause_reading()
    joined.link.client.send(b"x" * 200)
    joined.clock.run_for(60.0)
    assert joined.client.pressure == ["blocked", "progress"]
    assert joined.server.messages == []
    joined.link.server.resume_reading()
    joined.clock.run_for(60.0)
    assert joined.server.messages == [b"x" * 200]


def test_an_end_can_stop_reading_between_two_messages_that_came_together() -> None:
    joined = Joined()
    end = joined.link.server

    class Careful(Recorder):
        def message(self, data: bytes) -> None:
            super().message(data)
            end.pause_reading()

    careful = Careful(joined.clock)
    end.attach(careful)
    for message in (b"1", b"2", b"3"):
        joined.link.client.send(message)
    joined.clock.run_for(1.0)
    assert careful.messages == [b"1"]
    end.resume_reading()
    assert careful.messages == [b"1", b"2"]
    end.resume_reading()
    assert careful.messages == [b"1", b"2", b"3"]


def test_what_comes_before_anybody_listens_is_kept() -> None:
    clock = VirtualClock()
    link = Link(clock, Random(1))
    link.client.send(b"early")
    clock.run_for(1.0)
    server = Recorder(clock)
    link.server.attach(server)
    assert server.messages == [b"early"]


def test_a_link_may_end_before_anybody_listens() -> None:
    clock = VirtualClock()
    link = Link(clock, Random(1))
    link.cut()
    assert link.over


def test_the_weather_can_change() -> None:
    joined = Joined()
    joined.link.change(latency=3.0)
    joined.link.client.send(b"slow")
    joined.clock.run_for(2.0)
    assert joined.server.messages == []
    joined.clock.run_for(2.0)
    assert joined.server.messages == [b"slow"]


def test_weather_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="latency"):
        Weather(latency=-1.0)
