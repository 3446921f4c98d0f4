"""Transactions and the event log: what is told in a transaction gets the next seqs and is in the log when it commits.

The log is written once per transaction, right before the commit, so that a batch of operations costs one statement.
What
other processes committed in between is noticed at the beginning of each transaction, so that whoever takes the
events sees
one log without a hole (PROTOCOL.md section 9, `resume`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from dwp_core.events import LoggedEvent


class EventLogging:
    """The transactional half of a store. A store adds how to begin, commit and undo."""

    def __init__(self) -> None:
        self._changes = 0
        self._open = False
        # The head of the log as this transaction sees it, and as it was when the last one ended.
        self._seq = 0
        self._seen = 0
        # Told in the open transaction; committed, by whomever, and not yet taken.
        self._told: list[LoggedEvent] = []
        self._committed: list[LoggedEvent] = []

    @property
    def changes(self) -> int:
        """See `Store.changes`."""
        return self._changes

    def transaction(self) -> AbstractContextManager[None]:
        """See `ReadableStore.transaction`."""
        return _Transaction(self._enter, self._exit)

    def take_events(self) -> list[LoggedEvent]:
        """See `Store.take_events`."""
        events, self._committed = self._committed, []
        return events

    def _enter(self) -> None:
        if self._open:
            raise RuntimeError("a transaction is open already: they cannot be nested")
        head = self._begin()
        if head != self._seen:
            # Another process wrote since: its events come before ours.
            try:
                self._committed += self._events_since(self._seen)
            except BaseException as error:
                self._undo(error)
                raise
            self._seen = head
        self._open = True
        self._seq = head

    def _exit(self, error: BaseException | None) -> None:
        self._open = False
        told, self._told = self._told, []
        if error is not None:
            self._undo(error)
            return
        self._commit(told)
        self._committed += told
        self._seen = self._seq

    def _writes(self) -> None:
        """Called before each write."""
        if not self._open:
            raise RuntimeError("a store is written in a transaction: with store.transaction(): ...")
        self._changes += 1

    def _log(
        self, type: str, ts_ns: int, topic: str, queue: str, app_id: str, org_id: str, data: bytes
    ) -> None:
        self._seq += 1
        self._told.append(LoggedEvent(self._seq, type, ts_ns, topic, queue, app_id, org_id, data))

    @abstractmethod
    def _begin(self) -> int:
        """Begins a transaction in which nobody else writes; the head of the log."""

    @abstractmethod
    def _events_since(self, seq: int) -> list[LoggedEvent]:
        """Every committed event after this one."""

    @abstractmethod
    def _commit(self, told: list[LoggedEvent]) -> None:
        """Writes the events and makes everything durable; undoes everything and raises when that is not possible."""

    @abstractmethod
    def _undo(self, error: BaseException) -> None:
        """Undoes everything because of this error; may raise another that says it better."""


class _Transaction:
    __slots__ = ("_enter", "_exit")

    def __init__(self, enter: Callable[[], None], exit: Callable[[BaseException | None], None]) -> None:
        self._enter = enter
        self._exit = exit

    def __enter__(self) -> None:
        self._enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit(error)
