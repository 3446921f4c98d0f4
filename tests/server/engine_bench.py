"""An engine on a real store, with a clock that the test moves: nothing here waits for time to pass."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Collection
from queue import SimpleQueue
from typing import Any, TypeVar

from dispatch.functions import Registry
from dispatch.server.engine import Engine, EngineOptions
from dispatch.store.committer import Committer
from dispatch.store.memory import MemoryStore
from dispatch.store.port import Store
from dispatch.store.values import NO_TENANT, NewJob
from dwp_core.events import LoggedEvent
from dwp_core.jobs import SECOND, Job

T = TypeVar("T")

PATIENCE = 10.0
START_NS = 1_700_000_000 * SECOND


def until(reached: Callable[[], bool]) -> None:
    """Waits for what another thread is about to notice."""
    give_up = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < give_up
        time.sleep(0)


class ManualLoop:
    """A scheduler whose time stands still until it is moved; calls from threads wait until the test takes them."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._timers: list[tuple[float, int, _Timer]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.now

    def wall_ns(self) -> int:
        return START_NS + round((self.now - 1000.0) * SECOND)

    def call_soon_threadsafe(self, callback: Callable[[], object], /) -> None:
        self._calls.put(callback)

    def call_at(self, when: float, callback: Callable[[], object], /) -> _Timer:
        timer = _Timer(callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def turn(self) -> None:
        """Waits for one call from a thread, and makes it."""
        self._calls.get(timeout=PATIENCE)()

    def advance(self, seconds: float) -> None:
        """Moves the time; what is due on the way is called at its time."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, when)
            timer.fire()
        self.now = end

    @property
    def armed(self) -> int:
        """Timers that wait."""
        return sum(not timer.cancelled for _, _, timer in self._timers)


class _Timer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def fire(self) -> None:
        if not self.cancelled:
            self.cancelled = True
            self._callback()


class Bench:
    """One engine and its store."""

    def __init__(
        self,
        store: Store | None = None,
        *,
        loop: ManualLoop | None = None,
        worker_id: str = "wkr_1",
        **options: Any,
    ) -> None:
        self.loop = loop or ManualLoop()
        self.store: Store = store or MemoryStore()
        self.registry = Registry()
        self.events: list[LoggedEvent] = []
        self.committer = Committer(
            self.store, deliver=self.loop.call_soon_threadsafe, on_events=self.events.extend
        )
        self.committer.start()
        self.engine = Engine(
            self.committer,
            self.registry,
            self.loop,
            worker_id=worker_id,
            options=EngineOptions(**options),
            wall_ns=self.loop.wall_ns,
            jitter=lambda: 0.5,
        )

    def start(self) -> None:
        answers: list[BaseException | None] = []
        self.engine.start(answers.append)
        self.until(lambda: bool(answers))
        assert answers == [None]

    def until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self.loop.turn()

    def do(self, operation: Callable[[Store], T]) -> T:
        """One operation on the store, as a request handler would ask for it."""
        answers: list[tuple[Any, BaseException | None]] = []
        self.committer.submit(operation, lambda value, error: answers.append((value, error)))
        self.until(lambda: bool(answers))
        value, error = answers[0]
        if error is not None:
            raise error
        result: T = value
        return result

    def enqueue(self, name: str, payload: bytes = b"", **fields: Any) -> str:
        (job_id,) = self.enqueue_many([NewJob(name, payload, **fields)])
        return job_id

    def enqueue_many(self, jobs: Collection[NewJob]) -> list[str]:
        now_ns = self.loop.wall_ns()
        enqueued = self.do(lambda store: store.enqueue(list(jobs), tenant=NO_TENANT, now_ns=now_ns))
        self.engine.notify()
        return [job.job_id for job in enqueued.jobs]

    def job(self, job_id: str) -> Job:
        return self.do(lambda store: store.get_job(job_id, tenant=None))

    def until_state(self, job_id: str, *states: str) -> Job:
        """Waits for an event that tells of such a state."""
        topic = f"job:{job_id}"
        wanted = tuple(f'"state":"{state}"'.encode() for state in states)
        self.until(lambda: any(e.topic == topic and any(w in e.data for w in wanted) for e in self.events))
        return self.job(job_id)

    def kinds(self, job_id: str) -> list[str]:
        """The events of one job, in order."""
        return [event.type for event in self.events if event.topic == f"job:{job_id}"]

    def stop(self, drain: float = 0.0) -> None:
        done: list[bool] = []
        self.engine.stop(drain, lambda: done.append(True))
        self.until(lambda: bool(done))

    def close(self) -> bool:
        stopped = self.engine.close(PATIENCE)
        assert self.committer.close(PATIENCE)
        return stopped
