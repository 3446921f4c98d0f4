"""Load for server measurements: connections that cost as little as possible, the same for every server.

A child process (`python -m benchmarks.load`). Its WebSocket frames are made by hand, with the masking key zero, and
its reader only counts: what is measured is the server. Requests go out as one write of a whole window, and the next
window when all of it is answered, so that every server is given the same pieces to read.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from benchmarks.child import obey, timed
from benchmarks.peer import TS

ID_AT = len('{"id":"')
ID_WIDTH = 10


def client_frame(message: bytes) -> bytes:
    """A text frame from a client (RFC 6455 section 5.2); the zero key leaves the payload as it is."""
    size = len(message)
    if size < 126:
        return struct.pack("!BBI", 0x81, 0x80 | size, 0) + message
    if size < 65536:
        return struct.pack("!BBHI", 0x81, 0xFE, size, 0) + message
    return struct.pack("!BBQI", 0x81, 0xFF, size, 0) + message


def request(method: str, data: Any, **more: Any) -> bytes:
    """A request frame whose id is ten places wide, so that a copy with another id has the same length."""
    fields = {"id": "0" * ID_WIDTH, "type": "request", "method": method, "data": data, **more, "ts": TS}
    return json.dumps(fields, separators=(",", ":")).encode()


class Connection(asyncio.Protocol):
    """One WebSocket connection that sends what it is told and counts what comes."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._rest = b""
        self._open = False
        self._keep = True
        self._number = 0
        self.received = 0
        self._awaited = 0
        self.messages: list[bytes] = []
        self._wanted = 0
        self._arrived: asyncio.Future[None] | None = None
        self._lost: BaseException | None = None
        self._refill = b""
        self._to_send = 0

    @classmethod
    async def open(cls, url: str, token: str | None, features: Sequence[str] = ("resume",)) -> Connection:
        loop = asyncio.get_running_loop()
        parts = urlsplit(url)
        _, self = await loop.create_connection(lambda: cls(url), parts.hostname or "", parts.port or 80)
        await self.until(0)
        if token is not None:
            await self.ask("auth", {"token": token, "format": "json", "features": list(features)})
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET {self._url.path} HTTP/1.1\r\nHost: {self._url.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = exc or ConnectionError("the server closed the connection")
        self._wake()

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        at = 0
        if not self._open:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._rest = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                self._lost = ConnectionError(data[:end].decode(errors="replace"))
            self._open = True
            at = end + 4
        size, before = len(data), self.received
        while at + 2 <= size:
            length, start = data[at + 1], at + 2
            if length == 126:
                length, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif length == 127:
                length, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if start + length > size:
                break
            if data[at] & 0x0F in (1, 2):
                self.received += 1
                if self._keep:
                    self.messages.append(data[start : start + length])
            elif data[at] & 0x0F == 8:
                self._lost = ConnectionError(f"the server closed: {data[start + 2 : start + length]!r}")
            at = start + length
        self._rest = data[at:]
        if self._to_send:
            burst = min(self._to_send, self.received - before)
            self._to_send -= burst
            self._transport.write(
                b"".join([client_frame(self._numbered(self._refill)) for _ in range(burst)])
            )
        if self.received >= self._wanted or self._lost:
            self._wake()

    async def until(self, received: int) -> None:
        """Wait until that many messages have come, over the connection's life."""
        self._wanted = received
        if self._lost is None and (self.received < received or not self._open):
            self._arrived = asyncio.get_running_loop().create_future()
            await asyncio.wait_for(self._arrived, 25)
        if self._lost is not None:
            raise self._lost

    async def ask(self, method: str, data: Any, **more: Any) -> Any:
        """One request and its answer, decoded. An error answer is raised."""
        self._keep = True
        self.messages.clear()
        self._transport.write(client_frame(self._numbered(request(method, data, **more))))
        await self.until(self.received + 1)
        answer = json.loads(self.messages[-1])
        if answer["type"] == "error":
            raise RuntimeError(answer["error"])
        return answer.get("data")

    async def pipelined(self, message: bytes, count: int, width: int) -> int:
        """`count` times `message`, each with an id of its own, in windows of `width`."""
        self._keep = False
        for _ in range(count // width):
            self._transport.write(b"".join([client_frame(self._numbered(message)) for _ in range(width)]))
            await self.until(self.received + width)
        return count

    async def streamed(self, message: bytes, count: int, width: int) -> int:
        """`count` times `message`, never more than `width` unanswered, and a new one for every answer at once."""
        self._keep = False
        self._refill = message
        self._to_send = count - width
        self._transport.write(b"".join([client_frame(self._numbered(message)) for _ in range(width)]))
        await self.until(self.received + count)
        return count

    def replenish(self, credits: int) -> None:
        fields = {"id": "c", "type": "request", "credits": credits, "ts": TS}
        self._transport.write(client_frame(json.dumps(fields).encode()))

    def count_only(self) -> None:
        self._keep = False
        self._awaited = self.received

    async def more(self, count: int) -> None:
        """Wait until `count` messages more have come, counted from `count_only()` and the last call of this."""
        self._awaited += count
        await self.until(self._awaited)

    def close(self) -> None:
        self._transport.abort()

    def _numbered(self, message: bytes) -> bytes:
        self._number += 1
        return b"%s%010d%s" % (message[:ID_AT], self._number, message[ID_AT + ID_WIDTH :])

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


async def main() -> None:
    connections: dict[str, list[Connection]] = {}

    async def connect(name: str, url: str, token: str | None = None, count: int = 1) -> None:
        opened = connections.setdefault(name, [])
        for _ in range(count):
            opened.append(await Connection.open(url, token))

    async def pipelined(
        name: str, method: str, data: Any, count: int, width: int, stream: bool = False
    ) -> dict[str, float]:
        [connection] = connections[name]
        if method:
            await connection.ask(method, data)  # raises when the server answers with an error
        send = connection.streamed if stream else connection.pipelined
        return await timed(send(request(method or "echo", data), count, width))

    async def listen(name: str, channel: str = "", credits: int = 0) -> None:
        """From now on the connections of that name only count; with a channel, after subscribing to it."""
        for connection in connections[name]:
            if channel:
                await connection.ask("subscribe", {"channel": channel})
                connection.replenish(credits)
            connection.count_only()

    async def received(name: str, count: int) -> None:
        """Wait until each connection of that name has received `count` messages more."""
        for connection in connections[name]:
            await connection.more(count)

    def close(name: str) -> None:
        for connection in connections.pop(name):
            connection.close()

    await obey(
        {},
        {
            "connect": connect,
            "pipelined": pipelined,
            "listen": listen,
            "received": received,
            "close": close,
        },
    )


if __name__ == "__main__":
    asyncio.run(main())
