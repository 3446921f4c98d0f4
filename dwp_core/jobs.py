"""What a job is and what becomes of it: states, retries, dead letters, and the events of each step.

Every function here takes a job and the time and gives back the job as it then is, with the events that tell of it; a
store writes both in one transaction. Nothing is read from a clock, nothing is random, nothing is stored here.
PROTOCOL.md section 4 (Job, states, defaults) and section 5 (events).
"""

from __future__ import annotations

from base64 import b64encode
from json.encoder import encode_basestring
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from dwp_core.codec.timestamps import format_rfc3339
from dwp_core.errors import ConflictError
from dwp_core.topics import JOB_PREFIX
from dwp_core.transitions import Table

State: TypeAlias = Literal["pending", "running", "completed", "retrying", "failed", "cancelled"]

PENDING: Final = "pending"
RUNNING: Final = "running"
COMPLETED: Final = "completed"
RETRYING: Final = "retrying"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"

STATES: Final[tuple[State, ...]] = (PENDING, RUNNING, COMPLETED, RETRYING, FAILED, CANCELLED)
WAITING: Final = frozenset((PENDING, RETRYING))
FINISHED: Final = frozenset((COMPLETED, FAILED, CANCELLED))

TRANSITIONS: Final[Table[State]] = Table(
    "job",
    PENDING,
    {
        (PENDING, "start"): RUNNING,
        (PENDING, "cancel"): CANCELLED,
        (RUNNING, "complete"): COMPLETED,
        (RUNNING, "retry"): RETRYING,
        (RUNNING, "fail"): FAILED,
        (RUNNING, "release"): PENDING,
        (RUNNING, "cancel"): CANCELLED,
        (RETRYING, "start"): RUNNING,
        (RETRYING, "cancel"): CANCELLED,
    },
)

SECOND: Final = 1_000_000_000
DEFAULT_QUEUE: Final = "default"
DEFAULT_PRIORITY: Final = 0
DEFAULT_MAX_RETRIES: Final = 3
DEFAULT_TIMEOUT_NS: Final = 300 * SECOND
BACKOFF_BASE_NS: Final = SECOND
BACKOFF_CAP_NS: Final = 60 * SECOND

ERROR_LIMIT: Final = 16_384
"""Characters of an error text that are kept; it travels in events and in every answer about the job."""


class Job(NamedTuple):
    """A job, whole. Times are nanoseconds since 1970 and 0 where there is none; names are those of PROTOCOL.md
    section 4.

    A named tuple because stores read and write jobs as rows: first what never changes, from `state` on what does.

    Attributes:
        id: TypeID with prefix `job`.
        name: the function that it calls.
        queue: where it waits.
        payload: the argument, JSON text as a rule; b"" for none.
        priority: higher first.
        max_retries: attempts after the first.
        timeout: nanoseconds that one attempt may take; 0 for no limit.
        app_id: the tenant; "" for none.
        org_id: the tenant; "" for none.
        unique_key: the key that keeps a second such job out; "" for none.
        created_at: when it was enqueued.
        state: one of `STATES`.
        updated_at: when it last changed.
        run_at: not started before this.
        retry_count: attempts that failed.
        last_error: the text of the last failure; "" for none.
        worker_id: who runs it, or ran it last; "" before the first start.
        started_at: when the last attempt began.
        completed_at: when it was completed.
        heartbeat_at: when its worker last extended the lease.
        epoch: counts the leases that were given for it; who writes must name the current one.
        lease_until: the lease ends then; 0 when nobody holds one.
        cancel_requested: someone asked for its end while it ran.
        output: what it returned, JSON text; None before it completed.
        error: why it failed for good; "" otherwise.
    """

    id: str
    name: str
    queue: str
    payload: bytes
    priority: int
    max_retries: int
    timeout: int
    app_id: str
    org_id: str
    unique_key: str
    created_at: int
    state: State
    updated_at: int
    run_at: int
    retry_count: int = 0
    last_error: str = ""
    worker_id: str = ""
    started_at: int = 0
    completed_at: int = 0
    heartbeat_at: int = 0
    epoch: int = 0
    lease_until: int = 0
    cancel_requested: bool = False
    output: bytes | None = None
    error: str = ""


FIXED_FIELDS: Final = Job._fields.index("state")
"""How many of a job's fields never change; the others follow them."""


class Happening(NamedTuple):
    """An event that a step gives rise to: its type, and its inner data as JSON text (PROTOCOL.md section 5)."""

    type: str
    data: bytes


class Change(NamedTuple):
    """A job after a step, and what is to be told of it, in order. `dead` when it now belongs to the dead letters."""

    job: Job
    events: tuple[Happening, ...]
    dead: bool = False


class DeadLetter(NamedTuple):
    """A job that failed for good, kept so that someone can look at it and have it done again.

    Attributes:
        id: TypeID with prefix `dlq`.
        job_id: the job that failed.
        job_name: the function it called.
        queue: where it waited.
        payload: its argument.
        error: why the last attempt failed.
        retry_count: attempts that failed.
        max_retries: what it was allowed.
        app_id: the tenant; "" for none.
        org_id: the tenant; "" for none.
        priority: of the job, for doing it again.
        timeout: of the job, for doing it again.
        failed_at: when it failed for good.
        replayed_at: when it was last enqueued again; 0 for never.
        replayed_as: the id of the job that this made; "" for never.
    """

    id: str
    job_id: str
    job_name: str
    queue: str
    payload: bytes
    error: str
    retry_count: int
    max_retries: int
    app_id: str
    org_id: str
    priority: int
    timeout: int
    failed_at: int
    replayed_at: int = 0
    replayed_as: str = ""


def enqueued(job: Job) -> Change:
    """A job that was just made, with the event that tells of it."""
    return Change(job, (Happening("job.enqueued", _told(job, PENDING)),))


def start(job: Job, *, worker_id: str, now_ns: int, lease_ns: int) -> Change:
    """A worker takes the job on lease: under a new epoch, so that whoever held it before can write no more."""
    state = TRANSITIONS.step(job.state, "start")
    started = job._replace(
        state=state,
        updated_at=now_ns,
        worker_id=worker_id,
        started_at=now_ns,
        epoch=job.epoch + 1,
        lease_until=now_ns + lease_ns,
    )
    return Change(started, (Happening("job.started", _told(job, RUNNING)),))


def complete(job: Job, *, output: bytes | None, now_ns: int) -> Change:
    """Its handler returned. A cancellation that did not reach the handler in time is moot."""
    state = TRANSITIONS.step(job.state, "complete")
    completed = job._replace(
        state=state,
        updated_at=now_ns,
        completed_at=now_ns,
        lease_until=0,
        cancel_requested=False,
        output=output,
    )
    elapsed_ms = (now_ns - job.started_at) // 1_000_000
    more = f',"elapsed_ms":{elapsed_ms}' if elapsed_ms > 0 else ""
    return Change(completed, (Happening("job.completed", _told(job, COMPLETED, more)),))


def fail(
    job: Job,
    *,
    error: str,
    now_ns: int,
    jitter: float,
    retry_after_ns: int | None = None,
    retryable: bool = True,
) -> Change:
    """The attempt failed: the job is tried again later, or it goes to the dead letters.

    Args:
        job: the running job.
        error: why, for people.
        now_ns: the time.
        jitter: a random number in [0, 1), which places the retry in its window.
        retry_after_ns: wait exactly this long instead, as the handler asked.
        retryable: False when trying again cannot help.

    A job whose cancellation was asked for is not tried again: it ends cancelled, which is what was wanted.
    """
    if job.cancel_requested:
        return cancel(job, now_ns=now_ns)
    error = readable_error(error)
    failures = job.retry_count + 1
    if not retryable or failures > job.max_retries:
        return _fail_for_good(job, error, failures, now_ns)
    wait = retry_delay_ns(failures, jitter) if retry_after_ns is None else max(retry_after_ns, 0)
    return _retry(job, error, failures, now_ns, now_ns + wait)


def rescue(job: Job, *, now_ns: int) -> Change:
    """Its worker let the lease run out. The attempt counts as failed: a job that kills its workers has to end too."""
    attempts = f"attempt {job.retry_count + 1} of {job.max_retries + 1}"
    error = f"worker {job.worker_id} stopped answering while it ran the job ({attempts})"
    return fail(job, error=error, now_ns=now_ns, jitter=0.0, retry_after_ns=0)


def release(job: Job, *, now_ns: int) -> Change:
    """Its worker hands it back unfinished, at shutdown: it waits again, and no attempt is spent.

    A job whose cancellation was asked for ends cancelled instead.
    """
    if job.cancel_requested:
        return cancel(job, now_ns=now_ns)
    state = TRANSITIONS.step(job.state, "release")
    return Change(job._replace(state=state, updated_at=now_ns, lease_until=0), ())


def cancel(job: Job, *, now_ns: int) -> Change:
    """The job ends here. A running one loses its lease, so that its worker can write no more.

    Raises:
        ConflictError: (409) it is finished already.
    """
    if job.state in FINISHED:
        raise ConflictError(
            f"job {job.id} is {job.state} already: only a job that is not finished can be cancelled"
        )
    state = TRANSITIONS.step(job.state, "cancel")
    # The next epoch, even if nobody holds a lease: what a worker still sends for the old one is refused.
    cancelled = job._replace(
        state=state, updated_at=now_ns, lease_until=0, cancel_requested=False, epoch=job.epoch + 1
    )
    return Change(cancelled, (Happening("job.cancelled", _told(job, CANCELLED)),))


def request_cancel(job: Job, *, now_ns: int) -> Change:
    """Asks for the end of a job: at once where it waits; where it runs, its worker is to be told.

    Raises:
        ConflictError: (409) it is finished already.
    """
    if job.state != RUNNING:
        return cancel(job, now_ns=now_ns)
    return Change(job._replace(cancel_requested=True, updated_at=now_ns), ())


def holds_lease(job: Job, epoch: int) -> bool:
    """Whether a worker that acts under this epoch may write to the job (fencing)."""
    return job.state == RUNNING and job.epoch == epoch


def retry_delay_ns(failures: int, jitter: float) -> int:
    """Full jitter: `jitter` of the way from 0 to min(1 s · 2^(failures - 1), 60 s) (PROTOCOL.md section 4).

    Example:
        >>> retry_delay_ns(1, 0.5), retry_delay_ns(3, 0.5), retry_delay_ns(100, 0.5)
        (500000000, 2000000000, 30000000000)
    """
    window = (
        BACKOFF_CAP_NS if failures > _DOUBLINGS else min(BACKOFF_BASE_NS << (failures - 1), BACKOFF_CAP_NS)
    )
    return int(window * jitter)


def deadline_ns(job: Job) -> int | None:
    """When the attempt that runs now has taken too long; None when it may take as long as it likes."""
    return job.started_at + job.timeout if job.timeout else None


def timeout_error(job: Job) -> str:
    """What is recorded when an attempt has taken too long."""
    return f"timed out after {job.timeout / SECOND:g} s"


def readable_error(text: str) -> str:
    """The text as it can be kept and sent: valid Unicode, and of at most `ERROR_LIMIT` characters."""
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) > ERROR_LIMIT:
        text = f"{text[:ERROR_LIMIT]}… ({len(text) - ERROR_LIMIT} more characters)"
    return text


def dead_letter(job: Job, *, id: str, payload: bytes, failed_at: int) -> DeadLetter:
    """The entry for a job that failed for good."""
    return DeadLetter(
        id=id,
        job_id=job.id,
        job_name=job.name,
        queue=job.queue,
        payload=payload,
        error=job.error,
        retry_count=job.retry_count,
        max_retries=job.max_retries,
        app_id=job.app_id,
        org_id=job.org_id,
        priority=job.priority,
        timeout=job.timeout,
        failed_at=failed_at,
    )


def job_to_wire(job: Job) -> dict[str, Any]:
    """The Job of PROTOCOL.md section 4: base64 bytes, RFC 3339 times, what is optional left out where there is
    none."""
    wire: dict[str, Any] = {
        "created_at": format_rfc3339(job.created_at),
        "updated_at": format_rfc3339(job.updated_at),
        "id": job.id,
        "name": job.name,
        "queue": job.queue,
        "payload": b64encode(job.payload).decode(),
        "state": job.state,
        "priority": job.priority,
        "max_retries": job.max_retries,
        "retry_count": job.retry_count,
        "last_error": job.last_error,
        "scope_app_id": job.app_id,
        "scope_org_id": job.org_id,
        "worker_id": job.worker_id,
        "run_at": format_rfc3339(job.run_at),
        "started_at": _time(job.started_at),
        "completed_at": _time(job.completed_at),
        "heartbeat_at": _time(job.heartbeat_at),
        "timeout": job.timeout,
        "output": "" if job.output is None else b64encode(job.output).decode(),
        "error": job.error,
    }
    return _without_empty(wire, _OPTIONAL)


def dead_letter_to_wire(entry: DeadLetter) -> dict[str, Any]:
    """An entry of `dlq.list` (PROTOCOL.md section 4), in the manner of a Job."""
    wire: dict[str, Any] = {
        "id": entry.id,
        "job_id": entry.job_id,
        "job_name": entry.job_name,
        "queue": entry.queue,
        "payload": b64encode(entry.payload).decode(),
        "error": entry.error,
        "retry_count": entry.retry_count,
        "max_retries": entry.max_retries,
        "scope_app_id": entry.app_id,
        "scope_org_id": entry.org_id,
        "failed_at": format_rfc3339(entry.failed_at),
        "replayed_at": _time(entry.replayed_at),
        "replayed_as": entry.replayed_as,
    }
    return _without_empty(wire, _OPTIONAL)


def _retry(job: Job, error: str, failures: int, now_ns: int, run_at: int) -> Change:
    state = TRANSITIONS.step(job.state, "retry")
    retrying = job._replace(
        state=state, updated_at=now_ns, run_at=run_at, retry_count=failures, last_error=error, lease_until=0
    )
    more = f',"attempt":{failures},"next_run_at":"{format_rfc3339(run_at)}"'
    return Change(retrying, (Happening("job.retrying", _told(job, RETRYING, more)),))


def _fail_for_good(job: Job, error: str, failures: int, now_ns: int) -> Change:
    state = TRANSITIONS.step(job.state, "fail")
    failed = job._replace(
        state=state, updated_at=now_ns, retry_count=failures, last_error=error, error=error, lease_until=0
    )
    data = _told(job, FAILED, f',"error":{encode_basestring(error)}')
    return Change(failed, (Happening("job.failed", data), Happening("job.dlq", data)), dead=True)


def _told(job: Job, state: State, more: str = "") -> bytes:
    """The inner data of an event, keys in the order of the existing server; `state` is our addition, at the end."""
    app = f',"scope_app_id":{encode_basestring(job.app_id)}' if job.app_id else ""
    org = f',"scope_org_id":{encode_basestring(job.org_id)}' if job.org_id else ""
    return (
        f'{{"job_id":"{job.id}","job_name":{encode_basestring(job.name)},"queue":{encode_basestring(job.queue)}'
        f'{app}{org}{more},"state":"{state}"}}'
    ).encode()


def topic_of(job: Job) -> str:
    """The job's own topic (PROTOCOL.md section 5)."""
    return JOB_PREFIX + job.id


def _time(ns: int) -> str:
    return format_rfc3339(ns) if ns else ""


def _without_empty(wire: dict[str, Any], optional: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in wire.items() if value or key not in optional}


_DOUBLINGS = (BACKOFF_CAP_NS // BACKOFF_BASE_NS).bit_length()

_OPTIONAL = frozenset(
    "last_error scope_app_id scope_org_id started_at completed_at heartbeat_at timeout output error"
    " replayed_at replayed_as".split()
)
