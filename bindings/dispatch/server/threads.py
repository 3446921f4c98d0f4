"""A pool of threads for sync functions: as many threads as there are blocked runs, and no more.

A run that blocks must delay nobody, yet a batch of short runs is fastest on one thread. So a thread that takes a run
wakes one other when more are waiting, and never more than one at a time: while the first is busy with Python code, the
other waits for the interpreter; as soon as the first blocks, the other goes on with the queue and wakes the next.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatch.server.runner import Run


class ThreadPool:
    """Runs sync functions.

    Args:
        report: called with each run that has ended, on its thread.
        limit: threads at once; as many again may stand in for threads that are stuck in abandoned runs.
    """

    def __init__(self, *, report: Callable[[Run], None], limit: int) -> None:
        self._report = report
        self._limit = limit
        self._lock = threading.Lock()
        self._queue: deque[Run] = deque()
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()
        self._waking: _Worker | None = None
        self._abandoned: set[Run] = set()
        self._closing = False
        self._numbers = itertools.count(1)

    @property
    def stuck(self) -> int:
        """Abandoned runs beyond those that other threads stand in for."""
        return max(0, len(self._abandoned) - self._limit)

    def start(self, runs: Sequence[Run]) -> None:
        """Queue runs; they start in this order."""
        with self._lock:
            self._queue.extend(runs)
            self._wake_one()

    def abandon(self, run: Run) -> None:
        """The run's owner has given it up: if it has not begun it never will, and if it has, its thread is replaced."""
        with self._lock:
            try:
                self._queue.remove(run)
            except ValueError:
                if any(worker.run is run for worker in self._workers):
                    self._abandoned.add(run)
                    self._wake_one()

    def close(self, until: float) -> bool:
        """Let threads end after the run they are in; waits for them until then. Queued runs are dropped."""
        with self._lock:
            self._closing = True
            self._queue.clear()
            workers = list(self._workers)
            for worker in self._idle:
                worker.baton.release()
            self._idle.clear()
        for worker in workers:
            worker.thread.join(max(0.0, until - time.monotonic()))
        return not any(worker.thread.is_alive() for worker in workers)

    def _allowed(self) -> int:
        return self._limit + min(len(self._abandoned), self._limit)

    def _wake_one(self) -> None:
        """With the lock held: one more thread for the queue, unless one is on its way already."""
        if not self._queue or self._waking is not None or self._closing:
            return
        if self._idle:
            # The one that parked last: its stack is in the cache, and the others may end one day.
            worker = self._idle.pop()
            self._waking = worker
            worker.baton.release()
        elif len(self._workers) < self._allowed():
            worker = _Worker(self._work, f"dispatch-run-{next(self._numbers)}")
            try:
                worker.thread.start()
            except RuntimeError:
                # No more threads to be had; those that are there work through the queue.
                if not self._workers:
                    raise
                return
            self._workers.add(worker)
            self._waking = worker

    def _work(self, worker: _Worker) -> None:
        while (run := self._next(worker)) is not None:
            run.call()
            self._ended(worker, run)

    def _next(self, worker: _Worker) -> Run | None:
        """The next run for this thread, waiting for one; None when the thread is to end."""
        while True:
            with self._lock:
                if self._waking is worker:
                    self._waking = None
                if self._closing or len(self._workers) > self._allowed():
                    self._workers.discard(worker)
                    self._wake_one()
                    return None
                if self._queue:
                    worker.run = self._queue.popleft()
                    self._wake_one()
                    return worker.run
                self._idle.append(worker)
            worker.baton.acquire()

    def _ended(self, worker: _Worker, run: Run) -> None:
        worker.run = None
        if run.abandoned:
            with self._lock:
                self._abandoned.discard(run)
        else:
            self._report(run)


class _Worker:
    """A thread of the pool and the baton it waits for when there is nothing to do."""

    __slots__ = ("baton", "run", "thread")

    def __init__(self, work: Callable[[_Worker], None], name: str) -> None:
        self.baton = threading.Lock()
        self.baton.acquire()
        self.run: Run | None = None
        # A daemon: user code that never returns must not keep the process from ending.
        self.thread = threading.Thread(target=work, args=(self,), name=name, daemon=True)
