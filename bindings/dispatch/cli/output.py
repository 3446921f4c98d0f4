"""What the command line prints: lines and tables for people, one JSON value a line for machines.

Answers go to standard output, everything else (what is going on, what went wrong) to standard error, so that a pipe
gets answers only.
"""

from __future__ import annotations

import base64
import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from dispatch.results import Event

STATE_STYLES = {
    "pending": "cyan",
    "running": "blue",
    "retrying": "yellow",
    "completed": "green",
    "failed": "red",
    "cancelled": "magenta",
}

# What a person wants to know of a job, in this order; the rest follows in `--json` only.
_JOB_FIELDS = (
    ("id", "id"),
    ("name", "name"),
    ("queue", "queue"),
    ("state", "state"),
    ("priority", "priority"),
    ("payload", "payload"),
    ("output", "output"),
    ("error", "error"),
    ("last error", "last_error"),
    ("retries", "retry_count"),
    ("created", "created_at"),
    ("run at", "run_at"),
    ("started", "started_at"),
    ("completed", "completed_at"),
)


class ReaderGone(Exception):
    """Whoever read our output has closed the pipe: there is nobody left to print for."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # rich would end the process with 1.
        raise ReaderGone


class Output:
    """Where a command prints to.

    Args:
        machine: `--json` was given.
    """

    def __init__(self, *, machine: bool = False) -> None:
        self.machine = machine
        self._out = _Console(highlight=False)
        self._err = _Console(stderr=True, highlight=False)

    def json(self, value: object) -> None:
        """One JSON value on one line."""
        self._print(lambda: sys.stdout.write(to_json(value) + "\n"))

    def line(self, text: str) -> None:
        """One line for people, in rich's markup; never broken, so that a pipe gets whole lines."""
        self._print(lambda: self._out.print(text, soft_wrap=True))

    def note(self, text: str) -> None:
        """What is going on; goes to standard error. Nothing with `--json`."""
        if not self.machine:
            self._err.print(text, soft_wrap=True)

    def problem(self, message: str, *, code: int | None = None, hint: str = "") -> None:
        """What went wrong and what to do about it; goes to standard error."""
        if self.machine:
            problem: dict[str, object] = {"message": message}
            if code is not None:
                problem["code"] = code
            if hint:
                problem["hint"] = hint
            sys.stderr.write(json.dumps({"error": problem}) + "\n")
            return
        number = "" if code is None else f" {code}"
        self._err.print(f"[bold red]error{number}:[/] {escape(message)}", soft_wrap=True)
        if hint:
            self._err.print(f"  [dim]{escape(hint)}[/]", soft_wrap=True)

    def job(self, job: Mapping[str, Any]) -> None:
        """A job as a small table."""
        self.pairs(
            (label, state_text(str(job[key])) if key == "state" else escape(_shown(job[key])))
            for label, key in _JOB_FIELDS
            if job.get(key) not in (None, "", {}) or key == "state"
        )

    def show(self, what: RenderableType) -> None:
        """Anything that rich can draw."""
        self._print(lambda: self._out.print(what))

    def pairs(self, rows: Iterable[tuple[str, str]]) -> None:
        """Names and values, one pair a line."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        for label, value in rows:
            table.add_row(label, value)
        self._print(lambda: self._out.print(table))

    def table(self, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
        """A table with a head."""
        table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(column)
        for row in rows:
            table.add_row(*row)
        self._print(lambda: self._out.print(table))

    def _print(self, write: Callable[[], object]) -> None:
        try:
            write()
            sys.stdout.flush()
        except BrokenPipeError as error:
            # typer would make an exit code of its own of it.
            raise ReaderGone from error


class NoteHandler(logging.Handler):
    """Shows what a logger says as notes."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        self._output.note(f"[dim]{escape(record.getMessage())}[/]")


def state_text(state: str) -> str:
    """A state in its colour, as markup."""
    style = STATE_STYLES.get(state)
    return f"[{style}]{escape(state)}[/]" if style else escape(state)


def event_record(event: Event) -> dict[str, Any]:
    """An event for machines: what the API shows, and what it carries besides."""
    return {**event, "kind": event.kind, "topic": event.topic, "seq": event.seq, "at": event.at}


def event_line(event: Event) -> str:
    """An event as one line for people, in rich's markup."""
    data: Mapping[str, Any] = event["data"]
    if event.is_gap:
        return f"[yellow]{' ' * 13}gap: events {data['from']} to {data['to']} are gone[/]"
    name = data.get("job_name") or data.get("name") or data.get("entry_name") or ""
    ident = data.get("job_id") or data.get("run_id") or ""
    style = STATE_STYLES.get(str(data.get("state")), "default")
    parts = [
        f"[dim]{clock(event.at)}[/]",
        f"[{style}]{escape(f'{event.kind:<16}')}[/]",
        f"{escape(f'{name:<18}')}",
        f"[dim]{escape(str(ident))}[/]",
    ]
    if "elapsed_ms" in data:
        parts.append(f"{data['elapsed_ms']} ms")
    if "next_run_at" in data:
        parts.append(f"attempt {data.get('attempt')} failed, again at {clock(str(data['next_run_at']))}")
    if data.get("error"):
        parts.append(f"[red]{escape(str(data['error']).splitlines()[-1])}[/]")
    return " ".join(parts).rstrip()


def clock(rfc3339: str, *, dated: bool = False) -> str:
    """The local time of day, to the millisecond; with its date, to the second."""
    try:
        local = datetime.fromisoformat(rfc3339).astimezone()
    except ValueError:
        return "--:--:--.---"
    return local.strftime("%Y-%m-%d %H:%M:%S") if dated else local.strftime("%H:%M:%S.%f")[:-3]


def last_line(text: object) -> str:
    """The last line of an error, which names it; "" for none."""
    lines = str(text or "").strip().splitlines()
    return lines[-1] if lines else ""


def to_json(value: object) -> str:
    """Any answer of the client as JSON on one line; bytes become base64 text, as they travel (PROTOCOL.md section 4).

    Example:
        >>> to_json({"job_id": "job_1", "output": None})
        '{"job_id": "job_1", "output": null}'
    """
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.standard_b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Iterable):
        return list(value)
    return str(value)


def _shown(value: object) -> str:
    """A value as a person reads it: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else to_json(value)
