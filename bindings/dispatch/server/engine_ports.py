"""What an engine is given: a loop to live on, a way to the store, and how to work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from dispatch.store.port import Store

T = TypeVar("T")


class Scheduler(Protocol):
    """What the engine needs of an event loop; an asyncio loop is one."""

    def time(self) -> float:
        """Monotonic seconds."""
        ...

    def call_at(self, when: float, callback: Callable[[], object], /) -> TimerHandle:
        """Call that then."""
        ...

    def call_soon_threadsafe(self, callback: Callable[[], object], /) -> object:
        """Call that soon; from any thread."""
        ...


class TimerHandle(Protocol):
    """A call that was scheduled."""

    def cancel(self) -> None:
        """Do not call it."""
        ...


class Writer(Protocol):
    """The way to the store's one writer; `Committer` is it."""

    def submit(
        self, operation: Callable[[Store], T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        """Carry the operation out in the next transaction; `done` is called on the engine's loop once it is durable."""
        ...


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine works.

    Attributes:
        queues: only jobs of these; None for all.
        concurrency: runs at once.
        loops: event loops for async functions; they share them when there are more runs.
        lease_seconds: how long a job is held without a sign of life; a dead server's jobs come back after that.
        grace_seconds: how long a run may go on after it was asked to stop, before its lease is taken away.
        poll_seconds: how often to look for jobs that another process put into the same file.
    """

    queues: tuple[str, ...] | None = None
    concurrency: int = 64
    loops: int = 32
    lease_seconds: float = 30.0
    grace_seconds: float = 1.0
    poll_seconds: float = 1.0
