"""Server-sent events: what a stream of them is made of (PROTOCOL.md section 8; WHATWG HTML, section 9.2).

An event of the log becomes a block with `id:` (its seq), `event:` (its type) and `data:` (the `data` of an event frame,
as one line of JSON). Who gets which is decided elsewhere, as for frames.
"""

from __future__ import annotations

from dwp_core.events import LoggedEvent, event_data

COMMENT = b":\n\n"
"""Means nothing to a reader, and to a proxy that the stream is alive."""

RETRY_MS = 3000
"""After how long a browser connects anew, as on the existing server."""


class EventStream:
    """Writes events as blocks of a stream; takes the place of a codec where events are fanned out.

    Example:
        >>> event = LoggedEvent(7, "job.started", 0, "job:job_1", "", "", "", b"{}")
        >>> print(EventStream().event(event).decode(), end="")
        id: 7
        event: job.started
        data: {"type":"job.started","ts":"1970-01-01T00:00:00Z","topic":"job:job_1","seq":7,"data":{}}
        <BLANKLINE>
    """

    __slots__ = ()

    name = "sse"
    binary = False

    def event(self, event: LoggedEvent) -> bytes:
        """An event of the log."""
        return block(event.type, event_data(event, numbered=True), event.seq)


def beginning(seq: int) -> bytes:
    """The first block: how soon to come back, and the seq after which the stream begins.

    It has no data, so that a browser dispatches nothing, but remembers where to go on if it is cut off before the first
    event.
    """
    return b"retry: %d\nid: %d\n\n" % (RETRY_MS, seq)


def block(type: str, data: bytes, seq: int | None = None) -> bytes:
    """An event, or what the server says of the stream itself, which mostly has no seq.

    Args:
        type: the event's type.
        data: JSON text.
        seq: where a reader goes on that is cut off after this; None leaves that as it was.
    """
    # In JSON a line break is nothing but space, and in a stream it would end the field.
    line = data.replace(b"\n", b" ").replace(b"\r", b" ")
    id_line = b"" if seq is None else b"id: %d\n" % seq
    return b"%bevent: %b\ndata: %b\n\n" % (id_line, type.encode(), line)
