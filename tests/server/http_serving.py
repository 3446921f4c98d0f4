"""A server under uvicorn in the test's own loop, and HTTP requests to it over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from dispatch.functions.registry import Registry
from dispatch.server.asgi import app
from dispatch.server.auth import Keys
from dispatch.server.server import DispatchServer
from dispatch.store.port import Store
from dwp_core.server_events import ServerConfig
from tests.server.serving import KEYS, new_server

RECORDED = Keys(KEYS)
"""The keys of the recordings."""


class Uvicorn(uvicorn.Server):
    """uvicorn in the test's loop, which says when it listens and leaves signals alone."""

    def __init__(self, application: Any, **options: Any) -> None:
        super().__init__(uvicorn.Config(application, log_config=None, timeout_graceful_shutdown=5, **options))
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.ready.set()

    def install_signal_handlers(self) -> None:
        """None: the signals are the test runner's."""

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port


@asynccontextmanager
async def uvicorn_serving(
    application: Any, *, lifespan: str = "on", **options: Any
) -> AsyncGenerator[Uvicorn]:
    """uvicorn with that application on a free port, from here to the end of the block."""
    # Named, not left to the kernel: asyncio turns Nagle's algorithm off for what says that it is TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    http = Uvicorn(application, lifespan=lifespan, **options)
    # `_serve` is `serve` without the signal handlers of the whole process.
    task = asyncio.create_task(http._serve(sockets=[listener]))
    await http.ready.wait()
    try:
        yield http
    finally:
        http.should_exit = True
        await task
        listener.close()


@dataclass(frozen=True, slots=True)
class ServedOverHttp:
    """A server that listens, and a client for it."""

    server: DispatchServer
    port: int
    client: httpx.AsyncClient

    async def rpc(
        self, method: str, data: Any = None, *, token: str = "dk_full", **more: Any
    ) -> httpx.Response:
        """A request in JSON, with its token in the frame."""
        frame = {"id": "1", "type": "request", "method": method, "token": token, **more}
        if data is not None:
            frame["data"] = data
        return await self.client.post("/dwp/rpc", json=frame)

    async def ask(self, method: str, data: Any = None) -> Any:
        """The `data` of the answer."""
        response = await self.rpc(method, data)
        assert response.status_code == 200, response.text
        return response.json()["data"]

    @asynccontextmanager
    async def stream(
        self, *channels: str, token: str = "dk_full", headers: dict[str, str] | None = None, **query: str
    ) -> AsyncGenerator[Stream]:
        """A stream of events, from its head on."""
        wanted = httpx.QueryParams({"token": token, "channel": channels, **query})
        async with self.client.stream("GET", "/dwp/sse", params=wanted, headers=headers) as response:
            assert response.status_code == 200, await response.aread()
            yield Stream(response)

    async def refused_stream(self, query: str, **headers: str) -> tuple[int, str]:
        """Status and message of a stream that does not begin."""
        response = await self.client.get(f"/dwp/sse{query}", headers=headers)
        assert response.status_code != 200
        assert response.headers["content-type"] == "application/json"
        error = response.json()["error"]
        assert error["code"] == response.status_code
        return response.status_code, error["message"]


class Stream:
    """What a reader gets: blocks of lines."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def block(self) -> dict[str, str]:
        """The next block by field; a comment has the field "". Nothing at the end of the stream."""
        fields: dict[str, str] = {}
        async for line in self._lines:
            if not line:
                return fields
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        return fields

    async def event(self, type: str) -> dict[str, Any]:
        """The data of the next event of this type; what comes before it is passed over."""
        while True:
            block = await self.block()
            assert block, f"the stream ended before {type}"
            if block.get("event") == type:
                data: dict[str, Any] = json.loads(block["data"])
                return data


@asynccontextmanager
async def serving_http(
    *,
    store: Store | None = None,
    registry: Registry | None = None,
    keys: Keys | None = RECORDED,
    config: ServerConfig | None = None,
    queues: tuple[str, ...] | None = ("default", "mail"),
    **options: Any,
) -> AsyncGenerator[ServedOverHttp]:
    """A server under uvicorn on the running loop, from here to the end of the block."""
    server = new_server(store, registry, keys, config, queues)
    await server.start()
    async with uvicorn_serving(app(server), lifespan="off", **options) as http:
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{http.port}", timeout=20.0) as client:
                yield ServedOverHttp(server, http.port, client)
        finally:
            # Before uvicorn, as by `dispatch serve`: it waits for streams, and they end with the server.
            await server.stop(0.0)
