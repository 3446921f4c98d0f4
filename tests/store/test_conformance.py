"""What every store promises. A new store joins by being added to the `store` fixture in conftest.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from dispatch.store import (
    DAY_NS,
    NO_TENANT,
    Completion,
    EnqueuedJob,
    Idempotency,
    Lease,
    NewJob,
    Retention,
    Standing,
    Stats,
    Store,
    Tenant,
)
from dwp_core.errors import ConflictError, InvalidRequest, NotFoundError
from dwp_core.ids import parse_id
from dwp_core.jobs import SECOND, Job

NOW = 1_700_000_000 * SECOND
LEASE = 30 * SECOND
ACME = Tenant("app-1", "org-1")
OTHERS = [Tenant("app-1", ""), Tenant("app-2", "org-1"), NO_TENANT]
UNKNOWN = "job_01h455vb4pex5vsknk084sn02q"


def enqueue(
    store: Store, *jobs: NewJob, tenant: Tenant = ACME, now: int = NOW, key: Idempotency | None = None
) -> list[EnqueuedJob]:
    with store.transaction():
        return list(store.enqueue(jobs, tenant=tenant, now_ns=now, idempotency=key).jobs)


def enqueue_one(store: Store, tenant: Tenant = ACME, now: int = NOW, **fields: Any) -> str:
    return enqueue(store, NewJob(**{"name": "noop", **fields}), tenant=tenant, now=now)[0].job_id


def claim(
    store: Store, *, now: int = NOW, limit: int = 10, worker: str = "wkr_1", **filters: Any
) -> list[Job]:
    with store.transaction():
        return store.claim(worker, now_ns=now, lease_ns=LEASE, limit=limit, **filters)


def claim_one(store: Store, **options: Any) -> Lease:
    (job,) = claim(store, limit=1, **options)
    return Lease(job.id, job.epoch)


def complete(store: Store, *leases: Lease, output: bytes | None = None, now: int = NOW) -> list[str | None]:
    with store.transaction():
        settled = store.complete([Completion(lease, output) for lease in leases], now_ns=now)
    return [None if one is None else one.state for one in settled]


def fail(store: Store, lease: Lease, *, now: int = NOW, **options: Any) -> str | None:
    with store.transaction():
        settled = store.fail(lease, now_ns=now, **{"error": "boom", "jitter": 0.5, **options})
    return None if settled is None else settled.state


def get(store: Store, job_id: str) -> Job:
    with store.transaction():
        return store.get_job(job_id, tenant=None)


def told(store: Store) -> list[str]:
    return [event.type for event in store.take_events()]


@contextmanager
def undone(store: Store) -> Iterator[None]:
    """A transaction that fails at its end."""
    with suppress(ZeroDivisionError), store.transaction():
        yield
        raise ZeroDivisionError


# -- enqueue and get


def test_an_enqueued_job_is_there_as_it_was_given(store: Store) -> None:
    new = NewJob("noop", b'{"a":1}', queue="mail", priority=-3, max_retries=7, timeout=9, unique_key="u")
    (answer,) = enqueue(store, new)
    assert answer == EnqueuedJob(answer.job_id, "mail", "pending")
    parse_id(answer.job_id, "job", "job id")
    job = get(store, answer.job_id)
    assert job == Job(
        answer.job_id,
        "noop",
        "mail",
        b'{"a":1}',
        -3,
        7,
        9,
        "app-1",
        "org-1",
        "u",
        NOW,
        "pending",
        NOW,
        NOW,
    )


def test_the_defaults_are_those_of_the_protocol(store: Store) -> None:
    job = get(store, enqueue_one(store))
    assert (job.queue, job.priority, job.max_retries, job.timeout) == ("default", 0, 3, 300 * SECOND)
    assert job.payload == b""


def test_a_name_that_nobody_registered_is_not_found_and_nothing_of_the_batch_is_kept(store: Store) -> None:
    with pytest.raises(NotFoundError) as caught:
        enqueue(store, NewJob("noop"), NewJob("nope"))
    assert str(caught.value) == (
        'no function named "nope" was ever registered: check the spelling, or start a server that has it'
    )
    assert claim(store) == []
    assert told(store) == []


def test_a_name_is_known_for_ever_but_not_if_its_transaction_failed(store: Store) -> None:
    with undone(store):
        store.register_names(["late"])
        assert store.knows_name("late")
    with store.transaction():
        assert not store.knows_name("late")
        store.register_names(["late", "noop"])
        store.register_names(["late"])
    with store.transaction():
        assert store.knows_name("late")


@pytest.mark.parametrize("other", OTHERS)
def test_a_job_of_another_tenant_looks_as_if_it_was_not_there(store: Store, other: Tenant) -> None:
    job_id = enqueue_one(store)
    store.take_events()
    with store.transaction():
        assert store.get_job(job_id, tenant=ACME).id == job_id
        for id in (job_id, UNKNOWN):
            with pytest.raises(NotFoundError) as caught:
                store.get_job(id, tenant=other)
            assert str(caught.value) == f"job not found: {id}"
            with pytest.raises(NotFoundError):
                store.cancel(id, tenant=other, now_ns=NOW)
    assert get(store, job_id).state == "pending"
    assert told(store) == []


# -- idempotency and unique keys

KEY = Idempotency("job.enqueue", "key-1", b"digest")


def test_the_same_key_and_data_give_the_first_answer(store: Store) -> None:
    first = enqueue(store, NewJob("noop"), NewJob("other", queue="mail"), key=KEY)
    complete(store, claim_one(store))
    store.take_events()
    with store.transaction():
        again = store.enqueue([NewJob("noop")], tenant=ACME, now_ns=NOW + DAY_NS - 1, idempotency=KEY)
    assert again.duplicate
    assert list(again.jobs) == first
    assert told(store) == []


def test_the_same_key_with_other_data_is_a_conflict(store: Store) -> None:
    enqueue(store, NewJob("noop"), key=KEY)
    with pytest.raises(ConflictError) as caught:
        enqueue(store, NewJob("noop"), key=Idempotency("job.enqueue", "key-1", b"another"))
    assert str(caught.value) == (
        'job.enqueue: idempotency_key "key-1" was used before with other data; take a new key for a new request'
    )


@pytest.mark.parametrize("tenant", OTHERS)
def test_a_key_is_of_one_tenant_and_method(store: Store, tenant: Tenant) -> None:
    ours = enqueue(store, NewJob("noop"), key=KEY)
    theirs = enqueue(store, NewJob("noop"), key=KEY, tenant=tenant)
    batch = enqueue(store, NewJob("noop"), key=Idempotency("job.enqueue_many", "key-1", b"digest"))
    assert len({answer.job_id for answer in ours + theirs + batch}) == 3


def test_a_key_is_forgotten_after_its_time(store: Store) -> None:
    first = enqueue(store, NewJob("noop"), key=KEY)
    assert enqueue(store, NewJob("noop"), key=KEY, now=NOW + DAY_NS) != first


def test_only_successes_are_kept_under_a_key(store: Store) -> None:
    with pytest.raises(NotFoundError):
        enqueue(store, NewJob("late"), key=KEY)
    with store.transaction():
        store.register_names(["late"])
    assert enqueue(store, NewJob("late"), key=KEY)


def test_a_unique_key_gives_the_job_that_has_it_until_that_is_finished(store: Store) -> None:
    new = NewJob("noop", unique_key="u")
    first, again = enqueue(store, new, new)
    assert again == first._replace(duplicate=True)
    lease = claim_one(store)
    assert enqueue(store, new) == [first._replace(state="running", duplicate=True)]
    assert fail(store, lease) == "retrying"
    assert enqueue(store, new)[0].job_id == first.job_id
    assert complete(store, claim_one(store, now=NOW + SECOND)) == ["completed"]
    fresh = enqueue(store, new)[0]
    assert fresh.job_id != first.job_id
    with store.transaction():
        store.cancel(fresh.job_id, tenant=None, now_ns=NOW)
    assert not enqueue(store, new)[0].duplicate


def test_a_unique_key_is_of_one_tenant_and_function(store: Store) -> None:
    enqueue(store, NewJob("noop", unique_key="u"))
    assert not enqueue(store, NewJob("noop", unique_key="u"), tenant=NO_TENANT)[0].duplicate
    assert not enqueue(store, NewJob("other", unique_key="u"))[0].duplicate
    assert not enqueue(store, NewJob("noop", unique_key="v"))[0].duplicate


def test_a_unique_key_with_a_time_is_taken_for_that_long_whatever_becomes_of_the_job(store: Store) -> None:
    new = NewJob("noop", unique_key="u", unique_for=10)
    first = enqueue(store, new)[0]
    complete(store, claim_one(store))
    assert enqueue(store, new, now=NOW + 9) == [first._replace(state="completed", duplicate=True)]
    second = enqueue(store, new, now=NOW + 10)[0]
    assert not second.duplicate
    # It runs out although the second is not finished.
    assert not enqueue(store, new, now=NOW + 20)[0].duplicate


def test_a_job_that_lost_its_key_does_not_free_that_of_another(store: Store) -> None:
    timed = NewJob("noop", unique_key="u", unique_for=10)
    enqueue(store, timed)
    lease = claim_one(store)
    second = enqueue(store, NewJob("noop", unique_key="u"), now=NOW + 10)[0]
    complete(store, lease)
    assert enqueue(store, NewJob("noop", unique_key="u"), now=NOW + 11)[0].job_id == second.job_id


# -- claim


def test_jobs_are_claimed_by_priority_then_time_then_age(store: Store) -> None:
    late = enqueue_one(store, run_at=NOW - 1)
    early = enqueue_one(store, run_at=NOW - 2, queue="mail")
    twins = [enqueue_one(store, run_at=NOW - 1, name=name) for name in ("other", "noop")]
    urgent = enqueue_one(store, priority=5, queue="mail")
    low = enqueue_one(store, priority=-1, run_at=NOW - 9)
    assert [job.id for job in claim(store, limit=4)] == [urgent, early, late, twins[0]]
    assert [job.id for job in claim(store, limit=4)] == [twins[1], low]
    assert claim(store) == []


def test_a_claimed_job_is_running_under_a_lease(store: Store) -> None:
    job_id = enqueue_one(store, payload=b"[1]")
    (job,) = claim(store, now=NOW + 5, worker="wkr_7")
    assert job == get(store, job_id)
    assert (job.state, job.worker_id, job.epoch, job.lease_until) == ("running", "wkr_7", 1, NOW + 5 + LEASE)
    assert (job.started_at, job.payload) == (NOW + 5, b"[1]")


def test_a_delayed_job_is_never_given_out_early(store: Store) -> None:
    delayed = enqueue_one(store, run_at=NOW + 10, priority=9)
    now = enqueue_one(store)
    with store.transaction():
        assert store.next_run_at() == NOW + 10
    assert [job.id for job in claim(store, now=NOW + 9)] == [now]
    assert [job.id for job in claim(store, now=NOW + 10)] == [delayed]
    with store.transaction():
        assert store.next_run_at() is None


def test_only_served_queues_and_names_are_claimed(store: Store) -> None:
    for queue in ("a", "b", "c"):
        for name in ("noop", "other"):
            enqueue_one(store, queue=queue, name=name)
    assert claim(store, queues=[]) == []
    assert claim(store, names={"missing"}) == []
    served = claim(store, queues={"a", "c"}, names={"other"})
    assert [(job.queue, job.name) for job in served] == [("a", "other"), ("c", "other")]
    assert len(claim(store, queues=["a"])) == 1
    assert len(claim(store, names=["noop"])) == 2
    assert len(claim(store)) == 1


def test_more_lanes_than_jobs_asked_for_do_not_disturb_the_order(store: Store) -> None:
    ids = [enqueue_one(store, queue=f"q{n % 7}", priority=n % 5, run_at=NOW - n % 3) for n in range(40)]
    with store.transaction():
        jobs = [store.get_job(id, tenant=None) for id in ids]
    expected = [job.id for job in sorted(jobs, key=lambda job: (-job.priority, job.run_at, job.id))]
    claimed: list[str] = []
    while more := claim(store, limit=3):
        claimed += [job.id for job in more]
    assert claimed == expected


# -- workers' writes


def test_a_completed_job_keeps_its_output(store: Store) -> None:
    job_id = enqueue_one(store)
    assert complete(store, claim_one(store), output=b'"done"', now=NOW + 1) == ["completed"]
    job = get(store, job_id)
    assert (job.output, job.completed_at, job.lease_until) == (b'"done"', NOW + 1, 0)


def test_many_are_completed_at_once_and_each_is_told_about(store: Store) -> None:
    for _ in range(3):
        enqueue_one(store)
    first, second, third = [Lease(job.id, job.epoch) for job in claim(store)]
    stale = Lease(second.job_id, 0)
    assert complete(store, first, stale, third, first, Lease(UNKNOWN, 1)) == [
        "completed",
        None,
        "completed",
        None,
        None,
    ]
    assert get(store, second.job_id).state == "running"


def test_who_lost_the_lease_cannot_write(store: Store) -> None:
    job_id = enqueue_one(store)
    lost = claim_one(store)
    with store.transaction():
        store.rescue(now_ns=NOW + LEASE)
    (current,) = claim(store, now=NOW + LEASE, worker="wkr_2")
    before = get(store, job_id)
    store.take_events()
    assert complete(store, lost) == [None]
    assert fail(store, lost) is None
    with store.transaction():
        assert store.release([lost], now_ns=NOW) == [None]
        assert store.confirm_cancel(lost, now_ns=NOW) is None
        assert store.extend([lost], now_ns=NOW, lease_ns=LEASE) == [Standing.LOST]
    assert get(store, job_id) == before
    assert told(store) == []
    assert complete(store, Lease(current.id, current.epoch)) == ["completed"]


def test_a_failed_job_is_retried_and_ends_in_the_dead_letters(store: Store) -> None:
    job_id = enqueue_one(store, payload=b"[7]", max_retries=1, queue="mail", priority=4)
    assert fail(store, claim_one(store), now=NOW) == "retrying"
    job = get(store, job_id)
    assert (job.retry_count, job.last_error, job.run_at) == (1, "boom", NOW + SECOND // 2)
    assert claim(store, now=NOW + SECOND // 2 - 1) == []
    assert fail(store, claim_one(store, now=NOW + SECOND), error="again", now=NOW + SECOND) == "failed"
    job = get(store, job_id)
    assert (job.state, job.retry_count, job.error) == ("failed", 2, "again")
    assert told(store)[-2:] == ["job.failed", "job.dlq"]
    with store.transaction():
        ((entry,), cursor) = store.list_dead_letters(tenant=ACME)
    assert cursor == ""
    parse_id(entry.id, "dlq", "dead letter id")
    assert (entry.job_id, entry.payload, entry.error, entry.retry_count) == (job_id, b"[7]", "again", 2)
    assert (entry.queue, entry.priority, entry.failed_at) == ("mail", 4, NOW + SECOND)


def test_a_handler_may_ask_when_and_whether_to_try_again(store: Store) -> None:
    first, second = enqueue_one(store), enqueue_one(store, name="other")
    assert fail(store, claim_one(store), retry_after_ns=77) == "retrying"
    assert get(store, first).run_at == NOW + 77
    assert fail(store, claim_one(store), retryable=False) == "failed"
    assert get(store, second).retry_count == 1


def test_a_heartbeat_extends_what_is_held(store: Store) -> None:
    enqueue_one(store)
    enqueue_one(store)
    held, asked = [Lease(job.id, job.epoch) for job in claim(store)]
    with store.transaction():
        store.cancel(asked.job_id, tenant=ACME, now_ns=NOW)
        standings = store.extend([asked, Lease(UNKNOWN, 1), held], now_ns=NOW + 9, lease_ns=LEASE)
        assert standings == [Standing.CANCEL_REQUESTED, Standing.LOST, Standing.HELD]
        assert store.next_lease_end() == NOW + 9 + LEASE
        assert store.rescue(now_ns=NOW + LEASE) == []
        assert store.extend([], now_ns=NOW, lease_ns=LEASE) == []
    assert get(store, held.job_id).heartbeat_at == NOW + 9


def test_released_jobs_wait_again_and_lost_no_attempt(store: Store) -> None:
    job_id = enqueue_one(store)
    lease = claim_one(store)
    with store.transaction():
        (settled,) = store.release([lease], now_ns=NOW)
    assert settled is not None
    assert settled.state == "pending"
    assert complete(store, lease) == [None]
    (again,) = claim(store)
    assert (again.id, again.epoch, again.retry_count) == (job_id, 2, 0)


def test_a_dead_worker_s_jobs_come_back_by_themselves(store: Store) -> None:
    ids = [enqueue_one(store, max_retries=retries) for retries in (3, 0)]
    claim(store)
    with store.transaction():
        assert store.next_lease_end() == NOW + LEASE
        assert store.rescue(now_ns=NOW + LEASE - 1) == []
        rescued = store.rescue(now_ns=NOW + LEASE)
        assert store.next_lease_end() is None
    assert [(one.job_id, one.state) for one in rescued] == [(ids[0], "retrying"), (ids[1], "failed")]
    assert [job.id for job in claim(store, now=NOW + LEASE)] == [ids[0]]
    assert "stopped answering" in get(store, ids[1]).error


def test_jobs_of_workers_known_to_be_dead_come_back_at_once(store: Store) -> None:
    mine, theirs = enqueue_one(store), enqueue_one(store)
    claim(store, limit=1, worker="wkr_old")
    claim(store, limit=1, worker="wkr_live")
    with store.transaction():
        rescued = store.rescue(now_ns=NOW, workers=["wkr_old", "wkr_older"])
    assert [one.job_id for one in rescued] == [mine]
    assert get(store, theirs).state == "running"


def test_a_rescue_stops_at_its_limit(store: Store) -> None:
    for _ in range(3):
        enqueue_one(store)
    claim(store)
    with store.transaction():
        assert [len(store.rescue(now_ns=NOW + LEASE, limit=2)) for _ in range(3)] == [2, 1, 0]


# -- cancel


def test_a_waiting_job_is_cancelled_at_once(store: Store) -> None:
    job_id = enqueue_one(store)
    with store.transaction():
        assert store.cancel(job_id, tenant=ACME, now_ns=NOW) == (job_id, "cancelled", None, "")
    assert claim(store) == []
    assert told(store) == ["job.enqueued", "job.cancelled"]
    with store.transaction(), pytest.raises(ConflictError):
        store.cancel(job_id, tenant=ACME, now_ns=NOW)


def test_a_running_job_is_asked_to_end_and_its_worker_confirms(store: Store) -> None:
    job_id = enqueue_one(store)
    lease = claim_one(store)
    with store.transaction():
        cancellation = store.cancel(job_id, tenant=None, now_ns=NOW)
        assert (cancellation.state, cancellation.lease, cancellation.worker_id) == ("running", lease, "wkr_1")
    assert get(store, job_id).cancel_requested
    with store.transaction():
        settled = store.confirm_cancel(lease, now_ns=NOW + 1)
    assert settled is not None
    assert settled.state == "cancelled"
    assert complete(store, lease) == [None]
    assert told(store) == ["job.enqueued", "job.started", "job.cancelled"]


@pytest.mark.parametrize("ending", ["fail", "release", "rescue"])
def test_a_job_that_was_to_end_does_not_run_again(store: Store, ending: str) -> None:
    job_id = enqueue_one(store)
    lease = claim_one(store)
    with store.transaction():
        store.cancel(job_id, tenant=None, now_ns=NOW)
    if ending == "fail":
        fail(store, lease)
    with store.transaction():
        if ending == "release":
            store.release([lease], now_ns=NOW)
        if ending == "rescue":
            store.rescue(now_ns=NOW + LEASE)
    assert get(store, job_id).state == "cancelled"


# -- lists, counts, dead letters


def test_jobs_are_listed_newest_first_in_pages(store: Store) -> None:
    ids = [enqueue_one(store) for _ in range(5)]
    enqueue_one(store, tenant=OTHERS[0])
    seen: list[str] = []
    cursor = ""
    sizes = []
    with store.transaction():
        while True:
            jobs, cursor = store.list_jobs(tenant=ACME, limit=2, cursor=cursor)
            seen += [job.id for job in jobs]
            sizes.append(len(jobs))
            if not cursor:
                break
        assert seen == ids[::-1]
        assert sizes == [2, 2, 1]
        assert len(store.list_jobs(tenant=None).jobs) == 6
        assert store.list_jobs(tenant=ACME, limit=5).cursor == ""


def test_a_list_is_filtered(store: Store) -> None:
    first = enqueue_one(store, queue="mail", payload=b"1")
    second = enqueue_one(store, name="other")
    third = enqueue_one(store, queue="mail", name="other")
    claim(store, queues=["mail"], names=["noop"])

    def listed(**filters: Any) -> list[str]:
        with store.transaction():
            everybody = store.list_jobs(tenant=None, **filters)
            ours = store.list_jobs(tenant=ACME, **filters)
            assert everybody == ours
            return [job.id for job in ours.jobs]

    assert listed(state="running") == [first]
    assert listed(state="pending") == [third, second]
    assert listed(queue="mail") == [third, first]
    assert listed(name="other", queue="mail") == [third]
    assert listed(state="failed") == []
    assert listed(cursor=second) == [first]


def test_a_page_ends_before_it_becomes_too_large(store: Store) -> None:
    big, small, other = [enqueue_one(store, payload=b"x" * size) for size in (90, 10, 20)]
    with store.transaction():
        page = store.list_jobs(tenant=ACME, max_bytes=40)
        assert [job.id for job in page.jobs] == [other, small]
        rest = store.list_jobs(tenant=ACME, max_bytes=40, cursor=page.cursor)
        assert [job.id for job in rest.jobs] == [big]


def test_a_wrong_cursor_or_state_is_refused(store: Store) -> None:
    with store.transaction():
        with pytest.raises(InvalidRequest) as caught:
            store.list_jobs(tenant=None, cursor="page 2")
        assert "cursor" in str(caught.value)
        with pytest.raises(InvalidRequest) as caught:
            store.list_jobs(tenant=None, state="done")
        assert str(caught.value).startswith('there is no job state "done"; expected pending, running,')


def test_jobs_are_counted_by_state(store: Store) -> None:
    for _ in range(3):
        enqueue_one(store)
    enqueue_one(store, tenant=NO_TENANT)
    complete(store, claim_one(store))
    fail(store, claim_one(store), retryable=False)
    zero = dict.fromkeys(["running", "retrying", "cancelled"], 0)
    with store.transaction():
        assert store.stats(tenant=ACME) == Stats({"pending": 1, "completed": 1, "failed": 1, **zero}, 1, 9)
        assert store.stats(tenant=None).jobs["pending"] == 2
        assert store.stats(tenant=OTHERS[0]) == Stats(
            {"pending": 0, "completed": 0, "failed": 0, **zero}, 0, 9
        )


def test_unfinished_jobs_are_counted_by_queue(store: Store) -> None:
    for _ in range(3):
        enqueue_one(store)
    enqueue_one(store, queue="mail", run_at=NOW + 5)
    enqueue_one(store, queue="mail", tenant=NO_TENANT)
    complete(store, *[claim_one(store, queues=["default"]), claim_one(store, queues=["default"])])
    fail(store, claim_one(store, queues=["default"]))
    enqueue_one(store, queue="images")
    claim_one(store, queues=["images"])
    with store.transaction():
        assert store.queue_depths(tenant=ACME, now_ns=NOW) == [
            ("default", 0, 1, 0),
            ("images", 0, 0, 1),
            ("mail", 0, 1, 0),
        ]
        assert store.queue_depths(tenant=None, now_ns=NOW)[-1] == ("mail", 1, 1, 0)
        assert store.queue_depths(tenant=ACME, now_ns=NOW + 5)[-1] == ("mail", 1, 0, 0)
        assert store.queue_depths(tenant=OTHERS[0], now_ns=NOW) == []


def test_dead_letters_are_listed_newest_first_in_pages(store: Store) -> None:
    for queue in ("a", "b", "a"):
        enqueue_one(store, queue=queue)
        fail(store, claim_one(store), retryable=False)
    with store.transaction():
        assert [store.count_dead_letters(tenant=tenant) for tenant in (ACME, None, NO_TENANT)] == [3, 3, 0]
        entries, cursor = store.list_dead_letters(tenant=ACME, limit=2)
        rest, end = store.list_dead_letters(tenant=ACME, limit=2, cursor=cursor)
        assert [entry.queue for entry in entries + rest] == ["a", "b", "a"]
        assert end == ""
        assert len(store.list_dead_letters(tenant=ACME, queue="a").entries) == 2
        assert store.list_dead_letters(tenant=NO_TENANT).entries == []
        assert store.get_dead_letter(entries[0].id, tenant=ACME) == entries[0]
        with pytest.raises(NotFoundError) as caught:
            store.get_dead_letter(entries[0].id, tenant=NO_TENANT)
        assert str(caught.value) == f"dead letter not found: {entries[0].id}"


def test_a_dead_letter_is_done_again_as_a_new_job(store: Store) -> None:
    first = enqueue_one(store, payload=b"[1]", queue="mail", priority=2, max_retries=1, timeout=5)
    fail(store, claim_one(store), retryable=False)
    with store.transaction():
        (entry,) = store.list_dead_letters(tenant=ACME).entries
        with pytest.raises(NotFoundError):
            store.replay_dead_letter(entry.id, tenant=NO_TENANT, now_ns=NOW)
        answer = store.replay_dead_letter(entry.id, tenant=ACME, now_ns=NOW + 1)
        entry = store.get_dead_letter(entry.id, tenant=ACME)
    job = get(store, answer.job_id)
    assert (job.payload, job.queue, job.priority, job.max_retries, job.timeout) == (b"[1]", "mail", 2, 1, 5)
    assert (job.app_id, job.state, job.retry_count) == ("app-1", "pending", 0)
    assert (entry.replayed_at, entry.replayed_as) == (NOW + 1, job.id)
    assert job.id != first
    assert told(store)[-1] == "job.enqueued"


# -- transactions and the event log


def test_a_transaction_that_fails_leaves_nothing_behind(store: Store) -> None:
    kept = enqueue_one(store, unique_key="u", priority=9)
    lost = enqueue_one(store)
    enqueue(store, NewJob("noop", run_at=NOW + 5), key=KEY)
    dead = enqueue_one(store)
    claim(store, limit=1)
    store.take_events()

    def everything() -> object:
        with store.transaction():
            return (
                store.list_jobs(tenant=None),
                store.list_dead_letters(tenant=None),
                store.read_events(0),
                store.span(),
                store.next_run_at(),
                store.next_lease_end(),
                store.stats(tenant=None),
            )

    before = everything()
    with undone(store):
        store.complete([Completion(Lease(kept, 1), b"1")], now_ns=NOW)
        store.enqueue([NewJob("noop", unique_key="u")], tenant=ACME, now_ns=NOW, idempotency=KEY)
        store.enqueue([NewJob("noop", unique_key="w", unique_for=2)], tenant=ACME, now_ns=NOW)
        (claimed, *_) = store.claim("wkr_2", now_ns=NOW + 9, lease_ns=LEASE, limit=9)
        assert claimed.id == lost
        store.cancel(lost, tenant=None, now_ns=NOW)
        store.fail(Lease(dead, 1), error="boom", now_ns=NOW, jitter=0.5, retryable=False)
        (entry,) = store.list_dead_letters(tenant=None).entries
        store.replay_dead_letter(entry.id, tenant=None, now_ns=NOW)
        store.purge(now_ns=NOW + 2 * DAY_NS, retention=Retention(events=1))
    assert everything() == before
    assert told(store) == []
    assert complete(store, Lease(kept, 1)) == ["completed"]
    assert [job.id for job in claim(store, now=NOW)] == [lost, dead]
    assert not enqueue(store, NewJob("noop", unique_key="w"))[0].duplicate


def test_transactions_are_not_nested_and_writes_need_one(store: Store) -> None:
    with store.transaction(), pytest.raises(RuntimeError), store.transaction():
        pass
    with pytest.raises(RuntimeError) as caught:
        store.enqueue([NewJob("noop")], tenant=ACME, now_ns=NOW)
    assert str(caught.value).startswith("a store is written in a transaction")
    assert enqueue_one(store)


def test_an_operation_that_refuses_has_not_written(store: Store) -> None:
    job_id = enqueue_one(store)
    with store.transaction():
        store.cancel(job_id, tenant=None, now_ns=NOW)
        before = store.changes
        with pytest.raises(ConflictError):
            store.cancel(job_id, tenant=None, now_ns=NOW)
        with pytest.raises(NotFoundError):
            store.enqueue([NewJob("noop"), NewJob("nope")], tenant=ACME, now_ns=NOW)
        assert store.changes == before
        store.enqueue([NewJob("noop")], tenant=ACME, now_ns=NOW)
        assert store.changes > before


def test_events_are_numbered_in_the_order_of_commits(store: Store) -> None:
    first = enqueue_one(store, queue="mail")
    with store.transaction():
        assert store.head() == 1
    complete(store, claim_one(store), now=NOW + 5_000_000)
    events = store.take_events()
    assert [(event.seq, event.type, event.topic, event.queue) for event in events] == [
        (1, "job.enqueued", f"job:{first}", "mail"),
        (2, "job.started", f"job:{first}", "mail"),
        (3, "job.completed", f"job:{first}", "mail"),
    ]
    assert (events[2].ts_ns, events[2].app_id, events[2].org_id) == (NOW + 5_000_000, "app-1", "org-1")
    assert json.loads(events[2].data)["elapsed_ms"] == 5
    with store.transaction():
        assert store.read_events(0) == (events, 3, 3)
        assert store.read_events(1, limit=1) == (events[1:2], 2, 3)
        assert store.read_events(3) == ([], 3, 3)
        assert store.read_events(7) == ([], 7, 3)
        assert store.span() == (1, 3)
    assert store.take_events() == []


def test_a_failed_transaction_leaves_no_hole_in_the_log(store: Store) -> None:
    enqueue_one(store)
    with undone(store):
        store.enqueue([NewJob("noop")], tenant=ACME, now_ns=NOW)
    enqueue_one(store)
    assert [event.seq for event in store.take_events()] == [1, 2]


def test_an_empty_log_says_so(store: Store) -> None:
    with store.transaction():
        assert store.span() == (1, 0)
        assert store.head() == 0
        assert store.span().gap_after(0) is None
        assert store.read_events(0) == ([], 0, 0)


def test_events_are_read_by_tenant_and_topic(store: Store) -> None:
    ours = enqueue_one(store)
    theirs = enqueue_one(store, tenant=NO_TENANT)
    more = enqueue_one(store)
    with store.transaction():

        def topics(**filters: Any) -> list[str]:
            page = store.read_events(0, **filters)
            assert (page.through, page.head) == (3, 3)
            return [event.topic for event in page.events]

        assert topics(tenant=ACME) == [f"job:{ours}", f"job:{more}"]
        assert topics(tenant=NO_TENANT) == [f"job:{theirs}"]
        assert topics(topic=f"job:{more}") == [f"job:{more}"]
        assert topics(tenant=NO_TENANT, topic=f"job:{more}") == []
        page = store.read_events(0, limit=1, tenant=NO_TENANT)
        assert (page.through, len(page.events)) == (2, 1)


def test_retention_removes_the_oldest_events_and_leaves_a_gap_that_is_told(store: Store) -> None:
    for n in range(10):
        enqueue_one(store, now=NOW + n)
    with store.transaction():
        assert store.purge(now_ns=NOW, retention=Retention(events=6)).events == 4
        assert store.span() == (5, 10)
        assert store.span().gap_after(0) == (1, 4)
        assert store.span().gap_after(2) == (3, 4)
        assert store.span().gap_after(4) is None
        assert [event.seq for event in store.read_events(0).events] == [5, 6, 7, 8, 9, 10]
        by_age = Retention(events=None, event_age_ns=2)
        assert store.purge(now_ns=NOW + 9, retention=by_age).events == 3
        assert store.span() == (8, 10)
        assert store.purge(now_ns=NOW + 9, retention=by_age) == (0, 0, 0, 0, False)
        # The newest stays, because the log goes on from it.
        assert store.purge(now_ns=NOW + DAY_NS, retention=by_age).events == 2
        assert store.span() == (10, 10)
    enqueue_one(store)
    assert store.take_events()[-1].seq == 11


def test_one_round_of_purging_is_bounded(store: Store) -> None:
    for n in range(7):
        new = NewJob("noop", unique_key=f"u{n}", unique_for=5)
        enqueue(store, new, key=Idempotency("job.enqueue", f"k{n}", b""))
    rounds = []
    with store.transaction():
        while True:
            rounds.append(store.purge(now_ns=NOW + DAY_NS, retention=Retention(events=2), limit=3))
            if not rounds[-1].more:
                break
    assert rounds == [(3, 3, 3, 0, True), (2, 3, 3, 0, True), (0, 1, 1, 0, False)]
    assert not enqueue(store, NewJob("noop", unique_key="u0"), now=NOW)[0].duplicate


def test_jobs_that_ended_long_ago_are_purged_and_their_dead_letters_stay(store: Store) -> None:
    done, waits, failed = enqueue_one(store), enqueue_one(store, run_at=NOW + DAY_NS), enqueue_one(store)
    complete(store, claim_one(store))
    fail(store, claim_one(store), retryable=False)
    late = enqueue_one(store, run_at=NOW + 5, payload=b"[1]")
    complete(store, claim_one(store, now=NOW + 5), now=NOW + 20)
    kept = Retention(events=None, event_age_ns=None, job_age_ns=10)
    with store.transaction():
        assert store.purge(now_ns=NOW + 10, retention=kept).jobs == 0
    with undone(store):
        assert store.purge(now_ns=NOW + 11, retention=kept).jobs == 2
    assert get(store, done).state == "completed"
    with store.transaction():
        assert store.purge(now_ns=NOW + 11, retention=kept) == (0, 0, 0, 2, False)
        assert [job.id for job in store.list_jobs(tenant=ACME).jobs] == [late, waits]
        assert [entry.job_id for entry in store.list_dead_letters(tenant=ACME).entries] == [failed]
        with pytest.raises(NotFoundError):
            store.get_job(done, tenant=ACME)
        assert store.purge(now_ns=NOW + 31, retention=kept).jobs == 1
        assert store.purge(now_ns=NOW + 40 * DAY_NS, retention=Retention(job_age_ns=None)).jobs == 0


def test_a_purge_of_jobs_is_bounded_and_reaches_every_tenant(store: Store) -> None:
    for tenant in (ACME, *OTHERS):
        enqueue_one(store, tenant=tenant)
        complete(store, claim_one(store))
    kept = Retention(events=None, event_age_ns=None, job_age_ns=0)
    with store.transaction():
        rounds = [store.purge(now_ns=NOW + 1, retention=kept, limit=3) for _ in range(2)]
        assert [(one.jobs, one.more) for one in rounds] == [(3, True), (1, False)]
        assert store.list_jobs(tenant=None).jobs == []


def test_a_job_stays_as_long_as_its_unique_key_counts(store: Store) -> None:
    enqueue(store, NewJob("noop", unique_key="u", unique_for=50))
    complete(store, claim_one(store))
    kept = Retention(events=None, event_age_ns=None, job_age_ns=10)
    with store.transaction():
        assert store.purge(now_ns=NOW + 49, retention=kept).jobs == 0
    assert enqueue(store, NewJob("noop", unique_key="u", unique_for=50), now=NOW + 49)[0].duplicate
    with store.transaction():
        assert store.purge(now_ns=NOW + 50, retention=kept).jobs == 1


def test_keys_that_still_count_are_not_purged(store: Store) -> None:
    enqueue(store, NewJob("noop", unique_key="u"), key=KEY)
    with store.transaction():
        kept = Retention(events=None, event_age_ns=None)
        assert store.purge(now_ns=NOW + DAY_NS - 1, retention=kept) == (0, 0, 0, 0, False)
        assert store.purge(now_ns=NOW + DAY_NS, retention=kept) == (0, 1, 0, 0, False)
    assert enqueue(store, NewJob("noop", unique_key="u"))[0].duplicate


def test_every_log_has_an_id_of_its_own(store: Store) -> None:
    assert store.log_id.startswith("log_")
