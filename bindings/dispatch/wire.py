"""The wire: websockets' Sans-I/O protocol and a client session stacked. Bytes in, bytes out (DESIGN.md, "Wire").

One `ClientWire` is one connection attempt. What it does for every binding alike: the opening handshake (RFC 6455), messages
from frames, close codes. What it does not do: read, write, wait, decide.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import CONNECTING, OPEN
from websockets.uri import WebSocketURI, parse_uri

from dwp_core.client import ClientSession
from dwp_core.errors import InvalidRequest

_TEXT, _BINARY, _CONT, _CLOSE = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.CLOSE
_LOGGER = logging.getLogger("dispatch.wire")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is.

    Attributes:
        url: as the user gave it, e.g. "ws://127.0.0.1:8080/dwp"; without a password it is fit for messages.
        headers: to send with the opening handshake.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    uri: WebSocketURI = field(init=False)

    def __post_init__(self) -> None:
        try:
            uri = parse_uri(self.url)
        except (InvalidURI, ValueError, AttributeError, TypeError) as error:
            raise InvalidRequest(
                f"url: {self.url!r} is no WebSocket URL; one looks like ws://127.0.0.1:8080/dwp or wss://example.com/dwp"
            ) from error
        object.__setattr__(self, "uri", uri)

    @property
    def host(self) -> str:
        """Host name or IP address to connect to."""
        return self.uri.host

    @property
    def port(self) -> int:
        """TCP port to connect to."""
        return self.uri.port

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken (`wss`)."""
        return self.uri.secure


class ClientWire:
    """One connection attempt of a session.

    Args:
        session: the session that asked for it.
        generation: the attempt, as in its `Connect` effect.
        token: the credentials for this attempt.
    """

    __slots__ = (
        "_fragments",
        "_generation",
        "_receive",
        "_session",
        "_token",
        "_ws",
        "has_output",
        "over",
        "send_binary",
        "send_text",
    )

    def __init__(self, session: ClientSession, generation: int, address: Address, token: str) -> None:
        self._session = session
        self._generation = generation
        self._receive = session.receive_message
        self._token = token
        self._fragments: list[bytes | bytearray] = []
        self._ws = ClientProtocol(address.uri, max_size=session.config.limits.message, logger=_LOGGER)
        self.send_text = self._ws.send_text
        self.send_binary = self._ws.send_binary
        """Queue a message. Raises `InvalidState` once the connection is closing."""
        self.has_output = True
        """There may be something to write; whoever sends says so."""
        self.over = False
        """Nothing more comes and nothing more is sent: the transport is to be closed."""
        request = self._ws.connect()
        for name, value in address.headers.items():
            request.headers[name] = value
        self._ws.send_request(request)

    def receive_data(self, data: bytes, *, now: float) -> None:
        """Bytes have come."""
        if self.over:
            return
        ws = self._ws
        ws.receive_data(data)
        for event in ws.events_received():
            if type(event) is Frame and event.fin and (event.opcode is _TEXT or event.opcode is _BINARY):
                self._receive(self._generation, event.data, now=now)  # type: ignore[arg-type]  # memoryview only on sending
            else:
                self.has_output = True
                self._receive_other(event, now)
        if ws.parser_exc is not None:
            self.lost(now=now)

    def receive_eof(self, *, now: float) -> None:
        """The peer has ended its side."""
        if not self.over:
            self._ws.receive_eof()
            if self._ws.handshake_exc is not None and self._ws.state is CONNECTING:
                self._upgrade_failed(now)
            self.lost(now=now)

    def lost(self, *, now: float, reason: str = "") -> None:
        """The connection is gone, or can be of no more use."""
        if self.over:
            return
        self.over = True
        ws = self._ws
        if ws.close_rcvd is not None:
            code, why = ws.close_rcvd.code, ws.close_rcvd.reason
        elif ws.close_sent is not None:
            code, why = ws.close_sent.code, ws.close_sent.reason
        else:
            code, why = 1006, reason or "the connection ended without a close frame"
        if ws.state is CONNECTING:
            self._session.transport_failed(self._generation, reason or "it closed the connection", now=now)
        self._session.transport_closed(self._generation, now=now, code=code, reason=why)

    def close(self, code: int, reason: str) -> None:
        """Queue a close frame."""
        if self._ws.state is OPEN:
            self.has_output = True
            self._ws.send_close(code, reason)

    def take_output(self) -> bytes:
        """The bytes to write now, joined."""
        self.has_output = False
        return b"".join(self._ws.data_to_send())

    def _receive_other(self, event: object, now: float) -> None:
        if isinstance(event, Response):
            if self._ws.handshake_exc is not None:
                self._upgrade_failed(now)
            else:
                self._session.transport_opened(self._generation, token=self._token, now=now)
        elif isinstance(event, Frame):
            if event.opcode in (_TEXT, _BINARY, _CONT):
                self._fragments.append(bytes(event.data))
                if event.fin:
                    message, self._fragments = b"".join(self._fragments), []
                    self._receive(self._generation, message, now=now)
            elif event.opcode is _CLOSE:
                self.lost(now=now)

    def _upgrade_failed(self, now: float) -> None:
        self.over = True
        error, status = self._ws.handshake_exc, 0
        reason = f"it does not speak WebSocket ({error})"
        if isinstance(error, InvalidStatus):
            status = error.response.status_code
            body = bytes(error.response.body or b"")[:200].decode("utf-8", "replace").strip()
            reason = f"it answered HTTP {status}" + (f": {body}" if body else "")
        elif isinstance(error, InvalidHandshake):
            reason = f"it does not speak WebSocket here ({error})"
        self._session.transport_failed(self._generation, reason, now=now, status=status)
