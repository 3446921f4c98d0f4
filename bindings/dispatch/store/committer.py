"""One writer thread for many callers: whatever is waiting becomes one transaction, durable before anyone is answered.

An operation is a function of the store. Its outcome goes to a callback, and all outcomes of a transaction reach their
owner in one call, after the events which that transaction committed. What cannot be done is told to the one who
asked, and the thread lives on. Reads go to a second thread with its own view of the store, where the store has one, so
that they do not wait for a disk. DESIGN.md, "Engine and store".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeAlias, TypeVar

from dispatch.store.port import ReadableStore, Store
from dwp_core.errors import ClosedError, DispatchError, LimitError
from dwp_core.events import LoggedEvent

T = TypeVar("T")
S = TypeVar("S", bound=ReadableStore)

Done: TypeAlias = Callable[[T | None, BaseException | None], object]
Deliver: TypeAlias = Callable[[Callable[[], None]], object]
OnEvents: TypeAlias = Callable[[list[LoggedEvent]], object]

_Waiting: TypeAlias = tuple[Callable[[S], Any], Done[Any]]
_Outcome: TypeAlias = tuple[Done[Any], Any, BaseException | None]

MAX_WAITING = 10_000
MAX_BATCH = 512


class BatchSizes:
    """How many operations there were in each transaction of the writer.

    Attributes:
        counts: transactions, by the power of two that their size does not exceed: of 1, of 2, of 3 or 4, of 5 to 8, ...
        operations: all of them together.

    Example:
        >>> sizes = BatchSizes()
        >>> for size in (1, 1, 3, 4): sizes.add(size)
        >>> sizes.counts[:4], sizes.operations
        ([2, 0, 2, 0], 9)
    """

    __slots__ = ("counts", "operations")

    def __init__(self) -> None:
        self.counts = [0] * (MAX_BATCH.bit_length())
        self.operations = 0

    def add(self, size: int) -> None:
        """One more transaction."""
        place = min((size - 1).bit_length(), len(self.counts) - 1)
        self.counts[place] += 1
        self.operations += size


class Committer:
    """Runs operations on a store, many in one transaction, on a thread of its own. Any thread may call its methods.

    Args:
        store: used by the writer thread alone from `start` on; closed by whoever opened it, after `close`.
        deliver: is given a function to call where the callbacks belong; e.g. `loop.call_soon_threadsafe`. It must not
            block and must keep the order.
        on_events: is given the events of each transaction, in commit order and without a hole, before the outcomes of
            that transaction. Events that other processes committed to the same store are among them, in their place.
        max_waiting: beyond so many waiting operations, `submit` refuses.
        max_batch: at most so many operations in one transaction.

    An operation may run more than once, if the transaction it was in had to be undone because of another; only its
    last
    run counts. So it must do nothing but use the store, and give a value back.
    """

    def __init__(
        self,
        store: Store,
        *,
        deliver: Deliver,
        on_events: OnEvents | None = None,
        max_waiting: int = MAX_WAITING,
        max_batch: int = MAX_BATCH,
    ) -> None:
        self.batches = BatchSizes()
        """Written by the writer thread; read by whoever wants to know."""
        self._on_events = on_events
        self._deliver = deliver
        self._writer: _Lane[Store] = _Lane("dispatch-writer", store, self._write, max_waiting, max_batch)
        reader = store.reader()
        self._reader: _Lane[ReadableStore] | None = None
        if reader is not None:
            self._reader = _Lane("dispatch-reader", reader, self._read, max_waiting, max_batch)

    def start(self) -> None:
        """Starts the threads. What was submitted before is done now."""
        self._writer.start()
        if self._reader is not None:
            self._reader.start()

    def submit(self, operation: Callable[[Store], T], done: Done[T]) -> None:
        """Has the operation done in a transaction, and `done(value, None)` or `done(None, error)` called by
        `deliver`.

        When `done` gets a value, what the operation wrote is durable. A `DispatchError` says what went wrong; any
        other
        error was raised by the operation itself. In both cases nothing of it was written.

        Raises:
            LimitError: (429) too many operations are waiting; nothing was done.
            ClosedError: (503) the committer was closed; nothing was done.
        """
        self._writer.put((operation, done))

    def submit_all(self, operations: Sequence[tuple[Callable[[Store], Any], Done[Any]]]) -> None:
        """Many at once, for the price of one: all of them are taken, or none. Otherwise as `submit`."""
        self._writer.put(*operations)

    def read(self, operation: Callable[[ReadableStore], T], done: Done[T]) -> None:
        """Has a reading operation done; sees everything whose `done` was called before. Otherwise as `submit`."""
        if self._reader is None:
            self._writer.put((operation, done))
        else:
            self._reader.put((operation, done))

    @property
    def waiting(self) -> int:
        """How many operations wait for the writer."""
        return self._writer.waiting

    def close(self, timeout: float = 10.0) -> bool:
        """Takes nothing more, does what is waiting, and ends the threads. Blocks for at most about `timeout` seconds.

        Returns:
            Whether everything was done in time. If not, what was still waiting is answered 503 and was not done.
        """
        in_time = self._writer.close(timeout)
        if self._reader is not None:
            in_time = self._reader.close(timeout) and in_time
        left = self._writer.abandon()
        if self._reader is not None:
            left += self._reader.abandon()
        if left:
            error = ClosedError("the store was closed before this was done; nothing of it was written")
            self._hand_over([], [(done, None, error) for _, done in left])
        if self._reader is not None and not self._reader.running:
            self._reader.store.close()
        return in_time

    def _write(self, store: Store, batch: Sequence[_Waiting[Store]]) -> None:
        self.batches.add(len(batch))
        outcomes = _together(store, batch) if len(batch) > 1 else None
        if outcomes is None:
            outcomes = [_alone(store, waiting) for waiting in batch]
        self._hand_over(store.take_events(), outcomes)

    def _read(self, store: ReadableStore, batch: Sequence[_Waiting[ReadableStore]]) -> None:
        self._hand_over([], [_alone(store, waiting) for waiting in batch])

    def _hand_over(self, events: list[LoggedEvent], outcomes: list[_Outcome]) -> None:
        try:
            self._deliver(partial(_call, self._on_events, events, outcomes))
        except RuntimeError:
            # The loop that the callbacks belong to is closed: nobody is left to be told.
            pass


class _Lane(Generic[S]):
    """A thread that takes whatever is waiting and has it done together."""

    def __init__(
        self,
        name: str,
        store: S,
        run: Callable[[S, Sequence[_Waiting[S]]], None],
        max_waiting: int,
        max_batch: int,
    ) -> None:
        self.store = store
        self._run = run
        self._max_waiting = max_waiting
        self._max_batch = max_batch
        self._queue: SimpleQueue[_Waiting[S] | None] = SimpleQueue()
        # So that nothing gets into the queue behind the mark which ends the thread.
        self._gate = threading.Lock()
        self._closed = False
        # A daemon: a program that forgets to close us may end, and loses nothing that was acknowledged.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def put(self, *waiting: _Waiting[S]) -> None:
        with self._gate:
            if self._closed:
                raise ClosedError("the store is closed; nothing of this was done")
            if self._queue.qsize() + len(waiting) > self._max_waiting:
                raise LimitError(
                    f"{self._max_waiting} operations wait for the store already; try again later"
                )
            for each in waiting:
                self._queue.put(each)

    def close(self, timeout: float) -> bool:
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        if self._thread.ident is None:
            return self._queue.qsize() == 1
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def abandon(self) -> list[_Waiting[S]]:
        """What is still in the queue, which from now on nobody does."""
        left: list[_Waiting[S]] = []
        for _ in range(self._queue.qsize()):
            waiting = self._queue.get()
            if waiting is not None:
                left.append(waiting)
        # The mark that ends the thread was among them.
        self._queue.put(None)
        return left

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            ended = False
            for _ in range(min(self._queue.qsize(), self._max_batch - 1)):
                waiting = self._queue.get()
                if waiting is None:
                    ended = True
                    break
                batch.append(waiting)
            self._run(self.store, batch)
            if ended:
                return


def _together(store: Store, batch: Sequence[_Waiting[Store]]) -> list[_Outcome] | None:
    """All of them in one transaction; None when that was undone and each has to be tried alone.

    An operation decides before it writes, so one that raised a `DispatchError` without having written (a conflict, a
    job not found) is settled and spoils nothing. Anything else undoes the transaction. That is rare, and spares each
    operation a savepoint, which copies every page that the operation touches.
    """
    outcomes: list[_Outcome] = []
    begun = False
    try:
        with store.transaction():
            begun = True
            for operation, done in batch:
                before = store.changes
                try:
                    outcomes.append((done, operation(store), None))
                except DispatchError as error:
                    if store.changes != before:
                        raise
                    outcomes.append((done, None, error))
    except BaseException as error:  # noqa: BLE001 - whatever it is, it comes again when its operation runs alone
        if begun:
            return None
        # Another process holds the file, say: one after the other, each would wait for it as long again.
        return [(done, None, error) for _, done in batch]
    return outcomes


def _alone(store: S, waiting: _Waiting[S]) -> _Outcome:
    operation, done = waiting
    try:
        with store.transaction():
            value = operation(store)
    except BaseException as error:  # noqa: BLE001 - it belongs to whoever asked; this thread serves others
        return done, None, error
    return done, value, None


def _call(on_events: OnEvents | None, events: list[LoggedEvent], outcomes: list[_Outcome]) -> None:
    """Runs where the callbacks belong. One that raises does not keep the others from being called."""
    errors: list[Exception] = []
    if events and on_events is not None:
        try:
            on_events(events)
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)
    for done, value, failure in outcomes:
        try:
            done(value, failure)
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)
    if errors:
        raise errors[0] if len(errors) == 1 else ExceptionGroup("callbacks of the store raised", errors)
