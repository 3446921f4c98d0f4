"""The fast WebSocket path: an `asyncio.Protocol` over websockets' Sans-I/O protocol, usable as uvicorn's `ws=` class.

No task per connection and none per message; bytes go in, the session decides, and what a turn of the loop brings goes
out in one write. RFC 6455 is done by websockets, decisions by the core; here are the socket and its back-pressure.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import CLOSING, CONNECTING, OPEN
from websockets.server import ServerProtocol

from dispatch.server.auth import FOREIGN_ORIGIN
from dispatch.server.connection import UNSENT_LIMIT, Connection
from dwp_core.server import ServerSession

if TYPE_CHECKING:
    from dispatch.server.server import DispatchServer
    from dwp_core.hub import Fanout

TEXT, BINARY, CONT, CLOSE = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.CLOSE

_logger = logging.getLogger("dispatch.server.websocket")
# websockets tells of every connection that closes; only what is wrong is worth a line.
_logger.setLevel(logging.WARNING)

_KEEP_ALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
"""Seconds of silence, seconds between probes, probes without an answer; where the system has them."""

Fallback = Callable[[], asyncio.Protocol]


def frame_all(messages: list[bytes], *, binary: bool) -> bytes:
    """Messages as the bytes that a server writes for them, ready for any number of connections."""
    opcode = BINARY if binary else TEXT
    if len(messages) == 1:
        return Frame(opcode, messages[0]).serialize(mask=False, extensions=())
    return b"".join([Frame(opcode, message).serialize(mask=False, extensions=()) for message in messages])


class WebSocketConnection(Connection, asyncio.Protocol):
    """One WebSocket connection on an asyncio transport.

    Args:
        server: whose connection it is.
        fallback: makes the protocol that serves other paths; None answers them 404.
    """

    __slots__ = (
        "_backlog",
        "_fallback",
        "_fragments",
        "_head",
        "_lingering",
        "_out",
        "_protocol",
        "_reading_paused",
        "_special",
        "_transport",
        "_unsent_before",
        "_write_paused",
    )

    def __init__(self, server: DispatchServer, fallback: Fallback | None = None) -> None:
        super().__init__(server, "", ServerSession(**server.session_settings("ws")))
        self._fallback = fallback
        self._head: bytes | None = b""
        self._protocol = ServerProtocol(max_size=server.config.limits.message, logger=_logger)
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._fragments: bytearray | None = None
        self._backlog: list[bytes] | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._special = False
        self._reading_paused = False
        self._write_paused = False
        self._unsent_before = 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open; the HTTP request comes next."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.host = peer[0] if isinstance(peer, tuple) else ""
        if self.host:
            _keep_alive(transport.get_extra_info("socket"))
        self.server.opened(self)
        self.touch()

    def data_received(self, data: bytes) -> None:
        """Bytes came in."""
        protocol = self._protocol
        if self._head is not None:
            self._head += data
        protocol.receive_data(data)
        messages: list[bytes] = []
        for event in protocol.events_received():
            # The frames of one chunk are judged together; control frames have been answered by the protocol already.
            if type(event) is Frame:
                opcode = event.opcode
                if opcode is TEXT or opcode is BINARY:
                    if event.fin:
                        messages.append(cast(bytes, event.data))
                    else:
                        self._fragments = bytearray(event.data)
                elif opcode is CONT:
                    self._continue(event, messages)
                elif opcode is CLOSE:
                    self._receive(messages)
                    messages = []
                    self._peer_closes()
            elif isinstance(event, Request):
                self._head_received(event)
                if self._transport is None:
                    return  # it was for somebody else
        if messages:
            self._receive(messages)
        self._after_protocol()

    def eof_received(self) -> None:
        """The peer writes no more; asyncio closes the transport."""
        self._protocol.receive_eof()
        self._after_protocol()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self._transport = None
        self._out.clear()
        self._backlog = None
        if self._lingering is not None:
            self._lingering.cancel()
        self.over("the connection was lost" if exc is None else f"the connection was lost: {exc}")
        self.server.lost(self)

    def pause_writing(self) -> None:
        """The socket does not take what we write as fast as we write it."""
        self._write_paused = self._special = True
        self._unsent_before = self.unsent
        self.session.write_blocked(now=self.server.now())
        self.touch()

    def resume_writing(self) -> None:
        """The socket takes more again."""
        self._write_paused = False
        self.session.write_resumed(now=self.server.now())
        self._read_on()
        self.touch()

    # Connection

    def send(self, messages: list[bytes], *, binary: bool) -> None:
        if self._protocol.state is OPEN:
            self._out.append(frame_all(messages, binary=binary))

    def send_fanout(self, fanout: Fanout, wire: bytes, writes: list[Connection]) -> None:
        if self._dirty:
            self.collect_first()
        out = self._out
        if not out:
            writes.append(self)
        out.append(wire)

    def flush(self) -> None:
        out = self._out
        transport = self._transport
        if out and transport is not None:
            self._out = []
            transport.write(out[0] if len(out) == 1 else b"".join(out))
        if self._special:
            self._flush_special()

    def _flush_special(self) -> None:
        """What few connections need after their output was written: back-pressure, or the end."""
        if self._write_paused and self.unsent > UNSENT_LIMIT:
            self._pause_reading()
        if self._backlog is not None:
            self._read_on()
        if self._protocol.eof_sent and self._transport is not None:
            self._end_transport(self._transport)
        self._special = self._write_paused or self._backlog is not None

    def _end_transport(self, transport: asyncio.Transport) -> None:
        """Close; but a peer that was refused in the middle of a message is left the time to read why.

        What it has still on its way would meet a closed socket, and TCP would take back what was written last
        (RFC 6455 section 7.1.1).
        """
        if self._protocol.parser_exc is None or self._protocol.state is not CLOSING:
            transport.close()
        elif self._lingering is None:
            if transport.can_write_eof():
                transport.write_eof()
            self._lingering = self.server.loop.call_later(self.server.config.close_timeout, transport.abort)

    def close_transport(self, code: int, reason: str) -> None:
        try:
            self._protocol.send_close(code, reason)
        except InvalidState:
            # The peer was first; or it has not even asked for a WebSocket, and there is nobody to say goodbye to.
            if self._protocol.state is CONNECTING and self._transport is not None:
                self._transport.close()
            return
        self._out += self._protocol.data_to_send()

    def abort_transport(self, reason: str) -> None:
        if self._transport is not None:
            self._transport.abort()

    @property
    def unsent(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def look_at_progress(self, now: float) -> None:
        if self._write_paused:
            unsent = self.unsent
            if unsent < self._unsent_before:
                self.session.write_progress(now=now)
            self._unsent_before = unsent

    # The opening handshake

    def _head_received(self, request: Request) -> None:
        head, self._head = self._head, None
        path = request.path.partition("?")[0]
        if path != self.server.path:
            if self._fallback is not None and head is not None:
                self._hand_over(self._fallback(), head)
                return
            response = self._protocol.reject(
                404, f"there is nothing here; the protocol is at {self.server.path}\n"
            )
        else:
            response = self._refusal(request) or self._protocol.accept(request)
        if self._protocol.eof_sent and response.status_code != 101:
            return  # what came right behind the request was no frame, and has ended the protocol before its answer
        self._protocol.send_response(response)

    def _refusal(self, request: Request) -> Response | None:
        """The answer to a request that is not to be accepted."""
        if not self.server.serving:
            return self._protocol.reject(503, "the server is going away\n")
        if not all(map(self.server.is_welcome_from, request.headers.get_all("Origin"))):
            return self._protocol.reject(403, f"{FOREIGN_ORIGIN}\n")
        return None

    def _hand_over(self, other: asyncio.Protocol, head: bytes) -> None:
        """The path is not ours: another protocol begins anew with what was received."""
        transport, self._transport = self._transport, None
        assert transport is not None
        self.over("it was for another path")
        self.server.lost(self)
        transport.set_protocol(other)
        # Once more: an HTTP server that hands us the request makes us the transport's protocol after this returns.
        self.server.loop.call_soon(transport.set_protocol, other)
        other.connection_made(transport)
        other.data_received(head)

    # Messages

    def _continue(self, frame: Frame, messages: list[bytes]) -> None:
        assert self._fragments is not None
        # Into one piece at once: any number of empty frames weighs nothing.
        self._fragments += frame.data
        if frame.fin:
            messages.append(bytes(self._fragments))
            self._fragments = None

    def _receive(self, messages: list[bytes]) -> None:
        """Give messages to the session, as many as it has room for; the rest waits, and nothing more is read."""
        session = self.session
        if self._backlog is not None:
            self._backlog += messages
            return
        if session.overloaded:
            self._put_off(messages)
            return
        # A negotiated peer knows the limit, and what it sends beyond is refused.
        if len(messages) > session.room and session.identity is not None and not session.features:
            room = max(session.room, 0)
            self._put_off(messages[room:])
            messages = messages[:room]
        now = self.server.now()
        receive = session.receive_message
        for message in messages:
            receive(message, now=now)
        self.take_up()

    def _put_off(self, messages: list[bytes]) -> None:
        """There is no room for these now; nothing more is read until there is."""
        self._backlog = messages
        self._special = True
        self._pause_reading()

    def _read_on(self) -> None:
        """Take up the rest once there is room, then read on."""
        if self._backlog is not None:
            if self.session.room <= 0 or self.session.overloaded:
                return
            messages, self._backlog = self._backlog, None
            self._receive(messages)
        self._resume_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and self._backlog is None and self.unsent <= UNSENT_LIMIT:
            self._reading_paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def _pause_reading(self) -> None:
        if not self._reading_paused and self._transport is not None and not self._transport.is_closing():
            self._reading_paused = True
            self._transport.pause_reading()

    # Ends

    def _peer_closes(self) -> None:
        close = self._protocol.close_rcvd
        code = "" if close is None else f" with code {close.code}"
        self.session.transport_closed(now=self.server.now(), reason=f"the peer closed the connection{code}")
        self.take_up()

    def _after_protocol(self) -> None:
        protocol = self._protocol
        out = protocol.data_to_send()
        if out:
            # The empty bytes string says that we are to end the TCP connection; `flush` does.
            self._out += [data for data in out if data]
            self.touch()
        if protocol.eof_sent:
            self._special = True
            self.session.transport_closed(now=self.server.now(), reason=str(protocol.parser_exc or "closed"))
            self.take_up()


def _keep_alive(sock: socket.socket | None) -> None:
    """Have TCP notice a peer that is gone: base clients answer no pings of ours (PROTOCOL.md section 7)."""
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def uvicorn_protocol(server: DispatchServer) -> type[asyncio.Protocol]:
    """The class to give to uvicorn as `ws=`: our path is served by `server`, other paths by the ASGI application.

    Example:
        >>> # uvicorn.run(app, ws=uvicorn_protocol(server))
    """

    class DispatchWebSocket(WebSocketConnection):
        """uvicorn makes one for each request that asks for an upgrade, and hands it the request."""

        __slots__ = ("_connections",)

        def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
            def fallback() -> asyncio.Protocol:
                from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

                return WebSocketsSansIOProtocol(config, server_state, app_state, _loop)

            super().__init__(server, fallback)
            self._connections: set[Any] = server_state.connections

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._connections.add(self)
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            self._connections.discard(self)
            super().connection_lost(exc)

        def _hand_over(self, other: asyncio.Protocol, head: bytes) -> None:
            self._connections.discard(self)
            super()._hand_over(other, head)

        def shutdown(self) -> None:
            """uvicorn is stopping."""
            self.server.drain_connection(self)

    return DispatchWebSocket
