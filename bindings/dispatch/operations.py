"""Every call of the API as data: the method, its `data`, what may be repeated, how to read the answer.

The bindings differ in how they wait and in nothing else, so what a call means is built here, once. Arguments are judged
before anything is sent; the method table of the protocol is `dwp_core.methods`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter
from typing import Any, Generic, TypeVar

from dispatch import results
from dwp_core.client_calls import KEY_LIMIT
from dwp_core.codec.payload import encode_payload
from dwp_core.errors import InvalidRequest
from dwp_core.frames import DEFAULT_LIMITS
from dwp_core.ids import JOB, RUN
from dwp_core.methods import METHODS
from dwp_core.peer import BATCH, OPTIONS
from dwp_core.requests import Purpose, Retry
from dwp_core.topics import JOB_PREFIX, RUN_PREFIX

T = TypeVar("T")

ENDED = frozenset(("completed", "failed", "cancelled"))
"""The states in which a job or run stays."""


@dataclass(slots=True)  # not frozen: made once per call, and freezing doubles the cost of making it
class Operation(Generic[T]):
    """One call.

    Attributes:
        method: as on the wire.
        data: the JSON text of the payload.
        read: makes the result of the decoded answer; None takes it as it is.
        retry: what may be done when the connection is lost under way.
        key: idempotency key; "" for none.
        purpose: `Purpose.WAIT` is asked again until the job or run has ended.
        feature: what the server must be able to do; "" for base DWP.
        timeout: seconds to wait for the answer; None as long as the client says.
    """

    method: str
    data: bytes
    read: Callable[[Any], T] | None
    retry: Retry = Retry.READ
    key: str = ""
    purpose: Purpose = Purpose.CALL
    feature: str = ""
    timeout: float | None = None


def enqueue(
    name: str,
    payload: Any,
    queue: str | None,
    priority: int | None,
    options: dict[str, Any],
    idempotency_key: str | None,
    timeout: float | None,
) -> Operation[results.EnqueuedJob]:
    """`job.enqueue`; `options` are those of `job_options`."""
    data: dict[str, Any] = {"name": name, "payload": payload}
    if queue is not None:
        data["queue"] = queue
    if priority is not None:
        data["priority"] = priority
    if options:
        data.update(options)
    return Operation(
        "job.enqueue",
        encode_payload(data, what="job.enqueue"),
        results.read_enqueued,
        Retry.IDEMPOTENT,
        _key(idempotency_key),
        feature=OPTIONS if options else "",
        timeout=timeout,
    )


def enqueue_many(
    jobs: Iterable[Mapping[str, Any]], idempotency_key: str | None, timeout: float | None
) -> Operation[results.EnqueuedJobs]:
    """`job.enqueue_many`: mappings of the arguments of `enqueue`."""
    if isinstance(jobs, (str, bytes, Mapping)) or not isinstance(jobs, Iterable):
        raise InvalidRequest(f"enqueue_many: jobs must be a list of mappings, got {type(jobs).__name__}")
    data = encode_payload(
        {"jobs": [_job(position, job) for position, job in enumerate(jobs)]}, what="job.enqueue_many"
    )
    read, key = results.read_enqueued_many, _key(idempotency_key)
    return Operation("job.enqueue_many", data, read, Retry.IDEMPOTENT, key, feature=BATCH, timeout=timeout)


def start_workflow(
    name: str, input: Any, idempotency_key: str | None, timeout: float | None
) -> Operation[results.Run]:
    """`workflow.start`."""
    data = encode_payload({"name": name, "input": input}, what="workflow.start")
    read, key = results.read_run, _key(idempotency_key)
    return Operation("workflow.start", data, read, Retry.IDEMPOTENT, key, timeout=timeout)


def publish_event(
    name: str, payload: Any, idempotency_key: str | None, timeout: float | None
) -> Operation[results.Result]:
    """`workflow.event`."""
    data = encode_payload({"name": name, "payload": payload}, what="workflow.event")
    read, key = results.read_mapping, _key(idempotency_key)
    return Operation("workflow.event", data, read, Retry.IDEMPOTENT, key, timeout=timeout)


@dataclass(frozen=True, slots=True)
class Entity:
    """A job or a run, and how to follow it.

    Attributes:
        operation: looks at it as it is now.
        waiting: the method that waits for its end, and its `data`.
        channel: its own channel.
        ends: the types of the events that are its last.
    """

    operation: Operation[results.Result]
    waiting: tuple[str, bytes]
    channel: str
    ends: frozenset[str]


def entity(id: str) -> Entity:
    """The job or run of this id.

    Raises:
        InvalidRequest: it is the id of neither.
    """
    what = _kind(id)
    if what == JOB:
        look: Operation[Any] = simple("job.get", results.read_job, None, job_id=id)
        return Entity(look, ("job.wait", look.data), JOB_PREFIX + id, _ends("job"))
    if what == RUN:
        look = simple("workflow.get", results.read_run, None, run_id=id)
        return Entity(look, ("workflow.wait", look.data), RUN_PREFIX + id, _ends("workflow"))
    raise InvalidRequest(f'expected a job id ("job_...") or a run id ("wfrun_..."), got {id!r:.80}')


def wait(id: str, timeout: float | None) -> Operation[results.Outcome]:
    """`job.wait` or `workflow.wait`, by the prefix of the id.

    Raises:
        InvalidRequest: the id is of neither.
    """
    method, data = entity(id).waiting
    return Operation(method, data, results.read_outcome, purpose=Purpose.WAIT, timeout=timeout)


def simple(method: str, read: Callable[[Any], T], timeout: float | None, **fields: object) -> Operation[T]:
    """A method whose `data` are the arguments that were given; None leaves one out."""
    data = {name: value for name, value in fields.items() if value is not None}
    payload = encode_payload(data, what=method) if data else b""
    return Operation(method, payload, read, METHODS[method].retry, timeout=timeout)


def ping(timeout: float | None) -> Operation[float]:
    """A ping frame; its result is the time since now."""
    begun = perf_counter()
    return Operation("", b"", lambda _: perf_counter() - begun, purpose=Purpose.PING, timeout=timeout)


def _kind(id: object) -> str:
    """The prefix of a TypeID; "" for what is none."""
    prefix, underscore, _ = id.partition("_") if isinstance(id, str) else ("", "", "")
    return prefix if underscore else ""


def _ends(what: str) -> frozenset[str]:
    return frozenset(f"{what}.{state}" for state in ENDED)


def _job(position: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """One job of `enqueue_many`: the arguments of `enqueue`, as a mapping."""
    where = f"enqueue_many: jobs[{position}]"
    if not isinstance(given, Mapping):
        raise InvalidRequest(f"{where} must be a mapping, got {type(given).__name__}")
    job = dict(given)
    names = ("delay", "run_at", "max_retries", "job_timeout", "unique_key", "unique_for")
    taken = [job.pop(name, None) for name in names]
    unknown = sorted(str(name) for name in job.keys() - {"name", "payload", "queue", "priority"})
    if unknown or "name" not in job:
        problem = f"has the unknown field {unknown[0]!r}" if unknown else "has no name"
        raise InvalidRequest(
            f"{where} {problem}; a job takes name, payload, queue, priority, {', '.join(names)}"
        )
    try:
        return {**job, **job_options(*taken)}
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error}") from None


def job_options(
    delay: float | None,
    run_at: datetime | str | None,
    max_retries: int | None,
    job_timeout: float | None,
    unique_key: str | None,
    unique_for: float | None,
) -> dict[str, Any]:
    """What PROTOCOL.md section 9 calls options, as it travels; without those that are None.

    Raises:
        InvalidRequest: one of them cannot be used.
    """
    options: dict[str, Any] = {}
    if delay is not None:
        options["delay_ms"] = _milliseconds("delay", delay)
    if run_at is not None:
        options["run_at"] = _time("run_at", run_at)
    if max_retries is not None:
        options["max_retries"] = max_retries
    if job_timeout is not None:
        options["timeout_ms"] = _milliseconds("job_timeout", job_timeout)
    if unique_key is not None:
        options["unique_key"] = unique_key
    if unique_for is not None:
        options["unique_for_ms"] = _milliseconds("unique_for", unique_for)
    return options


def _milliseconds(name: str, seconds: object) -> int:
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 <= seconds <= 10**9:
        raise InvalidRequest(f"{name} must be a number of seconds from 0, got {seconds!r:.80}")
    return round(seconds * 1000)


def _time(name: str, value: datetime | str) -> str:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidRequest(
                f"{name} must have a time zone, e.g. datetime.now(timezone.utc), got {value!r}"
            )
        return value.isoformat()
    return value


def _key(given: str | None) -> str:
    """The caller's idempotency key, or one of our own, so that an answer which is lost costs nothing."""
    if given is None:
        return secrets.token_hex(16)
    check_text("idempotency_key", given, most=KEY_LIMIT)
    return given


def check_text(what: str, given: object, *, most: int = DEFAULT_LIMITS.method) -> None:
    """Refuse what is no text of 1 to `most` characters.

    Raises:
        InvalidRequest: that is the case.
    """
    if not isinstance(given, str) or not 1 <= len(given) <= most:
        raise InvalidRequest(f"{what} must be text of 1 to {most} characters, got {given!r:.80}")
