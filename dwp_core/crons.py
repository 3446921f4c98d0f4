"""What a cron entry is and when it fires: which times are due, what catching up and overlapping mean, what comes next.

Every function here takes an entry and the time and gives back the entry as it then is; a store writes it together with
the jobs and their events in one transaction. Expressions are not read here: `next_after` is given, so that the core
needs no library, no time zones and no clock. PROTOCOL.md section 4 (`cron.list`) and section 5 (`cron.fired`).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Collection
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from dwp_core.codec.timestamps import format_rfc3339
from dwp_core.jobs import (
    DEFAULT_MAX_RETRIES,
    DEFAULT_PRIORITY,
    DEFAULT_QUEUE,
    DEFAULT_TIMEOUT_NS,
    SECOND,
    Happening,
)

Overlap: TypeAlias = Literal["skip", "queue", "allow"]
CatchUp: TypeAlias = Literal["none", "one", "all"]
NextAfter: TypeAlias = Callable[[str, str, int], int | None]
"""The first time after one that an expression names in a time zone, in nanoseconds since 1970; None for never."""

OVERLAPS: Final[tuple[Overlap, ...]] = ("skip", "queue", "allow")
CATCH_UPS: Final[tuple[CatchUp, ...]] = ("none", "one", "all")
DEFAULT_TIMEZONE: Final = "UTC"

ON_TIME_NS: Final = 60 * SECOND
"""A time that was missed by no more than this was not missed: a server was busy, or restarted."""

FIRES_AT_ONCE: Final = 100
"""Times of one entry that one round looks at; the rest with the next, so that no transaction takes long."""

WAITING_LIMIT: Final = 100
"""Fires that wait for the job before (`queue`); what comes on top is skipped."""

OPEN_JOBS_LIMIT: Final = 100
"""Jobs of one entry that are remembered as perhaps not finished, newest first."""


@dataclass(frozen=True, slots=True)
class CronDeclaration:
    """A cron entry as a program declares it.

    Attributes:
        name: of the entry; no two have the same.
        expression: when, e.g. "*/5 * * * *".
        timezone: whose wall clock the expression means, e.g. "Europe/Berlin".
        function: whose jobs it enqueues.
        payload: of its jobs, JSON text; b"" for none.
        overlap: when a job of it is not finished at its next time: `skip` that time, `queue` it until the job is
            finished, or `allow` both at once.
        catch_up: of times that passed while no server ran: `none` is made up for, `one` for all of them, or `all`.
        queue: of its jobs.
        priority: of its jobs.
        max_retries: of its jobs.
        timeout: of its jobs, nanoseconds for one attempt; 0 for no limit.
        app_id: the tenant that it and its jobs belong to; "" for none.
        org_id: the tenant that it and its jobs belong to; "" for none.
    """

    name: str
    expression: str
    timezone: str
    function: str
    payload: bytes = b""
    overlap: Overlap = "skip"
    catch_up: CatchUp = "one"
    queue: str = DEFAULT_QUEUE
    priority: int = DEFAULT_PRIORITY
    max_retries: int = DEFAULT_MAX_RETRIES
    timeout: int = DEFAULT_TIMEOUT_NS
    app_id: str = ""
    org_id: str = ""


class Cron(NamedTuple):
    """A cron entry, whole. Times are nanoseconds since 1970 and 0 where there is none.

    A named tuple because stores read and write entries as rows. The fields up to `org_id` are those of
    `CronDeclaration`, after the id.

    Attributes:
        id: TypeID with prefix `cron`.
        created_at: when it was first declared.
        updated_at: when it last changed.
        next_fire: when it fires next; 0 for never.
        last_fire: when it last enqueued a job; 0 for never.
        last_job_id: the job that this made; "" for none.
        paused: it does not fire.
        waiting: fires that wait for an earlier job to be finished.
        skipped: times that were not fired for, since it was first declared.
        open_jobs: ids of its jobs that may not be finished, newest first, with blanks between.
    """

    id: str
    name: str
    expression: str
    timezone: str
    function: str
    payload: bytes
    overlap: Overlap
    catch_up: CatchUp
    queue: str
    priority: int
    max_retries: int
    timeout: int
    app_id: str
    org_id: str
    created_at: int
    updated_at: int
    next_fire: int
    last_fire: int = 0
    last_job_id: str = ""
    paused: bool = False
    waiting: int = 0
    skipped: int = 0
    open_jobs: str = ""


class Firing(NamedTuple):
    """What becomes of an entry that is due.

    Attributes:
        cron: the entry then, but for the jobs.
        jobs: how many jobs to enqueue now.
    """

    cron: Cron
    jobs: int


def declare(
    declaration: CronDeclaration, known: Cron | None, *, id: str, now_ns: int, next_after: NextAfter
) -> Cron:
    """The entry for a declaration.

    What was declared before keeps its history, its pause, and its next time unless the schedule itself is another: a
    restart neither loses a time nor fires twice.

    Args:
        declaration: what the program says.
        known: the entry of that name; None where there is none yet.
        id: for a new entry.
        now_ns: the time.
        next_after: reads expressions.
    """
    told = (
        declaration.name,
        declaration.expression,
        declaration.timezone,
        declaration.function,
        declaration.payload,
        declaration.overlap,
        declaration.catch_up,
        declaration.queue,
        declaration.priority,
        declaration.max_retries,
        declaration.timeout,
        declaration.app_id,
        declaration.org_id,
    )
    if known is not None and known[1 : len(told) + 1] == told:
        return known
    if known is not None and (known.paused or known[2:4] == told[1:3]):
        next_fire = known.next_fire
    else:
        next_fire = next_after(declaration.expression, declaration.timezone, now_ns) or 0
    if known is None:
        return Cron._make((id, *told, now_ns, now_ns, next_fire, *_NO_HISTORY))
    return Cron._make((known.id, *told, known.created_at, now_ns, next_fire, *known[_HISTORY:]))


def is_due(cron: Cron, now_ns: int) -> bool:
    """Whether there is something to decide: a time of it has come, or fires of it wait."""
    return not cron.paused and (0 < cron.next_fire <= now_ns or cron.waiting > 0)


def fire(cron: Cron, *, busy: bool, now_ns: int, next_after: NextAfter) -> Firing:
    """What a due entry does now.

    Args:
        cron: the entry; one for which `is_due` holds.
        busy: whether one of its jobs is not finished.
        now_ns: the time.
        next_after: reads expressions.
    """
    times, next_fire = _times(cron, now_ns, next_after)
    jobs, waiting, skipped = 0, cron.waiting, cron.skipped
    if waiting and not busy:
        jobs, waiting = 1, waiting - 1
    for _ in range(times):
        if cron.overlap == "allow" or not (busy or jobs):
            jobs += 1
        elif cron.overlap == "queue" and waiting < WAITING_LIMIT:
            waiting += 1
        else:
            skipped += 1
    if (jobs, waiting, skipped, next_fire) == (0, cron.waiting, cron.skipped, cron.next_fire):
        return Firing(cron, 0)
    fired = cron._replace(updated_at=now_ns, next_fire=next_fire, waiting=waiting, skipped=skipped)
    return Firing(fired, jobs)


def fired(cron: Cron, job_id: str, *, unfinished: Collection[str], now_ns: int) -> tuple[Cron, Happening]:
    """The entry after it enqueued a job, and the event that tells of it.

    Args:
        cron: the entry.
        job_id: the job.
        unfinished: those of its earlier jobs that are not finished, newest first.
        now_ns: the time.
    """
    # Entries that may overlap are never asked whether they are busy.
    remembered = [] if cron.overlap == "allow" else [job_id, *unfinished][:OPEN_JOBS_LIMIT]
    after = cron._replace(
        updated_at=now_ns, last_fire=now_ns, last_job_id=job_id, open_jobs=" ".join(remembered)
    )
    data = f'{{"entry_name":{encode_basestring(cron.name)},"job_id":"{job_id}"}}'
    return after, Happening("cron.fired", data.encode())


def pause(cron: Cron, *, now_ns: int) -> Cron:
    """It fires no more until it is resumed. One that is paused stays as it is."""
    return cron if cron.paused else cron._replace(paused=True, updated_at=now_ns, next_fire=0)


def resume(cron: Cron, *, now_ns: int, next_after: NextAfter) -> Cron:
    """It fires again, from now on: what it would have done meanwhile is not made up for."""
    if not cron.paused:
        return cron
    next_fire = next_after(cron.expression, cron.timezone, now_ns) or 0
    return cron._replace(paused=False, updated_at=now_ns, next_fire=next_fire)


def cron_to_wire(cron: Cron) -> dict[str, Any]:
    """An entry of `cron.list`, in the manner of a Job: base64 bytes, RFC 3339 times, no optional field that is
    empty."""
    wire: dict[str, Any] = {
        "created_at": format_rfc3339(cron.created_at),
        "updated_at": format_rfc3339(cron.updated_at),
        "id": cron.id,
        "name": cron.name,
        "schedule": cron.expression,
        "timezone": cron.timezone,
        "job_name": cron.function,
        "queue": cron.queue,
        "payload": b64encode(cron.payload).decode(),
        "scope_app_id": cron.app_id,
        "scope_org_id": cron.org_id,
        "last_run_at": format_rfc3339(cron.last_fire) if cron.last_fire else "",
        "next_run_at": format_rfc3339(cron.next_fire) if cron.next_fire else "",
        "last_job_id": cron.last_job_id,
        "enabled": not cron.paused,
        "overlap": cron.overlap,
        "catch_up": cron.catch_up,
        "waiting": cron.waiting,
        "skipped": cron.skipped,
    }
    return {key: value for key, value in wire.items() if value != "" or key not in _OPTIONAL}


def _times(cron: Cron, now_ns: int, next_after: NextAfter) -> tuple[int, int]:
    """For how many times to fire, before overlaps are looked at; and the next time."""
    if not 0 < cron.next_fire <= now_ns:
        return 0, cron.next_fire
    if cron.catch_up == "all":
        count, at = 0, cron.next_fire
        while 0 < at <= now_ns and count < FIRES_AT_ONCE:
            count += 1
            at = next_after(cron.expression, cron.timezone, at) or 0
        return count, at
    newest = _newest(cron, now_ns, next_after)
    next_fire = next_after(cron.expression, cron.timezone, now_ns) or 0
    return int(cron.catch_up == "one" or now_ns - newest <= ON_TIME_NS), next_fire


def _newest(cron: Cron, now_ns: int, next_after: NextAfter) -> int:
    """The last of its times that has come. Halving, not stepping: there may be millions."""
    newest, low, high = cron.next_fire, cron.next_fire // SECOND, now_ns // SECOND + 1
    # After `low` comes a time that has come, or none between it and `newest`; after `high` comes none.
    while high - low > 1:
        middle = (low + high) // 2
        at = next_after(cron.expression, cron.timezone, middle * SECOND)
        if at is not None and at <= now_ns:
            newest, low = at, max(middle, at // SECOND)
        else:
            high = middle
    return newest


_HISTORY: Final = Cron._fields.index("last_fire")
_NO_HISTORY: Final = tuple(Cron._field_defaults.values())

_OPTIONAL: Final = frozenset(
    "queue payload scope_app_id scope_org_id last_run_at next_run_at last_job_id".split()
)
