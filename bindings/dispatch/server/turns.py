"""One operation of the engine on the store: write what has ended, and take as many jobs as there are free slots."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from dispatch.functions.failures import Failure
from dispatch.store.port import Store
from dispatch.store.values import Completion, Lease, Settled
from dwp_core.jobs import RETRYING, Job


@dataclass(frozen=True, slots=True)
class Claimant:
    """As whom an engine takes jobs, and which.

    Attributes:
        worker_id: its name in leases.
        names: the functions it has.
        queues: only jobs of these; None for all.
        lease_ns: for how long it takes them.
        wall_ns: the wall clock.
        jitter: random numbers in [0, 1) that place retries in their window.
    """

    worker_id: str
    names: Collection[str]
    queues: Collection[str] | None
    lease_ns: int
    wall_ns: Callable[[], int]
    jitter: Callable[[], float]


class Turn:
    """What to write, how many jobs to take, and what came back. True when there is anything to do.

    Attributes:
        completed: runs that returned.
        failed: runs that raised or took too long.
        cancelled: runs that were asked to stop because their job was cancelled.
        released: jobs to hand back without spending an attempt.
        limit: jobs to take; 0 for none.
        taken: the answer: the jobs taken.
        lost: the answer: what was not written because its lease was lost before.
        next_run_at: the answer: when a job is due that could not be taken yet; None when none is known of.
    """

    __slots__ = ("cancelled", "completed", "failed", "limit", "lost", "next_run_at", "released", "taken")

    def __init__(self) -> None:
        self.completed: list[Completion] = []
        self.failed: list[tuple[Lease, Failure]] = []
        self.cancelled: list[Lease] = []
        self.released: list[Lease] = []
        self.limit = 0
        self.taken: list[Job] = []
        self.lost: list[Lease] = []
        self.next_run_at: int | None = None

    def __bool__(self) -> bool:
        return bool(self.limit or self.completed or self.failed or self.cancelled or self.released)

    def absorb(self, later: Turn) -> None:
        """Take over what another turn was to write; this one's own comes first."""
        self.completed += later.completed
        self.failed += later.failed
        self.cancelled += later.cancelled
        self.released += later.released

    def carry_out(self, store: Store, claimant: Claimant) -> None:
        """Inside a transaction. May be done again when the transaction was undone: only the last time counts."""
        now_ns = claimant.wall_ns()
        self.lost = []
        self.next_run_at = None
        if self.completed:
            leases = [completion.lease for completion in self.completed]
            self._note(leases, store.complete(self.completed, now_ns=now_ns))
        for lease, failure in self.failed:
            settled = store.fail(
                lease,
                error=failure.text,
                now_ns=now_ns,
                jitter=claimant.jitter(),
                retryable=not failure.permanent,
            )
            self._note([lease], [settled])
            if settled is not None and settled.state == RETRYING:
                self._wait_for(settled.run_at)
        for lease in self.cancelled:
            self._note([lease], [store.confirm_cancel(lease, now_ns=now_ns)])
        if self.released:
            self._note(self.released, store.release(self.released, now_ns=now_ns))
        self.taken = self._take(store, claimant, now_ns) if self.limit else []
        if len(self.taken) < self.limit:
            self._wait_for(store.next_run_at())

    def _take(self, store: Store, claimant: Claimant, now_ns: int) -> list[Job]:
        return store.claim(
            claimant.worker_id,
            now_ns=now_ns,
            lease_ns=claimant.lease_ns,
            limit=self.limit,
            names=claimant.names,
            queues=claimant.queues,
        )

    def _wait_for(self, run_at: int | None) -> None:
        if run_at is not None and (self.next_run_at is None or run_at < self.next_run_at):
            self.next_run_at = run_at

    def _note(self, leases: list[Lease], settled: list[Settled | None]) -> None:
        if None in settled:
            self.lost += [lease for lease, what in zip(leases, settled, strict=True) if what is None]
