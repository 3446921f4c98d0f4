"""The server under any ASGI server (`dispatch.server.asgi`), and in uvicorn with its fast path."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from dispatch.server.asgi import app
from dispatch.server.asgi_connection import AsgiConnection
from dispatch.server.connection import UNSENT_LIMIT
from dispatch.server.server import DispatchServer, default_config
from dispatch.server.ws import WebSocketConnection, uvicorn_protocol
from dispatch.store.memory import MemoryStore
from dwp_core.events import LoggedEvent
from dwp_core.server_events import ServerConfig
from tests.server.http_serving import uvicorn_serving
from tests.server.serving import RawClient, noop, raw, registry_of

PATIENCE = 30.0


def new_server(config: ServerConfig | None = None) -> DispatchServer:
    return DispatchServer(MemoryStore(), registry=registry_of(noop=noop), config=config or default_config())


def run(program: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(program(), PATIENCE)

    asyncio.run(main())


async def get(port: int, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def works(url: str) -> None:
    """A job runs, and its events come."""
    async with raw(url) as client:
        await client.ask("subscribe", {"channel": "jobs"})
        job = (await client.ask("job.enqueue", {"name": "noop", "payload": 1}))["job_id"]
        assert (await client.event("job.completed"))["data"]["data"]["job_id"] == job


# ── any ASGI server ──


def test_alone_it_starts_and_stops_with_the_asgi_server() -> None:
    async def program() -> None:
        server = new_server()
        async with uvicorn_serving(app(server), ws="websockets-sansio") as http:
            await works(f"ws://127.0.0.1:{http.port}/dwp")
            status, body = await get(http.port, "/")
            assert status == 200
            assert json.loads(body)["dispatch"]["websocket"] == "/dwp"
            assert await get(http.port, "/healthz") == (200, b'{"status": "ok"}')
            assert (await get(http.port, "/nothing"))[0] == 404
            with pytest.raises(InvalidStatus):
                async with connect(f"ws://127.0.0.1:{http.port}/elsewhere"):
                    pass
            with pytest.raises(InvalidStatus, match="403"):
                async with connect(f"ws://127.0.0.1:{http.port}/dwp", origin=Origin("https://evil.example")):
                    pass
        assert not server.serving

    run(program)


def test_a_server_that_cannot_start_says_why() -> None:
    class Broken(MemoryStore):
        def register_names(self, names: Any) -> None:
            raise OSError("the disk is gone")

    async def program() -> None:
        told: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "lifespan.startup"}

        async def send(message: Any) -> None:
            told.append(dict(message))

        server = DispatchServer(Broken())
        await app(server)({"type": "lifespan"}, receive, send)
        assert told == [{"type": "lifespan.startup.failed", "message": "the disk is gone"}]
        await server.stop(0)

    run(program)


def test_mounted_into_another_application_it_is_below_its_mount() -> None:
    async def program() -> None:
        server = new_server()
        await server.start()

        async def index(request: Any) -> PlainTextResponse:
            return PlainTextResponse("the shop")

        shop = Starlette(routes=[Route("/", index), Mount("/jobs", app=app(server))])
        async with uvicorn_serving(shop, ws="websockets-sansio") as http:
            assert await get(http.port, "/") == (200, b"the shop")
            assert (await get(http.port, "/jobs/healthz"))[0] == 200
            await works(f"ws://127.0.0.1:{http.port}/jobs/dwp")
            server.drain(1.0)
            assert (await get(http.port, "/jobs/healthz"))[0] == 200
            assert (await get(http.port, "/jobs/readyz"))[0] == 503
        await server.stop(0)

    run(program)


def test_messagepack_goes_as_binary_messages() -> None:
    async def program() -> None:
        server = new_server()
        async with (
            uvicorn_serving(app(server), ws="websockets-sansio") as http,
            connect(f"ws://127.0.0.1:{http.port}/dwp") as connection,
        ):
            await connection.send('{"id":"a","type":"request","method":"auth","data":{"format":"msgpack"}}')
            assert isinstance(await connection.recv(), bytes)
            await connection.send(b"\x83\xa2id\xa1x\xa4type\xa7request\xa6method\xa5stats")
            assert isinstance(await connection.recv(), bytes)

    run(program)


def test_what_the_session_closes_is_closed_and_what_the_client_leaves_is_over() -> None:
    async def program() -> None:
        server = new_server()
        async with uvicorn_serving(app(server), ws="websockets-sansio") as http:
            url = f"ws://127.0.0.1:{http.port}/dwp"
            async with connect(url) as connection:
                await connection.send("hello")
                assert json.loads(await connection.recv())["error"]["message"] == "invalid auth frame"
                with pytest.raises(ConnectionClosed):
                    await connection.recv()
                assert connection.close_code == 1008
            async with raw(url) as client:
                while (await client.ask("stats"))["connections"] != 1:
                    pass

    run(program)


def test_requests_of_a_base_client_beyond_the_limit_wait() -> None:
    async def program() -> None:
        server = new_server(replace(default_config(), in_flight=2))
        async with (
            uvicorn_serving(app(server), ws="websockets-sansio") as http,
            raw(f"ws://127.0.0.1:{http.port}/dwp", features=None) as client,
        ):
            ids = [await client.request("job.list") for _ in range(50)]
            assert {(await client.answer(id))["type"] for id in ids} == {"response"}

    run(program)


# ── its connection alone, with an ASGI server that takes nothing ──


class Peer:
    """An ASGI server in the test's hands."""

    def __init__(self, server: DispatchServer) -> None:
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.takes = asyncio.Event()
        self.takes.set()
        scope = {"type": "websocket", "path": "/dwp", "client": None}
        self.task = asyncio.ensure_future(app(server)(scope, self.receive, self.send))

    async def receive(self) -> dict[str, Any]:
        return await self.incoming.get()

    async def send(self, message: Any) -> None:
        await self.takes.wait()
        if message["type"] == "websocket.send" and message.get("text") == "explode":
            raise OSError("gone")
        self.sent.append(dict(message))

    async def say(self, **frame: Any) -> None:
        self.incoming.put_nowait({"type": "websocket.receive", "text": json.dumps(frame)})
        await self.settled()

    async def settled(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def login(self, features: list[str]) -> None:
        self.incoming.put_nowait({"type": "websocket.connect"})
        await self.say(id="a", type="request", method="auth", data={"features": features})
        await self.say(
            id="s", type="request", method="subscribe", data={"channel": "jobs", "credits": 100_000}
        )


def events(first: int, last: int) -> list[LoggedEvent]:
    return [
        LoggedEvent(n, "job.completed", 0, "job:job_01h455vb4pex5vsknk084sn02q", "", "", "", b'{"n":%d}' % n)
        for n in range(first, last + 1)
    ]


def test_what_an_asgi_server_does_not_take_waits_in_the_log() -> None:
    async def program() -> None:
        server = new_server()
        await server.start()
        peer = Peer(server)
        await peer.login(["resume"])
        [connection] = server._connections
        assert isinstance(connection, AsgiConnection)
        peer.takes.clear()
        for first in range(1, 3000, 100):
            server._publish(events(first, first + 99))
            await peer.settled()
        assert len(connection._out) < 600
        peer.takes.set()
        while len(peer.sent) < 3003:
            await asyncio.sleep(0.001)
        numbers = [json.loads(each["text"])["data"]["data"]["n"] for each in peer.sent[3:]]
        assert numbers == list(range(1, 3001))
        peer.incoming.put_nowait({"type": "websocket.disconnect"})
        await peer.task
        assert server.hub.subscribers == 0
        await server.stop(0)

    run(program)


def test_an_asgi_server_that_takes_nothing_for_long_is_left() -> None:
    async def program() -> None:
        server = new_server(replace(default_config(), stall_timeout=0.05))
        await server.start()
        peer = Peer(server)
        await peer.login(["resume"])
        peer.takes.clear()
        server._publish(events(1, 300))
        await asyncio.sleep(0)
        [connection] = server._connections
        while connection.session.state != "closed":
            await asyncio.sleep(0.001)
        peer.takes.set()
        await peer.task
        assert peer.sent[-1]["type"] == "websocket.close"
        await server.stop(0)

    run(program)


def test_an_asgi_server_that_fails_ends_the_connection() -> None:
    async def program() -> None:
        server = new_server()
        await server.start()
        peer = Peer(server)
        await peer.login(["resume"])
        [connection] = server._connections
        connection.send([b"explode"], binary=False)
        connection.touch()
        await peer.task
        assert not server._connections
        await server.stop(0)

    run(program)


# ── uvicorn's fast path ──


def test_under_uvicorn_our_path_is_fast_and_other_paths_are_the_applications() -> None:
    async def program() -> None:
        server = new_server()
        await server.start()

        async def echo(websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.send_text(await websocket.receive_text())
            await websocket.close()

        application = Starlette(routes=[WebSocketRoute("/echo", echo), Mount("/", app=app(server))])
        async with uvicorn_serving(application, ws=uvicorn_protocol(server)) as http:
            url = f"ws://127.0.0.1:{http.port}"
            async with raw(f"{url}/dwp?x=1") as client:
                [connection] = server._connections
                assert isinstance(connection, WebSocketConnection)
                assert (await client.ask("stats"))["connections"] == 1
            await works(f"{url}/dwp")
            async with connect(f"{url}/echo") as other:
                await other.send("hello")
                assert await other.recv() == "hello"
            assert (await get(http.port, "/healthz"))[0] == 200
        await server.stop(0)

    run(program)


def test_stopping_uvicorn_drains_its_connections() -> None:
    async def program() -> None:
        server = new_server()
        await server.start()
        async with uvicorn_serving(app(server), ws=uvicorn_protocol(server)) as http:
            connection = await connect(f"ws://127.0.0.1:{http.port}/dwp")
            client = RawClient(connection)
            await client.ask("auth", {"token": "", "features": ["drain"]})
        assert (await client.next())["data"]["type"] == "drain"
        with pytest.raises(ConnectionClosed):
            await client.next()
        assert connection.close_code == 1001
        await server.stop(0)

    run(program)


def test_for_a_peer_that_takes_nothing_the_store_is_not_read_either() -> None:
    async def program() -> None:
        server = new_server()
        await server.start()
        heard: asyncio.Queue[Any] = asyncio.Queue()
        taking = asyncio.Event()
        taking.set()
        answers: list[Any] = []

        async def send(message: Any) -> None:
            await taking.wait()
            answers.append(message)

        def say(id: str, method: str, data: Any) -> None:
            frame = {"id": id, "type": "request", "method": method, "data": data}
            heard.put_nowait({"type": "websocket.receive", "text": json.dumps(frame)})

        heard.put_nowait({"type": "websocket.connect"})
        say("in", "auth", {"token": "", "features": ["resume"]})
        for n in range(15):
            job = {"name": "noop", "payload": "x" * 40_000, "delay_ms": 10**9}
            say(f"job-{n}", "job.enqueue", job)
        scope = {"type": "websocket", "path": "/dwp", "headers": [], "client": ("127.0.0.1", 1)}
        serving = asyncio.ensure_future(app(server)(scope, heard.get, send))
        while len(answers) < 17:
            await asyncio.sleep(0)
        taking.clear()
        [connection] = server._connections
        for n in range(40):
            say(f"list-{n}", "job.list", {})
        while connection.unsent <= UNSENT_LIMIT or connection._reading:
            await asyncio.sleep(0)
        assert len(connection._to_read) > 10
        taking.set()
        while len(answers) < 57:
            await asyncio.sleep(0)
        assert [json.loads(answer["text"])["correl_id"] for answer in answers[17:]] == [
            f"list-{n}" for n in range(40)
        ]
        heard.put_nowait({"type": "websocket.disconnect"})
        await serving
        await server.stop(0.0)

    run(program)
