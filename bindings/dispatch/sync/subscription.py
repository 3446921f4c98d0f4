"""A subscription as programs without an event loop see it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self, TypeVar

from dispatch.lifecycle import Change
from dispatch.results import Event
from dispatch.settings import check_seconds
from dispatch.subscription import Changes, Feed, Reading
from dispatch.sync.line import NEVER
from dispatch.sync.waiting import Waiter
from dwp_core.errors import TimeoutError
from dwp_core.frames import EventHead
from dwp_core.subscriptions import Gap

if TYPE_CHECKING:
    from dispatch.sync.driver import Driver

I = TypeVar("I")  # noqa: E741  # an item
R = TypeVar("R")


class _Reading(Reading[I, R]):
    """How threads wait for the next item."""

    _home: Driver
    _readers: list[Waiter]

    def next(self, timeout: float | None = None) -> R:
        """The next one.

        Args:
            timeout: seconds to wait for it; None waits as long as it takes.

        Raises:
            TimeoutError: none has come in time.
            StopIteration: nothing more comes: the client was closed, or the subscription left.
            DispatchError: what ended the subscription.
        """
        check_seconds("timeout", timeout, least=0.0)
        until = NEVER if timeout is None else time.monotonic() + timeout
        with self._home.lock:
            self._home.check_place()
            while not self._items:
                if self._over:
                    raise self._failure() or StopIteration
                if not self._changed(until):
                    raise TimeoutError(f"nothing has come from {self!r} within {timeout} s")
            return self._take()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R:
        if self._items and not self._home.unusable:
            with self._home.lock:
                if self._items:
                    return self._take()
        return self.next()

    def _wake(self) -> None:
        for reader in self._readers:
            if not reader.done():
                reader.set_result(None)

    def _changed(self, until: float) -> bool:
        """Wait for `_wake`, without the lock; whether it came in time."""
        reader = Waiter()
        self._readers.append(reader)
        try:
            return self._home.wait_for(reader, until)
        finally:
            self._readers.remove(reader)


class Subscription(_Reading[EventHead | Gap, Event], Feed):
    """The events of one channel, in order, across reconnects.

    Iterate over it, from any thread. Events that come while nobody iterates are kept, up to a bound. Ends when it is
    left or the client is closed.

    Example:
        >>> def first(client):
        ...     for event in client.subscribe("jobs"):
        ...         return event.kind
    """

    def __init__(self, driver: Driver, channel: str, until: frozenset[str]) -> None:
        super().__init__(driver, channel, until)
        self._home = driver
        self._readers = []

    def unsubscribe(self) -> None:
        """Leave. The iteration ends at once, also in other threads; leaving twice does nothing."""
        with self._home.lock:
            self._leave()

    def confirmed(self, timeout: float | None) -> Self:
        """Wait until the server has confirmed it."""
        until = NEVER if timeout is None else time.monotonic() + timeout
        with self._home.lock:
            while not self._started:
                if self._over:
                    raise self._not_confirmed()
                if not self._changed(until):
                    raise TimeoutError(f"subscribe: {self.channel} was not confirmed within {timeout} s")
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.unsubscribe()


class States(_Reading[Change, Change], Changes):
    """What happens to the connection: see `dispatch.subscription.Changes`."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self._home = driver
        self._readers = []
