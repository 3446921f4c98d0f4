"""`dispatch demo`: the whole of it in a quarter of a minute.

Starts a real server in a process of its own on an SQLite file, asks it over the wire for real jobs, shows their events
as they happen, and ends by itself with a summary: some jobs succeed, one succeeds at its retry, one ends with the dead
letters. Three clients ask at once, one for asyncio, one for trio, one that blocks; the first of them also watches.
Nothing is left behind unless `--db` says where to keep the file.
"""

from __future__ import annotations

import asyncio
import builtins
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from dispatch import Dispatch
from dispatch.cli import SERVER_MODULES, how_to_install, missing_of
from dispatch.cli.ask import JsonOption
from dispatch.cli.exits import CommandFailed, Exit, UsageError
from dispatch.cli.output import Output, event_line, event_record, state_text
from dispatch.results import Event
from dispatch.sync import Dispatch as BlockingDispatch

APP = "dispatch.cli.demo_app"
USUAL_PORT = 8080
SHOW_SECONDS = 60.0
STOP_SECONDS = 10.0

Jobs = tuple[tuple[str, dict[str, Any], dict[str, Any]], ...]

JOBS: dict[str, Jobs] = {
    "asyncio": (
        ("send-email", {"to": "ada@example.com", "subject": "Welcome!"}, {"priority": 10}),
        ("resize-image", {"image": "cat.png", "width": 640}, {"queue": "images"}),
    ),
    "trio": (
        ("send-email", {"to": "grace@example.com", "subject": "Welcome!"}, {}),
        ("charge-card", {"order_id": "ORD-001", "amount": 4200}, {}),
    ),
    "sync": (
        ("resize-image", {"image": "dog.png", "width": 640}, {"queue": "images"}),
        ("import-feed", {"url": "https://feeds.example.com/prices"}, {}),
    ),
}
"""What each client asks for."""
COUNT = sum(len(jobs) for jobs in JOBS.values())


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
    missing = missing_of((*SERVER_MODULES, "trio"))
    if missing:
        raise UsageError(how_to_install("the demo", missing, "all"))
    output = Output(machine=as_json)
    # Told to end by anybody, it ends as by Ctrl-C: its server with it.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    with tempfile.TemporaryDirectory(prefix="dispatch-demo-") as folder:
        show = asyncio.run(_demo(db or Path(folder, "demo.db"), _port(port), output))
    _summary(show, output)
    if not show.as_expected:
        raise typer.Exit(Exit.FAILED)


@dataclass(slots=True)
class Show:
    """What was seen, for the summary."""

    started: float
    ended: float = 0.0
    names: dict[str, str] = field(default_factory=dict)
    askers: dict[str, str] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    dead_letters: list[Mapping[str, Any]] = field(default_factory=list)
    everything_asked: asyncio.Event = field(default_factory=asyncio.Event)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def asked(self, job_id: str, name: str, asker: str) -> None:
        """A client, in whatever thread, has asked for a job."""
        self.names[job_id], self.askers[job_id] = name, asker
        if len(self.names) == COUNT:
            self.loop.call_soon_threadsafe(self.everything_asked.set)

    def asked_by(self, asker: str) -> list[str]:
        """Its jobs."""
        return [job_id for job_id, who in self.askers.copy().items() if who == asker]

    @property
    def over(self) -> bool:
        """Every job has ended, and the failed one has reached the dead letters."""
        ended = sum(state in ("completed", "failed", "cancelled") for state in self.states.values())
        return ended == COUNT and self.kinds["job.dlq"] >= list(self.states.values()).count("failed")

    @property
    def as_expected(self) -> bool:
        """All but one succeeded, one of them after a retry; one lies with the dead letters."""
        counts = Counter(self.states.values())
        return (
            counts == {"completed": COUNT - 1, "failed": 1}
            and self.answers == self.states
            and self.kinds["job.retrying"] >= 2
            and len(self.dead_letters) >= 1
        )


async def _demo(db: Path, port: int, output: Output) -> Show:
    """The server, the jobs, and everything that happens to them."""
    # A key that only this demo has. It travels in the environment: arguments can be read by everybody on the machine.
    token = secrets.token_urlsafe(24)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dispatch", "serve", APP, "--json"),
        *("--db", str(db), "--port", str(port), "--lease", "5"),
        env={**os.environ, "DISPATCH_TOKENS": token},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # Ctrl-C is for the demo, which then stops its server.
        start_new_session=True,
    )
    log = asyncio.ensure_future(_log_of(process))
    try:
        async with asyncio.timeout(SHOW_SECONDS):
            url = await _ready(process, log)
            output.note(f"server: process {process.pid}, {url}, {db}")
            return await _show(url, token, output)
    except builtins.TimeoutError:
        raise CommandFailed(f"the demo did not end within {SHOW_SECONDS:g} seconds") from None
    finally:
        await _stop(process, log)


async def _ready(process: asyncio.subprocess.Process, log: asyncio.Future[str]) -> str:
    """Where the server listens, as soon as it does.

    Raises:
        CommandFailed: it ended instead, and why.
    """
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise CommandFailed(f"the demo's server did not start:\n{(await log).strip()}")
    url: str = json.loads(line)["ready"]["url"]
    return url


async def _log_of(process: asyncio.subprocess.Process) -> str:
    """All that the server logs; read while it runs, so that it never waits for its reader."""
    assert process.stderr is not None
    return (await process.stderr.read()).decode(errors="replace")


async def _stop(process: asyncio.subprocess.Process, log: asyncio.Future[str]) -> None:
    """Stop the server as an operator would; kill it only if that does not help."""
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except builtins.TimeoutError:
            process.kill()
            await process.wait()
    await log


async def _show(url: str, token: str, output: Output) -> Show:
    async with Dispatch(url=url, token=token) as client:
        show = Show(started=time.perf_counter())
        subscription = await client.subscribe("firehose")
        asking = asyncio.gather(
            _ask_with_asyncio(client, show),
            asyncio.to_thread(_ask_with_trio, url, token, show),
            asyncio.to_thread(_ask_blocking, url, token, show),
        )
        everything_asked = asyncio.ensure_future(show.everything_asked.wait())
        try:
            await asyncio.wait((asking, everything_asked), return_when=asyncio.FIRST_COMPLETED)
            if not everything_asked.done():
                await asking  # it has failed
            async for event in subscription:
                if event["data"].get("job_id") in show.names:  # a file that was given may hold older jobs
                    _note(event, show, output)
                if show.over:
                    break
            await asking
        finally:
            everything_asked.cancel()
            asking.cancel()  # the threads end when their server does
            await asyncio.gather(asking, return_exceptions=True)
        show.ended = time.perf_counter()
        letters = (await client.list_dead_letters()).entries
        show.dead_letters = [entry for entry in letters if entry.get("job_id") in show.names]
        return show


async def _ask_with_asyncio(client: Dispatch, show: Show) -> None:
    for name, payload, options in JOBS["asyncio"]:
        show.asked((await client.enqueue(name, payload, **options)).job_id, name, "asyncio")
    for job_id in show.asked_by("asyncio"):
        show.answers[job_id] = (await client.wait(job_id)).state


def _ask_with_trio(url: str, token: str, show: Show) -> None:
    import trio  # not everybody who has the command line has it

    from dispatch.trio import Dispatch as TrioDispatch

    async def ask() -> None:
        async with TrioDispatch(url=url, token=token, reconnect=False) as client:
            for name, payload, options in JOBS["trio"]:
                show.asked((await client.enqueue(name, payload, **options)).job_id, name, "trio")
            for job_id in show.asked_by("trio"):
                show.answers[job_id] = (await client.wait(job_id)).state

    trio.run(ask)


def _ask_blocking(url: str, token: str, show: Show) -> None:
    with BlockingDispatch(url=url, token=token, reconnect=False) as client:
        for name, payload, options in JOBS["sync"]:
            show.asked(client.enqueue(name, payload, **options).job_id, name, "sync")
        for job_id in show.asked_by("sync"):
            show.answers[job_id] = client.wait(job_id).state


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
                    "clients": dict(Counter(show.askers.values())),
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
        ("job", "function", "asked by", "state"),
        [
            (
                escape(job_id),
                escape(name),
                f"dispatch.{show.askers[job_id]}",
                state_text(show.states.get(job_id, "pending")),
            )
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


def _port(wanted: int | None) -> int:
    """The port that was asked for; else 8080 if it is free; else any, which the server chooses."""
    if wanted is not None:
        return wanted
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", USUAL_PORT))
        except OSError:
            return 0
    return USUAL_PORT
