"""The commands that ask something of a server: `enqueue`, `events`, `ping`.

Each is one short program of the asyncio client. Connecting, and how an answer is printed, is shared; what an error
means for the exit code is decided in `dispatch.cli.app`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import typer
from rich.markup import escape

from dispatch import Dispatch
from dispatch.cli.exits import Exit, UsageError
from dispatch.cli.output import NoteHandler, Output, event_line, event_record, state_text
from dispatch.errors import InvalidRequest
from dispatch.results import EnqueuedJob, Outcome

T = TypeVar("T")

DEFAULT_URL = "ws://127.0.0.1:8080/dwp"

UrlOption = Annotated[
    str, typer.Option("--url", envvar="DISPATCH_URL", help="Where the server is.", metavar="URL")
]
TokenOption = Annotated[
    str,
    typer.Option(
        "--token",
        envvar="DISPATCH_TOKEN",
        help="The key to authenticate with.",
        metavar="TOKEN",
        show_default=False,
    ),
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", help="Seconds to wait for an answer.", min=0.001, metavar="SECONDS")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON value a line, for machines.", show_default=False)
]


@dataclass(frozen=True, slots=True)
class Target:
    """Which server, as whom, and for how long."""

    url: str
    token: str
    timeout: float
    reconnect: bool = False


def talk(target: Target, work: Callable[[Dispatch], Awaitable[T]]) -> T:
    """Connects, does the work, closes.

    Raises:
        UsageError: the URL is none, or something else that never left this process is wrong.
        DispatchError: what the client raises.
    """
    try:
        client = Dispatch(
            url=target.url,
            token=target.token,
            timeout=target.timeout,
            connect_timeout=target.timeout,
            reconnect=target.reconnect,
        )
    except (InvalidRequest, TypeError) as error:
        raise UsageError(str(error)) from None

    async def conversation() -> T:
        async with client:
            return await work(client)

    return asyncio.run(conversation())


def parse_payload(text: str) -> Any:
    """The payload that the user typed; `-` reads it from standard input.

    Raises:
        UsageError: it is no JSON, and where it stops being so.

    Example:
        >>> parse_payload('{"to": "user@example.com"}')
        {'to': 'user@example.com'}
    """
    source = "PAYLOAD"
    if text == "-":
        text, source = sys.stdin.read(), "standard input"
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{source} is not JSON: {error.msg} at line {error.lineno}, column {error.colno};"
            ' expected something like {"to": "user@example.com"} (in single quotes for the shell)'
        ) from None


def register_commands(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.command("enqueue", epilog=_ENQUEUE_EXAMPLES)(enqueue)
    app.command("events", epilog=_EVENTS_EXAMPLES)(events)
    app.command("ping", epilog=_PING_EXAMPLES)(ping)


_ENQUEUE_EXAMPLES = """
Examples:

  dispatch enqueue send-email '{"to": "user@example.com"}'

  dispatch enqueue send-email '{"to": "user@example.com"}' --queue mail --priority 10 --delay 60

  dispatch enqueue resize '{"image": 7}' --wait   (exit code 1 when the job fails)

  generate-report | dispatch enqueue archive -    (the payload from standard input)
"""


def enqueue(
    name: Annotated[str, typer.Argument(help="The function that the job is a call of.", metavar="NAME")],
    payload: Annotated[
        str, typer.Argument(help="JSON; - reads it from standard input.", metavar="PAYLOAD")
    ] = "{}",
    queue: Annotated[
        str | None,
        typer.Option("--queue", "-q", help="The queue.", show_default="the function's, else default"),
    ] = None,
    priority: Annotated[
        int | None, typer.Option("--priority", "-p", help="Higher goes first.", show_default="0")
    ] = None,
    delay: Annotated[
        float | None, typer.Option("--delay", help="Seconds before it may start.", min=0, metavar="SECONDS")
    ] = None,
    max_retries: Annotated[
        int | None,
        typer.Option(
            "--max-retries", help="Retries before it fails.", min=0, show_default="the function's, else 3"
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option("--idempotency-key", help="The same key twice is one job.", metavar="KEY"),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the job has ended.", show_default=False)
    ] = False,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Ask for a job."""
    output = Output(machine=as_json)
    value = parse_payload(payload)
    options: dict[str, Any] = {
        "queue": queue,
        "priority": priority,
        "delay": delay,
        "max_retries": max_retries,
        "idempotency_key": idempotency_key,
    }
    given = {key: option for key, option in options.items() if option is not None}

    async def work(client: Dispatch) -> tuple[EnqueuedJob, Outcome | None]:
        job = await client.enqueue(name, value, **given)
        if not wait:
            return job, None
        output.note(f"{job.job_id} {state_text(job.state)}, waiting")
        return job, await client.wait(job.job_id)

    job, outcome = talk(Target(url, token, timeout, reconnect=wait), work)
    answer = job if outcome is None else outcome
    if output.machine:
        output.json(answer)
    elif outcome is None:
        again = " (there already)" if job.duplicate else ""
        output.line(f"{job.job_id} {state_text(job.state)} on queue {escape(job.queue)}{again}")
    else:
        output.job({"id": job.job_id, **outcome})
    if outcome is not None and outcome.state != "completed":
        raise typer.Exit(Exit.FAILED)


_EVENTS_EXAMPLES = """
Examples:

  dispatch events                       everything that happens, until Ctrl-C

  dispatch events queue:mail --json     one JSON value a line

  dispatch events jobs --since start    all that the server still remembers, then what happens
"""


def events(
    channel: Annotated[
        str,
        typer.Argument(
            help="jobs, workflows, firehose, job:<id>, workflow:<run id> or queue:<name>.",
            metavar="CHANNEL",
        ),
    ] = "firehose",
    since: Annotated[
        str | None,
        typer.Option("--since", help="From which event on: a seq, or start.", metavar="SEQ|start"),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-n", help="Stop after that many events.", min=1)
    ] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Watch what happens, live. Reconnects by itself; ends with Ctrl-C or after --count events."""
    output = Output(machine=as_json)
    start = _since(since)
    if not output.machine:
        # Somebody who watches wants to know why nothing happens: connection lost, next attempt, back again.
        logging.getLogger("dispatch.client").addHandler(NoteHandler(output))
        logging.getLogger("dispatch.client").setLevel(logging.INFO)

    async def work(client: Dispatch) -> None:
        subscription = await client.subscribe(channel, since=start)
        output.note(f"[dim]watching {escape(channel)}; Ctrl-C ends[/]")
        seen = 0
        async for event in subscription:
            if output.machine:
                output.json(event_record(event))
            else:
                output.line(event_line(event))
            seen += 1
            if seen == count:
                return

    talk(Target(url, token, timeout, reconnect=True), work)


def _since(text: str | None) -> int | Literal["start"] | None:
    if text is None:
        return None
    if text == "start":
        return "start"
    try:
        return int(text)
    except ValueError:
        raise UsageError(f'--since must be a seq (an integer) or start, got "{text}"') from None


_PING_EXAMPLES = """
Examples:

  dispatch ping

  dispatch ping --url wss://jobs.example.com/dwp && echo "it is there, and it knows the key"
"""


def ping(
    count: Annotated[int, typer.Option("--count", "-n", help="How many pings.", min=1)] = 1,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    timeout: TimeoutOption = 10.0,
    as_json: JsonOption = False,
) -> None:
    """See whether a server is there and accepts the key, and how long it takes to answer."""
    output = Output(machine=as_json)

    async def work(client: Dispatch) -> None:
        for _ in range(count):
            elapsed_ms = round(await client.ping() * 1000, 3)
            if output.machine:
                output.json({"url": url, "elapsed_ms": elapsed_ms})
            else:
                output.line(f"{escape(url)} answered in {elapsed_ms} ms")

    talk(Target(url, token, timeout), work)
