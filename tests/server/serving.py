"""A server in the test's own process, on a loopback port, and raw connections to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from dispatch.functions.registry import Function, Options, Registry
from dispatch.server.auth import Key, Keys
from dispatch.server.engine import EngineOptions
from dispatch.server.server import DispatchServer, default_config
from dispatch.server.ws import WebSocketConnection
from dispatch.store.memory import MemoryStore
from dispatch.store.port import Store
from dwp_core.peer import FEATURES
from dwp_core.server_events import ServerConfig

READER = frozenset(("job:read", "workflow:read", "subscribe"))
KEYS = (
    Key("dk_full", app_id="app-1", org_id="org-1"),
    Key("dk_reader", READER, "app-1", "org-1"),
    Key("dk_other", app_id="app-2", org_id="org-2"),
    Key("dk_admin", frozenset(("admin",))),
    Key("dk_plain"),
)
"""The keys of the recordings (tests/vectors/README.md)."""


@dataclass(frozen=True, slots=True)
class Served:
    """A server that listens."""

    server: DispatchServer
    url: str
    port: int


def registry_of(**functions: Callable[..., Any]) -> Registry:
    """Functions by name; `_` stands for `-`."""
    registry = Registry()
    for name, function in functions.items():
        registry.add(Function(function, name=name.replace("_", "-"), options=Options()))
    return registry


def noop(payload: Any = None) -> Any:
    """Gives back what it is given."""
    return payload


def new_server(
    store: Store | None,
    registry: Registry | None,
    keys: Keys | None,
    config: ServerConfig | None,
    queues: tuple[str, ...] | None,
) -> DispatchServer:
    """A server that is not started yet; what is None is as small and plain as it can be."""
    return DispatchServer(
        store or MemoryStore(),
        registry=registry or registry_of(noop=noop),
        keys=keys,
        config=config or default_config(),
        engine_options=EngineOptions(queues=queues, loops=1, concurrency=8),
        jitter=lambda: 0.0,
    )


@asynccontextmanager
async def serving(
    *,
    store: Store | None = None,
    registry: Registry | None = None,
    keys: Keys | None = None,
    config: ServerConfig | None = None,
    queues: tuple[str, ...] | None = ("default", "mail"),
) -> AsyncGenerator[Served]:
    """A server on the running loop, from here to the end of the block; stopped without draining."""
    server = new_server(store, registry, keys, config, queues)
    await server.start()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: WebSocketConnection(server), "127.0.0.1", 0)
    try:
        port = listener.sockets[0].getsockname()[1]
        yield Served(server, f"ws://127.0.0.1:{port}{server.path}", port)
    finally:
        listener.close()
        await server.stop(0.0)


class RawClient:
    """A connection that speaks frames and keeps everything it hears."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.heard: list[dict[str, Any]] = []
        self._count = 0
        self._looked = 0

    async def send(self, **frame: Any) -> None:
        """Send a frame."""
        await self.connection.send(json.dumps(frame))

    async def next(self) -> dict[str, Any]:
        """The next frame from the server."""
        message = await self.connection.recv()
        frame: dict[str, Any] = json.loads(message)
        self.heard.append(frame)
        return frame

    async def request(self, method: str, data: Any = None, **more: Any) -> str:
        """Send a request; its id."""
        self._count += 1
        frame = {"id": f"c{self._count}", "type": "request", "method": method, **more}
        if data is not None:
            frame["data"] = data
        await self.send(**frame)
        return f"c{self._count}"

    async def answer(self, id: str) -> dict[str, Any]:
        """The answer to that request, whenever it comes; what else comes is kept."""
        for frame in self.heard:
            if frame.get("correl_id") == id:
                return frame
        while True:
            frame = await self.next()
            if frame.get("correl_id") == id:
                return frame

    async def ask(self, method: str, data: Any = None) -> Any:
        """Ask, and give the `data` of the answer."""
        frame = await self.answer(await self.request(method, data))
        assert frame["type"] == "response", frame
        return frame["data"]

    async def refused(self, method: str, data: Any = None) -> tuple[int, str]:
        """Ask, and give code and message of the refusal."""
        frame = await self.answer(await self.request(method, data))
        assert frame["type"] == "error", frame
        return frame["error"]["code"], frame["error"]["message"]

    async def event(self, kind: str) -> dict[str, Any]:
        """The next event of that type which was not asked for before; what else comes is kept."""
        while True:
            while self._looked < len(self.heard):
                frame = self.heard[self._looked]
                self._looked += 1
                if frame["type"] == "event" and frame["data"]["type"] == kind:
                    return frame
            await self.next()


@asynccontextmanager
async def raw(
    url: str, *, token: str = "dk_full", features: tuple[str, ...] | None = FEATURES
) -> AsyncGenerator[RawClient]:
    """A logged-in connection."""
    async with connect(url, compression=None, max_size=None) as connection:
        client = RawClient(connection)
        data: dict[str, Any] = {"token": token, "format": "json"}
        if features is not None:
            data["features"] = list(features)
        await client.ask("auth", data)
        yield client
