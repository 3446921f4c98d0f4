"""What threads wait for: an answer, set by another thread or by themselves while they drive the line."""

from __future__ import annotations

import sys
from _thread import LockType, allocate_lock
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_SLICE = 0.5 if sys.platform == "win32" else -1.0
"""Seconds to wait at a time: where Ctrl-C does not interrupt the wait for a lock, it is heard in between."""
_LONGEST = 1e6


class Waiter:
    """A result or an error that one thread waits for. All but `sleep` is called under the driver's lock."""

    __slots__ = ("_done", "_error", "_free", "_lock", "_result")

    def __init__(self) -> None:
        self._lock: LockType | None = None
        self._free = False
        self._done = False
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Whether it is there."""
        return self._done

    def set_result(self, result: Any, /) -> None:
        """Here it is."""
        self._result = result
        self._done = True
        if self._lock is not None:
            self.nudge()

    def set_exception(self, error: BaseException, /) -> None:
        """There will be none, because of this."""
        self._error = error
        self._done = True
        self.nudge()

    def nudge(self) -> None:
        """Let the thread look up, if it sleeps."""
        if self._lock is not None and not self._free:
            self._free = True
            self._lock.release()

    def lie_down(self) -> None:
        """From now on it can be nudged."""
        self._free = False
        # The cheapest thing that a thread can wait for: free when it is to look up.
        self._lock = allocate_lock()
        self._lock.acquire()

    def sleep(self, seconds: float | None = None) -> None:
        """Wait to be nudged, or for so long; without the driver's lock."""
        assert self._lock is not None
        if seconds is not None:
            self._lock.acquire(True, min(max(seconds, 0.0), _LONGEST))
            return
        while not self._lock.acquire(True, _SLICE):
            pass

    def result(self) -> Any:
        """What was set.

        Raises:
            BaseException: the error that was set.
        """
        if self._error is not None:
            raise self._error
        return self._result


class Latch:
    """Something that happens once, for which any number of threads wait."""

    __slots__ = ("_done", "_waiters")

    def __init__(self) -> None:
        self._done = False
        self._waiters: list[Waiter] = []

    def done(self) -> bool:
        """Whether it has happened."""
        return self._done

    def set_result(self, _: object, /) -> None:
        """It has happened."""
        self._done = True
        for waiter in self._waiters:
            waiter.set_result(None)
        self._waiters.clear()

    def waiter(self) -> Waiter:
        """For one thread to wait for it."""
        waiter = Waiter()
        if self._done:
            waiter.set_result(None)
        else:
            self._waiters.append(waiter)
        return waiter


def sleep_without(lock: Any) -> None:
    """Sleep for good, and hold nobody up: the lock is let go however often this thread has taken it."""
    while lock._is_owned():
        lock.release()
    forever = Waiter()
    forever.lie_down()
    forever.sleep()


def without_lock(lock: Any, wait: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Wait without the lock; afterwards it is held again, whatever Ctrl-C interrupts, and wherever."""
    try:
        try:
            lock.release()
            return wait(*args, **kwargs)
        finally:
            if not lock._is_owned():  # which threading.Condition, too, asks of any lock
                lock.acquire()
    finally:  # where the first was interrupted; what did is on its way out
        while not lock._is_owned():
            with suppress(BaseException):
                lock.acquire()
