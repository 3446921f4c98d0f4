"""The commands about jobs that have failed for good: `dispatch dlq list|replay`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from dispatch import Dispatch
from dispatch.cli.ask import DEFAULT_URL, JsonOption, Target, TimeoutOption, TokenOption, UrlOption, talk
from dispatch.cli.exits import UsageError
from dispatch.cli.jobs import LimitOption, QueueOption
from dispatch.cli.output import Output, clock, last_line
from dispatch.results import Result
from dwp_core.methods import PAGE_LIMIT


def register_dead_letters(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    dlq = typer.Typer(help="Dead letters: jobs that have failed for good.", no_args_is_help=True)
    dlq.command("list", epilog=_LIST_EXAMPLES)(dlq_list)
    dlq.command("replay", epilog=_REPLAY_EXAMPLES)(dlq_replay)
    app.add_typer(dlq, name="dlq")


_LIST_EXAMPLES = """
Examples:

  dispatch dlq list

  dispatch dlq list --queue mail --limit 1000 --json | jq -r .error | sort | uniq -c
"""


def dlq_list(
    queue: QueueOption = None,
    limit: LimitOption = 20,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, newest first."""
    output = Output(machine=as_json)

    async def work(client: Dispatch) -> list[Result]:
        return await _entries(client, queue, limit)

    entries = talk(Target(url, token, timeout), work)
    if output.machine:
        for entry in entries:
            output.json(entry)
    elif entries:
        output.table(("id", "job", "name", "queue", "failed", "replayed as", "error"), map(_row, entries))
    else:
        output.note("no dead letters")


async def _entries(client: Dispatch, queue: str | None, limit: int | None) -> list[Result]:
    """The newest so many; all, for None."""
    found: list[Result] = []
    cursor: str | None = None
    while limit is None or len(found) < limit:
        size = PAGE_LIMIT if limit is None else min(limit - len(found), PAGE_LIMIT)
        page = await client.list_dead_letters(queue=queue, limit=size, cursor=cursor)
        found += page["entries"]
        cursor = page.get("cursor") or None
        if cursor is None:
            break
    return found


def _row(entry: Result) -> tuple[str, ...]:
    return (
        escape(str(entry["id"])),
        escape(str(entry["job_id"])),
        escape(str(entry["job_name"])),
        escape(str(entry["queue"])),
        clock(str(entry["failed_at"]), dated=True),
        escape(str(entry.get("replayed_as") or "")),
        f"[red]{escape(last_line(entry.get('error')))}[/]",
    )


_REPLAY_EXAMPLES = """
Examples:

  dispatch dlq replay dlq_01h455vb4pex5vsknk084sn02q

  dispatch dlq replay --all --queue mail         those of a queue that were not replayed yet
"""


def dlq_replay(
    dlq_ids: Annotated[
        list[str] | None,
        typer.Argument(help="The ids of dead letters.", metavar="[ID...]", show_default=False),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All that were not replayed yet.", show_default=False)
    ] = False,
    queue: Annotated[
        str | None, typer.Option("--queue", "-q", help="With --all: only of this queue.", show_default="all")
    ] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Run dead letters again, each as a new job. The dead letter stays and notes it."""
    if everything == bool(dlq_ids):
        raise UsageError("dispatch dlq replay takes the ids of dead letters, or --all, and not both")
    if queue is not None and not everything:
        raise UsageError("--queue goes with --all; ids say by themselves which dead letters are meant")
    output = Output(machine=as_json)

    async def work(client: Dispatch) -> int:
        ids = list(dlq_ids or ())
        if everything:
            waiting = await _entries(client, queue, None)
            # The oldest first, as they failed.
            ids = [str(entry["id"]) for entry in reversed(waiting) if not entry.get("replayed_as")]
        for dlq_id in ids:
            job_id = str((await client.replay_dead_letter(dlq_id))["job_id"])
            if output.machine:
                output.json({"dlq_id": dlq_id, "job_id": job_id})
            else:
                output.line(f"{escape(dlq_id)} runs again as {escape(job_id)}")
        return len(ids)

    if not talk(Target(url, token, timeout), work):
        output.note("nothing to replay")
