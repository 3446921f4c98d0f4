"""Peers that do not behave: a TCP server for each way in which a network or a server can go wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

from websockets.frames import Frame, Opcode
from websockets.utils import accept_key, apply_mask

from tests.contract.threads import LoopThread, stop_accepting

Manners = Callable[["Visit"], Awaitable[None]]


class RoughPeer:
    """Listens, and treats each connection as it is told to.

    Args:
        manners: what is done with a connection; afterwards it is closed.
        secure: a TLS context, to be met over TLS.
        path: of a Unix socket, to be met there.
    """

    def __init__(self, manners: Manners, *, secure: Any = None, path: Path | None = None) -> None:
        self.url = ""
        self.visits = 0
        self._manners = manners
        self._secure = secure
        self._path = path
        self._thread = LoopThread()
        self._visitors: set[asyncio.Task[Any] | None] = set()
        """Held on to: a visitor that waits for nothing in particular is known to nobody else, and was collected."""

    def __enter__(self) -> Self:
        self._thread.__enter__()
        self._thread.run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.run(self._stop())
        self._thread.__exit__()

    async def _listen(self) -> None:
        if self._path is not None:
            self._server = await asyncio.start_unix_server(self._accept, self._path)
            self.url = f"unix:{self._path}"
            return
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._secure)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'wss' if self._secure else 'ws'}://127.0.0.1:{port}/dwp"

    async def _stop(self) -> None:
        await stop_accepting(self._server.sockets)
        self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        self._visitors.add(asyncio.current_task())
        try:
            await self._manners(Visit(reader, writer))
            writer.close()
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._visitors.discard(asyncio.current_task())


class Visit:
    """One connection to a rough peer, and what a server would do with it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> None:
        """Raw bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def request(self) -> bytes:
        """The opening handshake."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def upgrade(self) -> None:
        """Accept the opening handshake."""
        key = (await self.request()).split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0].decode()
        await self.say(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_key(key).encode()
        )

    async def hear(self) -> dict[str, Any]:
        """The next JSON frame."""
        while True:
            opcode, data = await self._message()
            if opcode in (Opcode.TEXT, Opcode.BINARY):
                return dict(json.loads(data))

    async def hear_method(self, method: str) -> dict[str, Any]:
        """The next request of that method; what else comes before (credits) is left out."""
        while True:
            frame = await self.hear()
            if frame.get("method") == method:
                return frame

    async def tell(self, **frame: Any) -> None:
        """A JSON frame."""
        await self.say(Frame(Opcode.TEXT, json.dumps(frame).encode()).serialize(mask=False))

    async def let_in(self, **answer: Any) -> None:
        """Everything up to the accepted login."""
        await self.upgrade()
        login = await self.hear()
        data = {"format": "json", "session_id": "ws_1", **answer}
        await self.tell(id="s1", type="response", correl_id=login["id"], data=data)

    async def forever(self) -> None:
        """Stay, without reading or writing."""
        await asyncio.Event().wait()

    async def until_gone(self) -> None:
        """Stay, reading what comes and saying nothing."""
        while await self.reader.read(65536):
            pass

    async def _message(self) -> tuple[int, bytes]:
        first, second = await self.reader.readexactly(2)
        length = second & 0x7F
        if length == 126:
            length = int.from_bytes(await self.reader.readexactly(2))
        elif length == 127:
            length = int.from_bytes(await self.reader.readexactly(8))
        mask = await self.reader.readexactly(4)
        data = await self.reader.readexactly(length)
        return first & 0x0F, apply_mask(data, mask)
