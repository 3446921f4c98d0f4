"""The commands about jobs that are there: `dispatch job get|list|cancel|wait|retry`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, cast

import typer
from rich.markup import escape

from dispatch import Dispatch
from dispatch.cli.ask import (
    DEFAULT_URL,
    JsonOption,
    Target,
    TimeoutOption,
    TokenOption,
    UrlOption,
    talk,
)
from dispatch.cli.exits import CommandFailed, Exit, UsageError
from dispatch.cli.output import Output, clock, last_line, state_text
from dispatch.results import Job, Outcome, Result
from dwp_core.jobs import CANCELLED, COMPLETED, FAILED, STATES
from dwp_core.methods import PAGE_LIMIT

JobIds = Annotated[list[str], typer.Argument(help="The ids of jobs.", metavar="ID...", show_default=False)]
QueueOption = Annotated[
    str | None, typer.Option("--queue", "-q", help="Only of this queue.", show_default="all")
]
LimitOption = Annotated[int, typer.Option("--limit", "-n", help="At most so many.", min=1)]


def register_jobs(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    job = typer.Typer(
        help="Jobs: look at them, wait for them, cancel them, run them again.", no_args_is_help=True
    )
    job.command("get", epilog=_GET_EXAMPLES)(job_get)
    job.command("list", epilog=_LIST_EXAMPLES)(job_list)
    job.command("cancel", epilog=_CANCEL_EXAMPLES)(job_cancel)
    job.command("wait", epilog=_WAIT_EXAMPLES)(job_wait)
    job.command("retry", epilog=_RETRY_EXAMPLES)(job_retry)
    app.add_typer(job, name="job")


_GET_EXAMPLES = """
Examples:

  dispatch job get job_01h455vb4pex5vsknk084sn02q

  dispatch job get job_01h455vb4pex5vsknk084sn02q --json | jq -r .state
"""


def job_get(
    job_id: Annotated[str, typer.Argument(help="The job's id.", metavar="ID")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Show a job: its state, its payload, what came out of it."""
    output = Output(machine=as_json)

    async def work(client: Dispatch) -> Job:
        return await client.get_job(job_id)

    job = talk(Target(url, token, timeout), work)
    if output.machine:
        output.json(job)
    else:
        output.job(job)


_LIST_EXAMPLES = """
Examples:

  dispatch job list                             the newest 20

  dispatch job list --state failed --queue mail

  dispatch job list --state pending --limit 1000 --json | jq -r .id
"""


def job_list(
    state: Annotated[
        str | None,
        typer.Option("--state", "-s", help=f"Only in this state: {', '.join(STATES)}.", show_default="all"),
    ] = None,
    queue: QueueOption = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Only of this function.", show_default="all")
    ] = None,
    limit: LimitOption = 20,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    if state is not None and state not in STATES:
        raise UsageError(f'--state must be one of {", ".join(STATES)}, got "{state}"')
    output = Output(machine=as_json)

    async def work(client: Dispatch) -> list[Result]:
        found: list[Result] = []
        cursor: str | None = None
        while len(found) < limit:
            size = min(limit - len(found), PAGE_LIMIT)
            page = await client.list_jobs(state=state, queue=queue, name=name, limit=size, cursor=cursor)
            found += page["jobs"]
            cursor = page.get("cursor") or None
            if cursor is None:
                break
        return found

    jobs = talk(Target(url, token, timeout), work)
    if output.machine:
        for job in jobs:
            output.json(job)
    elif jobs:
        output.table(("id", "name", "queue", "state", "retries", "created", "error"), map(_row, jobs))
    else:
        output.note("no such jobs")


def _row(job: Result) -> tuple[str, ...]:
    return (
        escape(str(job["id"])),
        escape(str(job["name"])),
        escape(str(job["queue"])),
        state_text(str(job["state"])),
        str(job["retry_count"]),
        clock(str(job["created_at"]), dated=True),
        f"[red]{escape(last_line(job.get('error') or job.get('last_error')))}[/]",
    )


_CANCEL_EXAMPLES = """
Examples:

  dispatch job cancel job_01h455vb4pex5vsknk084sn02q

  dispatch job list --state pending --queue mail --json | jq -r .id | xargs dispatch job cancel
"""


def job_cancel(
    job_ids: JobIds,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Cancel jobs: one that waits at once, one that runs as soon as its function lets itself be stopped."""
    output = Output(machine=as_json)

    async def work(client: Dispatch) -> None:
        for job_id in job_ids:
            await client.cancel_job(job_id)
            if output.machine:
                output.json({"job_id": job_id, "status": CANCELLED})
            else:
                output.line(f"{escape(job_id)} {state_text(CANCELLED)}")

    talk(Target(url, token, timeout), work)


_WAIT_EXAMPLES = """
Examples:

  dispatch job wait job_01h455vb4pex5vsknk084sn02q && echo "it is done"

  dispatch job wait $A $B --timeout 600          (exit code 1 if one did not complete, 5 if one has not ended by then)
"""


def job_wait(
    job_ids: JobIds,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            help="Seconds to wait.",
            min=0.001,
            metavar="SECONDS",
            show_default="as long as it takes",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Wait until jobs have ended, and show what came out of them. Survives a restart of the server."""
    output = Output(machine=as_json)
    bad = False

    async def work(client: Dispatch) -> None:
        nonlocal bad
        waiting = [client.wait(job_id, timeout=timeout) for job_id in job_ids]
        async for job_id, outcome in _as_asked(
            job_ids, await asyncio.gather(*waiting, return_exceptions=True)
        ):
            bad = bad or outcome["state"] != COMPLETED
            if output.machine:
                output.json(outcome)
            else:
                output.job({"id": job_id, **outcome})

    talk(Target(url, token, 30.0, reconnect=True), work)
    if bad:
        raise typer.Exit(Exit.FAILED)


async def _as_asked(
    job_ids: Sequence[str], outcomes: Sequence[Outcome | BaseException]
) -> AsyncIterator[tuple[str, Outcome]]:
    """The outcomes in the order of their jobs; then the first error, if there was one."""
    failure: BaseException | None = None
    for job_id, outcome in zip(job_ids, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            failure = failure or outcome
        else:
            yield job_id, outcome
    if failure is not None:
        raise failure


_RETRY_EXAMPLES = """
Examples:

  dispatch job retry job_01h455vb4pex5vsknk084sn02q

  dispatch job list --state failed --queue mail --json | jq -r .id | xargs dispatch job retry
"""


def job_retry(
    job_ids: JobIds,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Run failed or cancelled jobs again, each as a new job. A failed one is replayed from the dead letters."""
    output = Output(machine=as_json)

    async def work(client: Dispatch) -> None:
        for job_id in job_ids:
            again = await _run_again(client, job_id)
            if output.machine:
                output.json({"job_id": again, "retry_of": job_id})
            else:
                output.line(f"{escape(again)} runs {escape(job_id)} again")

    talk(Target(url, token, timeout), work)


async def _run_again(client: Dispatch, job_id: str) -> str:
    job = await client.get_job(job_id)
    if job["state"] not in (FAILED, CANCELLED):
        raise CommandFailed(f"{job_id} is {job['state']}: only a failed or cancelled job is run again")
    if job["state"] == FAILED:
        entry = await _dead_letter_of(client, job)
        if entry is not None:
            return str((await client.replay_dead_letter(entry))["job_id"])
    options: dict[str, Any] = {
        "queue": job["queue"],
        "priority": job["priority"],
        "max_retries": job["max_retries"],
    }
    if job.get("timeout"):
        options["job_timeout"] = job["timeout"] / 1e9
    return str((await client.enqueue(job["name"], job.get("payload"), **options))["job_id"])


async def _dead_letter_of(client: Dispatch, job: Job) -> str | None:
    """The id of the job's dead letter; None when it is not there any more."""
    cursor: str | None = None
    while True:
        page = await client.list_dead_letters(queue=job["queue"], limit=PAGE_LIMIT, cursor=cursor)
        for entry in cast("list[Result]", page["entries"]):
            if entry["job_id"] == job["id"]:
                return str(entry["id"])
        cursor = page.get("cursor") or None
        if cursor is None:
            return None
