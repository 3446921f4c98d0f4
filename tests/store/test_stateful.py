"""Two stores and any history: SQLite and memory answer alike at every step, also after a crash between commits.

The memory store is the model of the SQLite store, and the invariants below are the judge of both.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dispatch.store import (
    Completion,
    Idempotency,
    Lease,
    NewJob,
    Retention,
    Store,
    Tenant,
)
from dispatch.store.memory import MemoryStore
from dispatch.store.sqlite import SqliteStore
from dwp_core.errors import DispatchError
from dwp_core.jobs import FINISHED, SECOND, WAITING

LEASE = 10 * SECOND
NAMES = ("a", "b", "never registered")
QUEUES = ("x", "y")
TENANTS = (Tenant(), Tenant("app-1", "org-1"), Tenant("app-1", "org-2"))

tenants = st.sampled_from(TENANTS)
new_jobs = st.builds(
    NewJob,
    name=st.sampled_from(NAMES[:2] * 6 + NAMES[2:]),
    payload=st.binary(max_size=3),
    queue=st.sampled_from(QUEUES),
    priority=st.integers(-1, 1),
    run_at=st.none() | st.integers(0, 40 * SECOND),
    max_retries=st.integers(0, 2),
    unique_key=st.sampled_from(["", "", "u", "v"]),
    unique_for=st.none() | st.integers(0, 20 * SECOND),
)
keys = st.none() | st.builds(
    Idempotency,
    method=st.sampled_from(["job.enqueue", "job.enqueue_many"]),
    key=st.sampled_from(["k", "l"]),
    digest=st.sampled_from([b"1", b"1", b"2"]),
    keep_ns=st.integers(0, 30 * SECOND),
)


def counting_ids() -> Callable[[str], str]:
    numbers = itertools.count(1)
    return lambda prefix: f"{prefix}_{next(numbers):026d}"


class Undone(Exception):
    """Raised at the end of a transaction that is to leave nothing behind."""


class TwoStores(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "jobs.db"
        self.new_ids = [counting_ids(), counting_ids()]
        self.disk = SqliteStore(self.path, new_id=self.new_ids[0])
        self.memory = MemoryStore(new_id=self.new_ids[1])
        self.now = SECOND
        self.leases: list[Lease] = []
        self.jobs: list[str] = []
        self.last_seq = 0
        self.agree(lambda store: store.register_names(NAMES[:2]))

    def teardown(self) -> None:
        self.disk.close()
        self.directory.cleanup()

    def agree(self, operation: Callable[[Store], Any], *, undo: bool = False) -> Any:
        """Both stores do it, in a transaction each, and answer the same; what they answered."""
        answers = [self.outcome(store, operation, undo) for store in (self.disk, self.memory)]
        assert answers[0] == answers[1]
        return answers[0][0]

    def outcome(self, store: Store, operation: Callable[[Store], Any], undo: bool) -> tuple[Any, Any, Any]:
        value = error = None
        try:
            with store.transaction():
                before = store.changes
                try:
                    value = operation(store)
                except DispatchError as refused:
                    error = (type(refused), str(refused))
                    # It decided before it wrote.
                    assert store.changes == before
                if undo:
                    raise Undone
        except Undone:
            pass
        events = store.take_events()
        return value, error, events

    @rule(seconds=st.integers(0, 15))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * SECOND + 1

    @rule(jobs=st.lists(new_jobs, min_size=1, max_size=3), tenant=tenants, key=keys, undo=st.booleans())
    def enqueue(self, jobs: list[NewJob], tenant: Tenant, key: Idempotency | None, undo: bool) -> None:
        answer = self.agree(
            lambda store: store.enqueue(jobs, tenant=tenant, now_ns=self.now, idempotency=key), undo=undo
        )
        if answer is not None and not undo:
            self.jobs += [job.job_id for job in answer.jobs]

    @rule(
        worker=st.sampled_from(["w1", "w2"]),
        limit=st.integers(1, 4),
        names=st.none() | st.sets(st.sampled_from(NAMES)),
        queues=st.none() | st.sets(st.sampled_from(QUEUES)),
        undo=st.booleans(),
    )
    def claim(
        self, worker: str, limit: int, names: set[str] | None, queues: set[str] | None, undo: bool
    ) -> None:
        jobs = self.agree(
            lambda store: store.claim(
                worker, now_ns=self.now, lease_ns=LEASE, limit=limit, names=names, queues=queues
            ),
            undo=undo,
        )
        for job in jobs:
            assert job.run_at <= self.now
        assert [(-job.priority, job.run_at, job.id) for job in jobs] == sorted(
            (-job.priority, job.run_at, job.id) for job in jobs
        )
        if not undo:
            self.leases += [Lease(job.id, job.epoch) for job in jobs]

    def some_leases(self, data: st.DataObject) -> list[Lease]:
        return data.draw(st.lists(st.sampled_from(self.leases), max_size=3)) if self.leases else []

    @rule(data=st.data(), undo=st.booleans())
    def complete(self, data: st.DataObject, undo: bool) -> None:
        completions = [Completion(lease, b"done") for lease in self.some_leases(data)]
        self.agree(lambda store: store.complete(completions, now_ns=self.now), undo=undo)

    @rule(data=st.data(), jitter=st.floats(0, 1, exclude_max=True), retryable=st.booleans())
    def fail(self, data: st.DataObject, jitter: float, retryable: bool) -> None:
        leases = self.some_leases(data)
        self.agree(
            lambda store: [
                store.fail(lease, error="boom", now_ns=self.now, jitter=jitter, retryable=retryable)
                for lease in leases
            ]
        )

    @rule(data=st.data())
    def extend(self, data: st.DataObject) -> None:
        leases = self.some_leases(data)
        self.agree(lambda store: store.extend(leases, now_ns=self.now, lease_ns=LEASE))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        leases = self.some_leases(data)
        self.agree(lambda store: store.release(leases, now_ns=self.now))

    @rule(workers=st.sampled_from([(), (), ("w1",)]), limit=st.integers(1, 3), undo=st.booleans())
    def rescue(self, workers: tuple[str, ...], limit: int, undo: bool) -> None:
        self.agree(lambda store: store.rescue(now_ns=self.now, workers=workers, limit=limit), undo=undo)

    @rule(data=st.data(), tenant=st.none() | tenants)
    def cancel(self, data: st.DataObject, tenant: Tenant | None) -> None:
        if self.jobs:
            job_id = data.draw(st.sampled_from(self.jobs))
            self.agree(lambda store: store.cancel(job_id, tenant=tenant, now_ns=self.now))

    @rule(data=st.data())
    def confirm_cancel(self, data: st.DataObject) -> None:
        leases = self.some_leases(data)
        self.agree(lambda store: [store.confirm_cancel(lease, now_ns=self.now) for lease in leases])

    @rule(tenant=tenants, undo=st.booleans())
    def replay_a_dead_letter(self, tenant: Tenant, undo: bool) -> None:
        def replay(store: Store) -> object:
            entries = store.list_dead_letters(tenant=tenant).entries
            return (
                store.replay_dead_letter(entries[0].id, tenant=tenant, now_ns=self.now) if entries else None
            )

        answer = self.agree(replay, undo=undo)
        if answer is not None and not undo:
            self.jobs.append(answer.job_id)

    @rule(events=st.integers(0, 20), limit=st.integers(1, 5), undo=st.booleans())
    def purge(self, events: int, limit: int, undo: bool) -> None:
        kept = Retention(events, event_age_ns=60 * SECOND, job_age_ns=30 * SECOND)
        self.agree(lambda store: store.purge(now_ns=self.now, retention=kept, limit=limit), undo=undo)

    @rule(half_done=st.booleans())
    def crash(self, half_done: bool) -> None:
        """The process dies between two transactions, or in the middle of one: the file is what was committed."""
        if half_done:
            self.disk._execute("BEGIN IMMEDIATE")
            self.disk._execute("UPDATE jobs SET state = 'nonsense'")
        self.disk.close()
        self.disk = SqliteStore(self.path, new_id=self.new_ids[0])

    @invariant()
    def both_hold_the_same(self) -> None:
        tenant = TENANTS[1]
        jobs = self.agree(
            lambda store: (
                store.list_jobs(tenant=None, limit=1000),
                store.list_jobs(tenant=tenant, limit=2),
                store.list_dead_letters(tenant=tenant, limit=2),
                store.read_events(0, limit=3, tenant=tenant),
                store.stats(tenant=None),
                store.stats(tenant=tenant),
                store.span(),
                store.next_run_at(),
                store.next_lease_end(),
            )
        )[0].jobs
        for job in jobs:
            assert (job.lease_until > 0) == (job.state == "running")
            assert job.retry_count <= job.max_retries + 1
            assert job.state in FINISHED or not job.error
            assert not job.cancel_requested or job.state not in FINISHED | WAITING

    @invariant()
    def the_log_has_no_hole(self) -> None:
        oldest, head = self.agree(lambda store: store.span())
        events = self.agree(lambda store: store.read_events(0, limit=10_000)).events
        assert [event.seq for event in events] == list(range(oldest, head + 1))
        assert head >= self.last_seq
        self.last_seq = head


TestTwoStores = TwoStores.TestCase
TestTwoStores.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
