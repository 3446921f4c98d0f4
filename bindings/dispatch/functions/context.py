"""What a running function can ask about its own run: `dispatch.current()`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime

_current: ContextVar[RunContext] = ContextVar("dispatch.current")


class RunContext:
    """One attempt at a job, as seen from inside its function. You get it from `dispatch.current()`.

    Attributes:
        id: the job's id.
        name: the name it was enqueued under.
        queue: the queue it came from.
        attempt: 1 the first time, 2 at the first retry.
    """

    __slots__ = (
        "_cancelled",
        "_clock_ns",
        "_deadline_ns",
        "_event",
        "_noticed",
        "attempt",
        "id",
        "name",
        "queue",
    )

    def __init__(
        self,
        *,
        id: str,
        name: str,
        queue: str,
        attempt: int,
        deadline_ns: int | None,
        clock_ns: Callable[[], int],
    ) -> None:
        self.id = id
        self.name = name
        self.queue = queue
        self.attempt = attempt
        self._deadline_ns = deadline_ns
        self._clock_ns = clock_ns
        self._cancelled = False
        self._noticed = False
        self._event: threading.Event | None = None

    @property
    def cancelled(self) -> bool:
        """True once the job was cancelled, ran out of time, or the server is stopping: clean up and return."""
        if self._cancelled:
            self._noticed = True
        return self._cancelled

    @property
    def noticed(self) -> bool:
        """Whether the function has looked and seen that it is to stop: what it returns may be half of its work."""
        return self._noticed

    @property
    def deadline(self) -> datetime | None:
        """When this attempt runs out of time (UTC); None when it never does."""
        if self._deadline_ns is None:
            return None
        return datetime.fromtimestamp(self._deadline_ns / 1e9, tz=UTC)

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, 0.0 when it has passed; None when there is none."""
        if self._deadline_ns is None:
            return None
        return max(0.0, (self._deadline_ns - self._clock_ns()) / 1e9)

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry the job's id, name and attempt."""
        extra = {"job_id": self.id, "job_name": self.name, "attempt": self.attempt}
        return logging.LoggerAdapter(logging.getLogger(f"dispatch.job.{self.name}"), extra)

    def wait_cancelled(self, timeout: float | None = None) -> bool:
        """Blocks until the run is cancelled or the time is over; for functions that run in a thread.

        Returns:
            Whether it was cancelled.

        Example:
            while not dispatch.current().wait_cancelled(timeout=60):
                poll_the_mailbox()
        """
        event = self._event
        if event is None:
            event = self._event = threading.Event()
        # The event stands before the flag is read, and `cancel` sets the flag before it looks for the event.
        self._noticed = self._cancelled or event.wait(timeout)
        return self._noticed

    def cancel(self) -> None:
        """Ask the function to stop. Called by the engine."""
        self._cancelled = True
        if (event := self._event) is not None:
            event.set()

    def __repr__(self) -> str:
        return f"<run of {self.name} {self.id}, attempt {self.attempt}{', cancelled' * self._cancelled}>"


def current() -> RunContext:
    """The run that the calling code is part of.

    Raises:
        RuntimeError: called outside of a dispatch function.

    Example:
        @dispatch.function
        def export(table: str):
            for row in rows(table):
                if dispatch.current().cancelled:
                    return
                write(row)
    """
    try:
        return _current.get()
    except LookupError:
        raise RuntimeError(
            "dispatch.current() was called outside of a run: it works in functions declared with @dispatch.function"
            " while a server runs them"
        ) from None


def enter(context: RunContext) -> None:
    """Makes this the run of the calling context. Called by the runner, in a context of the run's own."""
    _current.set(context)
