"""A network between client and server that does what networks do: it is cut, goes silent, comes back elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Self
from urllib.parse import urlsplit

from tests.contract.threads import PATIENCE, LoopThread, stop_accepting

_PIECE = 64 * 1024


class Relay:
    """Passes bytes between clients and a server, for as long as it is let.

    Args:
        target: URL of the server.
    """

    def __init__(self, target: str) -> None:
        self.url = ""
        self.accepted = 0
        """Connections that have come, in all."""
        self._thread = LoopThread()
        self._target = target
        self._refusing = False
        self._flowing = _open_gate()
        self._links: set[asyncio.Task[None]] = set()
        self._came = threading.Semaphore(0)

    def __enter__(self) -> Self:
        self._thread.__enter__()
        self._thread.run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.run(self._stop())
        self._thread.__exit__()

    def cut(self) -> None:
        """Every connection ends, without a word."""
        self._thread.run(self._cut())

    def go_down(self) -> None:
        """Every connection ends, and new ones end as soon as they have come."""
        self._refusing = True
        self.cut()

    def come_up(self, target: str | None = None) -> None:
        """Take connections again, perhaps to another server."""
        self._target = target or self._target
        self._refusing = False

    def stall(self) -> None:
        """Connections stay, and nothing comes through in either direction, not even new connections' bytes."""
        self._thread.call(self._flowing.clear)

    def forget(self) -> None:
        """Nothing more comes through on the connections that there are, and nobody says so; new ones are served."""
        self._thread.call(self._forget)

    def flow(self) -> None:
        """Bytes come through again."""
        self._thread.call(self._flowing.set)

    def wait_for_connection(self) -> None:
        """Until one more has come than this was called."""
        assert self._came.acquire(timeout=PATIENCE)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_PIECE)
        target, port = urlsplit(self._target), self._server.sockets[0].getsockname()[1]
        self.url = f"{target.scheme}://127.0.0.1:{port}{target.path}"

    async def _stop(self) -> None:
        await stop_accepting(self._server.sockets)
        self._server.close()
        await self._cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._came.release()
        if self._refusing:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        target, flowing = urlsplit(self._target), self._flowing
        writers = [writer]
        try:
            there, back = await asyncio.open_connection(target.hostname, target.port, limit=_PIECE)
            writers.append(back)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass_on(reader, back, flowing))
                group.create_task(_pass_on(there, writer, flowing))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in writers:
                each.transport.abort()
            self._links.discard(task)

    def _forget(self) -> None:
        self._flowing.clear()
        self._flowing = _open_gate()

    async def _cut(self) -> None:
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)


def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event
) -> None:
    while True:
        await flowing.wait()
        piece = await reader.read(_PIECE)
        await flowing.wait()
        if not piece:
            with contextlib.suppress(OSError):
                writer.write_eof()
            return
        writer.write(piece)
        await writer.drain()
