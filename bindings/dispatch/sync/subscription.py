"""A subscription as programs without an event loop see it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

from dispatch.results import Event
from dispatch.settings import check_seconds
from dispatch.subscription import Feed
from dwp_core.errors import TimeoutError

if TYPE_CHECKING:
    from dispatch.sync.driver import Driver


class Subscription(Feed):
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
        self._lock = driver.lock
        self._change = threading.Condition(driver.lock)
        self._readers = 0

    def next(self, timeout: float | None = None) -> Event:
        """The next event.

        Args:
            timeout: seconds to wait for it; None waits as long as it takes.

        Raises:
            TimeoutError: none has come in time.
            StopIteration: the subscription was left, or the client closed.
            DispatchError: what ended the subscription.
        """
        check_seconds("timeout", timeout, least=0.0)
        with self._lock:
            deadline = None
            while not self._items:
                if self._over:
                    raise self._failure() or StopIteration
                if timeout is not None:
                    deadline = deadline or time.monotonic() + timeout
                self._wait(deadline, f"subscribe: no event on {self.channel} within {timeout} s")
            return self._take()

    def unsubscribe(self) -> None:
        """Leave. The iteration ends at once, also in other threads; leaving twice does nothing."""
        with self._lock:
            self._leave()

    def confirmed(self, timeout: float | None) -> Self:
        """Wait until the server has confirmed it."""
        with self._lock:
            deadline = None if timeout is None else time.monotonic() + timeout
            while not self._started:
                if self._over:
                    raise self._not_confirmed()
                self._wait(deadline, f"subscribe: {self.channel} was not confirmed within {timeout} s")
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        if self._items:
            with self._lock:
                if self._items:
                    return self._take()
        return self.next()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.unsubscribe()

    def _wake(self) -> None:
        if self._readers:
            self._change.notify_all()

    def _wait(self, deadline: float | None, too_late: str) -> None:
        """Wait for a change, without the lock."""
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError(too_late)
        self._readers += 1
        try:
            self._change.wait(left)
        finally:
            self._readers -= 1
