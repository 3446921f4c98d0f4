"""The wire: WebSocket and session stacked. Bytes in, bytes out, whatever the pieces in which they come."""

from __future__ import annotations

import json
import logging
from itertools import count
from typing import Any

import pytest
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.utils import accept_key

from dispatch.errors import InvalidRequest
from dispatch.wire import Address, ClientWire
from dwp_core.client import ClientSession
from dwp_core.client_events import ClientConfig
from dwp_core.effects import Connect
from dwp_core.frames import Limits

NOW = 100.0
URL = "ws://127.0.0.1:8080/dwp"


class Heard(ClientSession):
    """A session that keeps what its wire says to it."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(
            ClientConfig(limits=limits), epoch_ns=0, jitter=lambda: 0.5, ids=map("c{}".format, count(1))
        )
        self.said: list[tuple[Any, ...]] = []

    def transport_opened(self, generation: int, *, token: str, now: float) -> None:
        self.said.append(("opened", token))
        super().transport_opened(generation, token=token, now=now)

    def transport_failed(
        self, generation: int, reason: str, *, now: float, status: int = 0, fatal: bool = False
    ) -> None:
        if self.state == "connecting":
            self.said.append(("failed", reason, status))
        super().transport_failed(generation, reason, now=now, status=status, fatal=fatal)

    def transport_closed(self, generation: int, *, now: float, code: int = 1006, reason: str = "") -> None:
        if self.state != "backing_off" and self.state != "closed":
            self.said.append(("closed", code, reason))
        super().transport_closed(generation, now=now, code=code, reason=reason)

    def receive_message(self, generation: int, message: bytes | bytearray, *, now: float) -> None:
        self.said.append(("message", bytes(message)))


class Peer:
    """A wire and the server's end of it."""

    def __init__(self, *, limits: Limits | None = None, headers: dict[str, str] | None = None) -> None:
        self.session = Heard(limits or Limits())
        self.session.start(now=NOW)
        [connect] = self.session.take_effects()
        assert isinstance(connect, Connect)
        self.wire = ClientWire(self.session, connect.generation, Address(URL, headers or {}), "dk_secret")
        self.request = self.wire.take_output()

    @property
    def acceptance(self) -> bytes:
        key = self.request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0].decode()
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_key(key).encode()
        )

    def open(self) -> Peer:
        """The opening handshake has succeeded."""
        self.feed(self.acceptance)
        self.session.said.clear()
        return self

    def feed(self, data: bytes, *, step: int = 0) -> None:
        """Bytes from the server, in pieces of this size."""
        for start in range(0, len(data), step or max(len(data), 1)):
            self.wire.receive_data(data[start : start + (step or len(data))], now=NOW)

    @property
    def said(self) -> list[tuple[Any, ...]]:
        return self.session.said

    def output(self) -> list[Frame]:
        """The frames that the wire writes, read by a server."""
        server = ServerProtocol(state=OPEN, max_size=None)
        server.receive_data(self.wire.take_output())
        return [event for event in server.events_received() if isinstance(event, Frame)]


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return bytes(Frame(opcode, data, fin).serialize(mask=False))


# Opening.


def test_the_opening_handshake_asks_for_what_the_address_says() -> None:
    request = Peer(headers={"X-Trace": "1", "Host": "other.example"}).request.decode()
    assert request.startswith("GET /dwp HTTP/1.1\r\n")
    assert "\r\nX-Trace: 1\r\n" in request
    assert request.lower().count("\r\nhost: ") == 1
    assert "\r\nHost: other.example\r\n" in request
    assert "dk_secret" not in request


@pytest.mark.parametrize("step", [0, 1, 7])
def test_an_accepted_handshake_opens_the_transport_with_the_token(step: int) -> None:
    peer = Peer()
    peer.feed(peer.acceptance, step=step)
    assert peer.said == [("opened", "dk_secret")]
    assert not peer.wire.over


@pytest.mark.parametrize("step", [0, 1, 3])
def test_what_comes_with_the_handshake_is_not_lost(step: int) -> None:
    peer = Peer()
    peer.feed(peer.acceptance + frame(Opcode.TEXT, b"{}") + frame(Opcode.BINARY, b"\x80"), step=step)
    assert peer.said == [("opened", "dk_secret"), ("message", b"{}"), ("message", b"\x80")]


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(
    ("answer", "reason", "status"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno!", "it answered HTTP 404: no!", 404),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "it answered HTTP 204", 204),
        (b"SSH-2.0-x\r\n", "it does not speak WebSocket (invalid HTTP status line: SSH-2.0-x)", 0),
        (b"HTTP/1.1 200 OK\r\nbad\r\n\r\n", "it does not speak WebSocket (invalid HTTP header line: bad)", 0),
        (b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
         "it does not speak WebSocket here (invalid Upgrade header: h2c)", 0),
        (b"x" * 100_000, None, 0),
    ],
)  # fmt: skip
def test_a_refused_handshake_is_told_at_once(
    answer: bytes, reason: str | None, status: int, step: int
) -> None:
    peer = Peer()
    peer.feed(answer, step=step)
    [(what, said, code)] = peer.said
    assert (what, code) == ("failed", status)
    assert reason in (said, None)
    assert peer.wire.over
    peer.feed(b"more of it")
    assert len(peer.said) == 1


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 101 Switching Protocols\r\nUpgr"])
def test_an_end_before_the_answer_is_told(begun: bytes) -> None:
    peer = Peer()
    peer.feed(begun)
    peer.wire.receive_eof(now=NOW)
    assert peer.said == [("failed", "it closed the connection before it answered the opening handshake", 0)]


def test_a_long_answer_is_cut_short() -> None:
    peer = Peer()
    peer.feed(b"HTTP/1.1 500 X\r\nContent-Length: 5000\r\n\r\n" + b"y" * 5000)
    assert len(peer.said[0][1]) < 300


# Messages.


@pytest.mark.parametrize("step", [0, 1, 2, 5])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_messages_come_out_whole_whatever_the_pieces(step: int, opcode: Opcode) -> None:
    sizes = [0, 1, 125, 126, 127, 70_000 if not step else 300]
    peer = Peer().open()
    peer.feed(b"".join(frame(opcode, b"x" * size) for size in sizes), step=step)
    assert peer.said == [("message", b"x" * size) for size in sizes]


@pytest.mark.parametrize("step", [0, 1])
def test_fragments_are_put_together_around_control_frames(step: int) -> None:
    peer = Peer().open()
    pieces = [
        frame(Opcode.TEXT, b"ab", fin=False),
        frame(Opcode.PING, b"p"),
        frame(Opcode.CONT, b"", fin=False),
        frame(Opcode.CONT, b"cd", fin=False),
        frame(Opcode.PONG, b"unasked"),
        frame(Opcode.CONT, b"ef"),
        frame(Opcode.TEXT, b"next"),
    ]
    peer.feed(b"".join(pieces), step=step)
    assert peer.said == [("message", b"abcdef"), ("message", b"next")]
    assert [(f.opcode, f.data) for f in peer.output()] == [(Opcode.PONG, b"p")]


def test_empty_fragments_without_end_take_no_room() -> None:
    peer = Peer().open()
    peer.feed(frame(Opcode.TEXT, b"a", fin=False) + frame(Opcode.CONT, b"", fin=False) * 10_000)
    assert bytes(peer.wire._message) == b"a"
    peer.feed(frame(Opcode.CONT))
    assert peer.said == [("message", b"a")]


def test_text_that_is_not_utf_8_is_for_the_codec_to_judge() -> None:
    peer = Peer().open()
    peer.feed(frame(Opcode.TEXT, b"\x81\xa1\xff"))  # MessagePack, as the existing server sends it
    assert peer.said == [("message", b"\x81\xa1\xff")]


# The end.


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (frame(Opcode.CLOSE, Close(1000, "").serialize()), 1000, ""),
        (frame(Opcode.CLOSE, Close(1001, "bye").serialize()), 1001, "bye"),
        (frame(Opcode.CLOSE, Close(1008, "no").serialize()), 1008, "no"),
        (frame(Opcode.CLOSE, Close(4000, "ours").serialize()), 4000, "ours"),
        (frame(Opcode.CLOSE), 1005, ""),
    ],
)
def test_a_close_frame_is_echoed_and_told(data: bytes, code: int, reason: str, step: int) -> None:
    peer = Peer().open()
    peer.feed(frame(Opcode.TEXT, b"last") + data + b"trailing garbage", step=step)
    assert peer.said == [("message", b"last"), ("closed", code, reason)]
    assert peer.wire.over
    assert [(f.opcode, f.data) for f in peer.output()] == [(Opcode.CLOSE, data[2:])]


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(
    ("data", "code", "why"),
    [
        (b"\x82\x84\x00\x00\x00\x00abcd", 1002, "incorrect masking"),
        (b"\x83\x00", 1002, "invalid opcode"),
        (b"\xc1\x00", 1002, "reserved bits"),
        (b"\x80\x00", 1002, "unexpected continuation frame"),
        (b"\x01\x01a\x81\x00", 1002, "expected a continuation frame"),
        (b"\x09\x00", 1002, "fragmented control frame"),
        (b"\x88\x01\x03", 1002, "close frame too short"),
        (b"\x88\x03\x03\xe8\xff", 1007, ""),
        (b"\x81\x7f\x00\x00\x00\x00\x00\x00\x04\x01", 1009, "exceeds limit"),
        (b"\x01\x7e\x02\x00" + b"x" * 512 + b"\x80\x7e\x02\x01", 1009, "exceeds limit"),
    ],
)
def test_a_peer_that_breaks_the_rules_is_cut_off_with_the_code_for_it(
    data: bytes, code: int, why: str, step: int
) -> None:
    peer = Peer(limits=Limits(message=1024)).open()
    peer.feed(frame(Opcode.TEXT, b"before") + data + frame(Opcode.TEXT, b"after"), step=step)
    [message, (what, said, reason)] = peer.said
    assert (message, what, said) == (("message", b"before"), "closed", code)
    assert reason.startswith("cut off for what it sent: ")
    assert why in reason
    assert peer.wire.over
    [farewell] = peer.output()
    assert Close.parse(farewell.data).code == code


def test_a_message_at_the_limit_passes() -> None:
    peer = Peer(limits=Limits(message=1024)).open()
    peer.feed(frame(Opcode.TEXT, b"x" * 1024))
    peer.feed(frame(Opcode.TEXT, b"x" * 512, fin=False) + frame(Opcode.CONT, b"x" * 512))
    assert peer.said == [("message", b"x" * 1024)] * 2


@pytest.mark.parametrize("end", ["eof", "lost"])
@pytest.mark.parametrize("begun", [b"", b"\x81", b"\x81\x05ab"])
def test_an_end_without_a_close_frame_is_1006(begun: bytes, end: str) -> None:
    peer = Peer().open()
    peer.feed(begun)
    if end == "eof":
        peer.wire.receive_eof(now=NOW)
        peer.wire.receive_eof(now=NOW)
    peer.wire.lost(now=NOW, reason="Connection reset by peer")
    reason = "the connection ended without a close frame" if end == "eof" else "Connection reset by peer"
    assert peer.said == [("closed", 1006, reason)]


def test_our_own_close_is_answered() -> None:
    peer = Peer().open()
    peer.wire.close(1000, "done")
    peer.wire.close(1000, "again")
    assert [Close.parse(f.data) for f in peer.output()] == [Close(1000, "done")]
    peer.feed(frame(Opcode.TEXT, b"still under way") + frame(Opcode.CLOSE, Close(1000, "done").serialize()))
    assert peer.said == [("message", b"still under way"), ("closed", 1000, "done")]
    assert peer.output() == []


def test_nothing_is_heard_once_it_is_over() -> None:
    peer = Peer().open()
    peer.wire.over = True
    peer.feed(frame(Opcode.TEXT, b"late"))
    peer.wire.receive_eof(now=NOW)
    peer.wire.lost(now=NOW)
    assert peer.said == []


def test_no_frame_and_no_header_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("dispatch.wire").setLevel(logging.DEBUG)
    peer = Peer(headers={"Authorization": "dk_secret"})
    peer.feed(peer.acceptance)
    peer.wire.send_text(json.dumps({"token": "dk_secret"}).encode())
    peer.feed(b"\x83\x00")
    assert "dk_secret" not in caplog.text


# Addresses.


@pytest.mark.parametrize(
    ("url", "host", "port", "secure"),
    [
        ("ws://127.0.0.1:8080/dwp", "127.0.0.1", 8080, False),
        ("ws://example.com", "example.com", 80, False),
        ("wss://example.com/dwp?a=b", "example.com", 443, True),
        ("WS://Example.COM:65535/", "example.com", 65535, False),
        ("ws://[::1]:8080/dwp", "::1", 8080, False),
        ("ws://bücher.example/ü", "xn--bcher-kva.example", 80, False),
    ],
)
def test_an_address_says_where_to_connect(url: str, host: str, port: int, secure: bool) -> None:
    address = Address(url)
    assert (address.host, address.port, address.secure) == (host, port, secure)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "scheme"),
        ("127.0.0.1:8080", "scheme"),
        ("localhost/dwp", "scheme"),
        ("ftp://example.com/dwp", "scheme"),
        ("http://example.com/dwp", "ends in /rpc"),
        ("ws:/example.com", "hostname"),
        ("ws:///dwp", "hostname"),
        ("ws://example.com:0/", "port"),
        ("ws://example.com:65536/", "[Pp]ort"),
        ("ws://example.com:-1/", "[Pp]ort"),
        ("ws://example.com:http/", "[Pp]ort"),
        ("ws://user:secret@example.com/", "token="),
        ("ws://user@example.com/", "username"),
        ("ws://example.com/#part", "fragment"),
        ("ws://exa mple.com/", "blank"),
        ("ws://example.com/a b", "blank"),
        ("ws://example.com/\r\nX: y", "blank"),
        ("ws://example.com/\x00", "blank"),
        ("ws://[::1/dwp", "IPv6"),
        ("ws://a..b/", "label"),
        (f"ws://{'a' * 70}.example/", "label"),
        ("ws://example.com/\udc80", "surrogate"),
        (None, "NoneType"),
        (8080, "int"),
        (b"ws://example.com/", "bytes"),
        (["ws://example.com/"], "list"),
    ],
)
def test_what_is_no_address_is_refused_with_an_example(url: Any, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        Address(url)
    assert "ws://127.0.0.1:8080/dwp" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or "secret" not in str(caught.value.__context__)


def test_what_may_be_secret_in_an_address_is_not_shown() -> None:
    address = Address("wss://example.com/dwp?token=dk_secret", {"Authorization": "dk_secret"})
    assert address.where == "wss://example.com/dwp"
    assert "dk_secret" not in repr(address)


@pytest.mark.parametrize(
    "headers",
    [{"Upgrade": "x"}, {"connection": "x"}, {"Sec-WebSocket-Key": "x"}, {"a b": "x"}, {"": "x"}, {"X": "a\r\nb"},
     {"X": 5}, {5: "x"}, {"X": "€"}, {"X": None}, [("X", "y")], "X: y"],
)  # fmt: skip
def test_headers_that_cannot_be_sent_are_refused(headers: Any) -> None:
    with pytest.raises(InvalidRequest, match="headers"):
        Address(URL, headers)


def test_headers_are_copied() -> None:
    headers = {"X": "1"}
    address = Address(URL, headers)
    headers["Y"] = "\r\n"
    assert address.headers == {"X": "1"}
