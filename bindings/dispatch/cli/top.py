"""`dispatch top`: what a server does, live: its queues, how much it gets done, what runs and what fails.

Queues and running jobs are asked for again and again; rates and failures come from the events of jobs as they happen.
The view is made from a `Picture` by one function, so what `--once` and `--json` show is what the screen shows.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from dispatch import Dispatch
from dispatch.cli.ask import DEFAULT_URL, JsonOption, Target, TimeoutOption, TokenOption, UrlOption, talk
from dispatch.cli.figures import QUEUE_COLUMNS, queue_rows, summary
from dispatch.cli.output import Output, clock, last_line, state_text
from dispatch.results import Result

WINDOW = 10.0
"""Seconds over which rates are taken."""

SHOWN = 10
"""Running jobs, and failures, that are shown."""

_RATES = {
    "job.enqueued": "enqueued",
    "job.started": "started",
    "job.completed": "completed",
    "job.retrying": "retried",
    "job.failed": "failed",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A server at one moment.

    Attributes:
        stats: what it says about itself.
        running: jobs that run, as of `job.list`.
        failures: jobs that failed, the newest first.
        rates: what happens, per second; empty where nobody has watched yet.
    """

    stats: dict[str, Any]
    running: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    failures: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    rates: dict[str, float] = field(default_factory=dict[str, float])


class Watch:
    """What the events of jobs have told so far.

    Args:
        now: monotonic seconds.

    Example:
        >>> clock = iter((0.0, 5.0, 5.0))
        >>> watch = Watch(lambda: next(clock))
        >>> watch.happened("job.completed")
        >>> watch.rates()["completed"]
        0.2
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since = now()
        self._seen: deque[tuple[float, str]] = deque()
        self._counts: Counter[str] = Counter()

    def happened(self, kind: str) -> None:
        """An event came."""
        if kind in _RATES:
            self._seen.append((self._now(), kind))
            self._counts[kind] += 1

    def rates(self) -> dict[str, float]:
        """How often each happens, per second, over the last `WINDOW` seconds or since the beginning."""
        now = self._now()
        while self._seen and self._seen[0][0] < now - WINDOW:
            self._counts[self._seen.popleft()[1]] -= 1
        seconds = max(min(now - self._since, WINDOW), 1.0)
        return {name: round(self._counts[kind] / seconds, 1) for kind, name in _RATES.items()}


def register_top(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command("top", epilog=_EXAMPLES)(top)


_EXAMPLES = """
Examples:

  dispatch top                          until Ctrl-C

  dispatch top --once                   one look, without rates: for scripts

  dispatch top --interval 5 --json      one JSON value every five seconds
"""


def top(
    once: Annotated[bool, typer.Option("--once", help="Show it once and stop.", show_default=False)] = False,
    interval: Annotated[
        float, typer.Option("--interval", "-i", help="Seconds between looks.", min=0.1, metavar="SECONDS")
    ] = 1.0,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Watch a server at work: queues, rates, what runs, what fails. Reconnects by itself; ends with Ctrl-C."""
    output = Output(machine=as_json)

    async def look_once(client: Dispatch) -> None:
        _show(output, url, await _look(client, None))

    async def watch(client: Dispatch) -> None:
        console = Console()
        if output.machine or not console.is_terminal:
            await _watch(client, interval, lambda picture: _show(output, url, picture))
            return
        with Live(console=console, screen=True, auto_refresh=False) as live:
            await _watch(client, interval, lambda picture: live.update(view(url, picture), refresh=True))

    work: Callable[[Dispatch], Awaitable[None]] = look_once if once else watch
    talk(Target(url, token, timeout, reconnect=not once), work)


def _show(output: Output, url: str, picture: Picture) -> None:
    if output.machine:
        output.json(asdict(picture))
    else:
        output.show(view(url, picture))


async def _watch(client: Dispatch, interval: float, show: Callable[[Picture], object]) -> None:
    """Show pictures until it is cancelled or the server is gone for good."""
    watch = Watch()
    subscription = await client.subscribe("jobs")

    async def listen() -> None:
        async for event in subscription:
            watch.happened(event.kind)

    listening = asyncio.ensure_future(listen())
    try:
        while not listening.done():
            show(await _look(client, watch))
            await asyncio.wait((listening,), timeout=interval)
        await listening
    finally:
        listening.cancel()


async def _look(client: Dispatch, watch: Watch | None) -> Picture:
    stats, running, failed = await asyncio.gather(
        client.stats(),
        client.list_jobs(state="running", limit=SHOWN),
        client.list_jobs(state="failed", limit=SHOWN),
    )
    return Picture(
        dict(stats),
        [_brief(job) for job in running["jobs"]],
        [_brief(job) for job in failed["jobs"]],
        {} if watch is None else watch.rates(),
    )


def _brief(job: Result) -> dict[str, Any]:
    """What is shown of a job: never its payload."""
    names = ("id", "name", "queue", "state", "retry_count", "started_at", "error")
    return {name: job[name] for name in names if job.get(name) not in (None, "")}


def view(url: str, picture: Picture) -> RenderableType:
    """The picture for people."""
    parts: list[RenderableType] = [Text.from_markup(_headline(url, picture))]
    queues = [tuple(row) for row in queue_rows(picture.stats)]
    if queues:
        parts += [Text(), _table(QUEUE_COLUMNS, queues)]
    if picture.running:
        rows = [(*_named(job), clock(job.get("started_at", ""))) for job in picture.running]
        parts += [Text(), _table((state_text("running"), "function", "queue", "since"), rows)]
    if picture.failures:
        failures = [(*_named(job), escape(last_line(job.get("error")))) for job in picture.failures]
        parts += [Text(), _table((state_text("failed"), "function", "queue", "error"), failures)]
    return Group(*parts)


def _named(job: dict[str, Any]) -> tuple[str, ...]:
    return tuple(escape(str(job[name])) for name in ("id", "name", "queue"))


def _headline(url: str, picture: Picture) -> str:
    figures = [f"{label} [bold]{value}[/]" for label, value in summary(picture.stats)]
    lines = [f"[bold]{escape(url)}[/]", "  ".join(figures)]
    if picture.rates:
        lines.append("  ".join(f"{name} [bold]{rate:g}[/]/s" for name, rate in picture.rates.items()))
    return "\n".join(lines)


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
