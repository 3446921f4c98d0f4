"""What calls return: mappings with the fields of the wire, and the same fields as typed attributes.

`payload`, `input`, `output` and `data` travel as base64 of JSON text; here they are values already, and bytes where
they are not JSON (PROTOCOL.md section 4). What came over the wire stays reachable as `raw`.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Any, cast

from dwp_core.codec.payload import decode_payload
from dwp_core.errors import ConnectionError, PayloadError
from dwp_core.frames import EventHead
from dwp_core.subscriptions import Gap
from dwp_core.topics import state_of


class _Field:
    """Reads the mapping's entry of its own name, or of another one that holds the same."""

    __slots__ = ("_default", "_names")

    def __init__(self, *names: str, default: Any = None) -> None:
        self._names = names
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._names = self._names or (name,)

    def __get__(self, instance: dict[str, Any] | None, owner: type | None = None) -> Any:
        if instance is None:
            return self
        for name in self._names:
            if name in instance:
                return instance[name]
        return self._default


def _field(*names: str, default: Any = None) -> Any:
    return _Field(*names, default=default)


class Result(dict[str, Any]):
    """A mapping whose fields are attributes too.

    Example:
        >>> job = EnqueuedJob({"job_id": "job_1", "queue": "mail", "state": "pending"})
        >>> job["job_id"], job.queue, job.duplicate
        ('job_1', 'mail', False)
    """

    __slots__ = ("raw",)

    def __init__(self, fields: dict[str, Any], raw: dict[str, Any] | None = None) -> None:
        super().__init__(fields)
        self.raw: dict[str, Any] = fields if raw is None else raw
        """As it came over the wire."""


class EnqueuedJob(Result):
    """The answer to `enqueue`."""

    __slots__ = ()
    job_id: str = _field()
    queue: str = _field(default="default")
    state: str = _field(default="pending")
    duplicate: bool = _field(default=False)


class EnqueuedJobs(Result):
    """The answer to `enqueue_many`, in the order of the request."""

    __slots__ = ()
    jobs: list[EnqueuedJob] = _field()


class Job(Result):
    """A job as the server knows it (PROTOCOL.md section 4). Times are RFC 3339 text, `timeout` is nanoseconds."""

    __slots__ = ()
    job_id: str = _field("id", "job_id")
    id: str = _field("id", "job_id")
    name: str = _field()
    queue: str = _field()
    state: str = _field()
    payload: Any = _field()
    output: Any = _field()
    error: str | None = _field("error", "last_error")
    priority: int = _field(default=0)
    max_retries: int = _field(default=0)
    retry_count: int = _field(default=0)
    created_at: str | None = _field()
    updated_at: str | None = _field()
    run_at: str | None = _field()
    started_at: str | None = _field()
    completed_at: str | None = _field()


class Jobs(Result):
    """One page of jobs; `cursor` asks for the next one, and is None on the last."""

    __slots__ = ()
    jobs: list[Job] = _field()
    cursor: str | None = _field()


class Cron(Result):
    """A cron entry: `schedule` is the expression, `job_name` the function; `enabled` is False while it is paused."""

    __slots__ = ()
    name: str = _field()
    schedule: str = _field()
    timezone: str = _field(default="UTC")
    job_name: str = _field()
    queue: str = _field(default="default")
    payload: Any = _field()
    enabled: bool = _field(default=True)
    next_run_at: str | None = _field()
    last_run_at: str | None = _field()
    last_job_id: str | None = _field()


class Crons(Result):
    """The cron entries of a server, by name."""

    __slots__ = ()
    crons: list[Cron] = _field()


class Run(Result):
    """A workflow run, or the answer to `start_workflow`."""

    __slots__ = ()
    run_id: str = _field("id", "run_id")
    id: str = _field("id", "run_id")
    name: str = _field()
    state: str = _field()
    input: Any = _field()
    output: Any = _field()
    error: str | None = _field()
    created_at: str | None = _field()
    started_at: str | None = _field()
    completed_at: str | None = _field()


class Outcome(Result):
    """How a job or run ended: `state` is completed, failed or cancelled."""

    __slots__ = ()
    job_id: str | None = _field("job_id", "id")
    run_id: str | None = _field("run_id", "id")
    state: str = _field()
    output: Any = _field()
    error: str | None = _field("error", "last_error")


class TimelineEntry(Result):
    """One recorded step of a run."""

    __slots__ = ()
    step_name: str = _field()
    data: Any = _field()
    created_at: str = _field()


class DeadLetters(Result):
    """One page of dead letters."""

    __slots__ = ()
    entries: list[Result] = _field()
    cursor: str | None = _field()


class Event(dict[str, Any]):
    """One live event, or a gap between two.

    It is `{"type": "event", "channel": <the subscribed channel>, "data": {…, "job_id", "state"}}`. A gap is
    `{"type": "gap", "channel": …, "data": {"from", "to", "dropped"}}`: events that this subscription does not get.

    Attributes:
        kind: e.g. "job.completed"; "gap" for a gap.
        topic: the event's own topic, e.g. "job:job_01…"; "" for cron events and gaps.
        seq: its number in the server's event log; None where the server numbers nothing.
        at: when it happened, RFC 3339.
    """

    __slots__ = ("at", "kind", "seq", "topic")

    def __init__(
        self, channel: str, kind: str, topic: str, seq: int | None, at: str, data: dict[str, Any]
    ) -> None:
        self["type"] = "event"
        self["channel"] = channel
        self["data"] = data
        self.kind = kind
        self.topic = topic
        self.seq = seq
        self.at = at

    @property
    def is_gap(self) -> bool:
        """Whether this tells of missing events instead of one."""
        return self.kind == "gap"


def read_event(channel: str, head: EventHead) -> Event:
    """An event as its subscriber sees it."""
    kind = head.type
    try:
        data = decode_payload(head.data)
    except PayloadError as error:
        data = {"unreadable": str(error)}
    if not isinstance(data, dict):
        data = {"value": data}
    if "state" not in data:
        state = state_of(kind)
        if state is not None:
            data["state"] = state
    return Event(channel, kind, head.topic, head.seq, head.ts, data)


def read_gap(channel: str, gap: Gap) -> Event:
    """A gap as the subscriber sees it."""
    event = Event(channel, "gap", "", None, "", {"from": gap.first, "to": gap.last, "dropped": gap.dropped})
    event["type"] = "gap"
    return event


def read_enqueued(value: Any) -> EnqueuedJob:
    """The answer to `job.enqueue`."""
    return EnqueuedJob(_mapping(value, "job.enqueue"))


def read_enqueued_many(value: Any) -> EnqueuedJobs:
    """The answer to `job.enqueue_many`."""
    raw = _mapping(value, "job.enqueue_many")
    return EnqueuedJobs({**raw, "jobs": [read_enqueued(job) for job in _list(raw.get("jobs"))]}, raw)


def read_job(value: Any) -> Job:
    """A Job entity."""
    raw = _mapping(value, "job")
    return Job(_opened(raw, "payload", "output"), raw)


def read_jobs(value: Any) -> Jobs:
    """The answer to `job.list`."""
    raw = _mapping(value, "job.list")
    return Jobs({**raw, "jobs": [read_job(job) for job in _list(raw.get("jobs"))]}, raw)


def read_run(value: Any) -> Run:
    """A Run entity, or the answer to `workflow.start`."""
    raw = _mapping(value, "workflow run")
    return Run(_opened(raw, "input", "output"), raw)


def read_outcome(value: Any) -> Outcome:
    """The answer to `job.wait` or `workflow.wait`, or the entity where the server had to be asked for that."""
    raw = _mapping(value, "wait")
    if "id" not in raw:
        return Outcome(_opened(raw, "output"), raw)
    entity = _opened(raw, "output")
    name = "job_id" if str(raw["id"]).startswith("job_") else "run_id"
    outcome = {name: raw["id"], "state": raw.get("state")}
    for source, target in (("output", "output"), ("error", "error"), ("last_error", "error")):
        if source in entity and target not in outcome:
            outcome[target] = entity[source]
    return Outcome(outcome, raw)


def read_timeline(value: Any) -> list[TimelineEntry]:
    """The answer to `workflow.timeline`."""
    entries = [_mapping(entry, "workflow.timeline") for entry in _list(value)]
    return [TimelineEntry(_opened(entry, "data", "input"), entry) for entry in entries]


def read_dead_letters(value: Any) -> DeadLetters:
    """The answer to `dlq.list`."""
    raw = _mapping(value, "dlq.list")
    entries = [_mapping(entry, "dlq.list") for entry in _list(raw.get("entries"))]
    return DeadLetters({**raw, "entries": [Result(_opened(e, "payload"), e) for e in entries]}, raw)


def read_cron(value: Any) -> Cron:
    """The answer to `cron.pause` and `cron.resume`, and each entry of `cron.list`."""
    raw = _mapping(value, "a cron entry")
    return Cron(_opened(raw, "payload"), raw)


def read_crons(value: Any) -> Crons:
    """The answer to `cron.list`."""
    raw = _mapping(value, "cron.list")
    return Crons({**raw, "crons": [read_cron(entry) for entry in _list(raw.get("crons"))]}, raw)


def read_mapping(value: Any) -> Result:
    """An answer whose fields are just fields."""
    return Result(_mapping(value, "the call"))


def _opened(raw: dict[str, Any], *names: str) -> dict[str, Any]:
    """The mapping with these fields decoded: base64 of JSON text, or of other bytes."""
    fields = dict(raw)
    for name in names:
        text = fields.get(name)
        if isinstance(text, str):
            fields[name] = _open(text)
    return fields


def _open(text: str) -> Any:
    try:
        content = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return text
    if not content:
        return None
    try:
        return decode_payload(content)
    except PayloadError:
        return content


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    raise ConnectionError(f"{what}: the server answered {type(value).__name__} where an object belongs")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
