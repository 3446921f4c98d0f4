"""What routing needs of an event frame's payload, read without touching the event's own data (PROTOCOL.md section 5).

The fast codec reads it in one typed C call; what that refuses, and every event of the portable codec, is read here.
"""

from __future__ import annotations

from typing import NamedTuple, TypeGuard

from dwp_core.codec import json_syntax
from dwp_core.frames import EventHead


class PlainEvent(NamedTuple):
    """An `EventHead`: the type, topic, number and time of an event, and the JSON text of its inner data."""

    type: str
    topic: str
    seq: int | None
    ts: str
    data: bytes


def judge_event(raw: bytes) -> EventHead | None:
    """The head of an event, or None when the payload is no event: no object, no text `type`, or a mistyped field.

    Args:
        raw: the JSON text of the frame's `data`.

    Example:
        >>> judge_event(b'{"type":"job.started","topic":"job:job_1","seq":7,"data":{}}').seq
        7
        >>> judge_event(b'{"type":5}') is None
        True

    PROTOCOL.md section 5.
    """
    text = str(raw, "utf-8", "surrogateescape")
    try:
        start = json_syntax.space(text, 0)
        if not text.startswith("{", start):
            return None
        members, end = json_syntax.members(text, start)
        if json_syntax.space(text, end) != len(text):
            return None
    except json_syntax.Malformed:
        return None
    kind, topic, seq, ts = [members.get(name, _ABSENT)[0] for name in ("type", "topic", "seq", "ts")]
    if not _is_text(kind) or not kind or not (topic is None or _is_text(topic)):
        return None
    if seq is not None and (type(seq) is not int or seq not in _INT64):
        return None
    _, begin, end = members.get("data", _ABSENT)
    data = text[begin:end].encode("utf-8", "surrogateescape")
    return PlainEvent(kind, topic or "", seq, ts if _is_text(ts) else "", data)


def _is_text(value: object) -> TypeGuard[str]:
    if type(value) is not str:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


_ABSENT: json_syntax.Member = (None, 0, 0)
_INT64 = range(-(1 << 63), 1 << 63)
