"""An event as the durable log of a store holds it (PROTOCOL.md sections 5 and 9, `resume`).

The store assigns `seq` in the transaction of the state change; the hub routes and sends what was committed. Both use
this one type, so that an event is never converted between them.
"""

from __future__ import annotations

from json.encoder import encode_basestring
from typing import NamedTuple

from dwp_core.codec.timestamps import format_rfc3339


class LoggedEvent(NamedTuple):
    """One event of the log.

    A named tuple, and not a dataclass as elsewhere, because each state change makes one and a row of the
    log becomes one: both cost a fraction this way.

    Attributes:
        seq: its place in the log; increasing in commit order.
        type: e.g. "job.completed".
        ts_ns: when it happened, nanoseconds since 1970.
        topic: the event's own topic, e.g. "job:job_01…"; "" for cron events.
        queue: the queue of its job; "" where there is none.
        app_id: the tenant it belongs to; "" for none.
        org_id: the tenant it belongs to; "" for none.
        data: the inner data of PROTOCOL.md section 5, as JSON text.
    """

    seq: int
    type: str
    ts_ns: int
    topic: str
    queue: str
    app_id: str
    org_id: str
    data: bytes


def event_data(event: LoggedEvent, *, numbered: bool) -> bytes:
    """The `data` of an event frame as JSON text (PROTOCOL.md section 5), with `seq` where the peer knows of it."""
    seq = f'"seq":{event.seq},' if numbered else ""
    head = (
        f'{{"type":{encode_basestring(event.type)},"ts":"{format_rfc3339(event.ts_ns)}",'
        f'"topic":{encode_basestring(event.topic)},{seq}"data":'
    )
    return b"%b%b}" % (head.encode(), event.data)
