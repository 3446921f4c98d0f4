"""The commands about the file of a store: `dispatch db check|backup`. They need no server, and disturb none."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from dispatch.cli.ask import JsonOption
from dispatch.cli.exits import CommandFailed, UsageError
from dispatch.cli.output import Output, state_text
from dispatch.store import care

FileArgument = Annotated[Path, typer.Argument(help="The SQLite file of a server.", metavar="FILE")]


def register_database(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    db = typer.Typer(help="The file that a server keeps its jobs in.", no_args_is_help=True)
    db.command("check", epilog=_CHECK_EXAMPLES)(db_check)
    db.command("backup", epilog=_BACKUP_EXAMPLES)(db_backup)
    app.add_typer(db, name="db")


def _require(file: Path) -> None:
    if not file.is_file():
        raise UsageError(f"there is no file {file}; give the one that `dispatch serve --db` was given")


_CHECK_EXAMPLES = """
Examples:

  dispatch db check dispatch.db

  dispatch db check dispatch.db --json | jq .jobs
"""


def db_check(file: FileArgument, as_json: JsonOption = False) -> None:
    """Read the whole file and say what is in it and whether it is sound. Servers may go on meanwhile."""
    _require(file)
    output = Output(machine=as_json)
    report = care.check(str(file))
    if output.machine:
        output.json(
            {
                "file": str(file),
                "schema": report.version,
                "bytes": report.size,
                "jobs": report.jobs,
                "dead_letters": report.dead_letters,
                "events": report.events,
                "problems": report.problems,
            }
        )
    else:
        jobs = ", ".join(f"{count} {state_text(state)}" for state, count in report.jobs.items())
        output.pairs(
            [
                ("schema", str(report.version)),
                ("size", f"{report.size:,} bytes"),
                ("jobs", jobs or "none"),
                ("dead letters", str(report.dead_letters)),
                ("events", str(report.events)),
                ("state", "[red]damaged[/]" if report.problems else "[green]sound[/]"),
            ]
        )
    if report.problems:
        raise CommandFailed(
            f"{file} is damaged: {'; '.join(report.problems)}; restore it from a backup, or try `sqlite3 FILE .recover`"
        )


_BACKUP_EXAMPLES = """
Examples:

  dispatch db backup dispatch.db /backups/dispatch-$(date +%F).db

  dispatch db backup dispatch.db copy.db && dispatch db check copy.db
"""


def db_backup(
    file: FileArgument,
    target: Annotated[Path, typer.Argument(help="The copy; it must not be there yet.", metavar="TARGET")],
    as_json: JsonOption = False,
) -> None:
    """Copy the file as it is at this moment. Servers go on meanwhile, and need not be told."""
    _require(file)
    output = Output(machine=as_json)
    console = Console(stderr=True)
    bar = Progress(TextColumn("copying"), BarColumn(), TaskProgressColumn(), console=console, transient=True)
    shown = not output.machine and console.is_terminal
    with bar if shown else nullcontext():
        task = bar.add_task("copy", total=None)
        size = care.backup(
            str(file), str(target), lambda copied, total: bar.update(task, completed=copied, total=total)
        )
    if output.machine:
        output.json({"file": str(file), "target": str(target), "bytes": size})
    else:
        output.line(f"{escape(str(target))}: {size:,} bytes, complete and checked")
