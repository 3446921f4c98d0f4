"""A connection that an ASGI server carries: what is to be sent waits in a queue for the server's `send`.

One task reads and one writes, for WebSockets and HTTP alike. What waits behind `send` is bounded by blocking the
session's events, as a socket does.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from dispatch.server.connection import Connection

if TYPE_CHECKING:
    from dispatch.server.server import DispatchServer
    from dwp_core.hub import Fanout
    from dwp_core.served_peer import ServedPeer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

UNSENT_LIMIT = 256
"""Messages that the ASGI server has not taken yet, at which events wait."""


class AsgiConnection(Connection):
    """One WebSocket connection or HTTP request.

    Args:
        server: whose connection it is.
        scope: the ASGI scope.
        session: what decides for it.
    """

    __slots__ = ("_blocked", "_closing", "_out", "_ready", "_taken", "_unsent", "aborted")

    def __init__(self, server: DispatchServer, scope: Scope, session: ServedPeer) -> None:
        client = scope.get("client")
        super().__init__(server, client[0] if client else "", session)
        self.aborted: asyncio.Future[None] = server.loop.create_future()
        """Has a result when the end is not to wait for what is queued."""
        self._out: list[Message] = []
        self._ready = asyncio.Event()
        self._blocked = False
        self._closing = False
        self._taken = 0
        self._unsent = 0

    def send_fanout(self, fanout: Fanout, wire: bytes, writes: list[Connection]) -> None:
        if self._dirty:
            self.collect_first()
        writes.append(self)
        self.send(fanout.messages, binary=fanout.binary)

    def flush(self) -> None:
        if self._out:
            self._ready.set()
        if self._is_full() and not self._blocked:
            self._blocked = True
            self.session.write_blocked(now=self.server.now())
            self.touch()

    @property
    def unsent(self) -> int:
        return self._unsent

    def look_at_progress(self, now: float) -> None:
        if self._taken:
            self.session.write_progress(now=now)
            self._taken = 0

    async def carry(self, receive: Receive, send: Send) -> None:
        """Be there from the opening of the transport to its end, whoever ends it."""
        self.server.opened(self)
        self.take_up()
        reason = "the connection was closed"
        tasks = (
            asyncio.ensure_future(self.read(receive)),
            asyncio.ensure_future(self._write(send)),
            self.aborted,
        )
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is not None:
                    reason = f"the connection was lost: {error!r}"
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
            self.over(reason)
            self.server.lost(self)

    @abstractmethod
    async def read(self, receive: Receive) -> None:
        """Take in what comes, until the peer is gone."""

    # Inside.

    @abstractmethod
    def _is_last(self, message: Message) -> bool:
        """Whether nothing follows this message."""

    def _is_full(self) -> bool:
        return len(self._out) > UNSENT_LIMIT

    def _joined(self, messages: list[Message]) -> Iterable[Message]:
        """The messages as they are handed over."""
        return messages

    async def _write(self, send: Send) -> None:
        """Hand over what is queued, until the connection is over."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            out, self._out = self._out, []
            for message in self._joined(out):
                await send(message)
                self._taken += 1
                if self._is_last(message):
                    return
            self._unsent = sum(map(_size, self._out))
            if self._to_read:
                self.touch()
            if self._blocked and not self._out:
                self._blocked = False
                self.session.write_resumed(now=self.server.now())
                self.touch()


def _size(message: Message) -> int:
    return len(message.get("bytes") or message.get("text") or message.get("body") or b"")
