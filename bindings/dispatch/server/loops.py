"""A pool of event loops for async functions, each loop in a thread of its own.

A blocking call in an async function must delay nobody else, and a run cannot move to another loop. So a run gets a loop
to itself while there are loops to be had; only when there are more runs than loops do they share. A loop takes one run
after another while they end without waiting, so that short runs cost no thread each.

A watchdog thread hands the queue on when a loop is held up, starts another loop where all are blocked, and says which
line of which function blocks.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatch.server.runner import Run

logger = logging.getLogger("dispatch.runner")

TICK = 0.1
SLOW_TICK = 0.5
WARN_AFTER = 1.0


class LoopPool:
    """Runs async functions.

    Args:
        report: called with each run that has ended, on its thread.
        limit: loops at once; as many again may stand in for loops that are blocked.
    """

    def __init__(self, *, report: Callable[[Run], None], limit: int) -> None:
        self.report = report
        self._limit = limit
        self._lock = threading.Lock()
        self._queue: deque[Run] = deque()
        self._idle: list[LoopThread] = []
        self._loops: list[LoopThread] = []
        self._summoned: LoopThread | None = None
        self._abandoned: set[Run] = set()
        self._closing = False
        self._numbers = itertools.count(1)
        self._watchdog = Watchdog(self)

    def start(self, runs: Sequence[Run]) -> None:
        """Queue runs; they start in this order."""
        with self._lock:
            self._queue.extend(runs)
        self.summon()

    def cancel(self, run: Run) -> None:
        """Cancel the run's task; a run that still waits for its first step ends at once."""
        with self._lock:
            try:
                self._queue.remove(run)
            except ValueError:
                host = next((loop for loop in self._loops if run in loop.hosted), None)
            else:
                host = None
                run.never_started()
                self.report(run)
        if host is not None:
            host.cancel(run)

    def abandon(self, run: Run) -> None:
        """The run's owner has given it up; it may block its loop for ever."""
        with self._lock:
            if any(run in loop.hosted for loop in self._loops):
                self._abandoned.add(run)

    def abandoned_ended(self, run: Run) -> None:
        """A run that was given up has ended after all."""
        with self._lock:
            self._abandoned.discard(run)

    @property
    def stuck(self) -> bool:
        """Whether every loop is blocked, not least by abandoned runs, and no other can stand in: no run can begin."""
        if not self._abandoned:
            return False
        with self._lock:
            return len(self._loops) >= 2 * self._limit and all(loop.blocked for loop in self._loops)

    def close(self, until: float) -> bool:
        """Cancel all runs and end the threads; waits for them until then. Queued runs are dropped."""
        with self._lock:
            self._closing = True
            self._queue.clear()
            loops = list(self._loops)
        self._watchdog.close()
        for loop in loops:
            loop.stop()
        for loop in loops:
            loop.thread.join(max(0.0, until - time.monotonic()))
        return not any(loop.thread.is_alive() for loop in loops)

    def summon(self) -> None:
        """Call one more loop to the queue, unless one is on its way already."""
        with self._lock:
            if not self._queue or self._summoned is not None or self._closing:
                return
            loop = self._summoned = self._pick()
        if loop is not None:
            loop.call(loop.take)

    def take_for(self, loop: LoopThread) -> Sequence[Run]:
        """The runs this loop is to begin now; empty when it has enough or nothing waits."""
        with self._lock:
            if self._summoned is loop:
                self._summoned = None
            elif loop.hosted:
                return ()
            if not self._queue:
                if not loop.hosted and loop not in self._idle:
                    self._idle.append(loop)
                return ()
            if loop in self._idle:
                self._idle.remove(loop)
            share = 1
            if not self._idle and len(self._loops) >= self._limit:
                share = max(1, len(self._queue) // self._limit)
            runs = [self._queue.popleft() for _ in range(share)]
            loop.hosted.update(runs)
            more = bool(self._queue)
        self._watchdog.look(at_once=more)
        return runs

    def busy(self) -> list[LoopThread]:
        """The loops that host a run now, or were called to begin one."""
        with self._lock:
            return [loop for loop in self._loops if loop.hosted or loop is self._summoned]

    @property
    def waiting(self) -> bool:
        """Whether runs are queued."""
        return bool(self._queue)

    def rescue_the_summons(self) -> None:
        """The loop that was called does not come: it is blocked, so that another is called."""
        with self._lock:
            if self._summoned is not None and self._summoned.blocked:
                self._summoned = None
        self.summon()

    def _pick(self) -> LoopThread | None:
        """With the lock held: an idle loop, else a new one, else the one with the fewest runs; None if all block."""
        while self._idle:
            loop = self._idle.pop()
            if not loop.blocked:
                return loop
        awake = [loop for loop in self._loops if not loop.blocked]
        if len(awake) < self._limit and len(self._loops) < 2 * self._limit:
            loop = LoopThread(self, next(self._numbers))
            self._loops.append(loop)
            loop.thread.start()
            self._watchdog.start()
            return loop
        return min(awake, key=lambda loop: len(loop.hosted), default=None)


class LoopThread:
    """An event loop in a thread of its own. What is not said to be for any thread happens on that thread."""

    def __init__(self, pool: LoopPool, number: int) -> None:
        self._pool = pool
        self._loop = asyncio.new_event_loop()
        self._stopping = False
        self._resting = False
        self.hosted: set[Run] = set()
        self.ticked = 0.0
        self.blocked = False
        self.warned = False
        # A daemon: user code that never returns must not keep the process from ending.
        self.thread = threading.Thread(target=self._work, name=f"dispatch-loop-{number}", daemon=True)

    def call(self, function: Callable[..., object], *args: object) -> None:
        """From any thread: call this on the loop, soon."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # closed meanwhile
            pass

    def cancel(self, run: Run) -> None:
        """From any thread: cancel the run's task."""
        # Twice soon: the task's first step may still be queued behind this call, and a task that is cancelled before
        # it would never enter the code that reports its end.
        self.call(self._loop.call_soon, self._cancel, run)

    def answer(self) -> None:
        """The watchdog's tick has arrived: the loop turns."""
        self.ticked = 0.0
        self.blocked = self.warned = False

    def stop(self) -> None:
        """From any thread: cancel everything and end."""
        self._stopping = True
        self.call(self._loop.stop)

    def take(self) -> None:
        """Begin runs from the queue, one after another while they end at once."""
        while runs := self._pool.take_for(self):
            for run in runs:
                run.task = _new_task(self._loop, self._host(run))
            if not _EAGER:
                # Their first steps are queued on the loop; this call comes right behind them.
                self._loop.call_soon(self.take)
                return
        self._resting = bool(self.hosted)

    async def _host(self, run: Run) -> None:
        await run.drive()
        run.task = None
        self.hosted.discard(run)
        if run.abandoned:
            self._pool.abandoned_ended(run)
        self._pool.report(run)
        if self._resting and not self.hosted:
            self._resting = False
            self._loop.call_soon(self.take)

    def _cancel(self, run: Run) -> None:
        if run.task is not None:
            run.task.cancel()

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            while not self._stopping:
                try:
                    self._loop.run_forever()
                except BaseException:
                    logger.exception("a task beside its run raised what ends a loop; the loop goes on")
            self._end_tasks()
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    def _end_tasks(self) -> None:
        """Cancel what is left and let it clean up; whoever closes the pool bounds how long that is waited for."""
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())


class Watchdog:
    """Looks after the loops of a pool, from a thread of its own, while any of them has something to do."""

    def __init__(self, pool: LoopPool) -> None:
        self._pool = pool
        self._look = threading.Event()
        self._asleep = True
        self._closing = False
        self._next_round = 0.0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch; does nothing the second time."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="dispatch-watchdog", daemon=True)
            self._thread.start()

    def look(self, *, at_once: bool) -> None:
        """A loop has begun a run; at once when more are queued, which must not wait for it.

        The watchdog needs the interpreter for that, so it looks when the loop waits or blocks, and not before.
        """
        if (at_once or self._asleep) and not self._look.is_set():
            self._look.set()

    def close(self) -> None:
        """End the thread."""
        self._closing = True
        self._look.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._closing:
            # Said before it looks: who begins a run afterwards wakes it.
            self._asleep = True
            if self._pool.busy():
                self._asleep = False
            timeout = None if self._asleep else TICK if self._pool.waiting else SLOW_TICK
            self._look.wait(timeout)
            self._look.clear()
            now = time.monotonic()
            if now >= self._next_round:
                self._next_round = now + TICK
                for loop in self._pool.busy():
                    self._check(loop, now)
            self._pool.rescue_the_summons()

    def _check(self, loop: LoopThread, now: float) -> None:
        """A loop has to answer each tick; one that has not by the next round is blocked."""
        if loop.ticked == 0.0:
            loop.ticked = now
            loop.call(loop.answer)
        elif now - loop.ticked >= TICK:
            loop.blocked = True
            if now - loop.ticked >= WARN_AFTER and not loop.warned:
                loop.warned = True
                _warn(loop)


def _warn(loop: LoopThread) -> None:
    found = _blocking_place(loop)
    if found is not None:
        logger.warning(
            "%s blocks its event loop at %s: only this run is held up, but an await, asyncio.to_thread"
            " or a plain def function would be right there",
            *found,
        )


def _blocking_place(loop: LoopThread) -> tuple[str, str] | None:
    """Which function holds the loop up, and in which line; None when it was only slow to answer."""
    frame = sys._current_frames().get(loop.thread.ident or 0)  # noqa: SLF001 - documented, for this purpose
    hosted = {run.function.code: run.function.label for run in list(loop.hosted)}
    innermost = frame
    while frame is not None:
        label = hosted.get(frame.f_code)
        if label is not None:
            return label, f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    if innermost is None or innermost.f_code.co_filename.endswith("selectors.py"):
        return None
    return "an async function", f"{innermost.f_code.co_filename}:{innermost.f_lineno}"


_EAGER = sys.version_info >= (3, 12)


def _new_task(loop: asyncio.AbstractEventLoop, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
    """A task in a context of its own; where Python can, with its first step made already."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, context=Context(), eager_start=True)
    return loop.create_task(work, context=Context())
