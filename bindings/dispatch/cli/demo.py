"""`dispatch demo`: the whole of it in a quarter of a minute.

Starts a real server in a process of its own on an SQLite file, asks it over the wire for real jobs, shows their events
as they happen, and ends by itself with a summary: some jobs succeed, one succeeds at its retry, one ends with the dead
letters. Nothing is left behind unless `--db` says where to keep the file.
"""

from __future__ import annotations

import asyncio
import builtins
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from dispatch import Dispatch
from dispatch.cli import SERVER_MODULES, how_to_install, missing_of
from dispatch.cli.ask import JsonOption
from dispatch.cli.exits import Exit, UsageError
from dispatch.cli.output import Output, event_line, event_record, state_text
from dispatch.errors import ConnectionError, TimeoutError
from dispatch.results import Event

APP = "dispatch.cli.demo_app"
USUAL_PORT = 8080
START_SECONDS = 30.0
SHOW_SECONDS = 60.0
STOP_SECONDS = 10.0

JOBS: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("send-email", {"to": "ada@example.com", "subject": "Welcome!"}, {"priority": 10}),
    ("send-email", {"to": "grace@example.com", "subject": "Welcome!"}, {}),
    ("resize-image", {"image": "cat.png", "width": 640}, {"queue": "images"}),
    ("resize-image", {"image": "dog.png", "width": 640}, {"queue": "images"}),
    ("charge-card", {"order_id": "ORD-001", "amount": 4200}, {}),
    ("import-feed", {"url": "https://feeds.example.com/prices"}, {}),
)


def register_demo(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command("demo", epilog=_EXAMPLES)(demo)


_EXAMPLES = """
Examples:

  dispatch demo

  dispatch demo --db demo.db && dispatch serve dispatch.cli.demo_app --db demo.db    (look at it afterwards)
"""


def demo(
    db: Annotated[
        Path | None, typer.Option("--db", help="The SQLite file; kept. Default: a temporary one.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", help="Default: 8080 if it is free, else any.", min=0, max=65535),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """See it work: a server, jobs over the wire, their events live, a summary. Ends by itself."""
    missing = missing_of(SERVER_MODULES)
    if missing:
        raise UsageError(how_to_install("the demo's server", missing, "server"))
    output = Output(machine=as_json)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dispatch-demo-")))
        where = Where(db or folder / "demo.db", _free_port(port), secrets.token_urlsafe(24))
        server = stack.enter_context(_server(where, folder / "server.log"))
        output.note(f"server: process {server.process.pid}, {where.url}, {where.db}")
        show = asyncio.run(_show(where, server, output))
    _summary(show, output)
    if not show.as_expected:
        raise typer.Exit(Exit.FAILED)


@dataclass(frozen=True, slots=True)
class Where:
    """The demo's server: its file, its port and the key that only this demo has."""

    db: Path
    port: int
    token: str = field(repr=False)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/dwp"


@dataclass(slots=True)
class Show:
    """What was seen, for the summary."""

    started: float
    ended: float = 0.0
    names: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    dead_letters: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Every job has ended, and the failed one has reached the dead letters."""
        ended = sum(state in ("completed", "failed", "cancelled") for state in self.states.values())
        return ended == len(JOBS) and self.kinds["job.dlq"] >= list(self.states.values()).count("failed")

    @property
    def as_expected(self) -> bool:
        """All but one succeeded, one of them after a retry; one lies with the dead letters."""
        counts = Counter(self.states.values())
        return (
            counts == {"completed": len(JOBS) - 1, "failed": 1}
            and self.kinds["job.retrying"] >= 2
            and len(self.dead_letters) >= 1
        )


async def _show(where: Where, server: Server, output: Output) -> Show:
    client = Dispatch(url=where.url, token=where.token, wait_for_server=START_SECONDS)
    try:
        async with asyncio.timeout(SHOW_SECONDS):
            await _connect(client, server)
            show = Show(started=time.perf_counter())
            subscription = await client.subscribe("firehose")
            for name, payload, options in JOBS:
                job = await client.enqueue(name, payload, **options)
                show.names[job["job_id"]] = name
            async for event in subscription:
                if event["data"].get("job_id") not in show.names:
                    continue  # a file that was given may hold older jobs
                _note(event, show, output)
                if show.over:
                    break
            show.ended = time.perf_counter()
            show.dead_letters = [
                entry
                for entry in (await client.list_dead_letters())["entries"]
                if entry.get("job_id") in show.names
            ]
            return show
    except builtins.TimeoutError:
        raise TimeoutError(
            f"the demo did not end within {SHOW_SECONDS:g} seconds; the server's log ends with:\n{server.tail()}"
        ) from None
    finally:
        await client.close()


async def _connect(client: Dispatch, server: Server) -> None:
    """Connects as soon as the server listens; says why when it has ended instead."""
    connecting = asyncio.ensure_future(client.connect())
    ended = asyncio.ensure_future(asyncio.to_thread(server.process.wait))
    done, _ = await asyncio.wait((connecting, ended), return_when=asyncio.FIRST_COMPLETED)
    if connecting in done:
        await connecting
        return
    connecting.cancel()
    raise ConnectionError(
        f"the demo's server ended with exit code {server.process.returncode}:\n{server.tail()}"
    )


def _note(event: Event, show: Show, output: Output) -> None:
    data = event["data"]
    show.kinds[event.kind] += 1
    if data.get("state"):
        show.states[data["job_id"]] = data["state"]
    if output.machine:
        output.json(event_record(event))
    else:
        output.line(event_line(event))


def _summary(show: Show, output: Output) -> None:
    counts = Counter(show.states.values())
    seconds = round(show.ended - show.started, 2)
    if output.machine:
        output.json(
            {
                "summary": {
                    "jobs": len(show.names),
                    "states": dict(counts),
                    "retries": show.kinds["job.retrying"],
                    "dead_letters": len(show.dead_letters),
                    "events": sum(show.kinds.values()),
                    "seconds": seconds,
                    "as_expected": show.as_expected,
                }
            }
        )
        return
    output.line("")
    output.table(
        ("job", "function", "state"),
        [
            (escape(job_id), escape(name), state_text(show.states.get(job_id, "pending")))
            for job_id, name in show.names.items()
        ],
    )
    output.line("")
    for entry in show.dead_letters:
        output.line(
            f"dead letter: {escape(str(entry.get('job_name') or entry.get('name')))}: "
            f"{escape(str(entry.get('error') or entry.get('reason')))}"
        )
    output.line(
        f"[bold]{counts['completed']} completed, {counts['failed']} failed[/] to the dead letters,"
        f" {show.kinds['job.retrying']} retries, {sum(show.kinds.values())} events in {seconds} s"
    )


@dataclass(frozen=True, slots=True)
class Server:
    """The server process, and where it logs to."""

    process: subprocess.Popen[bytes]
    log: Path

    def tail(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


@contextmanager
def _server(where: Where, log: Path) -> Generator[Server]:
    """The server, from here to the end of the block; stopped as an operator would, killed if that does not help."""
    command = [sys.executable, "-m", "dispatch", "serve", APP]
    command += ["--db", str(where.db), "--port", str(where.port)]
    # The key travels in the environment: arguments can be read by everybody on the machine.
    environment = {**os.environ, "DISPATCH_TOKENS": where.token, "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    try:
        yield Server(process, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port(wanted: int | None) -> int:
    """The port that was asked for; else 8080 if it is free; else any that is."""
    if wanted:
        return wanted
    for candidate in (0,) if wanted == 0 else (USUAL_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise UsageError("no port is free on 127.0.0.1; say which to take with --port")
