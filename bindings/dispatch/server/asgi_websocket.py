"""The protocol over the WebSocket of any ASGI server; `ws` is the fast way, for uvicorn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dispatch.server.asgi_connection import AsgiConnection, Message, Receive, Scope, Send
from dispatch.server.auth import FOREIGN_ORIGIN
from dwp_core.server import ServerSession

if TYPE_CHECKING:
    from dispatch.server.server import DispatchServer


class AsgiWebSocket(AsgiConnection):
    """One WebSocket connection."""

    __slots__ = ("_room",)

    def __init__(self, server: DispatchServer, scope: Scope) -> None:
        super().__init__(server, scope, ServerSession(**server.session_settings("ws")))
        self._room = asyncio.Event()

    def send(self, messages: list[bytes], *, binary: bool) -> None:
        if not self._closing:
            self._unsent += sum(map(len, messages))
            if binary:
                self._out += [{"type": "websocket.send", "bytes": message} for message in messages]
            else:
                self._out += [{"type": "websocket.send", "text": message.decode()} for message in messages]

    def flush(self) -> None:
        if self.session.room > 0 and not self.session.overloaded:
            self._room.set()
        super().flush()

    def close_transport(self, code: int, reason: str) -> None:
        if not self._closing:
            self._closing = True
            self._out.append({"type": "websocket.close", "code": code, "reason": reason})

    def abort_transport(self, reason: str) -> None:
        self._out.clear()
        self.close_transport(1011, reason)
        self._ready.set()

    async def read(self, receive: Receive) -> None:
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

    def _is_last(self, message: Message) -> bool:
        return bool(message["type"] == "websocket.close")


async def websocket(server: DispatchServer, path: str, scope: Scope, receive: Receive, send: Send) -> None:
    """A WebSocket that was asked for at this path."""
    await receive()  # websocket.connect
    if path != server.path:
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
    await AsgiWebSocket(server, scope).carry(receive, send)


async def _reject(scope: Scope, send: Send, status: int, why: str) -> None:
    """Say no to a handshake: with a status and the reason where the ASGI server can, else it answers 403."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    body = f"{why}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
