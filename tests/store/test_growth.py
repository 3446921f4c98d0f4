"""What is in a file does not slow the work down: counted in steps of SQLite's machine, the same in every run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dispatch.store import Completion, Idempotency, Lease, NewJob, Retention, Tenant
from dispatch.store.sqlite import SqliteStore
from dwp_core.jobs import SECOND, Job

NOW = 1_700_000_000 * SECOND
LEASE = 30 * SECOND
ACME = Tenant("app-1", "org-1")
MANY = 2000

RETENTION = Retention()

Store = SqliteStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(SqliteStore(tmp_path / "jobs.db")) as store:
        with store.transaction():
            store.register_names(["noop", "other"])
        yield store


def steps(store: Store, operation: Callable[[], object]) -> int:
    """How many steps SQLite's machine takes for it."""
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 1
        return 0

    store._db.set_progress_handler(count, 1)
    try:
        with store.transaction():
            operation()
    finally:
        store._db.set_progress_handler(None, 0)
    return taken


def enqueue(store: Store, count: int = 1, **fields: object) -> None:
    new = NewJob(**{"name": "noop", **fields})  # type: ignore[arg-type]
    with store.transaction():
        store.enqueue([new] * count, tenant=ACME, now_ns=NOW)


def finish_all(store: Store) -> None:
    while True:
        with store.transaction():
            jobs = claim(store, limit=500)
            completions = [Completion(Lease(job.id, job.epoch), None) for job in jobs]
            store.complete(completions, now_ns=NOW)
        if not jobs:
            return


def claim(store: Store, limit: int = 5) -> list[Job]:
    return store.claim("wkr_1", now_ns=NOW, lease_ns=LEASE, limit=limit, names={"noop"})


def cost_of_a_life(store: Store, key: str) -> dict[str, int]:
    """Steps of everything that happens to five jobs, and of what is asked all the time."""
    jobs: list[Job] = []
    idempotency = Idempotency("job.enqueue_many", key, b"")
    return {
        "enqueue": steps(
            store,
            lambda: store.enqueue(
                [NewJob("noop", b"[1]")] * 5, tenant=ACME, now_ns=NOW, idempotency=idempotency
            ),
        ),
        "claim": steps(store, lambda: jobs.extend(claim(store))),
        "extend": steps(
            store,
            lambda: store.extend([Lease(job.id, job.epoch) for job in jobs], now_ns=NOW, lease_ns=LEASE),
        ),
        "complete": steps(
            store,
            lambda: store.complete([Completion(Lease(job.id, job.epoch), b"1") for job in jobs], now_ns=NOW),
        ),
        "claim nothing": steps(store, lambda: claim(store)),
        "rescue nothing": steps(store, lambda: store.rescue(now_ns=NOW)),
        "next": steps(store, lambda: (store.next_run_at(), store.next_lease_end(), store.span())),
        "get": steps(store, lambda: store.get_job(jobs[0].id, tenant=ACME)),
        "list": steps(store, lambda: store.list_jobs(tenant=ACME, limit=5)),
        "events": steps(store, lambda: store.read_events(store.head() - 5)),
        "purge nothing": steps(store, lambda: store.purge(now_ns=NOW, retention=RETENTION)),
    }


@pytest.mark.parametrize("burden", ["finished", "delayed", "unserved", "other tenants"])
def test_what_is_in_the_file_does_not_slow_the_work_down(store: Store, burden: str) -> None:
    enqueue(store, 20)
    enqueue(store, 5, name="other")
    enqueue(store, 5, run_at=NOW + 1, priority=9)
    with store.transaction():
        store.enqueue([NewJob("noop")], tenant=Tenant("app-2"), now_ns=NOW)
    finish_all(store)
    light = cost_of_a_life(store, "light")
    if burden == "finished":
        enqueue(store, MANY)
        finish_all(store)
    elif burden == "delayed":
        enqueue(store, MANY, run_at=NOW + 1, priority=9)
    elif burden == "unserved":
        enqueue(store, MANY, name="other", priority=9)
    else:
        with store.transaction():
            store.enqueue([NewJob("noop")] * MANY, tenant=Tenant("app-2"), now_ns=NOW)
        finish_all(store)
    heavy = cost_of_a_life(store, "heavy")
    assert {what: cost for what, cost in heavy.items() if cost > light[what] * 1.2 + 20} == {}


@pytest.mark.parametrize("tenant", [ACME, None])
def test_counting_queues_does_not_walk_over_finished_jobs(store: Store, tenant: Tenant | None) -> None:
    enqueue(store, 5)
    light = steps(store, lambda: store.queue_depths(tenant=tenant, now_ns=NOW))
    finish_all(store)
    enqueue(store, MANY)
    finish_all(store)
    enqueue(store, 5)
    assert steps(store, lambda: store.queue_depths(tenant=tenant, now_ns=NOW)) <= light * 1.2 + 20


def test_a_file_does_not_grow_under_constant_load(store: Store) -> None:
    """Every hour as many jobs end as are forgotten."""
    hour = 3600 * SECOND
    kept = Retention(event_age_ns=2 * hour, job_age_ns=2 * hour)
    pages: list[int] = []
    for hours in range(8):
        now = NOW + hours * hour
        with store.transaction():
            store.enqueue([NewJob("noop", b"x" * 500)] * 400, tenant=ACME, now_ns=now)
            jobs = store.claim("wkr_1", now_ns=now, lease_ns=LEASE, limit=400)
            store.complete([Completion(Lease(job.id, job.epoch), b"1") for job in jobs], now_ns=now)
        more = True
        while more:
            with store.transaction():
                more = store.purge(now_ns=now, retention=kept).more
        pages.append(store._db.execute("PRAGMA page_count").fetchone()[0])
    assert pages[-1] <= max(pages[:5]) * 1.05
