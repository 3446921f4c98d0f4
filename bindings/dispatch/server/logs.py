"""What `dispatch serve` writes about its work: a line per step of each job if that is wanted, as text or as JSON.

A step is an event of the log, so what is written here is what was committed, in the same order. Of each only ids, names
and times are written: never a payload, an output, an error's text or a token. What a function raised is told once, as a
warning of the engine, with its traceback.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from dwp_core.codec.timestamps import format_rfc3339
from dwp_core.events import LoggedEvent

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")

steps = logging.getLogger("dispatch.steps")
"""One line for each event, at the level info."""

_FIELDS = "dispatch_fields"

_SHOWN = {
    "job_id": "job_id",
    "run_id": "run_id",
    "job_name": "name",
    "name": "name",
    "entry_name": "name",
    "attempt": "attempt",
    "elapsed_ms": "elapsed_ms",
    "next_run_at": "next_run_at",
    "step": "step",
}
"""Of the data of an event, what is written, and under which name."""


def fields(**values: object) -> dict[str, Any]:
    """The `extra=` of a record that has more to say than its message."""
    return {_FIELDS: values}


def log_events(events: Iterable[LoggedEvent]) -> None:
    """Write a line for each of the events. Ask first whether `steps` is enabled: this reads every event."""
    for event in events:
        found: dict[str, object] = {"seq": event.seq, "happened_at": format_rfc3339(event.ts_ns)}
        if event.queue:
            found["queue"] = event.queue
        data = json.loads(event.data) if event.data else {}
        if isinstance(data, Mapping):
            found |= {name: data[key] for key, name in _SHOWN.items() if key in data}
        steps.info(event.type, extra=fields(**found))


class TextFormatter(logging.Formatter):
    """`time LEVEL message name=value ...`"""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - as logging calls it
        told: Mapping[str, object] = getattr(record, _FIELDS, {})
        more = "".join([f" {name}={_word(value)}" for name, value in told.items()])
        first, newline, rest = super().formatMessage(record).partition("\n")
        return f"{first}{more}{newline}{rest}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `ts`, `level`, `logger`, `message`, what else the record tells, and `traceback`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def set_up(stream: TextIO, *, format: str | None, level: str | None) -> None:
    """Have log records written to the stream.

    Args:
        stream: where to.
        format: one of `FORMATS`; None for text, unless the program has set up logging itself.
        level: one of `LEVELS`; None for what is unusual, and what functions log themselves.
    """
    root = logging.getLogger()
    if format is None and level is None and root.handlers:
        return
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root.handlers[:] = [handler]
    root.setLevel((level or "info").upper())
    # Each step of each job costs time: whoever wants them says so.
    steps.setLevel(logging.WARNING if level is None else logging.NOTSET)


def _word(value: object) -> str:
    """A value as it stands behind its name: quoted where it would not be one word."""
    text = str(value)
    plain = text and all(letter.isalnum() or letter in "-_.:/+" for letter in text)
    return text if plain else json.dumps(text, ensure_ascii=False)
