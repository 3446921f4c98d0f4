"""The naive client on trio: a reader task, an event and a deadline per request, events into a memory channel.

As `naive` does it on asyncio, and with its frames. It does no checks and survives nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
from websockets.trio.client import ClientConnection, connect

from benchmarks.baselines.naive import Frame, decode, encode


@dataclass
class Answer:
    arrived: trio.Event = field(default_factory=trio.Event)
    frame: Frame | None = None


class NaiveTrioClient:
    """Asks and subscribes; nothing more."""

    def __init__(self, connection: ClientConnection, timeout: float = 30.0) -> None:
        self.timeout = timeout
        self._connection = connection
        self._pending: dict[str, Answer] = {}
        self._channels: dict[str, trio.MemorySendChannel[Any]] = {}
        self._sent = 0

    async def request(self, method: str, data: Any = None) -> Any:
        self._sent += 1
        frame = Frame(id=f"{time.time_ns()}-{self._sent}", type="request", method=method, data=data)
        answer = self._pending[frame.id] = Answer()
        try:
            with trio.fail_after(self.timeout):
                await self._connection.send(encode(frame))
                await answer.arrived.wait()
        finally:
            self._pending.pop(frame.id, None)
        assert answer.frame is not None
        if answer.frame.error is not None:
            raise RuntimeError(answer.frame.error["message"])
        return answer.frame.data

    async def subscribe(self, channel: str) -> AsyncIterator[Any]:
        self._channels[channel], receiving = trio.open_memory_channel[Any](math.inf)
        await self.request("subscribe", {"channel": channel})
        return self._events(receiving)

    async def _events(self, receiving: trio.MemoryReceiveChannel[Any]) -> AsyncIterator[Any]:
        seen = 0
        async for event in receiving:
            seen += 1
            if seen % 500 == 0:
                credits = Frame(id=f"{time.time_ns()}-c", type="request", credits=500)
                await self._connection.send(encode(credits))
            yield event

    async def read(self) -> None:
        async for message in self._connection:
            frame = decode(message)
            if frame.type == "event":
                for channel, events in self._channels.items():
                    if channel in ("firehose", frame.channel) or frame.data["type"].startswith(channel[:-1]):
                        events.send_nowait(frame.data)
            elif frame.correl_id in self._pending:
                answer = self._pending[frame.correl_id]
                answer.frame = frame
                answer.arrived.set()


@asynccontextmanager
async def naive_trio(url: str, token: str = "dk_full") -> AsyncGenerator[NaiveTrioClient]:
    """A client that is connected."""
    async with connect(url) as connection, trio.open_nursery() as nursery:
        client = NaiveTrioClient(connection)
        nursery.start_soon(client.read)
        await client.request("auth", {"token": token, "format": "json"})
        yield client
        nursery.cancel_scope.cancel()
