"""Channels: which may be subscribed to, and on which of them an event is (PROTOCOL.md section 5).

Routing is done with this module on both sides: an event is on `firehose`, on `jobs` or `workflows` by its type, on its
own topic, and on its queue's channel. A subscription gets the event when its channel is one of those.
"""

from __future__ import annotations

from dwp_core.errors import InvalidRequest
from dwp_core.frames import DEFAULT_LIMITS

JOBS = "jobs"
WORKFLOWS = "workflows"
FIREHOSE = "firehose"
JOB_PREFIX = "job:"
RUN_PREFIX = "workflow:"
QUEUE_PREFIX = "queue:"

_GROUPS = frozenset((JOBS, WORKFLOWS, FIREHOSE))
_PREFIXES = (JOB_PREFIX, RUN_PREFIX, QUEUE_PREFIX)


def check_channel(channel: object, *, limit: int = DEFAULT_LIMITS.channel) -> str:
    """The channel itself when it can be subscribed to.

    Raises:
        InvalidRequest: (400) it is none; the message lists what would be right.

    Example:
        >>> check_channel("queue:mail")
        'queue:mail'
    """
    if isinstance(channel, str) and len(channel) <= limit:
        if channel in _GROUPS:
            return channel
        if channel.startswith(_PREFIXES) and not channel.endswith(":"):
            return channel
    shown = f'"{channel[:80]}"' if isinstance(channel, str) else repr(channel)[:80]
    raise InvalidRequest(
        f"invalid channel {shown}: expected jobs, workflows, firehose, job:<id>, workflow:<run id> or queue:<name>"
        f" of at most {limit} characters"
    )


def channels_of(kind: str, topic: str, queue: str = "") -> tuple[str, ...]:
    """Every channel that an event is on.

    Args:
        kind: the event's type, e.g. "job.completed".
        topic: its own topic, e.g. "job:job_01…"; "" for cron events.
        queue: the queue of its job; "" where it has none or nobody asked for queues.

    Example:
        >>> channels_of("job.completed", "job:job_1", "mail")
        ('firehose', 'jobs', 'job:job_1', 'queue:mail')
    """
    channels: tuple[str, ...]
    if kind.startswith("job."):
        channels = (FIREHOSE, JOBS, topic) if topic else (FIREHOSE, JOBS)
    elif kind.startswith("workflow."):
        channels = (FIREHOSE, WORKFLOWS, topic) if topic else (FIREHOSE, WORKFLOWS)
    else:
        channels = (FIREHOSE, topic) if topic else (FIREHOSE,)
    return (*channels, QUEUE_PREFIX + queue) if queue else channels


_STATES = {
    "job.enqueued": "pending",
    "job.started": "running",
    "job.completed": "completed",
    "job.retrying": "retrying",
    "job.failed": "failed",
    "job.dlq": "failed",
    "job.cancelled": "cancelled",
    "workflow.started": "running",
    "workflow.step_completed": "running",
    "workflow.step_failed": "running",
    "workflow.completed": "completed",
    "workflow.failed": "failed",
    "workflow.cancelled": "cancelled",
}


def state_of(kind: str) -> str | None:
    """The state that an event of this type tells of; None for types that tell of none (`cron.fired`).

    Servers that send no `state` are read through this table, so that users see one from every server.
    """
    return _STATES.get(kind)
