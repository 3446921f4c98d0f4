"""The naive client: how a client of this protocol is usually written.

A dataclass for the frame, `to_dict`, `json.dumps`, a future and `asyncio.wait_for` per request, one reader
task on a `websockets` asyncio connection, events into a queue. It does no checks and survives nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect


@dataclass
class Frame:
    id: str
    type: str
    method: str | None = None
    correl_id: str | None = None
    token: str | None = None
    app_id: str | None = None
    org_id: str | None = None
    data: Any = None
    error: dict[str, Any] | None = None
    channel: str | None = None
    credits: int | None = None
    ts: str | None = None

    def to_dict(self) -> dict[str, Any]:
        result: dict[str, Any] = {"id": self.id, "type": self.type}
        if self.method is not None:
            result["method"] = self.method
        if self.correl_id is not None:
            result["correl_id"] = self.correl_id
        if self.token is not None:
            result["token"] = self.token
        if self.app_id is not None:
            result["app_id"] = self.app_id
        if self.org_id is not None:
            result["org_id"] = self.org_id
        if self.data is not None:
            result["data"] = self.data
        if self.error is not None:
            result["error"] = self.error
        if self.channel is not None:
            result["channel"] = self.channel
        if self.credits is not None:
            result["credits"] = self.credits
        result["ts"] = self.ts or datetime.now(UTC).isoformat()
        return result

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Frame:
        return cls(
            id=raw.get("id", ""),
            type=raw.get("type", ""),
            method=raw.get("method"),
            correl_id=raw.get("correl_id"),
            token=raw.get("token"),
            app_id=raw.get("app_id"),
            org_id=raw.get("org_id"),
            data=raw.get("data"),
            error=raw.get("error"),
            channel=raw.get("channel"),
            credits=raw.get("credits"),
            ts=raw.get("ts"),
        )


def encode(frame: Frame) -> str:
    return json.dumps(frame.to_dict())


def decode(message: str | bytes) -> Frame:
    return Frame.from_dict(json.loads(message))


class NaiveClient:
    """Connects, asks, subscribes; nothing more."""

    def __init__(self, url: str, token: str = "dk_full", timeout: float = 30.0) -> None:
        self.url = url
        self.token = token
        self.timeout = timeout
        self._connection: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._pending: dict[str, asyncio.Future[Any]] = {}
        self._channels: dict[str, asyncio.Queue[Any]] = {}
        self._sent = 0

    async def __aenter__(self) -> Self:
        self._connection = await connect(self.url)
        self._reader = asyncio.create_task(self._read(self._connection))
        await self.request("auth", {"token": self.token, "format": "json"})
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._connection is not None
        assert self._reader is not None
        await self._connection.close()
        self._reader.cancel()

    async def request(self, method: str, data: Any = None) -> Any:
        assert self._connection is not None
        self._sent += 1
        frame = Frame(id=f"{time.time_ns()}-{self._sent}", type="request", method=method, data=data)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[frame.id] = future
        try:
            await self._connection.send(encode(frame))
            return await asyncio.wait_for(future, self.timeout)
        finally:
            self._pending.pop(frame.id, None)

    async def subscribe(self, channel: str) -> AsyncIterator[Any]:
        queue = self._channels[channel] = asyncio.Queue()
        await self.request("subscribe", {"channel": channel})
        return self._events(queue)

    async def _events(self, queue: asyncio.Queue[Any]) -> AsyncIterator[Any]:
        assert self._connection is not None
        seen = 0
        while True:
            event = await queue.get()
            seen += 1
            if seen % 500 == 0:
                credits = Frame(id=f"{time.time_ns()}-c", type="request", credits=500)
                await self._connection.send(encode(credits))
            yield event

    async def _read(self, connection: ClientConnection) -> None:
        async for message in connection:
            frame = decode(message)
            if frame.type == "event":
                for channel, queue in self._channels.items():
                    if channel in ("firehose", frame.channel) or frame.data["type"].startswith(channel[:-1]):
                        queue.put_nowait(frame.data)
            elif frame.correl_id in self._pending:
                future = self._pending[frame.correl_id]
                if future.done():
                    continue
                if frame.error is not None:
                    future.set_exception(RuntimeError(frame.error["message"]))
                else:
                    future.set_result(frame.data)
