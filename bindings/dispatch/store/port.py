"""The store port: what a store of jobs can do; `values` has its arguments and answers.

Each operation is named for what it means, takes the time, runs inside `with store.transaction():`, and writes its
events to the durable log in that same transaction. Workers write under the epoch of their lease; one that lost it
changes nothing and is told so (fencing). An operation decides before it writes: when it raises a `DispatchError`, it
has written nothing. Stores are plain and synchronous, and used by one thread at a time; `Committer` brings many
callers to the one writer. DESIGN.md, "Engine and store".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from dispatch.store.values import (
    PAGE_BYTES,
    PAGE_LIMIT,
    Cancellation,
    Completion,
    DeadLetterPage,
    Enqueued,
    EnqueuedJob,
    EventPage,
    FiredCrons,
    Idempotency,
    JobPage,
    Lease,
    LogSpan,
    NewJob,
    Purged,
    QueueDepth,
    Retention,
    Settled,
    Standing,
    Stats,
    Tenant,
)
from dwp_core.crons import FIRES_AT_ONCE, Cron, CronDeclaration, NextAfter
from dwp_core.events import LoggedEvent
from dwp_core.jobs import DeadLetter, Job


class ReadableStore(Protocol):
    """What can be asked of a store. Reads see what is committed, and what their own transaction has written."""

    @property
    def log_id(self) -> str:
        """The id of this event log; another file is another log."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """Everything in it is one transaction: all of it is durable when the block ends, or none of it happened.

        Raises:
            DispatchError: the store could not begin or commit (disk full, file gone, another process in the way):
                what
                the transaction wrote did not happen.
        """
        ...

    def close(self) -> None:
        """Gives everything back. Closing again does nothing."""
        ...

    def get_job(self, job_id: str, *, tenant: Tenant | None) -> Job:
        """The job, with its payload.

        Args:
            job_id: its id.
            tenant: only a job of this tenant; None for any.

        Raises:
            NotFoundError: (404) there is none, or it is another tenant's: those two look the same.
        """
        ...

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
        """Jobs, newest first, with their payloads.

        Args:
            tenant: only this tenant's; None for all.
            state: only those in this state; "" for all.
            queue: only those of this queue; "" for all.
            name: only those of this function; "" for all.
            limit: at most so many.
            cursor: from the page before; "" for the first.
            max_bytes: the page ends early where payloads and outputs exceed this; one job is always in it.

        Raises:
            InvalidRequest: (400) the cursor is not one that this method gave.
        """
        ...

    def list_dead_letters(
        self, *, tenant: Tenant | None, queue: str = "", limit: int = PAGE_LIMIT, cursor: str = ""
    ) -> DeadLetterPage:
        """Dead letters, newest first. Arguments and errors as for `list_jobs`."""
        ...

    def get_dead_letter(self, dlq_id: str, *, tenant: Tenant | None) -> DeadLetter:
        """One dead letter.

        Raises:
            NotFoundError: (404) there is none, or it is another tenant's.
        """
        ...

    def list_crons(self, *, tenant: Tenant | None) -> list[Cron]:
        """The cron entries of a tenant, by name; None for all."""
        ...

    def knows_name(self, name: str) -> bool:
        """Whether a function of this name was ever registered."""
        ...

    def stats(self, *, tenant: Tenant | None) -> Stats:
        """Counts, of one tenant or of all. Walks over an index: for people and dashboards, not for each request."""
        ...

    def queue_depths(self, *, tenant: Tenant | None, now_ns: int) -> list[QueueDepth]:
        """The queues that have unfinished jobs, by name. Walks over those jobs, never over finished ones.

        Args:
            tenant: only this tenant's jobs; None for all.
            now_ns: the time; jobs whose `run_at` has come count as ready.
        """
        ...

    def count_dead_letters(self, *, tenant: Tenant | None) -> int:
        """How many there are, of one tenant or of all. Walks over an index of them."""
        ...

    def read_events(
        self, after_seq: int, *, limit: int = 500, tenant: Tenant | None = None, topic: str = ""
    ) -> EventPage:
        """Events of the log after a seq. The work is bounded: a page may be short or empty, with more after `through`.

        Args:
            after_seq: exclusive.
            limit: at most so many events.
            tenant: only this tenant's; None for all.
            topic: only those with this topic of their own, e.g. "job:job_01…"; "" for all.
        """
        ...

    def head(self) -> int:
        """The newest seq of the log; 0 for none. What a transaction tells is in the log when it has committed."""
        ...

    def span(self) -> LogSpan:
        """What the log holds; `span().gap_after(since)` tells what a reader has missed."""
        ...

    def next_run_at(self) -> int | None:
        """When the next delayed job becomes due; None when none is delayed."""
        ...

    def next_lease_end(self) -> int | None:
        """When the next lease ends, if nobody extends it: `rescue` has nothing to do before."""
        ...


class Store(ReadableStore, Protocol):
    """A store of jobs: everything that can be asked of it and done to it."""

    @property
    def changes(self) -> int:
        """Counts writes. Unchanged by an operation that raised: its transaction may go on as if it had not been."""
        ...

    def reader(self) -> ReadableStore | None:
        """A second way in, for reads on another thread while this one writes; None where there is none."""
        ...

    def take_events(self) -> list[LoggedEvent]:
        """The events committed since this was last asked, in order and without a hole, also those of other processes.

        Starts with the first transaction after opening; what was there before is not repeated.
        """
        ...

    def register_names(self, names: Collection[str]) -> None:
        """Makes functions known for ever: their jobs may be enqueued, also when no worker has them at the moment."""
        ...

    def enqueue(
        self, jobs: Sequence[NewJob], *, tenant: Tenant, now_ns: int, idempotency: Idempotency | None = None
    ) -> Enqueued:
        """Takes jobs in: all of them or, when it raises, none.

        Raises:
            NotFoundError: (404) a job names a function that nobody ever registered.
            ConflictError: (409) the idempotency key was used with other data.
        """
        ...

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
        """Gives the worker jobs that are due: highest priority first, then the longest due, then the oldest.

        Args:
            worker_id: who.
            now_ns: the time; nothing that is to run later is given out.
            lease_ns: for how long; `extend` before that.
            limit: at most so many.
            names: only these functions; None for all.
            queues: only these queues; None for all.

        Returns:
            The jobs, running, each with its `epoch`: `Lease(job.id, job.epoch)` is what the worker writes under.
        """
        ...

    def complete(self, completions: Sequence[Completion], *, now_ns: int) -> list[Settled | None]:
        """Their handlers returned. For each in order what it became; None: the lease was lost, nothing was written."""
        ...

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
        """The handler raised, or took too long: the job is tried again, or fails with a dead letter, or ends cancelled.

        Args:
            lease: under which the worker acts.
            error: why, for people.
            now_ns: the time.
            jitter: a random number in [0, 1).
            retry_after_ns: try again after exactly this time, not after the usual one.
            retryable: False when trying again cannot help.

        Returns:
            What it became; None: the lease was lost, nothing was written.
        """
        ...

    def extend(self, leases: Sequence[Lease], *, now_ns: int, lease_ns: int) -> list[Standing]:
        """Heartbeat. For each lease in order: it is held and now ends later, or lost, or its job is to be cancelled.

        The lease of a job that is to be cancelled is extended too: its worker needs the time to stop it.
        """
        ...

    def release(self, leases: Sequence[Lease], *, now_ns: int) -> list[Settled | None]:
        """Hands jobs back unfinished, at shutdown: they wait again, no attempt is spent. None: the lease was lost."""
        ...

    def rescue(self, *, now_ns: int, workers: Collection[str] = (), limit: int = 1000) -> list[Settled]:
        """Takes jobs from workers whose lease has run out, at start and while running. The attempt counts as failed.

        Args:
            now_ns: the time.
            workers: take the leases of these as well, however long they last: they are known to be dead.
            limit: at most so many; ask again while that many come back.

        Returns:
            What each became: `retrying` and due at once, `failed`, or `cancelled`.
        """
        ...

    def cancel(self, job_id: str, *, tenant: Tenant | None, now_ns: int) -> Cancellation:
        """Asks for the end of a job: a waiting one is cancelled at once, the worker of a running one is to be told.

        Raises:
            NotFoundError: (404) there is none, or it is another tenant's.
            ConflictError: (409) it is finished already.
        """
        ...

    def confirm_cancel(self, lease: Lease, *, now_ns: int) -> Settled | None:
        """Ends a running job as cancelled and takes its lease: its worker stopped it, or did not stop it in time.

        Returns:
            What it became; None: the lease was lost before, nothing was written.
        """
        ...

    def replay_dead_letter(self, dlq_id: str, *, tenant: Tenant | None, now_ns: int) -> EnqueuedJob:
        """Enqueues the job of a dead letter once more, as a new job. The entry stays and notes it.

        Raises:
            NotFoundError: (404) there is no such entry, or it is another tenant's.
        """
        ...

    def declare_crons(
        self,
        declarations: Sequence[CronDeclaration],
        *,
        functions: Collection[str],
        now_ns: int,
        next_after: NextAfter,
    ) -> None:
        """Keeps the cron entries that a program declares; what was there keeps its history (`dwp_core.crons.declare`).

        Args:
            declarations: all of them.
            functions: those that the program has. Their entries which are no longer declared are removed.
            now_ns: the time.
            next_after: reads expressions.
        """
        ...

    def fire_crons(
        self, *, functions: Collection[str], now_ns: int, next_after: NextAfter, limit: int = FIRES_AT_ONCE
    ) -> FiredCrons:
        """Enqueues the jobs of the cron entries that are due, and tells of each. Of several servers one fires a time.

        Args:
            functions: only entries of these.
            now_ns: the time.
            next_after: reads expressions.
            limit: no further entry once it has enqueued so many jobs; ask again while there are `more`.
        """
        ...

    def trigger_cron(self, name: str, *, tenant: Tenant | None, now_ns: int) -> str:
        """Enqueues the job of a cron entry now, whatever its schedule, its pause and its overlap policy; the job's id.

        Raises:
            NotFoundError: (404) there is no such entry, or it is another tenant's.
        """
        ...

    def pause_cron(self, name: str, *, tenant: Tenant | None, now_ns: int) -> Cron:
        """Lets an entry fire no more, until it is resumed. Errors as for `trigger_cron`."""
        ...

    def resume_cron(self, name: str, *, tenant: Tenant | None, now_ns: int, next_after: NextAfter) -> Cron:
        """Lets a paused entry fire again, from now on. Errors as for `trigger_cron`."""
        ...

    def purge(self, *, now_ns: int, retention: Retention, limit: int = 1000) -> Purged:
        """Removes what is not kept any longer: old events, expired idempotency keys and unique keys, jobs that have
        ended long ago. Bounded work. A job that has a unique key stays as long as the key counts; dead letters stay.

        The newest event always stays: it holds the head of the log.
        """
        ...
