"""`server()`: a real server in this process, in memory, for the tests of functions and of programs that enqueue jobs.

It is the server of `dispatch serve` with its store in memory: on a free port of this machine, on an event loop in a
thread of its own, so that tests of every kind can use it. A job that fails is tried again at once.
"""

from __future__ import annotations

import asyncio
import builtins
import secrets
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self, TypeVar

from dispatch.functions.registry import REGISTRY, Registry
from dispatch.results import Job, read_job
from dispatch.server import DispatchServer, EngineOptions, Key, Keys
from dispatch.server.loading import load
from dispatch.server.server import default_config
from dispatch.server.ws import WebSocketConnection
from dispatch.store.memory import MemoryStore
from dispatch.store.port import ReadableStore
from dispatch.testing.waiting import awaited, awaited_blocking
from dwp_core.errors import ClosedError, InvalidRequest, TimeoutError
from dwp_core.jobs import PENDING, RETRYING, RUNNING, job_to_wire
from dwp_core.server_events import ServerConfig

T = TypeVar("T")

_UNFINISHED = (PENDING, RUNNING, RETRYING)
_SHOWN = 10
_CONFIG = frozenset(each.name for each in fields(ServerConfig))
_ENGINE = frozenset(each.name for each in fields(EngineOptions))


def server(
    app: Registry | str | None = None, *, keys: Iterable[Key] | None = None, **settings: Any
) -> MemoryServer:
    """A server in memory that runs real functions, for `with` or `async with`.

    Args:
        app: whose functions it runs: a registry, or what `dispatch serve` takes ("app.py", "package.module"); None for
            those that `@dispatch.function` has declared by the time it starts.
        keys: who may come in; None makes one key, which may do everything.
        settings: fields of `dwp_core.server_events.ServerConfig` or `dispatch.server.EngineOptions` to change, e.g.
            `heartbeat=0.1`, `concurrency=1`, `features=frozenset()`.

    Raises:
        InvalidRequest: there is no such setting, or no key.

    Example:
        >>> from dispatch.functions.registry import Registry
        >>> from dispatch.sync import Dispatch
        >>> registry = Registry()
        >>> @registry.function
        ... def double(number: int) -> int:
        ...     return 2 * number
        >>> with server(registry) as running, Dispatch(running.url, running.token) as client:
        ...     _ = client.enqueue("double", {"number": 21})
        ...     running.until_idle_blocking()
        ...     [job.output for job in running.jobs()]
        [42]
    """
    return MemoryServer(app, keys, settings)


class MemoryServer:
    """A server in memory; made by `server()`.

    Attributes:
        url: where it listens, e.g. "ws://127.0.0.1:40123/dwp".
        token: its first key.
    """

    def __init__(
        self, app: Registry | str | None, keys: Iterable[Key] | None, settings: dict[str, Any]
    ) -> None:
        chosen = [Key(secrets.token_hex(16))] if keys is None else list(keys)
        if not chosen:
            raise InvalidRequest("keys: give one at least, or None for one that may do everything")
        self.url = ""
        self.token = chosen[0].token
        self._app = app
        self._keys = Keys(chosen)
        self._config, self._engine = _read(settings)
        self._started: Future[None] = Future()
        self._ended: Future[None] = Future()
        for told in (self._started, self._ended):
            told.set_running_or_notify_cancel()  # who gives up waiting must not keep the thread from telling
        self._thread = threading.Thread(target=self._serve, name="dispatch-testing-server", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._server: _Server

    def __repr__(self) -> str:
        return f"<MemoryServer {self.url or 'not started'}>"

    def __enter__(self) -> Self:
        self._begin()
        awaited_blocking(self._started, None)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._ended.result()

    async def __aenter__(self) -> Self:
        self._begin()
        await awaited(self._started, None)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        await awaited(self._ended, None)

    # What tests ask. Safe in every thread, and on every event loop.

    def jobs(self) -> list[Job]:
        """Every job that was enqueued, of all tenants, oldest first, as `client.get_job` gives it."""
        return self._ask(self._all_jobs()).result()

    async def until_idle(self, timeout: float = 10.0) -> None:
        """Wait until no job waits or runs: everything that was asked for, and what that has asked for, is done.

        For asyncio and trio; retries count as waiting.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: some jobs are not done by then; the message says which, and why as far as it can be told.
        """
        await awaited(self._ask(self._idle(timeout)), None)

    def until_idle_blocking(self, timeout: float = 10.0) -> None:
        """As `until_idle`, in a thread that may block."""
        awaited_blocking(self._ask(self._idle(timeout)), None)

    # On the thread of the server.

    def _begin(self) -> None:
        if self._thread.ident is not None:
            raise ClosedError("this server was started before; make a new one")
        self._thread.start()

    def _serve(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:  # noqa: BLE001  # whoever started or stops it is told
            (self._ended if self._started.done() else self._started).set_exception(error)
        else:
            self._ended.set_result(None)

    async def _live(self) -> None:
        app = load(self._app, folder=Path.cwd()).registry if isinstance(self._app, str) else self._app
        self._server = _Server(
            MemoryStore(),
            registry=REGISTRY if app is None else app,
            keys=self._keys,
            config=self._config,
            engine_options=self._engine,
            jitter=lambda: 0.0,
        )
        await self._server.start()
        self._loop = loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        listening = await loop.create_server(lambda: WebSocketConnection(self._server), "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}{self._server.path}"
        self._started.set_result(None)
        await self._stop.wait()
        # Nobody is accepted any more, and who was is known: asyncio loses a connection that it accepts as it closes.
        for each in listening.sockets:
            loop.remove_reader(each.fileno())
        await asyncio.sleep(0)
        listening.close()
        await self._server.stop(0.0)

    def _ask(self, question: Coroutine[Any, Any, T]) -> Future[T]:
        if not self._started.done() or self._ended.done():
            question.close()
            raise ClosedError("this server does not run: use it with `with` or `async with`")
        return asyncio.run_coroutine_threadsafe(question, self._loop)

    async def _all_jobs(self) -> list[Job]:
        def operation(store: ReadableStore) -> list[Job]:
            jobs: list[Job] = []
            cursor = ""
            while True:
                page = store.list_jobs(tenant=None, cursor=cursor)
                jobs += [read_job(job_to_wire(job)) for job in page.jobs]
                if not page.cursor:
                    return jobs[::-1]
                cursor = page.cursor

        return await self._read(operation)

    async def _idle(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                while True:
                    change = self._server.change
                    counts = await self._read(lambda store: store.stats(tenant=None).jobs)
                    if not any(counts[state] for state in _UNFINISHED):
                        return
                    await change.wait()
        except builtins.TimeoutError:
            unfinished = [job for job in await self._all_jobs() if job.state in _UNFINISHED]
        if unfinished:
            raise TimeoutError(self._why(unfinished, timeout))

    async def _read(self, operation: Callable[[ReadableStore], T]) -> T:
        answer: asyncio.Future[T] = self._loop.create_future()

        def done(value: T | None, error: BaseException | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(value)  # type: ignore[arg-type]  # without an error it is what the operation gave

        self._server.committer.read(operation, done)
        return await answer

    def _why(self, jobs: list[Job], timeout: float) -> str:
        told = [f"{job.name} {job.id} is {job.state}{self._reason(job)}" for job in jobs[:_SHOWN]]
        if len(jobs) > _SHOWN:
            told.append(f"and {len(jobs) - _SHOWN} more")
        return f"{len(jobs)} jobs are not done after {timeout:g} s: {'; '.join(told)}"

    def _reason(self, job: Job) -> str:
        if job.state == RUNNING:
            return f" since {job.started_at}"
        if not self._server.engine.knows(job.name):
            return ", and no function of that name is served here"
        return f", not before {job.run_at}"


class _Server(DispatchServer):
    """Tells of every change, for there is an event for each; and what is to be tried again is, at once."""

    change: asyncio.Event

    async def start(self) -> None:
        self.change = asyncio.Event()
        await super().start()

    def _publish(self, events: list[Any]) -> None:
        super()._publish(events)
        if any(event.type == "job.retrying" for event in events):
            self.engine.notify()  # it would look a second later, in case others take it
        self.change.set()
        self.change = asyncio.Event()


def _read(settings: dict[str, Any]) -> tuple[ServerConfig, EngineOptions]:
    """The settings, where they belong."""
    known = _CONFIG | _ENGINE
    for name in settings:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f'did you mean "{close[0]}"?' if close else f"there are {', '.join(sorted(known))}"
            raise InvalidRequest(f'server: there is no setting "{name}"; {hint}')
    config = {name: value for name, value in settings.items() if name in _CONFIG}
    engine = {name: value for name, value in settings.items() if name in _ENGINE}
    return replace(default_config(), **config), EngineOptions(**engine)
