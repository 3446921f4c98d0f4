"""D1, D2 and D3: exact counters, the same in every run. `tests/bindings/test_counters.py` holds them to their bars.

The profiler sees every function call of its thread, Python's and C's, in all libraries. The other end of the
conversation runs in another thread and answers whole windows at a time, so that the conversation does not depend on
who is faster.
"""

from __future__ import annotations

import asyncio
import cProfile
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import Effort, Figure, Figures
from benchmarks.load import Connection
from benchmarks.peer import JOB_ID, PeerThread, port_of
from dispatch import Dispatch
from dwp_core.events import LoggedEvent

PYTHON = (3, 11)
"""The Python that the counts of D1 belong to: another one calls other things inside asyncio."""

_WRITES = ("'send' of '_socket.socket'", "'sendmsg' of '_socket.socket'", "'sendall' of '_socket.socket'")


@dataclass(frozen=True, slots=True)
class Counts:
    """What one request took."""

    calls: float
    writes: float


def count_requests(width: int, *, windows: int = 20) -> Counts:
    """Calls and socket writes per request of the asyncio client with `width` requests in flight."""
    with PeerThread(together=width) as url:
        return asyncio.run(_count_requests(url, width, windows))


async def _count_requests(url: str, width: int, windows: int) -> Counts:
    data = {"job_id": JOB_ID}
    async with Dispatch(url=url, token="dk_full") as client:

        async def caller(count: int) -> None:
            for _ in range(count):
                await client.call("job.get", data)

        async def window(count: int) -> None:
            await asyncio.gather(*[caller(count) for _ in range(width)])

        await window(3)
        profile = cProfile.Profile()
        profile.enable()
        await window(windows)
        profile.disable()
    return count(profile, width * windows)


def count(profile: cProfile.Profile, operations: int) -> Counts:
    """What the profile has seen, per operation."""
    stats: list[Any] = profile.getstats()
    calls = sum(entry.callcount for entry in stats)
    writes = sum(entry.callcount for entry in stats if any(name in _name(entry.code) for name in _WRITES))
    return Counts(calls / operations, writes / operations)


def _name(code: Any) -> str:
    return code if isinstance(code, str) else str(code.co_qualname)


def measure_client(effort: Effort) -> Figures:
    del effort  # a count takes as long as it takes
    pipelined, sequential = count_requests(64), count_requests(1, windows=200)
    return {
        ("D1", "pipelined"): Figure.exact(pipelined.calls),
        ("D1", "sequential"): Figure.exact(sequential.calls),
        ("D2", "pipelined"): Figure.exact(pipelined.writes),
        ("D2", "sequential"): Figure.exact(sequential.writes),
    }


@dataclass(frozen=True, slots=True)
class FanOutCounts:
    """What events took that went to several connections.

    Attributes:
        encodes: frames made, per event and pair of codec and label that somebody is sent.
        writes: socket writes, per connection and turn of the loop.
    """

    encodes: float
    writes: float


def count_fan_out(each: int, *, turns: int = 5, burst: int = 8) -> FanOutCounts:
    """Events on a real server with `each` subscribers of three kinds: JSON, MessagePack, and JSON that is base DWP."""
    return asyncio.run(_count_fan_out(each, turns, burst))


_KINDS = 3


async def _count_fan_out(each: int, turns: int, burst: int) -> FanOutCounts:
    from dispatch.server.server import DispatchServer
    from dispatch.server.ws import WebSocketConnection
    from dispatch.store.memory import MemoryStore

    server = DispatchServer(MemoryStore())
    await server.start()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: WebSocketConnection(server), "127.0.0.1", 0)
    subscribers = Subscribers(f"ws://127.0.0.1:{port_of(listening)}/dwp", each)
    await loop.run_in_executor(None, subscribers.start)
    profile = cProfile.Profile()
    for turn in range(turns):
        events = [event_logged(server.hub.head + number + 1) for number in range(burst)]
        if turn:  # the first events find everybody their place
            profile.enable()
        server._broker.publish(events)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        profile.disable()
    await loop.run_in_executor(None, subscribers.stop, turns * burst)
    listening.close()
    await server.stop(0)
    stats: list[Any] = profile.getstats()
    encodes = sum(entry.callcount for entry in stats if _name(entry.code).endswith("Codec.encode"))
    return FanOutCounts(
        encodes / ((turns - 1) * burst * _KINDS), count(profile, (turns - 1) * each * _KINDS).writes
    )


def event_logged(seq: int) -> LoggedEvent:
    data = b'{"job_id":"%b","job_name":"send-email","queue":"default","state":"completed"}' % JOB_ID.encode()
    return LoggedEvent(seq, "job.completed", 1795340954349296251, f"job:{JOB_ID}", "default", "", "", data)


class Subscribers:
    """Connections that listen to `jobs`, on a loop in a thread of their own."""

    def __init__(self, url: str, each: int) -> None:
        self._url = url
        self._each = each
        self._runner = asyncio.Runner()
        self._clients: list[Dispatch] = []
        self._streams: list[Any] = []
        self._base: list[Connection] = []

    def start(self) -> None:
        self._runner.run(self._start())

    def stop(self, events: int) -> None:
        """Wait until everybody has so many events, and go."""
        self._runner.run(self._stop(events))
        self._runner.close()

    async def _start(self) -> None:
        for format in ("json", "msgpack"):
            for _ in range(self._each):
                client = Dispatch(url=self._url, format=format)
                await client.connect()
                self._clients.append(client)
                self._streams.append(aiter(await client.subscribe("jobs")))
        for _ in range(self._each):
            connection = await Connection.open(self._url, "dk", features=[])
            await connection.ask("subscribe", {"channel": "jobs"})
            connection.count_only()
            self._base.append(connection)

    async def _stop(self, events: int) -> None:
        for stream in self._streams:
            for _ in range(events):
                await asyncio.wait_for(anext(stream), 20)
        for connection in self._base:
            await connection.more(events)
            connection.close()
        for client in self._clients:
            await client.close()


def measure_fan_out(effort: Effort) -> Figures:
    del effort
    counts = count_fan_out(20)
    return {("D3", "encodes"): Figure.exact(counts.encodes), ("D3", "writes"): Figure.exact(counts.writes)}
