"""Runs user code: sync functions in threads, async functions on loops in threads of their own.

Nothing of the user's ever runs on the loop that owns the runner. Runs are handed over in batches, and what came of
them is collected in batches: one wake-up of the owner's loop for everything that ended meanwhile. The runner knows
nothing of leases, retries and deadlines; that is the engine's.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any

from dispatch.functions.context import RunContext, enter
from dispatch.functions.failures import Failure, failure_of
from dispatch.functions.registry import Function
from dispatch.server.loops import LoopPool
from dispatch.server.threads import ThreadPool
from dwp_core.codec.payload import decode_payload, encode_payload
from dwp_core.errors import PayloadError

_NULL = b"null"


class Run:
    """One attempt at a job, on its way through the runner.

    Attributes:
        function: what is called.
        payload: the JSON text it is called with; b"" for none.
        context: what the function sees of its run; its `id` tells runs apart.
        output: the JSON text of the result, when there is one.
        failure: why there is none, when there is none.
        abandoned: its owner waits for it no longer: what comes of it is dropped.
        task: its task, when it is async and runs.
    """

    __slots__ = ("abandoned", "context", "failure", "function", "output", "payload", "task")

    def __init__(self, function: Function[..., Any], payload: bytes, context: RunContext) -> None:
        self.function = function
        self.payload = payload
        self.context = context
        self.output: bytes | None = None
        self.failure: Failure | None = None
        self.abandoned = False
        self.task: asyncio.Task[None] | None = None

    def call(self) -> None:
        """Calls a sync function, in the calling thread. Never raises."""
        if self.context.cancelled:
            self.never_started()
            return
        try:
            self._succeed(Context().run(self._enter))
        except BaseException as error:  # noqa: BLE001 - SystemExit in user code ends the run, not the server
            self.failure = failure_of(error)

    async def drive(self) -> None:
        """Awaits an async function, as the task of the run. Never raises: a cancelled run ends like a failed one."""
        if self.context.cancelled:
            self.never_started()
            return
        try:
            self._succeed(await self._enter())
        except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt would end the loop and the runs beside
            self.failure = failure_of(error)

    def never_started(self) -> None:
        """It was cancelled before its first step."""
        self.failure = Failure("CancelledError", "cancelled before it started")

    def _enter(self) -> Any:
        enter(self.context)
        payload = decode_payload(self.payload) if self.payload else None
        arguments, keywords = self.function.bind(payload)
        return self.function(*arguments, **keywords)

    def _succeed(self, result: Any) -> None:
        if result is None:
            self.output = _NULL
            return
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError(
                f"{self.function.label} returned a coroutine: declare it with async def, or await inside"
            )
        try:
            self.output = encode_payload(result, what="result")
        except PayloadError as error:
            self.failure = Failure(
                type(error).__name__,
                f"what {self.function.label} returned cannot be stored: {error.message}",
                permanent=True,
            )


class Runner:
    """Takes runs, gives them back when they have ended.

    Args:
        collect: called on the owner's loop with all runs that ended since the last time.
        call_soon: schedules a call on the owner's loop from any thread: `loop.call_soon_threadsafe`.
        threads: sync functions at once.
        loops: loop threads; async functions share them when there are more runs than loops.
    """

    def __init__(
        self,
        *,
        collect: Callable[[Sequence[Run]], None],
        call_soon: Callable[[Callable[[], None]], object],
        threads: int,
        loops: int,
    ) -> None:
        self._collect = collect
        self._call_soon = call_soon
        self._ended: deque[Run] = deque()
        self._signalled = False
        self._closed = False
        self._threads = ThreadPool(report=self._report, limit=threads)
        self._loops = LoopPool(report=self._report, limit=loops)

    def start(self, runs: Sequence[Run]) -> None:
        """Hand runs over; each comes back through `collect` exactly once, unless it is abandoned."""
        in_threads = [run for run in runs if not run.function.is_async]
        if in_threads:
            self._threads.start(in_threads)
        if len(in_threads) < len(runs):
            self._loops.start([run for run in runs if run.function.is_async])

    def cancel(self, run: Run) -> None:
        """Ask a run to stop: its task is cancelled, or its `dispatch.current().cancelled` becomes true."""
        run.context.cancel()
        if run.function.is_async:
            self._loops.cancel(run)

    def abandon(self, run: Run) -> None:
        """Wait for a run no longer. Its thread is replaced while there are not too many such threads."""
        run.abandoned = True
        if run.function.is_async:
            self._loops.abandon(run)
        else:
            self._threads.abandon(run)

    @property
    def stuck(self) -> int:
        """Runs that were abandoned, still hold a thread, and could not be replaced: so many fewer can run."""
        return self._threads.stuck

    @property
    def loops_stuck(self) -> bool:
        """Whether no async function can begin: abandoned runs block the loops, and those that stood in for them."""
        return self._loops.stuck

    def close(self, timeout: float) -> bool:
        """Stop all threads, waiting at most so long for user code; what does not stop dies with the process.

        Returns:
            Whether all have stopped.
        """
        self._closed = True
        until = time.monotonic() + timeout
        loops_done = self._loops.close(until)
        return self._threads.close(until) and loops_done

    def _report(self, run: Run) -> None:
        """A run has ended; called on the thread it ran in."""
        self._ended.append(run)
        # The flag falls before the queue is emptied, so a run is either in this batch or signals the next one.
        if not self._signalled and not self._closed:
            self._signalled = True
            try:
                self._call_soon(self._deliver)
            except RuntimeError:  # the owner's loop is closed: nobody is left to tell
                self._closed = True

    def _deliver(self) -> None:
        self._signalled = False
        ended = self._ended
        batch: list[Run] = []
        while ended:
            run = ended.popleft()
            if not run.abandoned:
                batch.append(run)
        if batch:
            self._collect(batch)
