"""Where a scenario takes place: a server, and a binding and a codec to make clients with."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from tests.contract.bindings import Binding, Client, inner
from tests.contract.rough_peers import RoughPeer
from tests.contract.sync_adapter import AwaitedSubscription
from tests.contract.threads import PATIENCE

S = TypeVar("S")
T = TypeVar("T")

_NAMES = frozenset(
    f"dispatch-{what}" for what in ("client", "connect", "connection", "time", "write", "exchange", "close")
)
"""What the bindings call their tasks and threads."""
NO_JOB = "job_01h455vb4pex5vsknk084sn02q"
NO_RUN = "wfrun_01h455vb4pex5vsknk084sn02q"


@dataclass
class World(Generic[S]):
    """A server and how to reach it.

    Attributes:
        server: what serves here; scenarios of one kind of server only use more of it.
        binding: what the clients are made with.
        codec: what they speak.
        token: lets them in.
    """

    server: S
    binding: Binding
    codec: str
    url: str
    token: Any = "dk_full"
    settings: dict[str, Any] = field(default_factory=dict)

    def client(self, settings: dict[str, Any] | None = None, **options: Any) -> Client:
        """A client that is not connected yet.

        Args:
            settings: of its session: times and bounds for which users have no argument.
            options: arguments of `Dispatch`.
        """
        given = {"url": self.url, "token": self.token, "format": self.codec, **options}
        return self.binding.make({**self.settings, **(settings or {})}, given)


def visitor(binding: Binding, peer: RoughPeer | str, codec: str = "json") -> World[None]:
    """A world with a rough peer instead of a server, or with an address where nobody is."""
    return World(None, binding, codec, peer if isinstance(peer, str) else peer.url)


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call something that blocks."""
    return await anyio.to_thread.run_sync(functools.partial(function, *arguments))


def until(condition: Callable[[], bool]) -> None:
    """Wait, in a thread, for what another thread does by itself."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0)  # only so that the other thread comes to run


async def gather(*calls: Callable[[], Awaitable[T]]) -> list[T]:
    """Their results, in order, all of them at once."""
    results: dict[int, T] = {}

    async def one(position: int, call: Callable[[], Awaitable[T]]) -> None:
        results[position] = await call()

    async with anyio.create_task_group() as group:
        for position, call in enumerate(calls):
            group.start_soon(one, position, call)
    return [results[position] for position in range(len(calls))]


async def under_way(client: Client, calls: int, *, subscriptions: int = 0) -> None:
    """Wait until this client has taken up that many calls, answered by nobody yet, and that many subscriptions."""
    session = inner(client)._driver._session
    while len(session._calls.table) < calls or len(session._streams._table) < subscriptions:
        await anyio.lowlevel.checkpoint()


async def started() -> None:
    """Wait until every task of this scenario that was started has come to wait for something."""
    for _ in range(2):  # in one turn tasks run in any order, this one among them
        await anyio.lowlevel.checkpoint()


async def confirmed(subscription: Any) -> Any:
    """The subscription, once its server has confirmed it."""
    return await subscription


async def take(subscription: Any, count: int) -> list[Any]:
    """The next events."""
    if isinstance(subscription, AwaitedSubscription):
        return await subscription.take(count)
    return [await subscription.__anext__() for _ in range(count)]


async def take_until(subscription: Any, kind: str) -> list[Any]:
    """The events up to the first of this kind."""
    events: list[Any] = []
    while not events or events[-1].kind != kind:
        events.append(await subscription.__anext__())
    return events


async def failure_of(call: Callable[[], Awaitable[Any]]) -> Exception:
    """What it raises."""
    try:
        result = await call()
    except Exception as error:
        return error
    raise AssertionError(f"it succeeded: {result!r}")


def bounded(scenario: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """A scenario that hangs fails, and so does one that leaves tasks or threads of a client behind."""

    @functools.wraps(scenario)
    async def bounded(*arguments: Any, **fixtures: Any) -> None:
        with anyio.fail_after(PATIENCE):
            await scenario(*arguments, **fixtures)
        with anyio.move_on_after(PATIENCE):
            while left_behind():
                await anyio.lowlevel.checkpoint()
        assert left_behind() == []

    return bounded


def left_behind() -> list[str]:
    """The tasks and threads of clients that are still there, by their names."""
    tasks = [task.name or "" for task in anyio.get_running_tasks()]
    threads = [thread.name for thread in threading.enumerate()]
    return [name for name in tasks + threads if name in _NAMES]
