"""`POST /dwp/rpc`: one frame in, one frame out (PROTOCOL.md section 8).

The request goes to the same handlers as those of a WebSocket; what is allowed is decided by `dwp_core.http_rpc`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch.server.asgi_connection import Receive, Scope, Send
from dispatch.server.http_request import LOG_HEADER, HttpConnection, header
from dwp_core.http_rpc import FEATURES, RpcLoad, RpcSession

if TYPE_CHECKING:
    from dispatch.server.server import DispatchServer


class RpcConnection(HttpConnection):
    """One request and its answer."""

    __slots__ = ("_rpc",)

    def __init__(self, server: DispatchServer, load: RpcLoad, scope: Scope) -> None:
        self._rpc = RpcSession(
            **server.session_settings("rpc"),
            load=load,
            content_type=header(scope, b"content-type"),
            authorization=header(scope, b"authorization"),
        )
        super().__init__(server, scope, self._rpc, "POST")
        size = header(scope, b"content-length")
        if size.isdecimal() and len(size) < 20:  # ASGI servers let nothing else pass
            self._rpc.announce(int(size), now=server.now())

    def send(self, messages: list[bytes], *, binary: bool) -> None:
        [message] = messages
        features = self.server.config.features & FEATURES
        more = [
            (b"content-length", b"%d" % len(message)),
            (b"cache-control", b"no-store"),
            (LOG_HEADER, self.server.hub.log.encode()),
        ]
        self._start(self._rpc.content_type, features, more)
        self._put(message, more=False)

    def close_transport(self, code: int, reason: str) -> None:
        self.abort_transport(reason)

    async def read(self, receive: Receive) -> None:
        rpc, now = self._rpc, self.server.now
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            rpc.receive_part(message.get("body", b""), now=now())
            if not message.get("more_body", False):
                rpc.receive_end(now=now())
            self.take_up()


async def rpc(server: DispatchServer, load: RpcLoad, scope: Scope, receive: Receive, send: Send) -> None:
    """A request to the address of RPC."""
    await RpcConnection(server, load, scope).carry(receive, send)
