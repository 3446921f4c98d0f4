"""Our server on a thread of this process, with the functions that the scenarios call."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any, Self

from dispatch.functions.registry import Registry
from dispatch.server import DispatchServer, Key, Keys
from dispatch.server.server import default_config
from dispatch.server.ws import WebSocketConnection
from dispatch.store.port import Store
from tests.contract.threads import PATIENCE, LoopThread, stop_accepting

KEYS = (
    Key("dk_full", app_id="app-1", org_id="org-1", name="full"),
    Key(
        "dk_reader",
        scopes=frozenset(("job:read", "subscribe")),
        app_id="app-1",
        org_id="org-1",
        name="reader",
    ),
    Key("dk_writer", scopes=frozenset(("job:write",)), app_id="app-1", org_id="org-1", name="writer"),
)


class OurServer:
    """A `DispatchServer` on its fast WebSocket path.

    Args:
        store: open; the caller closes it afterwards.
        settings: fields of `ServerConfig` to change.
    """

    base = False

    def __init__(self, store: Store, **settings: Any) -> None:
        self._store = store
        self._settings = settings
        self._thread = LoopThread()
        self._held = threading.Semaphore(0)
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.__enter__()
        self._thread.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.release(64)
        self._thread.run(self._stop())
        self._thread.__exit__()

    def release(self, count: int = 1) -> None:
        """Let jobs end that are held, or will be."""
        self._held.release(count)

    def restart(self) -> None:
        """Stop as an operator stops it, and start again on the same store and another port."""
        self.release(64)
        self._thread.run(self._stop())
        self._thread.run(self._start())

    def connections(self) -> int:
        """How many there are."""
        return len(self._server._connections)

    async def _start(self) -> None:
        config = replace(default_config(), **self._settings)
        self._server = DispatchServer(self._store, registry=self._functions(), keys=Keys(KEYS), config=config)
        await self._server.start()
        self._listening = await asyncio.get_running_loop().create_server(
            lambda: WebSocketConnection(self._server), "127.0.0.1", 0, backlog=2048
        )
        self.url = f"ws://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}/dwp"

    async def _stop(self) -> None:
        await stop_accepting(self._listening.sockets)
        self._listening.close()
        await self._server.stop(0.0)

    def _functions(self) -> Registry:
        registry = Registry()

        @registry.cron(
            "@yearly",
            timezone="Europe/Berlin",
            name="yearly",
            payload={"a": [1]},
            app_id="app-1",
            org_id="org-1",
        )
        @registry.function(name="noop")
        def noop(payload: Any = None) -> None:
            pass

        @registry.function(name="send-email")
        def send_email(to: str, subject: str = "Hello") -> dict[str, str]:
            return {"sent_to": to}

        @registry.function(name="echo")
        def echo(payload: Any) -> Any:
            return payload["it"]

        @registry.function(name="hold")
        def hold(payload: Any = None) -> str:
            assert self._held.acquire(timeout=PATIENCE)
            return "let go"

        @registry.function(name="always-fails", max_retries=0)
        def always_fails(payload: Any = None) -> None:
            raise ValueError("as it always does")

        return registry
