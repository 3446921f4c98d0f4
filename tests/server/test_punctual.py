"""HTTP connections that never finish a request (`dispatch.server.punctual`), on uvicorn and a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

import pytest
import uvicorn

from dispatch.server.asgi import app
from dispatch.server.punctual import punctual_http
from dispatch.server.server import DispatchServer
from dispatch.server.ws import uvicorn_protocol
from dispatch.store.memory import MemoryStore
from tests.server.serving import raw

PATIENCE = 30.0
SPAN = 0.05


class _Listening(uvicorn.Server):
    """uvicorn in the test's loop, which says when it listens and leaves signals alone."""

    def __init__(self, server: DispatchServer, application: Any = None) -> None:
        http, ws = punctual_http(SPAN), uvicorn_protocol(server)
        super().__init__(
            uvicorn.Config(
                application or app(server), port=0, http=http, ws=ws, log_config=None, lifespan="auto"
            )
        )
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@contextlib.asynccontextmanager
async def listening() -> AsyncGenerator[int]:
    """The port of a server that gives a request two spans."""
    http = _Listening(DispatchServer(MemoryStore()))
    serving = asyncio.ensure_future(http.serve())
    await http.ready.wait()
    try:
        yield http.servers[0].sockets[0].getsockname()[1]
    finally:
        http.should_exit = True
        await serving


def run(program: Callable[[int], Awaitable[None]]) -> None:
    async def main() -> None:
        async with listening() as port:
            await program(port)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


async def heard_until_the_end(port: int, said: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    try:
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("said", [b"", b"GET /d", b"GET /dwp HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"])
def test_a_peer_that_never_finishes_its_request_is_closed(said: bytes) -> None:
    async def program(port: int) -> None:
        assert await heard_until_the_end(port, said) == b""

    run(program)


def test_a_request_that_is_whole_is_answered_and_the_next_one_has_its_own_time() -> None:
    async def program(port: int) -> None:
        heard = await heard_until_the_end(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /heal")
        assert heard.startswith(b"HTTP/1.1 200 OK")
        assert heard.count(b"HTTP/1.1") == 1

    run(program)


def test_a_connection_that_speaks_websocket_is_left_alone() -> None:
    async def program(port: int) -> None:
        async with raw(f"ws://127.0.0.1:{port}/dwp") as client:
            for _ in range(3):
                assert await heard_until_the_end(port, b"") == b""
            assert (await client.ask("stats"))["connections"] == 1

    run(program)


def test_a_peer_that_never_takes_its_answer_is_closed() -> None:
    async def much(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x" * 50_000_000})

    async def main() -> None:
        http = _Listening(DispatchServer(MemoryStore()), much)
        serving = asyncio.ensure_future(http.serve())
        await http.ready.wait()
        port = http.servers[0].sockets[0].getsockname()[1]
        # It reads nothing: its socket is not given to the loop.
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            while not http.server_state.connections:
                await asyncio.sleep(0.001)
            while http.server_state.connections:
                await asyncio.sleep(0.001)
        http.should_exit = True
        await serving

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
