"""What routing needs of an event frame's payload, read without touching the event's own data (PROTOCOL.md section 5).

The fast codec reads it in one typed C call; what that refuses, and every event of the portable codec, is read here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dwp_core.codec import json_syntax
from dwp_core.codec.json_syntax import INT64, Malformed
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
    spans: dict[str, tuple[int, int]] = {}
    try:
        members, end = json_syntax.members(text, json_syntax.space(text, 0))
        if json_syntax.space(text, end) != len(text):
            return None
    except Malformed:
        return None
    for name, start, end in members:
        spans[name] = (start, end)
    kind = _value(text, spans, "type")
    topic = _value(text, spans, "topic")
    seq = _value(text, spans, "seq")
    if not _is_text(kind) or not kind or not (topic is None or _is_text(topic)):
        return None
    if seq is not None and (type(seq) is not int or seq not in INT64):
        return None
    ts = _value(text, spans, "ts")
    begin, end = spans.get("data", (0, 0))
    data = text[begin:end].encode("utf-8", "surrogateescape")
    return PlainEvent(kind, topic or "", seq, ts if _is_text(ts) else "", data)


def _value(text: str, spans: dict[str, tuple[int, int]], name: str) -> Any:
    start, _ = spans.get(name, (-1, -1))
    if start < 0:
        return None
    try:
        return json_syntax.scan(text, start)[0]
    except RecursionError:
        return _DEEP


def _is_text(value: object) -> bool:
    if type(value) is not str:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


_DEEP: list[object] = []
