"""What writing operations of the port mean, for every store: leases, fencing, keys, dead letters, the event log.

`dwp_core.jobs` decides what becomes of a job. Here the job is looked up, the change is written, and its events get
their seq, all in the caller's transaction. A store adds the abstract methods below, which keep things and decide
nothing.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import closing
from typing import NamedTuple, TypeVar

from dispatch.store.event_logging import EventLogging
from dispatch.store.reading import ReadingOperations, job_not_found, owns
from dispatch.store.values import (
    Cancellation,
    Completion,
    Enqueued,
    EnqueuedJob,
    Idempotency,
    Lease,
    NewJob,
    Purged,
    Retention,
    Settled,
    Standing,
    Tenant,
)
from dwp_core import ids, jobs
from dwp_core.errors import ConflictError, NotFoundError
from dwp_core.jobs import FINISHED, RUNNING, Change, DeadLetter, Job

T = TypeVar("T")

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


_JOBS_AT_ONCE = 250
"""Jobs that one round of purging removes: few enough that a claim behind it does not wait long."""


class KeptAnswer(NamedTuple):
    """What was answered under an idempotency key: digest of the request's data, the answer, until when it counts."""

    digest: bytes
    answer: str
    expires_at: int


class UniqueHolder(NamedTuple):
    """Which job has a unique key. `until`: how long, whatever becomes of the job; 0: until it is finished."""

    job_id: str
    until: int


class WritingOperations(EventLogging, ReadingOperations):
    """The writing half of the port.

    Args:
        new_id: makes an id with the prefix that it is given.
    """

    def __init__(self, new_id: Callable[[str], str]) -> None:
        super().__init__()
        self._new_id = new_id

    def register_names(self, names: Collection[str]) -> None:
        """See `Store.register_names`."""
        new = [name for name in names if not self.knows_name(name)]
        if new:
            self._writes()
            self._add_names(new)

    def enqueue(
        self, jobs: Sequence[NewJob], *, tenant: Tenant, now_ns: int, idempotency: Idempotency | None = None
    ) -> Enqueued:
        """See `Store.enqueue`."""
        if idempotency is not None:
            kept = self._kept_answer(tenant, idempotency.method, idempotency.key)
            if kept is not None and kept.expires_at > now_ns:
                return _first_answer(kept, idempotency)
        for new in jobs:
            if not self.knows_name(new.name):
                raise _unknown_name(new.name)
        answers: list[EnqueuedJob] = []
        self._writes()
        for new in jobs:
            existing = self._unique_job(new, tenant, now_ns) if new.unique_key else None
            answers.append(existing or self._insert(new, tenant, now_ns))
        if idempotency is not None:
            kept = KeptAnswer(idempotency.digest, _encode(answers), now_ns + idempotency.keep_ns)
            self._keep_answer(tenant, idempotency.method, idempotency.key, kept)
        return Enqueued(tuple(answers))

    def claim(
        self,
        worker_id: str,
        *,
        now_ns: int,
        lease_ns: int,
        limit: int,
        names: Collection[str] | None = None,
        queues: Collection[str] | None = None,
    ) -> list[Job]:
        """See `Store.claim`."""
        self._writes()
        self._make_due(now_ns)
        ready = self._ready(names, queues, limit)
        if not ready:
            return []
        changes = [jobs.start(job, worker_id=worker_id, now_ns=now_ns, lease_ns=lease_ns) for job in ready]
        self._apply(changes, now_ns)
        return [change.job for change in changes]

    def complete(self, completions: Sequence[Completion], *, now_ns: int) -> list[Settled | None]:
        """See `Store.complete`."""
        return self._settle(
            completions,
            lambda completion: completion.lease,
            lambda job, completion: jobs.complete(job, output=completion.output, now_ns=now_ns),
            now_ns,
        )

    def fail(
        self,
        lease: Lease,
        *,
        error: str,
        now_ns: int,
        jitter: float,
        retry_after_ns: int | None = None,
        retryable: bool = True,
    ) -> Settled | None:
        """See `Store.fail`."""
        job = self._leased(lease)
        if job is None:
            return None
        change = jobs.fail(
            job,
            error=error,
            now_ns=now_ns,
            jitter=jitter,
            retry_after_ns=retry_after_ns,
            retryable=retryable,
        )
        return self._apply_one(change, now_ns)

    def extend(self, leases: Sequence[Lease], *, now_ns: int, lease_ns: int) -> list[Standing]:
        """See `Store.extend`."""
        standings: list[Standing] = []
        held: list[Job] = []
        for lease in leases:
            job = self._leased(lease)
            if job is None:
                standings.append(Standing.LOST)
                continue
            standings.append(Standing.CANCEL_REQUESTED if job.cancel_requested else Standing.HELD)
            held.append(job._replace(heartbeat_at=now_ns, lease_until=now_ns + lease_ns))
        if held:
            self._writes()
            self._save(held, now_ns)
        return standings

    def release(self, leases: Sequence[Lease], *, now_ns: int) -> list[Settled | None]:
        """See `Store.release`."""
        return self._settle(
            leases, lambda lease: lease, lambda job, _: jobs.release(job, now_ns=now_ns), now_ns
        )

    def rescue(self, *, now_ns: int, workers: Collection[str] = (), limit: int = 1000) -> list[Settled]:
        """See `Store.rescue`."""
        lost = self._expired(now_ns, workers, limit)
        if lost:
            changes = [jobs.rescue(job, now_ns=now_ns) for job in lost]
            self._apply(changes, now_ns)
            return [_settled(change.job) for change in changes]
        return []

    def cancel(self, job_id: str, *, tenant: Tenant | None, now_ns: int) -> Cancellation:
        """See `Store.cancel`."""
        job = self._job_alone(job_id)
        if job is None or not owns(tenant, job.app_id, job.org_id):
            raise job_not_found(job_id)
        change = jobs.request_cancel(job, now_ns=now_ns)
        self._apply((change,), now_ns)
        if change.job.state == RUNNING:
            return Cancellation(job_id, RUNNING, Lease(job_id, job.epoch), job.worker_id)
        return Cancellation(job_id, change.job.state, None, "")

    def confirm_cancel(self, lease: Lease, *, now_ns: int) -> Settled | None:
        """See `Store.confirm_cancel`."""
        job = self._leased(lease)
        return None if job is None else self._apply_one(jobs.cancel(job, now_ns=now_ns), now_ns)

    def replay_dead_letter(self, dlq_id: str, *, tenant: Tenant | None, now_ns: int) -> EnqueuedJob:
        """See `Store.replay_dead_letter`."""
        entry = self.get_dead_letter(dlq_id, tenant=tenant)
        self._writes()
        new = NewJob(
            entry.job_name,
            entry.payload,
            queue=entry.queue,
            priority=entry.priority,
            max_retries=entry.max_retries,
            timeout=entry.timeout,
        )
        answer = self._insert(new, Tenant(entry.app_id, entry.org_id), now_ns)
        self._note_replay(entry._replace(replayed_at=now_ns, replayed_as=answer.job_id))
        return answer

    def purge(self, *, now_ns: int, retention: Retention, limit: int = 1000) -> Purged:
        """See `Store.purge`."""
        self._writes()
        oldest, head = self.span()
        through = oldest - 1
        if retention.events is not None:
            through = max(through, head - retention.events)
        if retention.event_age_ns is not None:
            through = max(through, self._last_event_before(now_ns - retention.event_age_ns, limit))
        # The newest event stays: it holds the head of the log.
        through = min(through, oldest - 1 + limit, head - 1)
        events = max(through - oldest + 1, 0)
        if events:
            self._drop_events(through)
        answers = self._drop_answers(now_ns, limit)
        keys = self._drop_unique_keys(now_ns, limit)
        most_jobs = min(limit, _JOBS_AT_ONCE)
        ended = [] if retention.job_age_ns is None else self._ended(now_ns - retention.job_age_ns, most_jobs)
        if ended:
            self._drop_jobs(ended)
        more = limit in (events, answers, keys) or len(ended) == most_jobs
        return Purged(events, answers, keys, len(ended), more)

    def _ended(self, before_ns: int, limit: int) -> list[str]:
        """Jobs that ended before that and that nothing needs any more."""
        found: list[str] = []
        with closing(self._finished_by_age(before_ns)) as finished:
            for job in finished:
                if job.updated_at < before_ns and not self._counts_as_unique(job):
                    found.append(job.id)
                    if len(found) == limit:
                        break
        return found

    def _counts_as_unique(self, job: Job) -> bool:
        if not job.unique_key:
            return False
        holder = self._unique_holder(Tenant(job.app_id, job.org_id), job.name, job.unique_key)
        return holder is not None and holder.job_id == job.id

    # -- how operations become writes

    def _leased(self, lease: Lease) -> Job | None:
        job = self._job_alone(lease.job_id)
        return job if job is not None and jobs.holds_lease(job, lease.epoch) else None

    def _settle(
        self,
        writes: Sequence[T],
        lease_of: Callable[[T], Lease],
        step: Callable[[Job, T], Change],
        now_ns: int,
    ) -> list[Settled | None]:
        answers: list[Settled | None] = []
        changes: dict[str, Change] = {}
        for write in writes:
            lease = lease_of(write)
            # A lease named twice is lost to the second: the first has ended it.
            job = None if lease.job_id in changes else self._leased(lease)
            if job is None:
                answers.append(None)
                continue
            change = changes[job.id] = step(job, write)
            answers.append(_settled(change.job))
        if changes:
            self._apply(changes.values(), now_ns)
        return answers

    def _apply_one(self, change: Change, now_ns: int) -> Settled:
        self._apply((change,), now_ns)
        return _settled(change.job)

    def _apply(self, changes: Collection[Change], now_ns: int) -> None:
        self._writes()
        self._save([change.job for change in changes], now_ns)
        for change in changes:
            job = change.job
            self._tell(change, now_ns)
            if change.dead:
                id = self._new_id(ids.DEAD_LETTER)
                payload = self._payload(job.id)
                self._add_dead_letter(jobs.dead_letter(job, id=id, payload=payload, failed_at=now_ns))
            if job.unique_key and job.state in FINISHED:
                self._free_unique_key(job)

    def _insert(self, new: NewJob, tenant: Tenant, now_ns: int) -> EnqueuedJob:
        job = Job(
            self._new_id(ids.JOB),
            new.name,
            new.queue,
            new.payload,
            new.priority,
            new.max_retries,
            new.timeout,
            tenant.app_id,
            tenant.org_id,
            new.unique_key,
            now_ns,
            jobs.PENDING,
            now_ns,
            now_ns if new.run_at is None else new.run_at,
        )
        self._add_job(job, now_ns)
        if new.unique_key:
            until = 0 if new.unique_for is None else now_ns + new.unique_for
            self._take_unique_key(job, until)
        self._tell(jobs.enqueued(job), now_ns)
        return EnqueuedJob(job.id, job.queue, job.state)

    def _unique_job(self, new: NewJob, tenant: Tenant, now_ns: int) -> EnqueuedJob | None:
        """The job that has the key of this new one; None when the key is free."""
        holder = self._unique_holder(tenant, new.name, new.unique_key)
        if holder is None or (holder.until and holder.until <= now_ns):
            return None
        job = self._job_alone(holder.job_id)
        return None if job is None else EnqueuedJob(job.id, job.queue, job.state, duplicate=True)

    def _tell(self, change: Change, now_ns: int) -> None:
        job = change.job
        for type, data in change.events:
            self._log(type, now_ns, jobs.topic_of(job), job.queue, job.app_id, job.org_id, data)

    # -- what a store adds

    @abstractmethod
    def _job_alone(self, job_id: str) -> Job | None:
        """The job as it is in this transaction, perhaps without its payload."""

    @abstractmethod
    def _payload(self, job_id: str) -> bytes:
        """The payload of a job that is there."""

    @abstractmethod
    def _add_job(self, job: Job, now_ns: int) -> None:
        """Keeps a new job; it is ready to be claimed when its `run_at` has come."""

    @abstractmethod
    def _save(self, jobs: Iterable[Job], now_ns: int) -> None:
        """Keeps what may change of jobs that are there; those that wait are ready when their `run_at` has come."""

    @abstractmethod
    def _make_due(self, now_ns: int) -> None:
        """Makes delayed jobs ready whose `run_at` has come."""

    @abstractmethod
    def _ready(self, names: Collection[str] | None, queues: Collection[str] | None, limit: int) -> list[Job]:
        """Jobs that are ready, with their payloads: priority descending, run_at, id."""

    @abstractmethod
    def _expired(self, now_ns: int, workers: Collection[str], limit: int) -> list[Job]:
        """Running jobs whose lease has ended, or is held by one of the workers."""

    @abstractmethod
    def _add_names(self, names: Sequence[str]) -> None:
        """Keeps names that are new."""

    @abstractmethod
    def _kept_answer(self, tenant: Tenant, method: str, key: str) -> KeptAnswer | None:
        """What was answered under the key, expired or not."""

    @abstractmethod
    def _keep_answer(self, tenant: Tenant, method: str, key: str, kept: KeptAnswer) -> None:
        """Keeps an answer, in place of an expired one."""

    @abstractmethod
    def _unique_holder(self, tenant: Tenant, name: str, key: str) -> UniqueHolder | None:
        """Who has the key, expired or not."""

    @abstractmethod
    def _take_unique_key(self, job: Job, until: int) -> None:
        """Gives the key to the job, in place of who had it."""

    @abstractmethod
    def _free_unique_key(self, job: Job) -> None:
        """Frees the key if this job has it until it is finished."""

    @abstractmethod
    def _add_dead_letter(self, entry: DeadLetter) -> None:
        """Keeps a new entry."""

    @abstractmethod
    def _note_replay(self, entry: DeadLetter) -> None:
        """Keeps the replay fields of an entry that is there."""

    @abstractmethod
    def _last_event_before(self, cutoff_ns: int, limit: int) -> int:
        """The oldest events, as long as they happened before the cutoff: the seq of the last; 0 for none."""

    @abstractmethod
    def _drop_events(self, through: int) -> None:
        """Removes events up to and including this seq."""

    @abstractmethod
    def _finished_by_age(self, before_ns: int) -> Generator[Job, None, None]:
        """Finished jobs, perhaps without payloads: by app, org, state and id, of each of these until one that was made
        at that time or later."""

    @abstractmethod
    def _drop_jobs(self, job_ids: Sequence[str]) -> None:
        """Forgets jobs, with their payloads."""

    @abstractmethod
    def _drop_answers(self, now_ns: int, limit: int) -> int:
        """Removes at most so many answers that have expired; how many."""

    @abstractmethod
    def _drop_unique_keys(self, now_ns: int, limit: int) -> int:
        """Removes at most so many unique keys whose time has passed; how many."""


def _settled(job: Job) -> Settled:
    return Settled(job.id, job.state, job.run_at)


def _first_answer(kept: KeptAnswer, idempotency: Idempotency) -> Enqueued:
    if kept.digest != idempotency.digest:
        raise ConflictError(
            f'{idempotency.method}: idempotency_key "{idempotency.key}" was used before with other data;'
            " take a new key for a new request"
        )
    return Enqueued(tuple([EnqueuedJob(*answer) for answer in json.loads(kept.answer)]), duplicate=True)


def _unknown_name(name: str) -> NotFoundError:
    shown = name if len(name) <= 80 else name[:77] + "..."
    return NotFoundError(
        f'no function named "{shown}" was ever registered: check the spelling, or start a server that has it'
    )
