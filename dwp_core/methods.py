"""Every method of the protocol as data: the scope it needs, what it may be given, whether it may be sent twice.

PROTOCOL.md sections 4 and 9. Both sides read this table: a client to know what it may resend, a server to judge a
request before anybody acts on it. What a method does is not decided here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from dwp_core import ids
from dwp_core.codec.timestamps import parse_rfc3339
from dwp_core.errors import InvalidRequest
from dwp_core.requests import Retry

NAME_LIMIT = 255
"""Characters of a function's, queue's or key's name."""

PAGE_LIMIT = 1000
"""Entries of one page of a list."""

_INT32 = 2**31 - 1
_INT64 = 2**63 - 1
_JOB_STATES = ("pending", "running", "completed", "retrying", "failed", "cancelled")


class Kind(Enum):
    """What a field of a request may hold. The value says it in a message."""

    TEXT = "a string"
    INTEGER = "an integer"
    VALUE = "any JSON value"
    TIME = "an RFC 3339 time"
    SINCE = 'an integer or "start"'
    JOBS = "an array of objects as in job.enqueue"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a request's `data`.

    Attributes:
        name: as on the wire.
        kind: what it may hold.
        required: whether the request is refused without it.
        least: the smallest integer, or the fewest characters.
        most: the largest integer, or the most characters.
        prefix: the prefix that an id must have; "" where it is no id.
        choices: the only strings allowed; empty for any.
    """

    name: str
    kind: Kind = Kind.TEXT
    required: bool = False
    least: int = 0
    most: int = _INT64
    prefix: str = ""
    choices: tuple[str, ...] = ()
    is_plain: bool = field(init=False, repr=False)
    """Whether it is a text of which only the length matters."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_plain", self.kind is Kind.TEXT and not self.prefix and not self.choices)


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    Attributes:
        name: as on the wire.
        scope: what the caller's key must allow.
        retry: whether a client may send it again when the answer was lost.
        fields: what its `data` may hold; other keys are ignored.
        feature: the extension it belongs to (PROTOCOL.md section 9); None for base methods.
        exclusive: pairs of fields of which a request has at most one.
        by_name: the fields, by name.
        required: names of the fields without which it is refused.
    """

    name: str
    scope: str
    retry: Retry
    fields: tuple[Field, ...] = ()
    feature: str | None = None
    exclusive: tuple[tuple[str, str], ...] = ()
    by_name: Mapping[str, Field] = field(init=False, repr=False, compare=False)
    required: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {each.name: each for each in self.fields})
        object.__setattr__(self, "required", tuple([each.name for each in self.fields if each.required]))

    @property
    def takes_data(self) -> bool:
        """Whether `data` is read at all; only then is it judged (PROTOCOL.md section 2)."""
        return bool(self.fields)


def check_request(method: Method, value: object) -> dict[str, Any]:
    """The fields that the method knows, each of the right kind; times as nanoseconds since 1970.

    Args:
        method: the method that was asked for.
        value: the decoded `data`; None where there was none.

    Raises:
        InvalidRequest: (400) a field is missing or mistyped; the message names it and says what would be right.

    Example:
        >>> check_request(METHODS["job.get"], {"job_id": "job_01h455vb4pex5vsknk084sn02q", "else": 1})
        {'job_id': 'job_01h455vb4pex5vsknk084sn02q'}
    """
    return _checked(method, value, method.name)


def has_scope(scopes: Collection[str], needed: str) -> bool:
    """Whether a key with these scopes may do what needs that one: exactly that scope, or `*`.

    Example:
        >>> has_scope({"job:read"}, "job:read"), has_scope({"admin"}, "job:read"), has_scope({"*"}, "job:read")
        (True, False, True)
    """
    return needed in scopes or "*" in scopes


def _checked(method: Method, value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        if value is not None:
            raise InvalidRequest(f"{where}: data must be an object, got {_shown(value)}")
        value = {}
    found: dict[str, Any] = {}
    known = method.by_name
    for name, content in value.items():
        spec = known.get(name)
        if spec is None:
            continue
        # The most usual first: a text with nothing special about it.
        if spec.is_plain and type(content) is str and spec.least <= len(content) <= spec.most:
            found[name] = content
        # null is absent, but where any value may stand it is a value.
        elif content is not None or spec.kind is Kind.VALUE:
            found[name] = _check_field(spec, content, where)
    for name in method.required:
        if name not in found:
            raise InvalidRequest(f"{where}: {name} is missing: it must be {_expected(known[name])}")
    for one, other in method.exclusive:
        if one in found and other in found:
            raise InvalidRequest(f"{where}: {one} and {other} exclude each other: give one of them")
    return found


def _check_field(spec: Field, content: Any, where: str) -> Any:
    kind = spec.kind
    if kind is Kind.VALUE:
        return content
    if kind is Kind.JOBS:
        return _check_jobs(spec, content, where)
    if kind is Kind.TIME:
        at = parse_rfc3339(content) if isinstance(content, str) else None
        if at is not None and spec.least <= at <= spec.most:
            return at
        if at is not None:
            # Times are kept as nanoseconds in 64 bits.
            raise InvalidRequest(
                f"{where}: {spec.name} must be a time from 1970 to 2262, got {_shown(content)}"
            )
    elif kind is Kind.SINCE and content == "start":
        return content
    elif kind is Kind.TEXT:
        if isinstance(content, str):
            return _check_text(spec, content, where)
    elif isinstance(content, int) and not isinstance(content, bool) and spec.least <= content <= spec.most:
        return content
    within = f" from {spec.least} to {spec.most}" if kind is Kind.INTEGER and type(content) is int else ""
    raise InvalidRequest(f"{where}: {spec.name} must be {_expected(spec)}{within}, got {_shown(content)}")


def _check_text(spec: Field, content: str, where: str) -> str:
    if spec.prefix:
        return ids.parse_id(content, spec.prefix, spec.name)
    if (spec.choices and content not in spec.choices) or not spec.least <= len(content) <= spec.most:
        raise InvalidRequest(f"{where}: {spec.name} must be {_expected(spec)}, got {_shown(content)}")
    return content


def _check_jobs(spec: Field, content: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(content, list) or not content:
        raise InvalidRequest(
            f"{where}: {spec.name} must be {_expected(spec)}, at least one, got {_shown(content)}"
        )
    return [_checked(_ENQUEUE, each, f"{where}: {spec.name}[{index}]") for index, each in enumerate(content)]


def _expected(spec: Field) -> str:
    if spec.prefix:
        return f'an id with prefix "{spec.prefix}"'
    if spec.choices:
        return f"one of {', '.join(spec.choices)}"
    if spec.kind is Kind.TEXT and spec.most < _INT64:
        return f"a string of {spec.least} to {spec.most} characters"
    return spec.kind.value


def _shown(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(value).__name__})"


_KEY = Field("idempotency_key", least=1, most=NAME_LIMIT)
_NAME = Field("name", required=True, least=1, most=NAME_LIMIT)
_JOB_ID = Field("job_id", required=True, prefix=ids.JOB)
_RUN_ID = Field("run_id", required=True, prefix=ids.RUN)
_CHANNEL = Field("channel", required=True)
_QUEUE = Field("queue", most=NAME_LIMIT)
_PAGE = (Field("limit", Kind.INTEGER, least=1, most=PAGE_LIMIT), Field("cursor"))
_TIMEOUT = Field("timeout_ms", Kind.INTEGER)

_ENQUEUE_FIELDS = (
    _NAME,
    Field("payload", Kind.VALUE),
    _QUEUE,
    Field("priority", Kind.INTEGER, least=-_INT32, most=_INT32),
    _KEY,
    Field("run_at", Kind.TIME),
    Field("delay_ms", Kind.INTEGER, most=_INT32 * 1000),
    Field("max_retries", Kind.INTEGER, most=_INT32),
    Field("timeout_ms", Kind.INTEGER, most=_INT32 * 1000),
    Field("unique_key", least=1, most=NAME_LIMIT),
    Field("unique_for_ms", Kind.INTEGER, least=1, most=_INT32 * 1000),
)
_EVENT_FIELDS = (_NAME, Field("payload", Kind.VALUE), _KEY)
_SOURCE = Field("source_id", most=NAME_LIMIT)

_READ, _IDEMPOTENT, _NEVER = Retry.READ, Retry.IDEMPOTENT, Retry.NEVER
_ONE_TIME = (("run_at", "delay_ms"),)

_ENQUEUE = Method("job.enqueue", "job:write", _IDEMPOTENT, _ENQUEUE_FIELDS, exclusive=_ONE_TIME)

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        _ENQUEUE,
        Method("job.enqueue_many", "job:write", _IDEMPOTENT, (Field("jobs", Kind.JOBS, True), _KEY), "batch"),
        Method("job.get", "job:read", _READ, (_JOB_ID,)),
        Method("job.cancel", "job:write", _NEVER, (_JOB_ID,)),
        Method(
            "job.list",
            "job:read",
            _READ,
            (Field("state", choices=_JOB_STATES), _QUEUE, Field("name"), *_PAGE),
        ),
        Method("job.wait", "job:read", _READ, (_JOB_ID, _TIMEOUT), "wait"),
        Method("workflow.start", "workflow:write", _IDEMPOTENT, (_NAME, Field("input", Kind.VALUE), _KEY)),
        Method("workflow.get", "workflow:read", _READ, (_RUN_ID,)),
        Method("workflow.event", "workflow:write", _IDEMPOTENT, _EVENT_FIELDS),
        Method("workflow.timeline", "workflow:read", _READ, (_RUN_ID,)),
        Method("workflow.cancel", "workflow:write", _NEVER, (_RUN_ID,)),
        Method("workflow.replay", "workflow:write", _NEVER, (_RUN_ID, Field("from_step"))),
        Method("workflow.wait", "workflow:read", _READ, (_RUN_ID, _TIMEOUT), "wait"),
        # Subscribing twice is subscribing once, so both may be sent again.
        Method(
            "subscribe",
            "subscribe",
            _READ,
            (_CHANNEL, Field("credits", Kind.INTEGER), Field("since", Kind.SINCE)),
        ),
        Method("unsubscribe", "subscribe", _READ, (_CHANNEL,)),
        Method("stats", "stats:read", _READ),
        Method("cron.list", "cron:read", _READ),
        Method("cron.pause", "cron:write", _NEVER, (_NAME,)),
        Method("cron.resume", "cron:write", _NEVER, (_NAME,)),
        Method("cron.trigger", "cron:write", _NEVER, (_NAME,)),
        Method("dlq.list", "dlq:read", _READ, (_QUEUE, *_PAGE)),
        Method("dlq.replay", "dlq:write", _NEVER, (Field("dlq_id", required=True, prefix=ids.DEAD_LETTER),)),
        Method("federation.enqueue", "admin", _NEVER, (*_ENQUEUE_FIELDS, _SOURCE), exclusive=_ONE_TIME),
        Method("federation.event", "admin", _NEVER, (*_EVENT_FIELDS, _SOURCE)),
        Method("federation.heartbeat", "admin", _NEVER, (Field("peer_id", required=True),)),
    )
}
"""Every method that a frame may name, by name. `auth` is no method but the handshake (section 3)."""
