"""`dispatch serve`: reads the command line and hands it to `dispatch.server.serve`, which does everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dispatch.cli import SERVER_MODULES, how_to_install, missing_of
from dispatch.cli.exits import UsageError

_DAY = 86_400
"""Seconds: a longer time to wait is a mistake."""


def register_serve(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command("serve", epilog=_EXAMPLES)(serve)


_EXAMPLES = """
Examples:

  dispatch serve app.py                          the functions of a file

  dispatch serve shop.jobs:functions             of a module; an attribute of it is loaded first

  dispatch serve app.py --queues mail,images     only jobs of these queues; others wait

  DISPATCH_TOKENS=dk_secret dispatch serve app.py --host 0.0.0.0

  dispatch serve app.py --unix /run/user/1000/dispatch.sock     clients take url="unix:/run/user/1000/dispatch.sock"

  dispatch serve app.py --log-format json --log-level info     one line for each step of each job

  dispatch serve                                 app.py if there is one; else jobs wait for a server that runs them
"""


def serve(
    app: Annotated[
        str | None,
        typer.Argument(
            help="A file (app.py) or a module (package.module, package.module:attribute).", metavar="APP"
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            "--port", help="The port; 0 takes any that is free.", min=0, max=65535, show_default="8080"
        ),
    ] = None,
    unix: Annotated[
        Path | None,
        typer.Option(
            "--unix", help="Listen on this socket instead, for this user's programs only.", show_default=False
        ),
    ] = None,
    db: Annotated[
        str, typer.Option("--db", help="The SQLite file; :memory: keeps nothing.", envvar="DISPATCH_DB")
    ] = "dispatch.db",
    queues: Annotated[
        list[str] | None,
        typer.Option(
            "--queues",
            "-q",
            help="Run only jobs of these queues (commas between them, or repeat).",
            metavar="NAMES",
            show_default="all",
        ),
    ] = None,
    token: Annotated[
        list[str] | None,
        typer.Option(
            "--token",
            envvar="DISPATCH_TOKENS",
            help="A key that is accepted, and what it may do: KEY or KEY:job:write,job:read. Repeat for more. Better in"
            " the environment, with spaces between them: arguments can be read by everybody on the machine.",
            metavar="KEY[:SCOPES]",
            show_default=False,
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Listen on other addresses without keys, too.", show_default=False),
    ] = False,
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", "-c", help="Jobs that run at once.", min=1, show_default="64"),
    ] = None,
    drain: Annotated[
        float,
        typer.Option(
            "--drain",
            help="Seconds that running jobs have to end when it stops.",
            min=0,
            max=_DAY,
            metavar="SECONDS",
        ),
    ] = 10.0,
    lease: Annotated[
        float | None,
        typer.Option(
            "--lease",
            help="Seconds after which the jobs of a server that died are taken over.",
            min=0.1,
            max=_DAY,
            show_default="30",
            metavar="SECONDS",
        ),
    ] = None,
    keep_jobs: Annotated[
        str | None,
        typer.Option(
            "--keep-jobs",
            help="How long jobs are kept that have ended, as 90s, 30m, 12h or 7d. Dead letters stay.",
            metavar="TIME",
            show_default="7d",
        ),
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(
            "--log-format", help="text, or json: one object a line.", metavar="FORMAT", show_default="text"
        ),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(
            "--log-level",
            help="debug, info, warning or error; info tells of every step of each job.",
            metavar="LEVEL",
            show_default="what is unusual, and what functions log",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Say that it is ready in JSON.", show_default=False)
    ] = False,
) -> None:
    """Serve: listen, keep jobs in a file, run functions. Ctrl-C stops it gracefully, a second one at once."""
    missing = missing_of(SERVER_MODULES)
    if missing:
        raise UsageError(how_to_install("dispatch serve", missing, "server"))
    if unix is not None and port is not None:
        raise UsageError("--unix and --port exclude each other: it listens on a socket or on a port")
    from dispatch.server.logs import FORMATS, LEVELS
    from dispatch.server.serve import ServeOptions
    from dispatch.server.serve import serve as run_server

    _require_one_of("--log-format", log_format, FORMATS)
    _require_one_of("--log-level", log_level, LEVELS)
    options = ServeOptions(
        app=app,
        host=host,
        port=8080 if port is None else port,
        unix=unix,
        db=db,
        queues=_names(queues),
        concurrency=concurrency,
        tokens=tuple(token or ()),
        insecure=insecure,
        drain_seconds=drain,
        lease_seconds=lease,
        json=as_json,
        keep_jobs_seconds=None if keep_jobs is None else _seconds("--keep-jobs", keep_jobs),
        log_format=log_format,
        log_level=log_level,
    )
    raise typer.Exit(run_server(options))


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": _DAY}
_LONGEST = 36_500 * _DAY


def _seconds(option: str, text: str) -> float:
    """A time with its unit.

    Example:
        >>> _seconds("--keep-jobs", "12h")
        43200.0
    """
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS and number.isdecimal() and number.isascii():
        seconds = float(int(number) * _UNITS[unit]) if len(number) < 12 else _LONGEST + 1.0
        if seconds <= _LONGEST:
            return seconds
    raise UsageError(f'{option} must be a time such as 90s, 30m, 12h or 7d, up to 36500d, got "{text}"')


def _require_one_of(option: str, given: str | None, known: tuple[str, ...]) -> None:
    if given is not None and given not in known:
        raise UsageError(f'{option} must be one of {", ".join(known)}, got "{given}"')


def _names(texts: list[str] | None) -> tuple[str, ...] | None:
    """Names with commas between them, from one option or several.

    Example:
        >>> _names(["mail, images", "default"])
        ('mail', 'images', 'default')
    """
    if not texts:
        return None
    names = tuple(name.strip() for text in texts for name in text.split(",") if name.strip())
    if not names:
        raise UsageError("--queues names no queue; leave it away for all of them")
    return names
