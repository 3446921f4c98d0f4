"""`dispatch cron list|pause|resume|trigger`: what is run by the clock, and an operator's hand on it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.markup import escape

from dispatch import Dispatch
from dispatch.cli.ask import DEFAULT_URL, JsonOption, Target, TimeoutOption, TokenOption, UrlOption, talk
from dispatch.cli.output import Output
from dispatch.results import Cron, Crons, Result

NameArgument = Annotated[str, typer.Argument(help="The entry's name.", metavar="NAME")]


def register_cron(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    cron = typer.Typer(help="Functions that the clock calls.", no_args_is_help=True)
    cron.command("list", epilog=_LIST_EXAMPLES)(cron_list)
    cron.command("pause", epilog=_PAUSE_EXAMPLES)(cron_pause)
    cron.command("resume", epilog=_RESUME_EXAMPLES)(cron_resume)
    cron.command("trigger", epilog=_TRIGGER_EXAMPLES)(cron_trigger)
    app.add_typer(cron, name="cron")


_LIST_EXAMPLES = """
Examples:

  dispatch cron list

  dispatch cron list --json | jq -r 'select(.enabled | not).name'     (those that are paused)
"""


def cron_list(
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Show what is run by the clock, when next, and when last. With --json one entry a line."""
    output = Output(machine=as_json)

    async def work(client: Dispatch) -> Crons:
        return await client.list_crons()

    entries = talk(Target(url, token, timeout), work).crons
    if output.machine:
        for entry in entries:
            output.json(entry)
    elif entries:
        output.table(_COLUMNS, map(_row, entries))
    else:
        output.note('none; declare one with @dispatch.cron("*/5 * * * *") above @dispatch.function')


_PAUSE_EXAMPLES = """
Examples:

  dispatch cron pause nightly-report
"""


def cron_pause(
    name: NameArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Let an entry fire no more, until it is resumed. It stays so when the server restarts."""

    async def work(client: Dispatch) -> Cron:
        return await client.pause_cron(name)

    _show(Target(url, token, timeout), work, as_json, lambda _: f"{escape(name)} is paused")


_RESUME_EXAMPLES = """
Examples:

  dispatch cron resume nightly-report     (what it missed is not made up for; see also: dispatch cron trigger)
"""


def cron_resume(
    name: NameArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Let a paused entry fire again, from its next time on."""

    async def work(client: Dispatch) -> Cron:
        return await client.resume_cron(name)

    def said(entry: Any) -> str:
        return f"{escape(name)} fires next at {_local(entry.next_run_at) or 'no time'}"

    _show(Target(url, token, timeout), work, as_json, said)


_TRIGGER_EXAMPLES = """
Examples:

  dispatch cron trigger nightly-report

  dispatch job get "$(dispatch cron trigger nightly-report --json | jq -r .job_id)"
"""


def cron_trigger(
    name: NameArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Run an entry's job now, whatever its schedule says, also while it is paused."""

    async def work(client: Dispatch) -> Result:
        return await client.trigger_cron(name)

    _show(Target(url, token, timeout), work, as_json, lambda answer: f"{answer['job_id']} for {escape(name)}")


def _show(
    target: Target,
    work: Callable[[Dispatch], Coroutine[Any, Any, Result]],
    as_json: bool,
    said: Callable[[Result], str],
) -> None:
    output = Output(machine=as_json)
    answer = talk(target, work)
    if output.machine:
        output.json(answer)
    else:
        output.line(said(answer))


_COLUMNS = ("name", "schedule", "time zone", "function", "next", "last", "state")


def _row(entry: Cron) -> tuple[str, ...]:
    waiting = entry.get("waiting", 0)
    state = "[yellow]paused[/]" if not entry.enabled else f"{waiting} waiting" if waiting else "active"
    cells = (entry.name, entry.schedule, entry.timezone, entry.job_name)
    return (*map(escape, cells), _local(entry.next_run_at), _local(entry.last_run_at), state)


def _local(rfc3339: str | None) -> str:
    """The local date and time, to the second; "" for none."""
    if not rfc3339:
        return ""
    try:
        return datetime.fromisoformat(rfc3339).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return escape(rfc3339)
