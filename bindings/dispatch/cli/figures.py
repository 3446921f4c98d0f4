"""The commands that show a server's figures once: `dispatch stats`, `dispatch queue list`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import typer
from rich.markup import escape

from dispatch import Dispatch
from dispatch.cli.ask import DEFAULT_URL, JsonOption, Target, TimeoutOption, TokenOption, UrlOption, talk
from dispatch.cli.output import Output
from dispatch.results import Result

QUEUE_COLUMNS = ("queue", "ready", "scheduled", "running")


def register_figures(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.command("stats", epilog=_STATS_EXAMPLES)(stats)
    queue = typer.Typer(help="Queues.", no_args_is_help=True)
    queue.command("list", epilog=_QUEUE_EXAMPLES)(queue_list)
    app.add_typer(queue, name="queue")


async def _ask(client: Dispatch) -> Result:
    return await client.stats()


_STATS_EXAMPLES = """
Examples:

  dispatch stats

  dispatch stats --json | jq .dead_letters
"""


def stats(
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Show what a server has to do at the moment."""
    output = Output(machine=as_json)
    answer = talk(Target(url, token, timeout), _ask)
    if output.machine:
        output.json(answer)
        return
    output.pairs(summary(answer))
    if answer.get("queues"):
        output.table(QUEUE_COLUMNS, queue_rows(answer))


def summary(answer: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The figures that are no table. What an older server does not tell is left out."""
    broker = answer.get("broker", {})
    figures = (
        ("connections", answer.get("connections")),
        ("jobs running", answer.get("jobs_running")),
        ("dead letters", answer.get("dead_letters")),
        ("waiting for the disk", answer.get("store_waiting")),
        ("subscribers", broker.get("subscriber_count")),
        ("events published", broker.get("total_published")),
    )
    return [(label, str(value)) for label, value in figures if value is not None]


def queue_rows(answer: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    """A row for each queue that has unfinished jobs."""
    for queue in answer.get("queues", ()):
        yield tuple(escape(str(queue[column])) for column in QUEUE_COLUMNS)


_QUEUE_EXAMPLES = """
Examples:

  dispatch queue list

  dispatch queue list --json | jq -r 'select(.ready > 1000) | .queue'
"""


def queue_list(
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """List the queues that have unfinished jobs: ready to run, scheduled for later, running."""
    output = Output(machine=as_json)
    answer = talk(Target(url, token, timeout), _ask)
    if output.machine:
        for queue in answer.get("queues", ()):
            output.json(queue)
    elif answer.get("queues"):
        output.table(QUEUE_COLUMNS, queue_rows(answer))
    else:
        output.note("no unfinished jobs in any queue")
