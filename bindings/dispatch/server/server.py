"""DispatchServer: a store, its writer, an engine, a hub and the connections, put together, started and stopped.

It listens on nothing itself: uvicorn does, with `uvicorn_protocol(server)` for WebSockets and `asgi.app(server)` for
the rest; `dispatch.server.serve` is that, ready made.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypedDict

from dispatch.functions.registry import Registry
from dispatch.server.auth import OPEN_DOOR, Keys, is_loopback, is_loopback_origin
from dispatch.server.broker import Broker, Waits
from dispatch.server.connection import Connection, Outbox
from dispatch.server.crons import CronLoop
from dispatch.server.engine import Engine, EngineOptions
from dispatch.server.handlers import HANDLERS, SERVED
from dispatch.server.logs import log_events, steps
from dispatch.store.committer import Committer
from dispatch.store.port import ReadableStore, Store
from dispatch.store.values import EventPage, LogSpan, Purged, Retention, Tenant
from dwp_core.errors import DispatchError
from dwp_core.events import LoggedEvent
from dwp_core.hub import Hub
from dwp_core.ids import WORKER, IdSource
from dwp_core.server_events import Identity, ReadLog, ServerConfig

logger = logging.getLogger("dispatch.server")

PATH = "/dwp"

_type_of = attrgetter("type")

_PURGE_EVERY = 60.0
_RETRY_AFTER = 1.0


def default_config() -> ServerConfig:
    """The settings of a server with every method that there is a handler for."""
    from dispatch import __version__

    return ServerConfig(version=__version__, methods=SERVED)


class SessionSettings(TypedDict):
    """What every session of a server is made with; see `dwp_core.served_peer.ServedPeer`."""

    config: ServerConfig
    hub: Hub
    session_id: str
    now: float
    epoch_ns: int


class DispatchServer:
    """A Dispatch server in this process, on the running asyncio loop.

    Args:
        store: where jobs are; closed by whoever opened it, after `stop`.
        registry: the functions that this server runs; None for none.
        keys: who may come in; None lets everybody in, from this machine only.
        config: limits and times.
        engine_options: how jobs are run.
        retention: what the event log keeps.
        path: where the protocol is spoken.
        jitter: random numbers in [0, 1), which place retries in their window.
    """

    def __init__(
        self,
        store: Store,
        *,
        registry: Registry | None = None,
        keys: Keys | None = None,
        config: ServerConfig | None = None,
        engine_options: EngineOptions | None = None,
        retention: Retention | None = None,
        path: str = PATH,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.config = config or default_config()
        self.path = path
        self.handlers = HANDLERS
        self._store = store
        self._registry = Registry() if registry is None else registry
        self._keys = keys
        self._jitter = jitter
        self._engine_options = engine_options
        self._retention = retention or Retention()
        self._connections: set[Connection] = set()
        self._operations: list[
            tuple[Callable[[Store], Any], Callable[[Any, BaseException | None], None]]
        ] = []
        self._no_connections: asyncio.Event | None = None
        self.events_logged: Counter[str] = Counter()
        """Events that were committed since this server began, its own and those of others on its file, by type."""
        self.started_at = 0.0
        """Seconds since 1970; 0.0 before it began."""
        self._started = False
        self._draining_until: float | None = None
        self._purge_timer: asyncio.TimerHandle | None = None
        self.loop: asyncio.AbstractEventLoop
        self.now: Callable[[], float]
        self.hub: Hub
        self.outbox: Outbox
        self.waits: Waits
        self.committer: Committer
        self.engine: Engine
        self.crons: CronLoop

    # Life.

    async def start(self) -> None:
        """Open for business on the running loop: jobs may be enqueued when this returns."""
        self.loop = loop = asyncio.get_running_loop()
        self.now = loop.time
        self._epoch_ns = time.time_ns() - int(loop.time() * 1e9)
        self._ids = IdSource(random_bytes=os.urandom, now_ns=time.time_ns)
        with self._store.transaction():
            span = self._store.span()
        self.hub = Hub(head=span.head, oldest=span.oldest, log=self._store.log_id, epoch_ns=self._epoch_ns)
        self.outbox = Outbox(loop)
        self.committer = Committer(self._store, deliver=loop.call_soon_threadsafe, on_events=self._publish)
        self.waits = Waits()
        self._broker = Broker(self.hub, self.outbox, self.waits, self.now)
        self.engine = Engine(
            self.committer,
            self._registry,
            loop,
            worker_id=self._ids.new(WORKER),
            options=self._engine_options,
            jitter=self._jitter,
        )
        self.crons = CronLoop(self.committer, self._registry, loop, notify=self.engine.notify)
        self.committer.start()
        await _started(self.engine.start)
        await _started(self.crons.start)
        self._started = True
        self.started_at = time.time()
        self._purge_timer = loop.call_later(_PURGE_EVERY, self._purge)

    async def stop(self, drain_seconds: float = 10.0) -> None:
        """Take no more requests, let running jobs end for so long, close every connection, and end the threads."""
        if self._purge_timer is not None:
            self._purge_timer.cancel()
        self.drain(drain_seconds)
        await self.engine.drain(drain_seconds)
        await self._connections_closed()
        loop = self.loop
        await loop.run_in_executor(None, self.engine.close)
        await loop.run_in_executor(None, self.committer.close)

    def drain(self, drain_seconds: float) -> None:
        """Tell every client to go elsewhere; what is in flight is still answered."""
        if self._draining_until is None:
            self._draining_until = self.now() + drain_seconds
            self.crons.stop()
            for connection in list(self._connections):
                self.drain_connection(connection)
            self.waits.expire_all()

    @property
    def connections(self) -> int:
        """Connections and HTTP requests that are open."""
        return len(self._connections)

    @property
    def draining(self) -> bool:
        """Whether it was told to stop."""
        return self._draining_until is not None

    @property
    def serving(self) -> bool:
        """Whether requests are taken: started, and not yet told to drain."""
        return self._started and self._draining_until is None

    # What connections ask.

    def session_settings(self, kind: str) -> SessionSettings:
        """What a session for a connection that has come is made with; its id begins with the kind."""
        return {
            "config": self.config,
            "hub": self.hub,
            "session_id": f"{kind}_{os.urandom(8).hex()}",
            "now": self.now(),
            "epoch_ns": self._epoch_ns,
        }

    def opened(self, connection: Connection) -> None:
        """The connection is open."""
        self._connections.add(connection)

    def lost(self, connection: Connection) -> None:
        """The connection is over."""
        self._connections.discard(connection)
        if not self._connections and self._no_connections is not None:
            self._no_connections.set()

    def drain_connection(self, connection: Connection) -> None:
        """Close the connection as soon as what is in flight is answered."""
        now = self.now()
        deadline = now + 10.0 if self._draining_until is None else self._draining_until
        connection.session.drain(deadline=deadline, retry_after=_RETRY_AFTER, now=now)
        connection.take_up()

    def identify(self, token: str, host: str) -> Identity | None:
        """Who has this token; without keys, everybody on this machine."""
        if self._keys is not None:
            return self._keys.identify(token)
        return OPEN_DOOR if is_loopback(host) else None

    def is_welcome_from(self, origin: str) -> bool:
        """Whether a page of that origin may connect: without keys, only this machine's own.

        Every page in a browser on this machine comes from a loopback address; its origin is what tells it from a
        program.
        """
        return self._keys is not None or is_loopback_origin(origin)

    def read_events(
        self, effect: ReadLog, done: Callable[[EventPage | None, BaseException | None], None]
    ) -> None:
        """A page of the log for a connection that is behind."""
        tenant = Tenant(effect.app_id, effect.org_id)

        def operation(store: ReadableStore) -> EventPage:
            return store.read_events(effect.after, limit=effect.limit, tenant=tenant)

        self.committer.read(operation, done)

    def stats(self) -> dict[str, Any]:
        """The server's own part of the answer to `stats`; `broker` as on the existing server."""
        hub = self.hub
        broker = {
            "topic_count": hub.channels,
            "subscriber_count": hub.subscribers,
            "total_published": hub.published,
            "total_dropped": 0,
        }
        return {
            "broker": broker,
            "connections": len(self._connections),
            "jobs_running": self.engine.running,
            "store_waiting": self.committer.waiting,
        }

    def submit(
        self, operation: Callable[[Store], Any], done: Callable[[Any, BaseException | None], None]
    ) -> None:
        """Have the operation done in the next transaction; handed over with what else this turn's requests ask for."""
        self._operations.append((operation, done))

    def hand_over(self) -> None:
        """What requests have asked for goes to the writer, all at once: one locking, and one transaction."""
        operations = self._operations
        if operations:
            self._operations = []
            try:
                self.committer.submit_all(operations)
            except DispatchError as error:
                for _, done in operations:
                    done(None, error)

    # Inside.

    def _publish(self, events: list[LoggedEvent]) -> None:
        self.events_logged.update(map(_type_of, events))
        if steps.isEnabledFor(logging.INFO):
            log_events(events)
        self._broker.publish(events)

    async def _connections_closed(self) -> None:
        if not self._connections:
            return
        self._no_connections = asyncio.Event()
        try:
            async with asyncio.timeout(self.config.close_timeout + 1.0):
                await self._no_connections.wait()
        except TimeoutError:
            for connection in list(self._connections):
                connection.abort_transport("the server has stopped")

    def _purge(self) -> None:
        """Keep the log within its bounds, a little at a time."""
        now_ns, retention = time.time_ns(), self._retention

        def operation(store: Store) -> tuple[Purged, LogSpan]:
            return store.purge(now_ns=now_ns, retention=retention), store.span()

        def done(outcome: tuple[Purged, LogSpan] | None, error: BaseException | None) -> None:
            if outcome is None:
                logger.error("the store could not be purged", exc_info=error)
                again = _PURGE_EVERY
            else:
                purged, span = outcome
                self.hub.retained(span.oldest)
                again = 0.0 if purged.more else _PURGE_EVERY
            if self._draining_until is None:
                self._purge_timer = self.loop.call_later(again, self._purge)

        self.committer.submit(operation, done)


async def _started(start: Callable[[Callable[[BaseException | None], None]], None]) -> None:
    """Start that, and wait until it says that it has begun."""
    started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(error: BaseException | None) -> None:
        if error is None:
            started.set_result(None)
        else:
            started.set_exception(error)

    start(done)
    await started
