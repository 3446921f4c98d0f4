"""Bytes from the network into WebSocket and session together: whole, and one at a time, with the same outcome.

An event or an orderly close, never an exception. The first byte chooses the settings and whether the opening handshake
is part of the input or has succeeded before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count

from websockets.exceptions import InvalidState
from websockets.utils import accept_key

from dispatch.wire import Address, ClientWire
from dwp_core.client import ClientSession
from dwp_core.client_events import (
    ClientConfig,
    RequestFailed,
    RequestOutcomeUnknown,
    RequestSucceeded,
    SubscriptionItem,
)
from dwp_core.effects import AbortTransport, CloseTransport, Connect, SendMessage
from fuzz.seeds import Line, conversations

_ADDRESS = Address("ws://127.0.0.1:8080/dwp")
_MOST_OUTPUT = 1 << 20
_NOW = 100.0


class Drive:
    """One connection of a client, fed with bytes."""

    def __init__(self, settings: int) -> None:
        config = ClientConfig(
            format="msgpack" if settings & 1 else "json",
            form="portable" if settings & 2 else None,
            reconnect=False,
        )
        self.session = ClientSession(
            config, epoch_ns=10**18, jitter=lambda: 0.5, ids=map("c1-{}".format, count(1))
        )
        self.heard: list[str] = []
        self.session.start(now=_NOW)
        [connect] = self.session.take_effects()
        assert isinstance(connect, Connect)
        self.wire = ClientWire(self.session, connect.generation, _ADDRESS, "dk_full")
        self.request = self.wire.take_output()
        self.session.subscribe("firehose", tag="firehose", now=_NOW)
        for _ in range(3):
            self.session.request("job.get", b'{"job_id":"x"}', tag="job.get", now=_NOW)

    def open(self) -> None:
        """A server that accepts the opening handshake."""
        key = self.request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0].decode()
        self.feed(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_key(key).encode()
        )

    def feed(self, data: bytes) -> None:
        self.wire.receive_data(data, now=_NOW)
        self._settle()

    def end(self) -> None:
        self.wire.receive_eof(now=_NOW)
        self._settle()
        assert self.wire.over, "the connection has ended and is not over"

    def _settle(self) -> None:
        for effect in self.session.take_effects():
            if isinstance(effect, SendMessage):
                try:
                    (self.wire.send_binary if effect.binary else self.wire.send_text)(effect.data)
                except InvalidState:
                    pass  # documented: the connection is closing
            elif isinstance(effect, CloseTransport):
                self.wire.close(effect.code, effect.reason)
            elif isinstance(effect, AbortTransport):
                self.wire.lost(now=_NOW, reason=effect.reason)
        assert len(self.wire.take_output()) < _MOST_OUTPUT, "one input makes output without bound"
        for event in self.session.take_events():
            if isinstance(event, RequestSucceeded):
                self.heard.append(f"answer {event.frame.id!r} {event.codec.data(event.frame)!r}")
            elif isinstance(event, SubscriptionItem):
                self.heard.append(f"event {event.event.type!r} {bytes(event.event.data)!r}")
            elif isinstance(event, RequestOutcomeUnknown) or (
                isinstance(event, RequestFailed) and isinstance(event.error, ConnectionError)
            ):
                # Which of the two depends on whether it had been written when the connection ended.
                self.heard.append(f"no answer to {event.tag}")
            else:
                self.heard.append(repr(event))


def target(data: bytes) -> None:
    settings, data = data[0] if data else 0, data[1:]
    drives = [Drive(settings), Drive(settings)]
    if not settings & 128:
        for drive in drives:
            drive.open()
    drives[0].feed(data)
    for at in range(len(data)):
        drives[1].feed(data[at : at + 1])
    for drive in drives:
        drive.end()
    whole, bytewise = (drive.heard for drive in drives)
    assert whole == bytewise, f"whole and byte by byte differ:\n  {whole}\n  {bytewise}"


def seeds() -> Iterable[bytes]:
    for settings, codec in ((0, "json"), (2, "json"), (1, "msgpack"), (3, "msgpack")):
        for conversation in conversations(codec):
            # What came later is longer and says the same: byte by byte it would only take time.
            yield bytes((settings,)) + b"".join(_server_bytes(conversation))[:2000]
    yield b"\x80HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"
    yield b"\x80HTTP/1.1 200 OK\r\n\r\nhello"
    yield b"\x80SSH-2.0-OpenSSH_9.2\r\n"


def _server_bytes(conversation: tuple[Line, ...]) -> Iterator[bytes]:
    """RFC 6455 section 5.2, as a server sends: not masked."""
    for line in conversation:
        if line.conn != 1 or line.dir != "server" or line.op == "drop":
            continue
        opcode = {"text": 0x81, "binary": 0x82, "close": 0x88}[line.op]
        payload = line.data if line.op != "close" else b"\x03\xe8"
        length = bytes((len(payload),)) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
        yield bytes((opcode,)) + length + payload
