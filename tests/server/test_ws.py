"""The WebSocket path on a real socket (`dispatch.server.ws`): framing, back-pressure, orderly ends, exact counters."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from dispatch.server.auth import Key, Keys
from dispatch.server.connection import PAGE_WEIGHT, READS_AT_ONCE, UNSENT_LIMIT
from dispatch.server.server import default_config
from dispatch.server.ws import WebSocketConnection
from dispatch.store.values import JobPage
from dwp_core.events import LoggedEvent
from dwp_core.frames import Limits
from dwp_core.server_events import ServerConfig
from tests.server.serving import KEYS, Served, raw, serving

PATIENCE = 30.0
MORE_THAN_SOCKETS_HOLD = 16 * 1024 * 1024


def run(program: Callable[[Served], Awaitable[None]], config: ServerConfig | None = None) -> None:
    async def main() -> None:
        async with serving(config=config) as served:
            await program(served)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


class Wire:
    """A client's socket and websockets' Sans-I/O protocol, so that every byte is in the test's hands."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.protocol = ClientProtocol(parse_uri("ws://127.0.0.1/dwp"))
        self.frames: list[Frame] = []

    async def handshake(self) -> None:
        self.protocol.send_request(self.protocol.connect())
        self.send()
        while not self.protocol.events_received():
            self.protocol.receive_data(await self.reader.read(65536))

    async def login(self, features: list[str] | None = None) -> None:
        await self.handshake()
        data: dict[str, Any] = {"token": ""}
        if features is not None:
            data["features"] = features
        await self.ask("auth", data)

    def send(self) -> None:
        for data in self.protocol.data_to_send():
            self.writer.write(data)

    def request(self, id: str, method: str, data: Any = None) -> bytes:
        frame = {"id": id, "type": "request", "method": method, "data": data}
        return Frame(Opcode.TEXT, json.dumps(frame).encode()).serialize(mask=True)

    async def ask(self, method: str, data: Any = None) -> dict[str, Any]:
        self.writer.write(self.request(method, method, data))
        return await self.until(lambda frame: frame.get("correl_id") == method)

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while True:
            frame = await self.next()
            assert frame is not None, "the connection is closed"
            told: dict[str, Any] = json.loads(bytes(frame.data))
            if wanted(told):
                return told

    async def next(self) -> Frame | None:
        """The next frame of any kind; None at the end of the connection."""
        while not self.frames:
            data = await self.reader.read(65536)
            if not data:
                return None
            self.protocol.receive_data(data)
            self.frames += [event for event in self.protocol.events_received() if isinstance(event, Frame)]
        return self.frames.pop(0)

    async def write_for_ever(self) -> None:
        while True:
            self.writer.write(bytes(1000))
            await self.writer.drain()

    async def close_code(self) -> int | None:
        """With what the server closed; None when it dropped the connection."""
        while (frame := await self.next()) is not None:
            if frame.opcode is Opcode.CLOSE:
                return int.from_bytes(frame.data[:2], "big")
        return None


@asynccontextmanager
async def wire(served: Served, **options: Any) -> AsyncGenerator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, **options)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


def connection_of(served: Served) -> WebSocketConnection:
    [connection] = served.server._connections
    assert isinstance(connection, WebSocketConnection)
    return connection


def job_event(seq: int, size: int = 0) -> LoggedEvent:
    data = json.dumps({"n": seq, "fill": "x" * size}).encode()
    return LoggedEvent(seq, "job.completed", 0, "job:job_01h455vb4pex5vsknk084sn02q", "", "", "", data)


# ── framing ──


def test_a_message_may_come_in_fragments_and_byte_by_byte() -> None:
    async def program(served: Served) -> None:
        async with wire(served) as client:
            await client.login()
            text = b'{"id":"x","type":"request","method":"stats"}'
            parts = [Frame(Opcode.TEXT, text[:10], fin=False), Frame(Opcode.PING, b"p")]
            parts += [Frame(Opcode.CONT, text[10:20], fin=False), Frame(Opcode.CONT, text[20:])]
            for part in parts:
                for byte in part.serialize(mask=True):
                    client.writer.write(bytes((byte,)))
                    await client.writer.drain()
            pong = await client.next()
            assert pong is not None
            assert (pong.opcode, bytes(pong.data)) == (Opcode.PONG, b"p")
            assert (await client.until(lambda frame: frame["correl_id"] == "x"))["type"] == "response"

    run(program)


def test_either_opcode_is_received() -> None:
    async def program(served: Served) -> None:
        async with wire(served) as client:
            await client.login()
            frame = Frame(Opcode.BINARY, b'{"id":"x","type":"request","method":"stats"}')
            client.writer.write(frame.serialize(mask=True))
            assert (await client.until(lambda frame: frame["correl_id"] == "x"))["type"] == "response"

    run(program)


@pytest.mark.parametrize("garbage", [b"\xff" * 50, b"\x00\x00", b"\x81\x05hello", b"\x83\x80\0\0\0\0"])
def test_bytes_that_are_no_websocket_frames_end_the_connection_in_good_order(garbage: bytes) -> None:
    async def program(served: Served) -> None:
        async with wire(served) as client:
            await client.login()
            client.writer.write(client.request("first", "unsubscribe", {"channel": "jobs"}) + garbage)
            assert await client.close_code() == 1002
            assert await client.reader.read() == b""
        async with raw(served.url) as other:
            while (await other.ask("stats"))["connections"] != 1:
                pass

    run(program)


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00", b"hello\r\n\r\n", b"GET /dwp HTTP/1.1\r\n\r\n", b""]
)
def test_bytes_that_are_no_upgrade_end_the_connection(garbage: bytes) -> None:
    async def program(served: Served) -> None:
        async with wire(served) as client:
            client.writer.write(garbage)
            client.writer.write_eof()
            answer = await client.reader.read()
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
        async with raw(served.url) as other:
            while (await other.ask("stats"))["connections"] != 1:
                pass

    run(program)


def test_a_message_beyond_the_limit_is_closed_with_1009() -> None:
    async def program(served: Served) -> None:
        async with wire(served) as client:
            await client.login()
            client.writer.write(Frame(Opcode.TEXT, b"x" * 2000).serialize(mask=True))
            assert await client.close_code() == 1009

    run(program, replace(default_config(), limits=Limits(message=1000)))


def test_a_client_in_the_middle_of_a_message_that_is_too_large_is_told_so() -> None:
    async def program(served: Served) -> None:
        async with wire(served) as client:
            await client.login()
            client.writer.write(Frame(Opcode.TEXT, bytes(MORE_THAN_SOCKETS_HOLD)).serialize(mask=True))
            assert await client.close_code() == 1009

    run(program, replace(default_config(), limits=Limits(message=1000)))


def test_a_client_that_goes_on_after_it_was_refused_is_dropped() -> None:
    async def program(served: Served) -> None:
        async with wire(served) as client:
            await client.login()
            client.writer.write(Frame(Opcode.TEXT, bytes(2000)).serialize(mask=True))
            assert await client.close_code() == 1009
            with pytest.raises(ConnectionError):
                await client.write_for_ever()

    run(program, replace(default_config(), limits=Limits(message=1000), close_timeout=0.05))


def test_another_path_is_404() -> None:
    async def program(served: Served) -> None:
        async with wire(served) as client:
            request = client.protocol.connect()
            request.path = "/elsewhere"
            client.protocol.send_request(request)
            client.send()
            answer = await client.reader.read()
            assert answer.startswith(b"HTTP/1.1 404")
            assert b"/dwp" in answer

    run(program)


# ── ends ──


@pytest.mark.parametrize(
    ("origin", "keys", "status"),
    [
        ("https://evil.example", (), 403),
        ("null", (), 403),
        ("http://[", (), 403),
        ("http://localhost:3000", (), 101),
        ("http://127.0.0.1:8080", (), 101),
        ("https://evil.example", KEYS, 101),
    ],
)
def test_without_keys_pages_of_other_hosts_are_refused(
    origin: str, keys: tuple[Key, ...], status: int
) -> None:
    async def main() -> None:
        async with serving(keys=Keys(keys) if keys else None) as served, wire(served) as client:
            request = client.protocol.connect()
            request.headers["Origin"] = origin
            client.protocol.send_request(request)
            client.send()
            line = await client.reader.readline()
            assert line.split()[1] == str(status).encode()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_the_peers_close_is_answered() -> None:
    async def program(served: Served) -> None:
        async with wire(served) as client:
            await client.login()
            client.writer.write(client.request("last", "stats"))
            client.protocol.send_close(1000, "bye")
            client.send()
            assert await client.close_code() == 1000
            assert await client.reader.read() == b""

    run(program)


def test_a_lost_connection_leaves_nothing_behind() -> None:
    async def program(served: Served) -> None:
        async with wire(served) as client:
            await client.login(["resume"])
            await client.ask("subscribe", {"channel": "jobs"})
            assert served.server.hub.subscribers == 1
            client.writer.transport.abort()
        async with raw(served.url) as other:
            while (await other.ask("stats"))["connections"] != 1:
                pass
        assert served.server.hub.subscribers == 0

    run(program)


def test_a_peer_that_does_not_answer_a_close_is_dropped() -> None:
    async def program(served: Served) -> None:
        async with wire(served) as client:
            await client.login()
            connection = connection_of(served)
            connection.session.close(1001, "bye", now=served.server.now())
            connection.touch()
            assert await client.close_code() == 1001
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await client.reader.readexactly(1)

    run(program, replace(default_config(), close_timeout=0.01))


def test_a_client_that_says_nothing_is_told_and_closed() -> None:
    async def program(served: Served) -> None:
        async with wire(served) as client:
            await client.handshake()
            told = await client.until(lambda frame: True)
            assert told["error"]["code"] == 401
            assert await client.close_code() == 1008

    run(program, replace(default_config(), auth_timeout=0.01))


def test_a_silent_negotiated_peer_is_asked_and_dropped() -> None:
    async def program(served: Served) -> None:
        async with wire(served) as client:
            await client.login(["resume"])
            assert (await client.until(lambda frame: True))["type"] == "ping"
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await client.reader.readexactly(1)

    run(program, replace(default_config(), heartbeat=0.02))


def test_tcp_notices_a_base_client_that_is_gone() -> None:
    async def program(served: Served) -> None:
        async with wire(served) as client:
            await client.login()
            transport = connection_of(served)._transport
            assert transport is not None
            assert transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    run(program)


# ── back-pressure ──


def small_buffers() -> socket.socket:
    """A socket that takes little before its other end has to wait."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.setblocking(False)
    return made


async def deaf_client(served: Served, features: list[str] | None) -> tuple[socket.socket, Wire]:
    made = small_buffers()
    await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", served.port))
    reader, writer = await asyncio.open_connection(sock=made, limit=4096)
    client = Wire(reader, writer)
    await client.login(features)
    connection = connection_of(served)
    assert connection._transport is not None
    connection._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return made, client


def test_a_base_client_that_does_not_read_is_paced_by_its_socket_and_loses_nothing() -> None:
    async def program(served: Served) -> None:
        made, client = await deaf_client(served, None)
        await client.ask("subscribe", {"channel": "jobs"})
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        connection = connection_of(served)
        assert connection._transport is not None
        count = 0
        while not connection._write_paused:
            count += 1
            served.server._broker.publish([job_event(count, 4000)])
            served.server.outbox.flush()
        for _ in range(500):
            count += 1
            served.server._broker.publish([job_event(count, 4000)])
            served.server.outbox.flush()
        # Nothing of that is queued for it.
        assert connection._transport.get_write_buffer_size() < 200_000
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for n in range(1, count + 1):
            told = await client.until(lambda frame: frame["type"] == "event")
            assert told["data"]["data"]["n"] == n
        client.writer.close()
        made.close()

    run(program)


def test_a_client_that_reads_nothing_is_not_read_either_and_dropped_at_last() -> None:
    async def program(served: Served) -> None:
        made, client = await deaf_client(served, ["resume"])
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        connection = connection_of(served)
        request = client.request("x", "unsubscribe", {"channel": "y" * 60_000})
        while not connection._reading_paused:
            # Not `drain`: it would wait for a server that has stopped reading.
            if client.writer.transport.get_write_buffer_size() < 1_000_000:
                client.writer.write(request)
            await asyncio.sleep(0)
        assert connection._transport is not None
        assert connection._transport.get_write_buffer_size() < 16 * 1024 * 1024
        connection.session.handle_timer(now=served.server.now() + 1000.0)
        connection.take_up()
        while served.server._connections:
            await asyncio.sleep(0)
        client.writer.close()
        made.close()

    run(program, replace(default_config(), stall_timeout=1000.0, heartbeat=5000.0))


def test_for_a_client_that_reads_nothing_the_store_is_not_read_either() -> None:
    async def program(served: Served) -> None:
        made, client = await deaf_client(served, ["resume"])
        connection = connection_of(served)
        for _ in range(15):
            await client.ask("job.enqueue", {"name": "noop", "payload": "x" * 40_000, "delay_ms": 10**9})
        asked, begun = 40, 0
        read = served.server.committer.read

        def counted(operation: Any, done: Any) -> None:
            nonlocal begun
            begun += 1
            read(operation, done)

        served.server.committer.read = counted  # type: ignore[method-assign]
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        requests = [client.request(f"list-{n}", "job.list", {"limit": 1000}) for n in range(asked)]
        client.writer.write(b"".join(requests))
        while connection.unsent <= UNSENT_LIMIT or connection._reading:
            await asyncio.sleep(0)
        assert begun < asked * 3 / 4
        assert connection._to_read
        assert connection.unsent < 3 * UNSENT_LIMIT
        # Once it reads, everything is answered, in order.
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for n in range(asked):
            told = await client.until(lambda frame: frame["type"] == "response")
            assert told["correl_id"] == f"list-{n}"
        assert begun == asked
        client.writer.close()
        made.close()

    run(program)


def test_what_waits_to_be_read_from_the_store_ends_with_its_connection() -> None:
    async def program(served: Served) -> None:
        async with wire(served) as client:
            await client.login()
            connection = connection_of(served)
            kept: list[Callable[[Any, BaseException | None], None]] = []

            def keep(_: Any, done: Any) -> None:
                kept.append(done)

            served.server.committer.read = keep  # type: ignore[method-assign,assignment]
            client.writer.write(b"".join(client.request(f"l{n}", "job.list") for n in range(30)))
            most = READS_AT_ONCE // PAGE_WEIGHT
            while len(connection._to_read) != 30 - most:
                await asyncio.sleep(0)
            assert len(kept) == most
        while served.server._connections:
            await asyncio.sleep(0)
        assert not connection._to_read
        for done in kept:
            done(JobPage([], ""), None)
        served.server.outbox.flush()
        assert len(kept) == most

    run(program)


def test_requests_of_a_base_client_beyond_the_limit_wait_and_are_not_refused() -> None:
    async def program(served: Served) -> None:
        async with wire(served) as client:
            await client.login()
            count = 200
            client.writer.write(b"".join([client.request(f"c{n}", "job.list", {}) for n in range(count)]))
            answered = [await client.until(lambda frame: True) for _ in range(count)]
            assert sorted(frame["correl_id"] for frame in answered) == sorted(f"c{n}" for n in range(count))
            assert {frame["type"] for frame in answered} == {"response"}

    run(program, replace(default_config(), in_flight=3))


def test_requests_of_a_negotiated_client_beyond_the_limit_are_429() -> None:
    async def program(served: Served) -> None:
        async with wire(served) as client:
            await client.login(["resume"])
            client.writer.write(b"".join([client.request(f"c{n}", "job.list", {}) for n in range(10)]))
            answered = [await client.until(lambda frame: True) for _ in range(10)]
            codes = [frame["error"]["code"] for frame in answered if frame["type"] == "error"]
            assert codes == [429] * 7

    run(program, replace(default_config(), in_flight=3))


def test_requests_that_carry_much_data_are_taken_in_portions() -> None:
    async def program(served: Served) -> None:
        async with wire(served) as client:
            await client.login(["resume"])
            data = {"name": "noop", "payload": "x" * 4000, "queue": "nobody"}
            client.writer.write(b"".join([client.request(f"c{n}", "job.enqueue", data) for n in range(50)]))
            answered = [await client.until(lambda frame: True) for _ in range(50)]
            assert {frame["type"] for frame in answered} == {"response"}

    run(program, replace(default_config(), limits=Limits(message=5000)))


def test_a_subscription_begins_with_its_answer_also_when_an_event_comes_in_the_same_turn() -> None:
    async def program(served: Served) -> None:
        async with wire(served) as client:
            await client.login(["resume"])
            (connection,) = served.server._connections
            assert isinstance(connection, WebSocketConnection)
            connection.data_received(client.request("s", "subscribe", {"channel": "jobs"}))
            # Before the turn ends: whoever takes an event for older than the answer's `seq` would lose it.
            seq = served.server.hub.head + 1
            event = LoggedEvent(seq, "job.completed", 0, "job:job_1", "", "", "", b"{}")
            served.server._publish([event])
            first, second = await client.until(lambda _: True), await client.until(lambda _: True)
            assert (first["type"], first["data"]["seq"]) == ("response", seq - 1)
            assert (second["type"], second["data"]["seq"]) == ("event", seq)

    run(program)


# ── exact counters ──


class CountingTransport(asyncio.Transport):
    """Counts writes, and takes everything."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def write(self, data: Any) -> None:
        self.writes += 1

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0


async def counted(served: Served, channel: str) -> tuple[WebSocketConnection, CountingTransport]:
    connection, transport = WebSocketConnection(served.server), CountingTransport()
    connection.connection_made(transport)
    client = ClientProtocol(parse_uri("ws://127.0.0.1/dwp"))
    client.send_request(client.connect())
    connection.data_received(b"".join(client.data_to_send()))
    for message in (
        {"id": "a", "type": "request", "method": "auth", "data": {"features": ["resume"]}},
        {"id": "s", "type": "request", "method": "subscribe", "data": {"channel": channel, "credits": 1000}},
    ):
        connection.data_received(Frame(Opcode.TEXT, json.dumps(message).encode()).serialize(mask=True))
    await asyncio.sleep(0)
    return connection, transport


def test_one_turn_of_the_loop_is_one_write_for_each_connection() -> None:
    async def program(served: Served) -> None:
        made = [await counted(served, "jobs") for _ in range(10)]
        before = [transport.writes for _, transport in made]
        stats = Frame(Opcode.TEXT, b'{"id":"x","type":"request","method":"stats"}').serialize(mask=True)
        for connection, _ in made:
            connection.data_received(stats * 20)
        for seq in range(1, 9):
            served.server._publish([job_event(seq)])
        await asyncio.sleep(0)
        assert [transport.writes for _, transport in made] == [count + 1 for count in before]
        # Fan-out: encoded once, whatever the number of subscribers.
        assert served.server.hub.encodings == 8
        for connection, _ in made:
            connection.connection_lost(None)

    run(program)


def test_a_connection_that_fails_costs_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def program(served: Served) -> None:
        (bad, bad_transport), (good, good_transport) = [await counted(served, "jobs") for _ in range(2)]

        def fail() -> None:
            raise ZeroDivisionError("a bug")

        before = good_transport.writes
        monkeypatch.setattr(WebSocketConnection, "collect", lambda self: fail() if self is bad else None)
        bad.touch()
        served.server._publish([job_event(1)])
        good.touch()
        await asyncio.sleep(0)
        monkeypatch.undo()
        assert bad_transport.closed
        assert good_transport.writes == before + 1
        for connection in (bad, good):
            connection.connection_lost(None)

    run(program)
    assert "ZeroDivisionError" in caplog.text
