"""The arguments and answers of the store port. Times are nanoseconds since 1970, durations are nanoseconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from dwp_core.events import LoggedEvent
from dwp_core.jobs import (
    DEFAULT_MAX_RETRIES,
    DEFAULT_PRIORITY,
    DEFAULT_QUEUE,
    DEFAULT_TIMEOUT_NS,
    SECOND,
    DeadLetter,
    Job,
    State,
)

DAY_NS = 24 * 3600 * SECOND
DEFAULT_IDEMPOTENCY_NS = DAY_NS
PAGE_LIMIT = 100
PAGE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Tenant:
    """The app and org that an identity belongs to. Compared exactly: ("", "") is a tenant as any other."""

    app_id: str = ""
    org_id: str = ""


NO_TENANT = Tenant()


@dataclass(slots=True)  # not frozen: made once per job, and freezing makes that three times as dear
class NewJob:
    """A job to enqueue; everything else about it the store fills in.

    Attributes:
        name: the function; one that was registered at some time, else the answer is 404.
        payload: the argument as JSON text; b"" for none.
        queue: where it waits.
        priority: higher first.
        run_at: not before this; None for now.
        max_retries: attempts after the first.
        timeout: nanoseconds for one attempt; 0 for no limit.
        unique_key: no second such job of this tenant and name; "" for no such rule.
        unique_for: nanoseconds for which the key is taken, whatever becomes of the job; None: until the job is
            finished.
    """

    name: str
    payload: bytes = b""
    queue: str = DEFAULT_QUEUE
    priority: int = DEFAULT_PRIORITY
    run_at: int | None = None
    max_retries: int = DEFAULT_MAX_RETRIES
    timeout: int = DEFAULT_TIMEOUT_NS
    unique_key: str = ""
    unique_for: int | None = None


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A key under which the answer is kept (PROTOCOL.md section 9, `idempotency`).

    Attributes:
        method: the wire method; keys of different methods have nothing to do with each other.
        key: chosen by the client, 1 to 255 characters.
        digest: of the request's data; the same key with another digest is a conflict.
        keep_ns: how long the answer is kept.
    """

    method: str
    key: str
    digest: bytes
    keep_ns: int = DEFAULT_IDEMPOTENCY_NS


class EnqueuedJob(NamedTuple):
    """The answer for one job. `duplicate`: its unique key was taken, and this is the job that has it."""

    job_id: str
    queue: str
    state: State
    duplicate: bool = False


@dataclass(slots=True)  # not frozen: made once per enqueue, as above
class Enqueued:
    """The answer to an enqueue. `duplicate`: the idempotency key was used before, and this is the first answer."""

    jobs: tuple[EnqueuedJob, ...]
    duplicate: bool = False


class Lease(NamedTuple):
    """What a worker holds while it runs a job: the right to write to it, as long as the epoch is the current one."""

    job_id: str
    epoch: int


class Completion(NamedTuple):
    """A job that a worker ran to its end. `output`: what the handler returned as JSON text; None for nothing."""

    lease: Lease
    output: bytes | None


class Settled(NamedTuple):
    """What a job became by a worker's write.

    Attributes:
        job_id: the job.
        state: its state now.
        run_at: when it may run next, where it waits again.
    """

    job_id: str
    state: State
    run_at: int


class Cancellation(NamedTuple):
    """What asking for the end of a job came to.

    Attributes:
        job_id: the job.
        state: `cancelled`: it is over. `running`: its worker has to be told, and confirms with `confirm_cancel`.
        lease: of the worker that runs, or ran, it; None where it was waiting.
        worker_id: who that is; "" where it was waiting.
    """

    job_id: str
    state: State
    lease: Lease | None
    worker_id: str


class Standing(Enum):
    """What a heartbeat tells about one lease."""

    HELD = "held"
    CANCEL_REQUESTED = "cancel_requested"
    LOST = "lost"


class JobPage(NamedTuple):
    """Jobs, newest first. `cursor` continues after them; "" when there are no more."""

    jobs: list[Job]
    cursor: str


class DeadLetterPage(NamedTuple):
    """Dead letters, newest first. `cursor` continues after them; "" when there are no more."""

    entries: list[DeadLetter]
    cursor: str


class EventPage(NamedTuple):
    """Events of the log, oldest first.

    Attributes:
        events: those that match, in order.
        through: everything up to and including this seq was considered: continue after it.
        head: the newest seq of the log when this was read.
    """

    events: list[LoggedEvent]
    through: int
    head: int


class LogSpan(NamedTuple):
    """What the event log holds.

    Attributes:
        oldest: the first seq that is retained; head + 1 when there is none.
        head: the newest seq that was ever assigned; 0 for none.
    """

    oldest: int
    head: int

    def gap_after(self, since: int) -> tuple[int, int] | None:
        """What retention has removed of the events after `since`: the first and the last seq; None for nothing."""
        return (since + 1, self.oldest - 1) if since + 1 < self.oldest else None


@dataclass(frozen=True, slots=True)
class Stats:
    """How many jobs are in each state (all six are there), how many dead letters and events there are."""

    jobs: dict[str, int] = field(default_factory=dict[str, int])
    dead_letters: int = 0
    events: int = 0


class QueueDepth(NamedTuple):
    """The unfinished jobs of one queue.

    Attributes:
        queue: its name.
        ready: due, and waiting for a worker.
        scheduled: they wait for their time, delayed or before another attempt.
        running: held by a worker.
    """

    queue: str
    ready: int
    scheduled: int
    running: int


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept, beyond what is needed.

    Attributes:
        events: at most about so many; None for no limit.
        event_age_ns: none older than this; None for no limit.
        job_age_ns: no job that has ended longer ago than this; None for no limit. Dead letters stay.
    """

    events: int | None = 1_000_000
    event_age_ns: int | None = 7 * DAY_NS
    job_age_ns: int | None = 7 * DAY_NS


class FiredCrons(NamedTuple):
    """What one round over the cron entries did.

    Attributes:
        job_ids: the jobs that it enqueued.
        next_fire: when the next entry is due; None for never.
        waiting: fires wait for a job to be finished: look again soon.
        more: it stopped at its limit, and there are more that are due.
    """

    job_ids: tuple[str, ...]
    next_fire: int | None
    waiting: bool
    more: bool


class Purged(NamedTuple):
    """What one round of `purge` removed. `more`: it stopped at its limit, and another round would remove more."""

    events: int
    answers: int
    unique_keys: int
    jobs: int
    more: bool
