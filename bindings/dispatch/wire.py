"""The wire: websockets' Sans-I/O protocol and a client session stacked. Bytes in, bytes out (DESIGN.md, "Wire").

One `ClientWire` is one connection attempt. What it does for every binding alike: the opening handshake (RFC 6455),
messages from frames, close codes. What it does not do: read, write, wait, decide.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus, InvalidURI
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.uri import WebSocketURI, parse_uri

from dwp_core.client import ClientSession
from dwp_core.errors import InvalidRequest

_TEXT, _BINARY, _CONT, _CLOSE = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.CLOSE
_HANDSHAKE = frozenset(("connection", "upgrade"))
_UNIX = "unix:"
_UNIX_URI = "ws://localhost/dwp"
"""What the opening handshake says through a Unix socket."""
_HTTP = re.compile("https?://", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class _Discreet(logging.LoggerAdapter[logging.Logger]):
    """Tells of no frame whatever the level: the first one carries the token, and so may the headers."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # logging's name
        return level > logging.DEBUG and super().isEnabledFor(level)


_LOGGER = _Discreet(logging.getLogger("dispatch.wire"), {})


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is.

    Attributes:
        url: as the user gave it, e.g. "ws://127.0.0.1:8080/dwp".
        headers: to send with the opening handshake.
        uri: what of it the opening handshake says.
        where: the URL as messages and logs show it: without its query, which may hold secrets.
        socket_path: where it listens if the URL is of the form "unix:/run/dispatch.sock"; else None.
        http: whether the URL is of the form "https://example.com/dwp/rpc": no WebSocket, but a request for each call.

    Raises:
        InvalidRequest: the URL or the headers cannot be used; the message says why, and shows no secret.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    uri: WebSocketURI = field(init=False, repr=False)
    where: str = field(init=False)
    socket_path: str | None = field(init=False)
    http: bool = field(init=False)

    def __post_init__(self) -> None:
        path = _socket_path(self.url)
        object.__setattr__(self, "socket_path", path)
        object.__setattr__(self, "uri", _read_url(self.url if path is None else _UNIX_URI))
        object.__setattr__(self, "http", path is None and _HTTP.match(self.url) is not None)
        object.__setattr__(self, "where", _shown(self.url))
        object.__setattr__(self, "headers", _checked(self.headers))

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
        "_generation",
        "_message",
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
        self._message = bytearray()
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
            if name in request.headers:  # "Host"
                del request.headers[name]
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
        if ws.parser_exc is not None or ws.handshake_exc is not None:
            self._fail(now)

    def receive_eof(self, *, now: float) -> None:
        """The peer has ended its side."""
        if not self.over:
            self._ws.receive_eof()
            self._fail(now)

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
        if ws.parser_exc is not None and ws.close_rcvd is None and ws.close_sent is not None:
            why = f"cut off for what it sent: {why}"
        session, generation = self._session, self._generation
        session.transport_failed(generation, reason or "it closed the connection", now=now)
        session.transport_closed(generation, now=now, code=code, reason=why)

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
            if self._ws.handshake_exc is None:
                self._session.transport_opened(self._generation, token=self._token, now=now)
        elif isinstance(event, Frame):
            if event.opcode in (_TEXT, _BINARY, _CONT):
                self._message += event.data
                if event.fin:
                    message, self._message = self._message, bytearray()
                    self._receive(self._generation, message, now=now)
            elif event.opcode is _CLOSE:
                self.lost(now=now)

    def _fail(self, now: float) -> None:
        """The WebSocket has failed: say so, with what its opening handshake ended in if it was that."""
        error = self._ws.handshake_exc
        if error is None:
            self.lost(now=now)
        elif not self.over:
            self.over = True
            status = error.response.status_code if isinstance(error, InvalidStatus) else 0
            self._session.transport_failed(self._generation, _refusal(error), now=now, status=status)


def _refusal(error: Exception) -> str:
    """What an opening handshake ended in, in words."""
    if isinstance(error, InvalidStatus):
        body = bytes(error.response.body or b"")[:200].decode("utf-8", "replace").strip()
        return f"it answered HTTP {error.response.status_code}" + (f": {body}" if body else "")
    if isinstance(error, InvalidMessage) and isinstance(error.__cause__, EOFError):
        return "it closed the connection before it answered the opening handshake"
    if isinstance(error, InvalidMessage) and error.__cause__ is not None:
        return f"it does not speak WebSocket ({str(error.__cause__)[:200]})"
    where = " here" if isinstance(error, InvalidHandshake) else ""
    return f"it does not speak WebSocket{where} ({str(error)[:200]})"


def _socket_path(url: object) -> str | None:
    if not isinstance(url, str) or not url.startswith(_UNIX):
        return None
    path = url.removeprefix(_UNIX)
    if path.startswith("//"):  # unix:///run/dispatch.sock
        path = path[2:]
    if not path or "\0" in path:
        raise InvalidRequest(f"url: {url!r:.80} names no socket; one looks like unix:/run/dispatch.sock")
    return path


def _read_url(url: object) -> WebSocketURI:
    example = "one looks like ws://127.0.0.1:8080/dwp, https://example.com/dwp/rpc or unix:/run/dispatch.sock"
    if not isinstance(url, str):
        raise InvalidRequest(f"url must be text, got {type(url).__name__}; {example}")
    problem = ""
    is_http = _HTTP.match(url) is not None
    try:
        uri, port = parse_uri("ws" + url[4:] if is_http else url), urlsplit(url).port
        uri.host.encode("idna")
        if any(character <= " " or character == "\x7f" for character in url):
            problem = "it has a blank or a control character in it"
        elif uri.user_info is not None:
            problem = "credentials go into token= or headers=, not into the URL"
        elif port == 0:
            problem = "its port must be 1 to 65535"
        elif is_http and not uri.path.endswith("/rpc"):
            problem = "over HTTP the path of the address ends in /rpc"
        else:
            return uri
    except InvalidURI as error:
        schemes = "its scheme must be ws, wss, http, https or unix"
        problem = schemes if "scheme" in error.msg else error.msg
    except (ValueError, AssertionError) as error:
        # It repeats what it stumbled over: perhaps a part of a password.
        problem = str(error) if "@" not in url else "it cannot be taken apart"
    shown = _shown(re.sub(r"(?<=//).*@", "…@", url))
    raise InvalidRequest(f"url: {shown!r} is no address of a server, {problem}; {example}")


def _shown(url: str) -> str:
    """The URL without what may be secret: credentials, query, fragment."""
    return re.sub(r"(?<=//)[^/?#]*@", "…@", re.split(r"[?#]", url)[0])[:200]


def _checked(headers: object) -> dict[str, str]:
    """A copy of the headers, if all of them can be sent."""
    if not isinstance(headers, Mapping):
        raise InvalidRequest(f"headers must be a mapping of names to values, got {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise InvalidRequest(f"headers: {name!r:.80} is no name of an HTTP header")
        if name.lower() in _HANDSHAKE or name.lower().startswith("sec-websocket-"):
            raise InvalidRequest(f"headers: {name} belongs to the opening handshake itself; leave it out")
        try:
            sendable = isinstance(value, str) and bool(Headers({name: value}).serialize())
        except (ValueError, InvalidHandshake):
            sendable = False
        if not sendable:
            raise InvalidRequest(f"headers: the value of {name} is no text that an HTTP header can hold")
    return dict(headers)
