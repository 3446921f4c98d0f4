"""The server as an ASGI application: mounts anywhere and runs under any ASGI server, slower than `ws`.

`/dwp` speaks the protocol over the ASGI server's own WebSocket; `/` says what this is, `/healthz` whether it works.
Paths are those below the place where the application is mounted. Who mounts it into another application starts and
stops the `DispatchServer` in that application's lifespan; alone, its own lifespan does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from dispatch.server.auth import FOREIGN_ORIGIN
from dispatch.server.connection import Connection

if TYPE_CHECKING:
    from dispatch.server.server import DispatchServer
    from dwp_core.hub import Fanout

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

UNSENT_LIMIT = 256
"""Messages that the ASGI server has not taken yet, at which events wait."""


def app(server: DispatchServer) -> App:
    """The ASGI application of a server.

    Example:
        >>> # Starlette(routes=[Mount("/jobs", app=dispatch.server.asgi.app(server))])
    """

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await _lifespan(server, receive, send)
        elif kind == "websocket":
            await _websocket(server, scope, receive, send)
        else:
            await _http(server, scope, send)

    return application


class AsgiConnection(Connection):
    """One WebSocket connection that an ASGI server carries.

    Messages are handed to it by one task, which waits for its `send`; what waits behind that is bounded by blocking the
    session's events, as a socket does.
    """

    __slots__ = ("_blocked", "_closing", "_out", "_ready", "_room", "_taken", "_unsent")

    def __init__(self, server: DispatchServer, host: str) -> None:
        super().__init__(server, host)
        self._out: list[Message] = []
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._blocked = False
        self._closing = False
        self._taken = 0
        self._unsent = 0

    def send(self, messages: list[bytes], *, binary: bool) -> None:
        if not self._closing:
            self._unsent += sum(map(len, messages))
            if binary:
                self._out += [{"type": "websocket.send", "bytes": message} for message in messages]
            else:
                self._out += [{"type": "websocket.send", "text": message.decode()} for message in messages]

    def send_fanout(self, fanout: Fanout, wire: bytes, writes: list[Connection]) -> None:
        if self._dirty:
            self.collect_first()
        writes.append(self)
        self.send(fanout.messages, binary=fanout.binary)

    def flush(self) -> None:
        if self._out:
            self._ready.set()
        if self.session.room > 0 and not self.session.overloaded:
            self._room.set()
        if len(self._out) > UNSENT_LIMIT and not self._blocked:
            self._blocked = True
            self.session.write_blocked(now=self.server.now())
            self.touch()

    def close_transport(self, code: int, reason: str) -> None:
        if not self._closing:
            self._closing = True
            self._out.append({"type": "websocket.close", "code": code, "reason": reason})

    def abort_transport(self, reason: str) -> None:
        self._out.clear()
        self.close_transport(1011, reason)
        self._ready.set()

    @property
    def unsent(self) -> int:
        return self._unsent

    def look_at_progress(self, now: float) -> None:
        if self._taken:
            self.session.write_progress(now=now)
            self._taken = 0

    async def write(self, send: Send) -> None:
        """Hand over what is queued, until the connection is over."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            out, self._out = self._out, []
            for message in out:
                await send(message)
                self._taken += 1
                if message["type"] == "websocket.close":
                    return
            self._unsent = sum(map(_size, self._out))
            if self._to_read:
                self.touch()
            if self._blocked and not self._out:
                self._blocked = False
                self.session.write_resumed(now=self.server.now())
                self.touch()

    async def read(self, receive: Receive) -> None:
        """Take in what comes, until the connection is over."""
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            data: bytes = message.get("bytes") or b"" if text is None else text.encode()
            self.session.receive_message(data, now=self.server.now())
            self.take_up()
            if self.session.overloaded or (self.session.room <= 0 and not self.session.features):
                # A base peer knows of no limit: it is made to wait, not refused.
                self._room.clear()
                await self._room.wait()


def _size(message: Message) -> int:
    return len(message.get("bytes") or message.get("text") or b"")


async def _websocket(server: DispatchServer, scope: Scope, receive: Receive, send: Send) -> None:
    await receive()  # websocket.connect
    if _path(scope) != server.path:
        await _reject(scope, send, 404, f"there is nothing here; the protocol is at {server.path}")
        return
    if not server.serving:
        await _reject(scope, send, 503, "the server is going away")
        return
    origins = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"origin"]
    if not all(map(server.is_welcome_from, origins)):
        await send(
            {"type": "websocket.close", "code": 1008, "reason": FOREIGN_ORIGIN}
        )  # the ASGI server says 403
        return
    await send({"type": "websocket.accept"})
    client = scope.get("client")
    connection = AsgiConnection(server, client[0] if client else "")
    server.opened(connection)
    connection.touch()
    reason = "the connection was closed"
    writer = asyncio.ensure_future(connection.write(send))
    reader = asyncio.ensure_future(connection.read(receive))
    try:
        done, _ = await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if error is not None:
                reason = f"the connection was lost: {error!r}"
    finally:
        for task in (reader, writer):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
        connection.over(reason)
        server.lost(connection)


async def _reject(scope: Scope, send: Send, status: int, why: str) -> None:
    """Say no to a handshake: with a status and the reason where the ASGI server can, else it answers 403."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    body = f"{why}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


async def _http(server: DispatchServer, scope: Scope, send: Send) -> None:
    path = _path(scope)
    if path in ("", "/"):
        where = {"name": server.config.name, "version": server.config.version, "websocket": server.path}
        await _respond(send, 200, {"dispatch": where, "healthz": "/healthz"})
    elif path == "/healthz":
        await _respond(
            send, 200 if server.serving else 503, {"status": "ok" if server.serving else "stopping"}
        )
    else:
        await _respond(
            send, 404, {"error": f"there is nothing at {path}; WebSocket clients connect to {server.path}"}
        )


async def _respond(send: Send, status: int, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


async def _lifespan(server: DispatchServer, receive: Receive, send: Send) -> None:
    """Alone under an ASGI server: start and stop with it."""
    await receive()  # lifespan.startup
    try:
        await server.start()
    except Exception as error:  # noqa: BLE001 - the ASGI server shows it and ends
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    await server.stop()
    await send({"type": "lifespan.shutdown.complete"})


def _path(scope: Scope) -> str:
    """The path below the place where the application is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if root else path
