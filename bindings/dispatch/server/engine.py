"""The engine: takes due jobs from the store, has them run, and writes down what came of them.

It lives on the server's loop and never blocks it: the store is asked through its one writer thread, user code runs in
the runner's threads, and both answer in batches. One operation on the store is under way at a time: it writes what has
ended since the last one and takes as many jobs as there are free slots, so that batches grow by themselves with the
load. Each job is held under a lease with an epoch (DESIGN.md, "Engine and store"): whoever has lost it writes nothing.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from dispatch.functions.context import RunContext
from dispatch.functions.failures import Failure
from dispatch.functions.registry import Options, Registry
from dispatch.server.engine_ports import EngineOptions, Scheduler, TimerHandle, Writer
from dispatch.server.logs import fields
from dispatch.server.runner import Run, Runner
from dispatch.server.turns import Claimant, Turn
from dispatch.store.port import Store
from dispatch.store.values import Completion, Lease, Standing
from dwp_core.deadlines import Deadlines
from dwp_core.errors import DispatchError
from dwp_core.jobs import SECOND, Job, timeout_error

__all__ = ["Engine", "EngineOptions"]

logger = logging.getLogger("dispatch.engine")

T = TypeVar("T")

_NO_OPTIONS = Options()
_TEND = "tend"
_POLL = "poll"
_RETRY = "retry"
_DRAIN = "drain"

RETRY_FIRST = 0.1
RETRY_CAP = 5.0
RESCUE_LIMIT = 1_000
RESCUE_EVERY = 0.05


class Stop(enum.Enum):
    """Why a run was asked to stop."""

    CANCELLED = "cancelled"
    TIMED_OUT = "timed out"
    SHUTDOWN = "shutdown"


class _Running:
    """A job that this engine holds the lease of, and its run."""

    __slots__ = ("job", "lease", "run", "stop")

    def __init__(self, job: Job, run: Run) -> None:
        self.job = job
        self.run = run
        self.lease = Lease(job.id, job.epoch)
        self.stop: Stop | None = None


class Engine:
    """Runs the jobs of a store with the functions of a registry.

    Args:
        writer: the way to the store.
        registry: the functions. Jobs that call no function of it are left for other servers.
        scheduler: the loop it lives on.
        worker_id: its name in leases, a TypeID with prefix `wkr`; a new one for each start.
        options: how it works.
        wall_ns: the wall clock.
        jitter: random numbers in [0, 1) for retries.
    """

    def __init__(
        self,
        writer: Writer,
        registry: Registry,
        scheduler: Scheduler,
        *,
        worker_id: str,
        options: EngineOptions | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._writer = writer
        self._registry = registry
        self._scheduler = scheduler
        self._options = options = options or EngineOptions()
        self._wall_ns = wall_ns
        self._claimant = Claimant(
            worker_id=worker_id,
            names=(),
            queues=options.queues,
            lease_ns=int(options.lease_seconds * SECOND),
            wall_ns=wall_ns,
            jitter=jitter,
        )
        self._runner = Runner(
            collect=self._collect,
            call_soon=scheduler.call_soon_threadsafe,
            threads=options.concurrency,
            loops=min(options.loops, options.concurrency),
        )
        self._running: dict[str, _Running] = {}
        self._next = Turn()
        self._sync_names: tuple[str, ...] = ()
        self._warned = False
        self._hungry = False
        self._in_flight = False
        self._tending = False
        self._backing_off = False
        self._delay = 0.0
        self._poll_at: float | None = None
        self._deadlines: Deadlines[str] = Deadlines()
        self._timer: TimerHandle | None = None
        self._timer_at = 0.0
        self._started = False
        self._stopping = False
        self._over = False
        self._stopped: Callable[[], None] | None = None

    # ── what the server asks ──

    @property
    def registry(self) -> Registry:
        """The functions it runs."""
        return self._registry

    @property
    def running(self) -> int:
        """Jobs that run now."""
        return len(self._running)

    def knows(self, name: str) -> bool:
        """Whether this server itself has a function of that name."""
        return self._registry.find(name) is not None

    def options_of(self, name: str) -> Options:
        """What the function of that name says about its jobs; nothing where this server does not have it."""
        function = self._registry.find(name)
        return _NO_OPTIONS if function is None else function.options

    def start(self, done: Callable[[BaseException | None], None]) -> None:
        """Make the functions known, take over what dead workers left, and begin.

        Args:
            done: called when jobs may be enqueued, or with the error for which that cannot be.
        """
        names = tuple(sorted(self._registry.names()))
        self._claimant = replace(self._claimant, names=names)
        self._sync_names = tuple([name for name in names if not self._is_async(name)])

        def operation(store: Store) -> None:
            store.register_names(names)

        def finished(_: None, error: BaseException | None) -> None:
            if error is None:
                self._started = True
                self._tend()
                self.notify()
            done(error)

        self._submit(operation, finished)

    def notify(self) -> None:
        """Jobs may be due: one was enqueued, or came back. Costs next to nothing when the engine is busy."""
        self._hungry = True
        if not self._in_flight:
            self._turn()

    def cancel(self, job_id: str) -> None:
        """The end of a running job was asked for (`Store.cancel` answered `running`): tell its function.

        Does nothing when the job does not run here; its own server learns of it by the next heartbeat.
        """
        running = self._running.get(job_id)
        if running is not None and running.stop is None:
            self._ask_to_stop(running, Stop.CANCELLED)
            self._arm()

    def stop(self, drain_seconds: float, done: Callable[[], None]) -> None:
        """Take no more jobs, let those that run finish for so long, hand the others back, and end all threads.

        Args:
            drain_seconds: how long runs may go on.
            done: called when nothing is held any more.
        """
        self._stopping = True
        self._stopped = done
        self._deadlines.cancel(_POLL)
        self._deadlines.set(_DRAIN, self._scheduler.time() + max(0.0, drain_seconds))
        self._arm()
        self._check_stopped()

    async def drain(self, drain_seconds: float) -> None:
        """`stop`, for a coroutine; then the threads are ended."""
        stopped = asyncio.Event()
        self.stop(drain_seconds, stopped.set)
        await stopped.wait()

    def close(self, timeout: float = 1.0) -> bool:
        """End all threads; False when user code did not let one go in time. After `stop`; before it, leases stay."""
        self._stopping = True
        self._end()
        return self._runner.close(timeout)

    # ── one operation at a time: write what has ended, take what is due ──

    def _turn(self) -> None:
        if self._in_flight or self._backing_off or not self._started:
            return
        turn = self._next
        turn.limit = 0
        claimant = self._claimant
        if self._hungry and not self._stopping and claimant.names:
            claimant = self._look_for_room(turn)
        if not turn:
            return
        if turn.limit:
            self._hungry = False
        self._next = Turn()
        self._in_flight = True
        self._submit(
            lambda store: turn.carry_out(store, claimant), lambda _, error: self._turned(turn, error)
        )

    def _look_for_room(self, turn: Turn) -> Claimant:
        """How many jobs to take, and of which functions: none that could only wait for what user code blocks."""
        claimant, free = self._claimant, self._options.concurrency - len(self._running)
        room = free - self._runner.stuck
        loops_stuck = self._runner.loops_stuck
        if loops_stuck:
            claimant = replace(claimant, names=self._sync_names)
        turn.limit = max(0, room) if claimant.names else 0
        self._warn_if_stuck(loops_stuck, threads_stuck=room <= 0 < free)
        if free > 0 and not turn.limit:
            # Runs that were given up end without a word.
            self._look_again(None)
            self._arm()
        return claimant

    def _warn_if_stuck(self, loops_stuck: bool, *, threads_stuck: bool) -> None:
        """Once, until it is over."""
        stuck = loops_stuck or threads_stuck
        if stuck and not self._warned:
            logger.warning(
                "%s held by runs that did not stop when they were asked to: no more %sjobs are taken until one ends",
                "every thread is" if threads_stuck else "every event loop is",
                "" if threads_stuck else "async ",
            )
        self._warned = stuck

    def _is_async(self, name: str) -> bool:
        function = self._registry.find(name)
        return function is not None and function.is_async

    def _turned(self, turn: Turn, error: BaseException | None) -> None:
        self._in_flight = False
        if error is not None:
            self._turn_failed(turn, error)
        else:
            self._delay = 0.0
            for lease in turn.lost:
                logger.warning(
                    "%s: its lease was lost before its end was written; it runs again", lease.job_id
                )
            self._begin(turn.taken)
            if turn.limit and len(turn.taken) == turn.limit:
                self._hungry = True
            else:
                self._look_again(turn.next_run_at)
            self._turn()
        self._arm()
        self._check_stopped()

    def _turn_failed(self, turn: Turn, error: BaseException) -> None:
        """Nothing of it was written: it is tried again, later and later, and the leases end meanwhile if they must."""
        turn.absorb(self._next)
        self._next = turn
        self._hungry = True
        self._delay = min(RETRY_CAP, self._delay * 2 or RETRY_FIRST)
        self._backing_off = True
        logger.error("the store did not take what has ended; trying again in %.1f s: %s", self._delay, error)
        if self._stopped is not None and self._delay == RETRY_CAP:
            # The stop does not wait for a disk that stays full; the leases end by themselves.
            self._next = Turn()
        self._deadlines.set(_RETRY, self._scheduler.time() + self._delay)

    def _submit(
        self, operation: Callable[[Store], T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        try:
            self._writer.submit(operation, done)
        except DispatchError as error:  # too many operations wait, or it is closed
            done(None, error)

    def _look_again(self, run_at_ns: int | None) -> None:
        """When to ask for jobs without having been notified."""
        if self._stopping:
            return
        wait = self._options.poll_seconds
        if run_at_ns is not None and (until := (run_at_ns - self._wall_ns()) / SECOND) > 0:
            # What is due already and was not given out is for other workers: nothing to hurry for.
            wait = min(wait, until)
        at = self._scheduler.time() + wait
        if self._poll_at is None or at < self._poll_at:
            self._poll_at = at
            self._deadlines.set(_POLL, at)

    # ── runs ──

    def _begin(self, jobs: Sequence[Job]) -> None:
        runs: list[Run] = []
        now = self._scheduler.time()
        for job in jobs:
            function = self._registry.find(job.name)
            if function is None or self._stopping:
                # Claimed by a short name that has become ambiguous since, or while the stop was asked for.
                self._next.released.append(Lease(job.id, job.epoch))
                continue
            context = RunContext(
                id=job.id,
                name=job.name,
                queue=job.queue,
                attempt=job.retry_count + 1,
                deadline_ns=job.started_at + job.timeout if job.timeout else None,
                clock_ns=self._wall_ns,
            )
            run = Run(function, job.payload, context)
            self._running[job.id] = _Running(job, run)
            if job.timeout:
                self._deadlines.set(job.id, now + job.timeout / SECOND)
            runs.append(run)
        self._runner.start(runs)

    def _collect(self, runs: Sequence[Run]) -> None:
        """Runs have ended."""
        for run in runs:
            running = self._running.pop(run.context.id, None)
            if running is not None:
                self._deadlines.cancel(running.job.id)
                self._settle(running)
        self._turn()
        self._arm()
        self._check_stopped()

    def _settle(self, running: _Running) -> None:
        """What to write for a run that has ended, or that is waited for no longer."""
        turn, run, lease = self._next, running.run, running.lease
        if running.stop is Stop.CANCELLED:
            turn.cancelled.append(lease)
        elif running.stop is Stop.TIMED_OUT:
            # Also if it returned something after all: it may have stopped half-way because it was told to.
            turn.failed.append((lease, Failure("TimeoutError", timeout_error(running.job))))
        elif run.output is not None and not (running.stop is Stop.SHUTDOWN and run.context.noticed):
            turn.completed.append(Completion(lease, run.output))
        elif running.stop is Stop.SHUTDOWN:
            turn.released.append(lease)
        else:
            failure = run.failure or Failure("RuntimeError", "it ended without a result")
            _log_failure(running.job, failure)
            turn.failed.append((lease, failure))

    def _ask_to_stop(self, running: _Running, why: Stop) -> None:
        running.stop = why
        self._deadlines.set(running.job.id, self._scheduler.time() + self._options.grace_seconds)
        self._runner.cancel(running.run)

    def _give_up(self, running: _Running) -> None:
        """It was asked to stop and did not: its lease is taken away, and what it still returns is dropped."""
        del self._running[running.job.id]
        self._deadlines.cancel(running.job.id)
        self._runner.abandon(running.run)
        logger.warning(
            "%s %s did not stop within %g s after it was asked to (%s): waited for no longer",
            running.job.name,
            running.job.id,
            self._options.grace_seconds,
            running.stop.value if running.stop else "its lease was lost",
        )

    # ── leases ──

    def _tend(self) -> None:
        """Extend the leases held, take jobs from workers that no longer extend theirs."""
        if self._tending or self._over:
            return
        self._tending = True
        held = list(self._running.values())
        leases = [running.lease for running in held]
        lease_ns = self._claimant.lease_ns

        def operation(store: Store) -> tuple[list[Standing], int, int | None]:
            now_ns = self._wall_ns()
            standings = store.extend(leases, now_ns=now_ns, lease_ns=lease_ns) if leases else []
            rescued = store.rescue(now_ns=now_ns, limit=RESCUE_LIMIT)
            return standings, len(rescued), store.next_lease_end()

        def finished(
            result: tuple[list[Standing], int, int | None] | None, error: BaseException | None
        ) -> None:
            self._tending = False
            if self._over:
                return
            if result is None:
                logger.error("the store did not extend the leases: %s", error)
                self._tend_in(self._options.poll_seconds)
            else:
                self._tended(held, *result)
            self._arm()

        self._submit(operation, finished)

    def _tended(
        self, held: Sequence[_Running], standings: Sequence[Standing], rescued: int, next_end_ns: int | None
    ) -> None:
        for running, standing in zip(held, standings, strict=True):
            if standing is Standing.HELD or self._running.get(running.job.id) is not running:
                continue
            if standing is Standing.CANCEL_REQUESTED:
                if running.stop is None:
                    self._ask_to_stop(running, Stop.CANCELLED)
            else:
                self._runner.cancel(running.run)
                self._give_up(running)
        wait = self._options.lease_seconds / 3
        if next_end_ns is not None:
            # Somebody else's lease may end before: an own one was extended just now.
            wait = min(wait, max((next_end_ns - self._wall_ns()) / SECOND, RESCUE_EVERY))
        self._tend_in(0.0 if rescued == RESCUE_LIMIT else wait)
        if rescued:
            logger.warning("%d jobs were taken from workers that stopped answering", rescued)
            self.notify()

    def _tend_in(self, seconds: float) -> None:
        self._deadlines.set(_TEND, self._scheduler.time() + seconds)

    # ── time ──

    def _arm(self) -> None:
        """One timer, for the earliest deadline; re-armed only when that has come nearer."""
        due = self._deadlines.next
        if due is None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        if self._timer is not None:
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._scheduler.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._scheduler.time()
        while (key := self._deadlines.pop_due(now)) is not None:
            self._on_due(key)
        self._arm()

    def _on_due(self, key: str) -> None:
        if key == _TEND:
            self._tend()
        elif key == _POLL:
            self._poll_at = None
            self.notify()
        elif key == _RETRY:
            self._backing_off = False
            self._turn()
        elif key == _DRAIN:
            for running in list(self._running.values()):
                if running.stop is None:
                    self._ask_to_stop(running, Stop.SHUTDOWN)
        else:
            self._on_run_due(self._running[key])

    def _on_run_due(self, running: _Running) -> None:
        if running.stop is None:
            self._ask_to_stop(running, Stop.TIMED_OUT)
            return
        self._give_up(running)
        self._settle(running)
        self._turn()
        self._check_stopped()

    def _check_stopped(self) -> None:
        if self._stopped is None or self._running or self._in_flight or self._next:
            return
        done, self._stopped = self._stopped, None
        self._end()
        done()

    def _end(self) -> None:
        self._over = True
        self._deadlines.clear()
        self._arm()


def _log_failure(job: Job, failure: Failure) -> None:
    attempt = f"attempt {job.retry_count + 1} of {job.max_retries + 1}"
    what = "failed for good" if failure.permanent or job.retry_count >= job.max_retries else "failed"
    told = fields(job_id=job.id, name=job.name, queue=job.queue, attempt=job.retry_count + 1)
    parts = (job.name, job.id, what, attempt, failure.text, failure.traceback)
    logger.warning("%s %s %s (%s): %s\n%s", *parts, extra=told)
