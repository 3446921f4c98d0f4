"""The bars: what is promised of speed and size, as ratios. This table says what; `measurements` says how.

`baseline` is the naive client in `benchmarks.baselines.naive`; `raw msgspec` is the same struct decoded and
encoded with nothing around it; the echo servers and clients are in `benchmarks.baselines.echo`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure and what it has to reach.

    Attributes:
        id: the family, `C1` to `I1`; several figures may belong to one.
        part: which figure of the family; "" when there is only one.
        text: what is divided by what.
        bar: to be met.
        stretch: where to go once the bar is met.
        at_least: the figure must be at least the bar; otherwise at most.
        exact: a counter, the same in every run; otherwise a measured ratio.
    """

    id: str
    part: str
    text: str
    bar: float
    stretch: float | None = None
    at_least: bool = False
    exact: bool = False

    def met(self, value: float) -> bool:
        return value >= self.bar if self.at_least else value <= self.bar

    def stretched(self, value: float) -> bool:
        if self.stretch is None:
            return False
        return value >= self.stretch if self.at_least else value <= self.stretch

    def verdict(self, value: float) -> str:
        if self.stretched(value):
            return "stretch"
        if self.met(value):
            return "met"
        distance = self.bar / value - 1 if self.at_least else value / self.bar - 1
        return f"missed by {distance:.0%}"


_C1 = "decode to a frame, payload unread, against a raw msgspec decoder of the same struct"
_C2 = "encode, against a raw msgspec encoder"
_C3 = "how many times faster than the baseline codec"
_E1 = "enqueue through server and SQLite, rate against no-op requests"
_S3 = "memory of an idle client that is logged in, against a bare websockets connection of its kind"
_T2 = "client CPU per request against a bare websockets echo loop's per message"

BARS: tuple[Bar, ...] = (
    Bar("C1", "request", _C1, 1.5, 1.3),
    Bar("C1", "response", _C1, 1.5, 1.3),
    Bar("C1", "event", _C1, 1.5, 1.3),
    Bar("C1", "64 KiB", _C1, 1.15),
    Bar("C2", "request", _C2, 1.3, 1.1),
    Bar("C2", "response", _C2, 1.3, 1.1),
    Bar("C3", "encode", _C3, 7, 15, at_least=True),
    Bar("C3", "decode request", _C3, 8, 15, at_least=True),
    Bar("C3", "decode response", _C3, 3.5, 15, at_least=True),
    Bar("C3", "decode event", _C3, 4.5, 15, at_least=True),
    Bar("C3", "decode 64 KiB", _C3, 1.8, 15, at_least=True),
    Bar("C4", "", "MessagePack decode, payload decoded, against raw two-step msgspec", 1.3),
    Bar("C5", "decode", "portable codec against the baseline codec", 1.15),
    Bar("C5", "encode", "portable codec against the baseline codec", 0.8),
    Bar("C6", "malformed", "rejecting a malformed frame against accepting a good one of that size", 8),
    Bar("C6", "bad payload", "refusing a payload against reading a good one of that size", 8),
    Bar("C6", "hostile 64 KiB", "the worst hostile 64 KiB frame against accepting a good one", 3),
    Bar("T1", "64", "asyncio client, CPU per request in flight against the baseline", 1 / 3, 1 / 4.5),
    Bar("T1", "256", "asyncio client, CPU per request in flight against the baseline", 1 / 3, 1 / 4.5),
    Bar("T2", "64", _T2, 1.0, 0.7),
    Bar("T2", "256", _T2, 1.0, 0.7),
    Bar("T3", "p50", "sequential requests: median round trip against a bare websockets echo", 1.1, 0.9),
    Bar("T3", "CPU", "sequential requests: CPU against the baseline", 0.65),
    Bar(
        "T1", "trio 64", "trio client, CPU per request in flight against a naive one on trio", 1 / 3, 1 / 4.5
    ),
    Bar(
        "T1", "trio 256", "trio client, CPU per request in flight against a naive one on trio", 1 / 3, 1 / 4.5
    ),
    Bar("T1", "sync 16", "sync client, CPU per request of 16 threads against a naive one", 1.0),
    Bar(
        "T3",
        "trio p50",
        "sequential requests: median round trip against a bare websockets.trio echo",
        1.1,
        0.9,
    ),
    Bar("T3", "trio CPU", "sequential requests: CPU against a naive client on trio", 0.65),
    Bar(
        "T3",
        "sync p50",
        "sequential requests: median round trip against a bare websockets.sync echo",
        1.1,
        0.9,
    ),
    Bar("T3", "sync CPU", "sequential requests: CPU against a naive sync client", 0.65),
    Bar("T4", "", "sync client: sequential CPU against a bare websockets.sync echo", 0.6, 0.4),
    Bar("T5", "64", "trio client: CPU per request in flight against a bare websockets.trio echo", 0.4, 0.25),
    Bar("T5", "256", "trio client: CPU per request in flight against a bare websockets.trio echo", 0.4, 0.25),
    Bar("T5", "sequential", "trio client: sequential CPU against a bare websockets.trio echo", 0.8),
    Bar("T6", "CPU", "event iterator with decoded data: CPU per event against the baseline", 0.55, 0.25),
    Bar("T6", "backlog", "rate of draining 200,000 waiting events against 2,000", 0.8, at_least=True),
    Bar("T6", "trio CPU", "event iterator with decoded data: CPU against a naive client on trio", 0.55, 0.25),
    Bar("T6", "trio backlog", "rate of draining 200,000 waiting events against 2,000", 0.8, at_least=True),
    Bar("T6", "sync CPU", "event iterator with decoded data: CPU against a naive sync client", 0.55, 0.25),
    Bar("T6", "sync backlog", "rate of draining 200,000 waiting events against 2,000", 0.8, at_least=True),
    Bar("D1", "pipelined", "function calls a request, 64 in flight, all libraries", 80, 50, exact=True),
    Bar("D1", "sequential", "function calls a request, one at a time, all libraries", 150, 105, exact=True),
    Bar("D1", "trio pipelined", "the same on trio", 80, 50, exact=True),
    Bar("D1", "trio sequential", "the same on trio", 150, 105, exact=True),
    Bar("D1", "sync sequential", "the same without a loop, in all threads", 150, 105, exact=True),
    Bar("D2", "pipelined", "socket writes a request, 64 in flight", 0.1, exact=True),
    Bar("D2", "sequential", "socket writes a request, one at a time", 1, exact=True),
    Bar("D2", "trio pipelined", "the same on trio", 0.1, exact=True),
    Bar("D2", "trio sequential", "the same on trio", 1, exact=True),
    Bar("D2", "sync sequential", "the same without a loop", 1, exact=True),
    Bar(
        "D3",
        "encodes",
        "encodes per event, codec and label, whatever the number of subscribers",
        1,
        exact=True,
    ),
    Bar("D3", "writes", "writes per connection and loop turn", 1, exact=True),
    Bar("S1", "", "server CPU per pipelined no-op request against a bare websockets echo server", 0.7, 0.4),
    Bar("S2", "single", "fan-out CPU per delivery against websockets.broadcast()", 0.7),
    Bar("S2", "bursts of 8", "fan-out CPU per delivery against websockets.broadcast()", 0.2),
    Bar("S3", "", "memory of an idle authenticated connection against a bare websockets server's", 0.8, 0.5),
    Bar("S3", "asyncio client", _S3, 0.8, 0.5),
    Bar("S3", "trio client", _S3, 0.8, 0.5),
    Bar("S3", "sync client", _S3, 0.8, 0.5),
    Bar(
        "Q1",
        "",
        "64 concurrent durable enqueues, rate against a call and transaction each",
        4,
        6,
        at_least=True,
    ),
    Bar("Q2", "enqueue", "store CPU against the loop of its own raw SQL", 1.5),
    Bar("Q2", "claim, complete", "store CPU against the loop of its own raw SQL", 1.5),
    Bar("Q2", "tens", "claim and complete in tens, jobs per CPU against ones", 2, at_least=True),
    Bar("E1", "with the client", _E1, 0.3, 0.5, at_least=True),
    Bar("E1", "bare load", _E1, 0.3, 0.5, at_least=True),
    Bar("I1", "import dispatch", "against import asyncio, json, websockets.client, CPU", 2),
    Bar("I1", "with the client", "from dispatch import Dispatch, against the same", 2),
    Bar("I1", "trio client", "dispatch.trio, against import trio, json, websockets.trio.client", 2),
    Bar("I1", "sync client", "dispatch.sync, against import json, websockets.sync.client", 2),
)


def find(id: str, part: str = "") -> Bar:
    for bar in BARS:
        if bar.id == id and bar.part == part:
            return bar
    raise KeyError(f"no bar {id} {part!r}: those of {id} are {[bar.part for bar in BARS if bar.id == id]}")
