"""A process that is killed: it works through a committer and prints what was acknowledged, one line each.

    python crash_child.py FILE NUMBER

Three callers enqueue, one claims and completes, all at once, so that transactions of several operations are open at any
moment.
"""

from __future__ import annotations

import sys
import threading
import time

from dispatch.store import NO_TENANT, Completion, EnqueuedJob, Idempotency, Lease, NewJob, Settled, Store
from dispatch.store.committer import Committer
from dispatch.store.sqlite import SqliteStore

_gate = threading.Lock()


def say(*words: object) -> None:
    with _gate:
        print(*words, flush=True)


class Enqueuer:
    """Enqueues one job after the other, each as soon as the one before is acknowledged."""

    def __init__(self, committer: Committer, name: str) -> None:
        self._committer = committer
        self._name = name
        self._count = 0
        self._next()

    def _next(self) -> None:
        self._count += 1
        key = f"{self._name}-{self._count}"
        self._committer.submit(
            lambda store: store.enqueue(
                [NewJob("noop", key.encode())],
                tenant=NO_TENANT,
                now_ns=time.time_ns(),
                idempotency=Idempotency("job.enqueue", key, b""),
            ).jobs[0],
            self._done,
        )

    def _done(self, job: EnqueuedJob | None, error: BaseException | None) -> None:
        assert job is not None, error
        say("enqueued", job.job_id)
        self._next()


class Worker:
    """Claims and completes, one batch after the other."""

    def __init__(self, committer: Committer, worker_id: str) -> None:
        self._committer = committer
        self._worker_id = worker_id
        self._claim()

    def _claim(self) -> None:
        self._committer.submit(self._claim_some, self._claimed)

    def _claim_some(self, store: Store) -> list[Lease]:
        now = time.time_ns()
        jobs = store.claim(self._worker_id, now_ns=now, lease_ns=3600 * 10**9, limit=3)
        return [Lease(job.id, job.epoch) for job in jobs]

    def _claimed(self, leases: list[Lease] | None, error: BaseException | None) -> None:
        assert leases is not None, error
        completions = [Completion(lease, lease.job_id.encode()) for lease in leases]
        self._committer.submit(
            lambda store: store.complete(completions, now_ns=time.time_ns()), self._completed
        )

    def _completed(self, settled: list[Settled | None] | None, error: BaseException | None) -> None:
        assert settled is not None, error
        for one in settled:
            assert one is not None
            say("completed", one.job_id)
        self._claim()


def main(path: str, number: str) -> None:
    store = SqliteStore(path)
    with store.transaction():
        store.register_names(["noop"])
    committer = Committer(
        store,
        deliver=lambda call: call(),
        on_events=lambda events: say("events", events[0].seq, events[-1].seq),
    )
    for name in "abc":
        Enqueuer(committer, f"{number}{name}")
    Worker(committer, f"wkr_{number}")
    committer.start()
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
