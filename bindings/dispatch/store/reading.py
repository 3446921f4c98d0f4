"""What reading operations of the port mean, for every store: pages, tenants, windows of the event log, not found.

A store adds the abstract methods below, which look things up and decide nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing
from typing import TypeVar

from dispatch.store.values import (
    PAGE_BYTES,
    PAGE_LIMIT,
    DeadLetterPage,
    EventPage,
    JobPage,
    LogSpan,
    QueueDepth,
    Stats,
    Tenant,
)
from dwp_core import ids
from dwp_core.crons import Cron
from dwp_core.errors import InvalidRequest, NotFoundError
from dwp_core.events import LoggedEvent
from dwp_core.jobs import STATES, DeadLetter, Job

EVENT_WINDOW = 10_000
"""Events that one filtered read looks at; then the reader is told how far it got, so that no read takes long."""

Row = TypeVar("Row", Job, DeadLetter)


class ReadingOperations(ABC):
    """The reading half of the port."""

    log_id: str

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """See `ReadableStore.transaction`."""

    @abstractmethod
    def close(self) -> None:
        """See `ReadableStore.close`."""

    def get_job(self, job_id: str, *, tenant: Tenant | None) -> Job:
        """See `ReadableStore.get_job`."""
        job = self._job(job_id)
        if job is None or not owns(tenant, job.app_id, job.org_id):
            raise job_not_found(job_id)
        return job

    def list_jobs(
        self,
        *,
        tenant: Tenant | None,
        state: str = "",
        queue: str = "",
        name: str = "",
        limit: int = PAGE_LIMIT,
        cursor: str = "",
        max_bytes: int = PAGE_BYTES,
    ) -> JobPage:
        """See `ReadableStore.list_jobs`."""
        if state and state not in STATES:
            raise InvalidRequest(f'there is no job state "{state}"; expected {", ".join(STATES)}')
        before = _position(cursor, ids.JOB)
        rows = self._jobs_newest_first(tenant, state, queue, name, before, limit + 1)
        return JobPage(*_page(rows, limit, max_bytes, lambda job: len(job.payload) + len(job.output or b"")))

    def list_dead_letters(
        self, *, tenant: Tenant | None, queue: str = "", limit: int = PAGE_LIMIT, cursor: str = ""
    ) -> DeadLetterPage:
        """See `ReadableStore.list_dead_letters`."""
        before = _position(cursor, ids.DEAD_LETTER)
        rows = self._dead_letters_newest_first(tenant, queue, before, limit + 1)
        return DeadLetterPage(*_page(rows, limit, PAGE_BYTES, lambda entry: len(entry.payload)))

    def get_dead_letter(self, dlq_id: str, *, tenant: Tenant | None) -> DeadLetter:
        """See `ReadableStore.get_dead_letter`."""
        entry = self._dead_letter(dlq_id)
        if entry is None or not owns(tenant, entry.app_id, entry.org_id):
            raise NotFoundError(f"dead letter not found: {dlq_id}")
        return entry

    def read_events(
        self, after_seq: int, *, limit: int = 500, tenant: Tenant | None = None, topic: str = ""
    ) -> EventPage:
        """See `ReadableStore.read_events`."""
        oldest, head = self.span()
        start = max(after_seq, oldest - 1)
        end = min(head, start + max(limit, EVENT_WINDOW))
        events = self._events(start, end, limit, tenant, topic)
        through = events[-1].seq if len(events) == limit else max(end, after_seq)
        return EventPage(events, through, head)

    def list_crons(self, *, tenant: Tenant | None) -> list[Cron]:
        """See `ReadableStore.list_crons`."""
        return self._crons(tenant)

    def head(self) -> int:
        """See `ReadableStore.head`."""
        return self.span().head

    @abstractmethod
    def knows_name(self, name: str) -> bool:
        """See `ReadableStore.knows_name`."""

    @abstractmethod
    def stats(self, *, tenant: Tenant | None) -> Stats:
        """See `ReadableStore.stats`."""

    @abstractmethod
    def queue_depths(self, *, tenant: Tenant | None, now_ns: int) -> list[QueueDepth]:
        """See `ReadableStore.queue_depths`."""

    @abstractmethod
    def count_dead_letters(self, *, tenant: Tenant | None) -> int:
        """See `ReadableStore.count_dead_letters`."""

    @abstractmethod
    def span(self) -> LogSpan:
        """See `ReadableStore.span`."""

    @abstractmethod
    def next_run_at(self) -> int | None:
        """See `ReadableStore.next_run_at`."""

    @abstractmethod
    def next_lease_end(self) -> int | None:
        """See `ReadableStore.next_lease_end`."""

    @abstractmethod
    def _job(self, job_id: str) -> Job | None:
        """The job, with its payload."""

    @abstractmethod
    def _jobs_newest_first(
        self, tenant: Tenant | None, state: str, queue: str, name: str, before: str, limit: int
    ) -> Generator[Job, None, None]:
        """Jobs by descending id, from below `before` ("" for the newest), as they are asked for; at most `limit`."""

    @abstractmethod
    def _dead_letter(self, dlq_id: str) -> DeadLetter | None:
        """The entry."""

    @abstractmethod
    def _dead_letters_newest_first(
        self, tenant: Tenant | None, queue: str, before: str, limit: int
    ) -> Generator[DeadLetter, None, None]:
        """As `_jobs_newest_first`."""

    @abstractmethod
    def _crons(self, tenant: Tenant | None) -> list[Cron]:
        """Cron entries, by name."""

    @abstractmethod
    def _events(
        self, after: int, through: int, limit: int, tenant: Tenant | None, topic: str
    ) -> list[LoggedEvent]:
        """Events with after < seq <= through that match, in order, at most `limit`."""


def owns(tenant: Tenant | None, app_id: str, org_id: str) -> bool:
    """Whether what belongs to that app and org may be seen by the tenant. None sees everything."""
    return tenant is None or (tenant.app_id == app_id and tenant.org_id == org_id)


def job_not_found(job_id: str) -> NotFoundError:
    """For a job that is not there, and for one of another tenant: nobody can tell those apart."""
    return NotFoundError(f"job not found: {job_id}")


def _position(cursor: str, prefix: str) -> str:
    """Cursors are the id of the last row that was given."""
    return ids.parse_id(cursor, prefix, "cursor") if cursor else ""


def _page(
    rows: Generator[Row, None, None], limit: int, max_bytes: int, weigh: Callable[[Row], int]
) -> tuple[list[Row], str]:
    page: list[Row] = []
    size = 0
    with closing(rows):
        for row in rows:
            size += weigh(row)
            if page and (len(page) >= limit or size > max_bytes):
                return page, page[-1].id
            page.append(row)
    return page, ""
