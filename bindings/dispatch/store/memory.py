"""The store in memory: for tests, and for what may be forgotten. The same operations, answers and errors as on disk.

What operations mean is in `reading` and `writing`; here are dictionaries and sorted lists. Each write notes how to undo
it, so a transaction that fails leaves nothing behind.
"""

from __future__ import annotations

import secrets
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from functools import partial
from heapq import merge
from itertools import chain, islice, takewhile
from typing import Any, NamedTuple, TypeVar

from dispatch.store.cron_operations import CronOperations
from dispatch.store.reading import owns
from dispatch.store.values import LogSpan, QueueDepth, Stats, Tenant
from dispatch.store.writing import KeptAnswer, UniqueHolder
from dwp_core.crons import Cron
from dwp_core.events import LoggedEvent
from dwp_core.ids import IdSource
from dwp_core.jobs import FINISHED, RUNNING, STATES, WAITING, DeadLetter, Job

K = TypeVar("K")
V = TypeVar("V")

_Lane = tuple[str, str]
_Rank = tuple[int, int, str]
_Key = tuple[str, str, str, str]


class _Kept(NamedTuple):
    """A job, and whether it can be claimed (True), waits for its `run_at` (False), or neither (None)."""

    job: Job
    due: bool | None


class MemoryStore(CronOperations):
    """A store that ends with the process. Implements `dispatch.store.Store`.

    Args:
        new_id: makes an id with the prefix that it is given; None for real ones.

    Example:
        >>> store = MemoryStore()
        >>> with store.transaction():
        ...     store.register_names(["send-email"])
        >>> store.knows_name("send-email"), store.knows_name("send-mail")
        (True, False)
    """

    def __init__(self, *, new_id: Callable[[str], str] | None = None) -> None:
        super().__init__(new_id or IdSource(random_bytes=secrets.token_bytes, now_ns=time.time_ns).new)
        self.log_id = self._new_id("log")
        self._undos: list[Callable[[], object]] = []
        self._jobs: dict[str, _Kept] = {}
        self._job_ids: list[str] = []
        self._lanes: dict[_Lane, list[_Rank]] = {}
        self._delayed: list[tuple[int, str]] = []
        self._leases: list[tuple[int, str]] = []
        self._names: dict[str, bool] = {}
        self._answers: dict[_Key, KeptAnswer] = {}
        self._unique_keys: dict[_Key, UniqueHolder] = {}
        self._dead_letters: dict[str, DeadLetter] = {}
        self._cron_entries: dict[str, Cron] = {}
        self._events_kept: list[LoggedEvent] = []

    def close(self) -> None:
        """See `ReadableStore.close`."""

    def reader(self) -> None:
        """See `Store.reader`: dictionaries have one way in."""
        return

    # -- transactions

    def _begin(self) -> int:
        return self.span().head

    def _events_since(self, seq: int) -> list[LoggedEvent]:
        return []  # nobody else writes here

    def _commit(self, told: list[LoggedEvent]) -> None:
        self._undos.clear()
        self._events_kept += told

    def _undo(self, error: BaseException) -> None:
        while self._undos:
            self._undos.pop()()

    def _set(self, table: dict[K, V], key: K, value: V | None) -> None:
        """Keeps a value, or removes the key for None, until the transaction is undone."""
        self._undos.append(partial(_put, table, key, table.get(key)))
        _put(table, key, value)

    # -- reading

    def knows_name(self, name: str) -> bool:
        """See `ReadableStore.knows_name`."""
        return name in self._names

    def stats(self, *, tenant: Tenant | None) -> Stats:
        """See `ReadableStore.stats`."""
        counts: dict[str, int] = dict.fromkeys(STATES, 0)
        for job, _ in self._jobs.values():
            if owns(tenant, job.app_id, job.org_id):
                counts[job.state] += 1
        return Stats(counts, self.count_dead_letters(tenant=tenant), len(self._events_kept))

    def count_dead_letters(self, *, tenant: Tenant | None) -> int:
        """See `ReadableStore.count_dead_letters`."""
        return sum(owns(tenant, entry.app_id, entry.org_id) for entry in self._dead_letters.values())

    def queue_depths(self, *, tenant: Tenant | None, now_ns: int) -> list[QueueDepth]:
        """See `ReadableStore.queue_depths`."""
        depths: dict[str, list[int]] = {}
        ready = chain(*self._lanes.values())
        unfinished = chain([id for *_, id in ready], [id for _, id in chain(self._delayed, self._leases)])
        for job, due in map(self._jobs.__getitem__, unfinished):
            if owns(tenant, job.app_id, job.org_id):
                column = 2 if due is None else 0 if job.run_at <= now_ns else 1
                depths.setdefault(job.queue, [0, 0, 0])[column] += 1
        return [QueueDepth(queue, *depths[queue]) for queue in sorted(depths)]

    def span(self) -> LogSpan:
        """See `ReadableStore.span`."""
        events = self._events_kept
        return LogSpan(events[0].seq, events[-1].seq) if events else LogSpan(1, 0)

    def next_run_at(self) -> int | None:
        """See `ReadableStore.next_run_at`."""
        return self._delayed[0][0] if self._delayed else None

    def next_lease_end(self) -> int | None:
        """See `ReadableStore.next_lease_end`."""
        return self._leases[0][0] if self._leases else None

    def _job(self, job_id: str) -> Job | None:
        kept = self._jobs.get(job_id)
        return None if kept is None else kept.job

    def _jobs_newest_first(
        self, tenant: Tenant | None, state: str, queue: str, name: str, before: str, limit: int
    ) -> Generator[Job, None, None]:
        end = bisect_left(self._job_ids, before) if before else len(self._job_ids)
        for index in range(end - 1, -1, -1):
            job = self._jobs[self._job_ids[index]].job
            if (
                owns(tenant, job.app_id, job.org_id)
                and state in ("", job.state)
                and queue in ("", job.queue)
                and name in ("", job.name)
            ):
                yield job

    def _dead_letter(self, dlq_id: str) -> DeadLetter | None:
        return self._dead_letters.get(dlq_id)

    def _dead_letters_newest_first(
        self, tenant: Tenant | None, queue: str, before: str, limit: int
    ) -> Generator[DeadLetter, None, None]:
        for id in sorted(self._dead_letters, reverse=True):
            entry = self._dead_letters[id]
            if (
                (not before or id < before)
                and owns(tenant, entry.app_id, entry.org_id)
                and queue in ("", entry.queue)
            ):
                yield entry

    def _events(
        self, after: int, through: int, limit: int, tenant: Tenant | None, topic: str
    ) -> list[LoggedEvent]:
        # Seqs have no holes here, so places in the list follow from them.
        first = self.span().oldest
        found = (
            event
            for event in self._events_kept[max(after + 1 - first, 0) : max(through + 1 - first, 0)]
            if owns(tenant, event.app_id, event.org_id) and topic in ("", event.topic)
        )
        return list(islice(found, limit))

    # -- cron entries

    def _crons(self, tenant: Tenant | None) -> list[Cron]:
        entries = sorted(self._cron_entries.items())
        return [cron for _, cron in entries if owns(tenant, cron.app_id, cron.org_id)]

    def _cron(self, name: str) -> Cron | None:
        return self._cron_entries.get(name)

    def _keep_cron(self, cron: Cron) -> None:
        self._set(self._cron_entries, cron.name, cron)

    def _claim_cron(self, before: Cron, after: Cron) -> bool:
        self._keep_cron(after)
        return True  # nobody else writes here

    def _forget_cron(self, name: str) -> None:
        self._set(self._cron_entries, name, None)

    # -- jobs

    def _job_alone(self, job_id: str) -> Job | None:
        return self._job(job_id)

    def _payload(self, job_id: str) -> bytes:
        return self._jobs[job_id].job.payload

    def _add_job(self, job: Job, now_ns: int) -> None:
        self._keep(job.id, _Kept(job, job.run_at <= now_ns))

    def _save(self, jobs: Iterable[Job], now_ns: int) -> None:
        for job in jobs:
            self._keep(job.id, _Kept(job, job.run_at <= now_ns if job.state in WAITING else None))

    def _keep(self, job_id: str, kept: _Kept) -> None:
        self._undos.append(partial(self._place, job_id, self._jobs.get(job_id)))
        self._place(job_id, kept)

    def _place(self, job_id: str, kept: _Kept | None) -> None:
        """Keeps a job, or forgets it for None, with the sorted lists it belongs into."""
        before = self._jobs.get(job_id)
        if before is not None:
            _remove(*self._place_of(before))
        elif kept is not None:
            insort(self._job_ids, job_id)
        if kept is None:
            _remove(self._job_ids, job_id)
        else:
            insort(*self._place_of(kept))
        _put(self._jobs, job_id, kept)

    def _place_of(self, kept: _Kept) -> tuple[list[Any], Any]:
        job, due = kept
        if due:
            return self._lanes.setdefault((job.queue, job.name), []), (-job.priority, job.run_at, job.id)
        if due is False:
            return self._delayed, (job.run_at, job.id)
        if job.state == RUNNING:
            return self._leases, (job.lease_until, job.id)
        return [], job.id

    def _make_due(self, now_ns: int) -> None:
        while self._delayed and self._delayed[0][0] <= now_ns:
            job = self._jobs[self._delayed[0][1]].job
            self._keep(job.id, _Kept(job, due=True))

    def _ready(self, names: Collection[str] | None, queues: Collection[str] | None, limit: int) -> list[Job]:
        lanes = [
            ranks
            for (queue, name), ranks in self._lanes.items()
            if (names is None or name in names) and (queues is None or queue in queues)
        ]
        return [self._jobs[id].job for _, _, id in islice(merge(*lanes), limit)]

    def _expired(self, now_ns: int, workers: Collection[str], limit: int) -> list[Job]:
        leased = (self._jobs[id].job for _, id in self._leases)
        lost = (job for job in leased if job.lease_until <= now_ns or job.worker_id in workers)
        return list(islice(lost, limit))

    # -- names and keys

    def _add_names(self, names: Sequence[str]) -> None:
        for name in names:
            self._set(self._names, name, True)

    def _kept_answer(self, tenant: Tenant, method: str, key: str) -> KeptAnswer | None:
        return self._answers.get((tenant.app_id, tenant.org_id, method, key))

    def _keep_answer(self, tenant: Tenant, method: str, key: str, kept: KeptAnswer) -> None:
        self._set(self._answers, (tenant.app_id, tenant.org_id, method, key), kept)

    def _unique_holder(self, tenant: Tenant, name: str, key: str) -> UniqueHolder | None:
        return self._unique_keys.get((tenant.app_id, tenant.org_id, name, key))

    def _take_unique_key(self, job: Job, until: int) -> None:
        self._set(self._unique_keys, _unique_key(job), UniqueHolder(job.id, until))

    def _free_unique_key(self, job: Job) -> None:
        if self._unique_keys.get(_unique_key(job)) == UniqueHolder(job.id, 0):
            self._set(self._unique_keys, _unique_key(job), None)

    # -- dead letters and retention

    def _add_dead_letter(self, entry: DeadLetter) -> None:
        self._set(self._dead_letters, entry.id, entry)

    def _note_replay(self, entry: DeadLetter) -> None:
        self._set(self._dead_letters, entry.id, entry)

    def _last_event_before(self, cutoff_ns: int, limit: int) -> int:
        older = takewhile(lambda event: event.ts_ns < cutoff_ns, self._events_kept[:limit])
        return max((event.seq for event in older), default=0)

    def _drop_events(self, through: int) -> None:
        count = through + 1 - self.span().oldest
        dropped = self._events_kept[:count]
        del self._events_kept[:count]
        self._undos.append(partial(self._events_kept.__setitem__, slice(0, 0), dropped))

    def _finished_by_age(self, before_ns: int) -> Generator[Job, None, None]:
        lanes: dict[tuple[str, str, str], list[Job]] = {}
        for job_id in self._job_ids:
            job = self._jobs[job_id].job
            if job.state in FINISHED:
                lanes.setdefault((job.app_id, job.org_id, job.state), []).append(job)
        for lane in sorted(lanes):
            yield from takewhile(lambda job: job.created_at < before_ns, lanes[lane])

    def _drop_jobs(self, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            self._undos.append(partial(self._place, job_id, self._jobs[job_id]))
            self._place(job_id, None)

    def _drop_answers(self, now_ns: int, limit: int) -> int:
        return self._drop(self._answers, lambda kept: kept.expires_at <= now_ns, limit)

    def _drop_unique_keys(self, now_ns: int, limit: int) -> int:
        return self._drop(self._unique_keys, lambda holder: 0 < holder.until <= now_ns, limit)

    def _drop(self, table: dict[K, V], over: Callable[[V], bool], limit: int) -> int:
        keys = list(islice((key for key, value in table.items() if over(value)), limit))
        for key in keys:
            self._set(table, key, None)
        return len(keys)


def _put(table: dict[K, V], key: K, value: V | None) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value


def _remove(ordered: list[Any], item: Any) -> None:
    index = bisect_left(ordered, item)
    if index < len(ordered):
        del ordered[index]


def _unique_key(job: Job) -> _Key:
    return job.app_id, job.org_id, job.name, job.unique_key
