"""What threads wait for: an answer, set by another thread."""

from __future__ import annotations

import sys
from _thread import allocate_lock
from typing import Any

_SLICE = 0.5 if sys.platform == "win32" else -1.0
"""Seconds to wait at a time: where Ctrl-C does not interrupt the wait for a lock, it is heard in between."""


class Waiter:
    """A result or an error that any number of threads wait for. Ctrl-C interrupts the wait and leaves it as it is."""

    __slots__ = ("_done", "_error", "_lock", "_result")

    def __init__(self) -> None:
        self._lock = (
            allocate_lock()
        )  # held until there is something: the cheapest thing that a thread can wait for
        self._lock.acquire()
        self._done = False
        self._result: Any = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Whether it is there."""
        return self._done

    def set_result(self, result: Any, /) -> None:
        """Here it is."""
        self._result = result
        self._done = True
        self._lock.release()

    def set_exception(self, error: BaseException, /) -> None:
        """There will be none, because of this."""
        self._error = error
        self._done = True
        self._lock.release()

    def wait(self) -> Any:
        """The result.

        Raises:
            BaseException: the error that was set.
        """
        while not self._lock.acquire(True, _SLICE):
            pass
        self._lock.release()
        if self._error is not None:
            raise self._error
        return self._result

    def wait_at_most(self, seconds: float) -> bool:
        """Whether it is there within this time."""
        if self._lock.acquire(True, seconds):
            self._lock.release()
        return self._done
