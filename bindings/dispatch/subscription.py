"""A subscription as programs see it, whatever they wait with: what has come, what was taken, how it ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator
from copy import copy
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from dispatch.lifecycle import KEPT, Change
from dispatch.results import Event, read_event, read_gap
from dwp_core.errors import ClosedError, DispatchError
from dwp_core.frames import EventHead
from dwp_core.subscriptions import Gap

if TYPE_CHECKING:
    from dispatch.driver import Driver
    from dwp_core.subscriptions import Subscription as Handle

_ACKNOWLEDGE = 32
"""Events after which the session is told that they were consumed, at the latest."""


I = TypeVar("I")  # noqa: E741  # an item
R = TypeVar("R")


class Reading(ABC, Generic[I, R]):
    """Things that come one after the other, kept until somebody takes them."""

    def __init__(self, bound: int | None = None) -> None:
        self._items: deque[I] = deque(maxlen=bound)
        self._over = False
        self._error: DispatchError | None = None

    def push(self, item: I) -> None:
        """Another one has come; for the driver."""
        self._items.append(item)
        self._wake()

    def end(self, error: DispatchError | None) -> None:
        """Nothing more comes; for the driver."""
        self._over = True
        self._error = error
        self._wake()

    @abstractmethod
    def _wake(self) -> None:
        """Whoever waits looks again."""

    @abstractmethod
    def _take(self) -> R:
        """The next of the items, of which there is one."""

    def _failure(self) -> DispatchError | None:
        """Why it ended, for one caller: each gets a traceback of its own."""
        return copy(self._error)


class AwaitedReading(Reading[I, R]):
    """To be read with `async for`."""

    @abstractmethod
    async def _changed(self) -> None:
        """Wait until `_wake` is called."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        while not self._items:
            if self._over:
                raise self._failure() or StopAsyncIteration
            await self._changed()
        return self._take()


class Feed(Reading[EventHead | Gap, Event]):
    """The events of one channel, in order, across reconnects, kept until somebody takes them."""

    def __init__(self, driver: Driver, channel: str, until: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.channel = channel
        """What was subscribed to."""
        self._driver = driver
        self.handle: Handle | None = None
        """How the session knows it; for the driver."""
        self._until = until
        self._taken = 0
        self._started = False

    @property
    def position(self) -> int | None:
        """`seq` of the last event that came in: `subscribe(channel, since=...)` goes on from there, in any process."""
        return self.handle.position if self.handle is not None else None

    def end_here(self) -> None:
        """Leave, but keep what has come."""
        self._driver.leave(self)

    def __repr__(self) -> str:
        state = "over" if self._over else "confirmed" if self._started else "waiting"
        return f"<Subscription {self.channel!r} {state}, {len(self._items)} unread>"

    def start(self) -> None:
        """The server has confirmed it; for the driver."""
        self._started = True
        self._wake()

    def _leave(self) -> None:
        self._items.clear()
        self._driver.leave(self)

    def _take(self) -> Event:
        """The next of the items, of which there is one."""
        items = self._items
        item = items.popleft()
        is_gap = isinstance(item, Gap)
        self._taken += not is_gap
        if self._taken and (self._taken >= _ACKNOWLEDGE or not items):
            taken, self._taken = self._taken, 0
            self._driver.consumed(self, taken)
        if isinstance(item, Gap):
            return read_gap(self.channel, item)
        if item.type in self._until:
            self._leave()
        return read_event(self.channel, item)

    def _not_confirmed(self) -> DispatchError:
        return self._failure() or ClosedError(
            f"subscribe: {self.channel} was left, or the client closed, before the server confirmed it"
        )


class AwaitedFeed(AwaitedReading[EventHead | Gap, Event], Feed):
    """A subscription to await, to iterate over with `async for`, and to leave.

    Await it to know that the server has confirmed it, or iterate over it directly. Events that come while nobody
    iterates are kept, up to a bound. Ends when it is left or the client is closed.

    Example:
        >>> async def first(client):
        ...     async for event in await client.subscribe("jobs"):
        ...         return event.kind
    """

    async def unsubscribe(self) -> None:
        """Leave. The iteration ends at once, also in other tasks; leaving twice does nothing."""
        self._leave()

    def __await__(self) -> Generator[object, None, Self]:
        while not self._started and not self._over:
            yield from self._changed().__await__()
        if not self._started:
            raise self._not_confirmed()
        return self

    async def __aenter__(self) -> Self:
        return await self

    async def __aexit__(self, *exc: object) -> None:
        await self.unsubscribe()


class Changes(Reading[Change, Change]):
    """What happens to the connection of a client, until that is closed.

    Begins with how things stand. Of changes that nobody takes, the newest are kept.
    """

    def __init__(self) -> None:
        super().__init__(KEPT)

    def _take(self) -> Change:
        return self._items.popleft()


class AwaitedChanges(AwaitedReading[Change, Change], Changes):
    """Changes to iterate over with `async for`."""
