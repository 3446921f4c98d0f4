"""Bytes from the network into a server's WebSocket connection: whole, and one at a time; the same is taken up.

Never an exception, and everything that is written is WebSocket. Loop and transport are stand-ins without time, and
requests are answered at once; the connection, its protocol and its session are the real ones.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from dispatch.server.broker import Waits
from dispatch.server.connection import Connection, Outbox
from dispatch.server.server import DispatchServer
from dispatch.server.ws import WebSocketConnection
from dispatch.store.memory import MemoryStore
from dwp_core.hub import Hub
from dwp_core.server_events import RequestReceived, ServerConfig
from fuzz.seeds import Line, conversations

_NOW = 100.0
_HEAD = (
    b"GET /dwp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: %b\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_MOST_TURNS = 50


class Loop:
    """Runs what is scheduled when it is told to; its time stands still."""

    def __init__(self) -> None:
        self._soon: list[Callable[[], object]] = []

    def call_soon(self, callback: Callable[..., object], *arguments: Any) -> None:
        self._soon.append(lambda: callback(*arguments))

    def call_at(self, when: float, callback: Callable[..., object], *arguments: Any) -> Loop:
        return self

    def cancel(self) -> None:
        """As the timer that `call_at` gave."""

    def time(self) -> float:
        return _NOW

    def run(self) -> None:
        for _ in range(_MOST_TURNS):
            if not self._soon:
                return
            soon, self._soon = self._soon, []
            for callback in soon:
                callback()
        raise AssertionError("the connection does not come to rest")


class Transport:
    """Takes everything at once."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = False

    def write(self, data: bytes) -> None:
        assert data.__class__ is bytes
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 50000) if name == "peername" else None

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Server(DispatchServer):
    """Never started: it has a loop whose time stands still, and answers every request itself, at once."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(), config=ServerConfig())
        loop: Any = Loop()
        self.loop, self.now = loop, loop.time
        self._epoch_ns = 10**18
        self._started = True
        self.hub = Hub(log="log-1", epoch_ns=10**18)
        self.outbox = Outbox(loop)
        self.waits = Waits()
        self.handlers = defaultdict(lambda: self._handle)
        self.taken_up: list[tuple[str, str]] = []

    def _handle(self, connection: Connection, request: RequestReceived) -> None:
        self.taken_up.append((request.method, request.id))
        connection.answer(request.id, b'{"ok":true}')


class Drive:
    """One connection of a server, fed with bytes."""

    def __init__(self) -> None:
        self.server = Server()
        self.turns: Any = self.server.loop
        self.transport = Transport()
        self.connection = WebSocketConnection(self.server)
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]
        self.client = ClientProtocol(parse_uri("ws://127.0.0.1:8080/dwp"))

    def open(self) -> None:
        request = self.client.connect()
        self.client.send_request(request)
        self.client.data_to_send()
        self.feed(_HEAD % request.headers["Sec-WebSocket-Key"].encode())

    def feed(self, data: bytes) -> None:
        if not self.transport.closed:
            self.connection.data_received(data)
            self.turns.run()

    def end(self, opened: bool) -> None:
        if not self.transport.closed:
            self.connection.eof_received()
            self.turns.run()
        self.connection.connection_lost(None)
        self.turns.run()
        if opened:
            self.client.receive_data(bytes(self.transport.written))
            self.client.events_received()
            assert self.client.parser_exc is None, (
                f"what was written is no WebSocket: {self.client.parser_exc}"
            )


def target(data: bytes) -> None:
    logging.disable(logging.CRITICAL)
    try:
        opened, data = not data[:1] >= b"\x80", data[1:]
        drives = [Drive(), Drive()]
        if opened:
            for drive in drives:
                drive.open()
        drives[0].feed(data)
        for at in range(len(data)):
            drives[1].feed(data[at : at + 1])
        for drive in drives:
            drive.end(opened)
        # An id that is used again is refused while its first request is unanswered, and byte by byte none ever is.
        whole, bytewise = (list(dict.fromkeys(drive.server.taken_up)) for drive in drives)
        assert whole == bytewise, f"whole and byte by byte differ:\n  {whole}\n  {bytewise}"
    finally:
        logging.disable(logging.NOTSET)


def seeds() -> Iterable[bytes]:
    for conversation in (*conversations("json"), *conversations("msgpack")):
        yield b"\x00" + b"".join(_client_bytes(conversation))[:2000]
    yield b"\x80" + _HEAD % b"dGhlIHNhbXBsZSBub25jZQ=="
    yield b"\x80" + (_HEAD % b"dGhlIHNhbXBsZSBub25jZQ==").replace(b"/dwp", b"/else")
    yield b"\x80GET / HTTP/1.0\r\n\r\n"


def _client_bytes(conversation: tuple[Line, ...]) -> Iterator[bytes]:
    """RFC 6455 section 5.2, as a client sends: masked, with the key zero."""
    for line in conversation:
        if line.conn != 1 or line.dir != "client" or line.op == "drop":
            continue
        opcode = {"text": 0x81, "binary": 0x82, "close": 0x88}[line.op]
        payload = line.data if line.op != "close" else b"\x03\xe8"
        size = len(payload)
        length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        yield bytes((opcode,)) + length + bytes(4) + payload
