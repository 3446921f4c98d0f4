"""What `dispatch serve` does: load a program, open its file, listen, run, and stop gracefully.

Whatever a user can get wrong ends as one message and exit code 2, before anything was served. The first signal stops
gracefully: running jobs have time to end, the others are handed back, clients are told; a second one ends the process
at once, which loses nothing either (the leases of the jobs end, and other servers take them over).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import uvicorn

from dispatch.functions.registry import Registry
from dispatch.server import logs
from dispatch.server.asgi import app as asgi_app
from dispatch.server.auth import EVERYTHING, Keys, is_loopback, parse_key
from dispatch.server.engine import EngineOptions
from dispatch.server.listening import CannotServe, address_of, listen
from dispatch.server.loading import Loaded, LoadError, load
from dispatch.server.punctual import punctual_http
from dispatch.server.server import DispatchServer
from dispatch.server.ws import uvicorn_protocol
from dispatch.store.memory import MemoryStore
from dispatch.store.port import Store
from dispatch.store.sqlite import SqliteStore
from dispatch.store.values import Retention
from dwp_core.errors import DispatchError
from dwp_core.jobs import SECOND
from dwp_core.server_events import Identity

logger = logging.getLogger("dispatch.serve")

IN_MEMORY = ":memory:"
NAMES_SHOWN = 12
EXIT_SECONDS = 2.0
SHORTEST_LEASE = 0.1
LONGEST_WAIT = 86_400.0
"""Seconds: more is a mistake, for a lease as for draining."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What to serve, and how.

    Attributes:
        app: `app.py`, `package.module` or `package.module:attribute`; None takes `app.py` if there is one.
        host: the address to listen on.
        port: the port; 0 takes any that is free.
        unix: listen on this path instead, for programs of this user only; None for a port.
        db: the SQLite file; ":memory:" keeps nothing.
        queues: only jobs of these; None for all.
        concurrency: jobs that run at once; None for the default.
        tokens: keys that are accepted, each `KEY` or `KEY:scope,scope`; none: open, to this machine only.
        insecure: listen on other addresses without keys, too.
        drain_seconds: how long running jobs may go on when the server stops.
        lease_seconds: how long a job is held without a sign of life; None for the default.
        json: the ready line is JSON.
        keep_jobs_seconds: how long jobs are kept that have ended; None for the default.
        log_format: "text" or "json"; None for text, unless the program has set up logging itself.
        log_level: one of `dispatch.server.logs.LEVELS`; from "info" on every step of each job is told. None for what
            is unusual, and what functions log themselves.
    """

    app: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    unix: Path | None = None
    db: str = "dispatch.db"
    queues: tuple[str, ...] | None = None
    concurrency: int | None = None
    tokens: tuple[str, ...] = field(default=(), repr=False)
    insecure: bool = False
    drain_seconds: float = 10.0
    lease_seconds: float | None = None
    json: bool = False
    keep_jobs_seconds: float | None = None
    log_format: str | None = None
    log_level: str | None = None


def serve(options: ServeOptions) -> int:
    """Serve until a signal says to stop. Call it on the main thread of a process.

    Returns:
        The exit code: 0 after a graceful stop, 2 when serving could not begin (the reason went to standard error),
        130 when it was interrupted before it began.

    Example:
        sys.exit(serve(ServeOptions(app="app.py", port=8080)))
    """
    try:
        with contextlib.ExitStack() as stack:
            _check_times(options)
            keys = _keys_of(options)
            engine_options = _engine_options_of(options)
            listener = stack.enter_context(listen(options.host, options.port, options.unix))
            loaded = load(options.app, folder=Path.cwd())
            logs.set_up(sys.stderr, format=options.log_format, level=options.log_level)
            # It tells of its starting and stopping; we do that.
            logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
            store = stack.enter_context(contextlib.closing(_open_store(options.db)))
            _say_what_is_unusual(options, loaded, keys)
            service = _Service(options, loaded.registry, keys, engine_options, listener, store)
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(service.run())
    except (CannotServe, LoadError, DispatchError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    _end_whatever_hangs()
    return 0


class _Service:
    """A server while it serves."""

    def __init__(
        self,
        options: ServeOptions,
        registry: Registry,
        keys: Keys | None,
        engine_options: EngineOptions,
        listener: socket.socket,
        store: Store,
    ) -> None:
        self._options = options
        self._registry = registry
        self._listener = listener
        self._server = DispatchServer(
            store,
            registry=registry,
            keys=keys,
            engine_options=engine_options,
            retention=_retention_of(options),
        )

    async def run(self) -> None:
        """Serve until a signal comes, then stop gracefully."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        await self._server.start()
        http = _Http(self._server)
        serving = loop.create_task(http.serve(sockets=[self._listener]))
        with _signals(loop, lambda number: self._on_signal(number, stop)):
            await _first_of(serving, http.ready)
            self._say_ready()
            await _first_of(serving, stop)
            http.stop_listening()
            await self._server.stop(self._options.drain_seconds)
            http.should_exit = True
            await serving

    def _on_signal(self, number: int, stop: asyncio.Event) -> None:
        if stop.is_set():
            sys.stderr.write("stopping at once: jobs that ran come back when their leases end\n")
            sys.stderr.flush()
            os._exit(128 + number)
        stop.set()
        running = self._server.engine.running
        rest = (
            f"{running} running jobs have {self._options.drain_seconds:g} s to end"
            if running
            else "nothing runs"
        )
        sys.stderr.write(f"stopping: {rest}; once more to stop at once\n")

    def _say_ready(self) -> None:
        url = address_of(self._listener)
        names = sorted({function.label for function in self._registry})
        if self._options.json:
            line = json.dumps({"ready": {"url": url, "db": self._options.db, "functions": names}})
        else:
            line = f"ready: {url}, {self._options.db}, {_counted(names)}"
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


class _Http(uvicorn.Server):
    """uvicorn, for HTTP and the upgrade to our WebSocket protocol; signals are ours."""

    def __init__(self, server: DispatchServer) -> None:
        super().__init__(
            uvicorn.Config(
                asgi_app(server),
                ws=uvicorn_protocol(server),
                http=punctual_http(server.config.auth_timeout),
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    def stop_listening(self) -> None:
        """Take no new connections; those that are there go on."""
        for server in self.servers:
            server.close()


async def _first_of(serving: asyncio.Task[None], event: asyncio.Event) -> None:
    """Wait for the event; when serving ends before, that is an error."""
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        waiting.cancel()
        await serving
        raise CannotServe("the HTTP server ended by itself; its log says why")


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, handle: Callable[[int], None]) -> Generator[None, None, None]:
    for number in _SIGNALS:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


# ── before anything is served ──


class _Everybody(Keys):
    """No keys, and not only for this machine: `insecure`."""

    def __init__(self) -> None:
        super().__init__(())

    def identify(self, token: str) -> Identity | None:
        return Identity("anybody", scopes=EVERYTHING)


def _check_times(options: ServeOptions) -> None:
    for name, seconds, least in (
        ("drain_seconds (--drain)", options.drain_seconds, 0.0),
        ("lease_seconds (--lease)", options.lease_seconds, SHORTEST_LEASE),
    ):
        # Not a number is between nothing.
        if seconds is not None and not least <= seconds <= LONGEST_WAIT:
            raise CannotServe(f"{name} must be from {least:g} to {LONGEST_WAIT:g} seconds, got {seconds:g}")


def _keys_of(options: ServeOptions) -> Keys | None:
    if options.tokens:
        return Keys(parse_key(text) for text in options.tokens)
    if options.unix is not None or is_loopback(options.host):
        return None
    if options.insecure:
        return _Everybody()
    raise CannotServe(
        f"not listening on {options.host} without keys: whoever reaches it could run jobs; give a key with --token or"
        " DISPATCH_TOKENS, or say --insecure, or leave --host away to serve this machine only"
    )


def _engine_options_of(options: ServeOptions) -> EngineOptions:
    engine = EngineOptions(queues=options.queues)
    if options.concurrency is not None:
        engine = replace(engine, concurrency=options.concurrency)
    if options.lease_seconds is not None:
        engine = replace(engine, lease_seconds=options.lease_seconds)
    return engine


def _retention_of(options: ServeOptions) -> Retention:
    if options.keep_jobs_seconds is None:
        return Retention()
    return Retention(job_age_ns=int(options.keep_jobs_seconds * SECOND))


def _open_store(db: str) -> Store:
    return MemoryStore() if db == IN_MEMORY else SqliteStore(db)


def _say_what_is_unusual(options: ServeOptions, loaded: Loaded, keys: Keys | None) -> None:
    notes: list[str] = []
    if keys is None and options.unix is None:
        notes.append(
            "no keys: open to every program on this machine; give keys with --token or DISPATCH_TOKENS"
        )
    elif isinstance(keys, _Everybody):
        notes.append(f"no keys: open to everybody who reaches {options.host}, as --insecure says")
    if not loaded.origin:
        notes.append(
            "no app.py here and no app given: jobs wait until a server that has their functions runs"
        )
    if options.db == IN_MEMORY:
        notes.append("in memory: jobs end with this process")
    for note in notes:
        sys.stderr.write(f"note: {note}\n")
    sys.stderr.flush()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _counted(names: Sequence[str]) -> str:
    if not names:
        return "no functions"
    shown = ", ".join(names[:NAMES_SHOWN])
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{len(names)} function{'s' * (len(names) > 1)}: {shown}{more}"


# ── afterwards ──


def _end_whatever_hangs() -> None:
    """Python waits for threads that are no daemons; user code that hangs in one must not keep the process alive."""
    threading.Thread(target=_end_after_main, name="dispatch-exit", daemon=True).start()


def _end_after_main() -> None:
    threading.main_thread().join()
    # The interpreter is ending, and joins the other threads now.
    time.sleep(EXIT_SECONDS)
    os._exit(0)
