"""`dispatch serve`: reads the command line and hands it to `dispatch.server.serve`, which does everything else."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatch.cli import SERVER_MODULES, how_to_install, missing_of
from dispatch.cli.exits import UsageError


def register_serve(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command("serve", epilog=_EXAMPLES)(serve)


_EXAMPLES = """
Examples:

  dispatch serve app.py                          the functions of a file

  dispatch serve shop.jobs:functions             of a module; an attribute of it is loaded first

  dispatch serve app.py --queues mail,images     only jobs of these queues; others wait

  DISPATCH_TOKENS=dk_secret dispatch serve app.py --host 0.0.0.0

  dispatch serve                                 no functions: for clients of jobs that others run
"""


def serve(
    app: Annotated[
        str | None,
        typer.Argument(
            help="A file (app.py) or a module (package.module, package.module:attribute).", metavar="[APP]"
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", help="The port; 0 takes any that is free.", min=0, max=65535)
    ] = 8080,
    db: Annotated[
        str, typer.Option("--db", help="The SQLite file; :memory: keeps nothing.", envvar="DISPATCH_DB")
    ] = "dispatch.db",
    queues: Annotated[
        list[str] | None,
        typer.Option(
            "--queues", help="Run only jobs of these queues (commas, or several times).", show_default="all"
        ),
    ] = None,
    token: Annotated[
        list[str] | None,
        typer.Option(
            "--token",
            help="A key that is accepted, with its scopes: KEY or KEY:job:write,job:read. Repeatable; better in"
            " DISPATCH_TOKENS (spaces between keys), since anybody on the machine can read arguments.",
            metavar="KEY[:SCOPES]",
            show_default=False,
        ),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "-c", help="Jobs that run at once.", min=1)
    ] = None,
    drain: Annotated[
        float,
        typer.Option("--drain", help="Seconds that running jobs have to end when the server stops.", min=0),
    ] = 10.0,
) -> None:
    """Serve: listen, keep jobs in a file, run functions. Ctrl-C stops it gracefully; a second one at once."""
    missing = missing_of(SERVER_MODULES)
    if missing:
        raise UsageError(how_to_install("dispatch serve", missing, "server"))
