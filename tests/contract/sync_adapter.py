"""The blocking client as the scenarios know a client: each call is made in a thread of its own, and awaited.

So one suite serves every binding, and whatever scenarios do at once the blocking client meets from as many threads.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from typing import Any, Self, TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")

_THREADS = 4096
_END = object()


class Awaited:
    """A blocking client whose calls are awaited.

    Whoever awaits may be cancelled; the call is not: it goes on in its thread until it has its answer, until its time
    is up, or until its client is closed.

    Args:
        client: a `dispatch.sync.Dispatch`.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self._threads = anyio.CapacityLimiter(_THREADS)

    def __repr__(self) -> str:
        return repr(self.client)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        if not callable(method):
            return method
        return functools.partial(self.blocking, method)

    @property
    def state(self) -> str:
        """Where the connection stands."""
        state: str = self.client.state
        return state

    @property
    def session_id(self) -> str | None:
        """The server's name for the connection."""
        name: str | None = self.client.session_id
        return name

    async def __aenter__(self) -> Self:
        await self.blocking(self.client.__enter__)
        return self

    async def __aexit__(self, *exc: object) -> None:
        with anyio.CancelScope(shield=True):  # as `with` does it: nothing interrupts this
            await self.blocking(self.client.__exit__, *exc)

    async def connect(self) -> str:
        """As the client does it."""
        name: str = await self.blocking(self.client.connect)
        return name

    async def close(self, *, drain: float = 0.0) -> None:
        """As the client does it."""
        await self.blocking(self.client.close, drain=drain)

    def subscribe(self, channel: Any, **options: Any) -> AwaitedSubscription:
        """Subscribe in another thread, from now on; await it to have it confirmed, as elsewhere."""
        begun: Future[Any] = Future()

        def begin() -> None:
            try:
                begun.set_result(self.client.subscribe(channel, **options))
            except BaseException as error:
                begun.set_exception(error)

        threading.Thread(target=begin, name="contract-subscribe", daemon=True).start()
        return AwaitedSubscription(self, channel, begun)

    async def watch(self, id: Any) -> AwaitedSubscription:
        """As the client does it."""
        subscription = await self.blocking(self.client.watch, id)
        begun: Future[Any] = Future()
        begun.set_result(subscription)
        return AwaitedSubscription(self, subscription.channel, begun)

    def blocking(self, call: Callable[..., T], *arguments: Any, **options: Any) -> Coroutine[Any, Any, T]:
        """Do this in a thread."""
        return anyio.to_thread.run_sync(
            functools.partial(call, *arguments, **options), abandon_on_cancel=True, limiter=self._threads
        )


class AwaitedSubscription:
    """A blocking subscription that is awaited."""

    def __init__(self, client: Awaited, channel: Any, begun: Future[Any]) -> None:
        self.channel = channel
        self._client = client
        self._begun = begun

    def __repr__(self) -> str:
        return repr(self._begun.result()) if self._begun.done() else "<not confirmed>"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._begun.result(0), name)

    def __await__(self) -> Generator[Any, Any, Self]:
        yield from self._confirmed().__await__()
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        subscription = await self._confirmed()
        event = await self._client.blocking(next, subscription, _END)
        if event is _END:
            raise StopAsyncIteration
        return event

    async def take(self, count: int) -> list[Any]:
        """The next events, in one go."""
        subscription = await self._confirmed()

        def taken() -> list[Any]:
            events = [next(subscription, _END) for _ in range(count)]
            if events and events[-1] is _END:
                raise StopAsyncIteration
            return events

        return await self._client.blocking(taken)

    async def unsubscribe(self) -> None:
        """Leave it, as soon as it is confirmed."""
        subscription = await self._confirmed()
        await self._client.blocking(subscription.unsubscribe)

    async def __aenter__(self) -> Self:
        return await self

    async def __aexit__(self, *exc: object) -> None:
        subscription = self._begun.result(0)
        with anyio.CancelScope(shield=True):
            await self._client.blocking(subscription.__exit__, *exc)

    async def _confirmed(self) -> Any:
        if self._begun.done():
            return self._begun.result()
        return await self._client.blocking(self._begun.result)
