"""The commands and how they are run: parsing is typer's, what goes wrong ends here as one message and one exit code.

No user's mistake shows a traceback, Ctrl-C ends quietly with 130, and a reader that closes the pipe (`| head`) ends a
command quietly as well.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from dispatch import __version__
from dispatch.cli.ask import register_commands
from dispatch.cli.crons import register_cron
from dispatch.cli.database import register_database
from dispatch.cli.dead_letters import register_dead_letters
from dispatch.cli.demo import register_demo
from dispatch.cli.exits import CommandFailed, Exit, UsageError, exit_for, hint_for
from dispatch.cli.figures import register_figures
from dispatch.cli.jobs import register_jobs
from dispatch.cli.output import Output, ReaderGone
from dispatch.cli.serving import register_serve
from dispatch.cli.top import register_top
from dispatch.errors import DispatchError

_EPILOG = (
    "Exit codes: 0 done; 1 the server answered that it did not happen; 2 the command line is wrong; 3 no connection;"
    " 4 the key is wrong or lacks a scope; 5 no answer in time; 6 the connection was lost and the outcome is unknown;"
    " 130 interrupted."
)


def build() -> typer.Typer:
    """The command line as a typer application."""
    app = typer.Typer(
        name="dispatch",
        help="Background jobs over the Dispatch Wire Protocol: serve them, ask for them, watch them.",
        epilog=_EPILOG,
        no_args_is_help=True,
        # typer's own tracebacks show local variables, and a token may be among them.
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    register_serve(app)
    register_commands(app)
    register_cron(app)
    register_jobs(app)
    register_dead_letters(app)
    register_figures(app)
    register_top(app)
    register_database(app)
    register_demo(app)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dispatch {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and stop.",
            is_eager=True,
            callback=_version,
            show_default=False,
        ),
    ] = False,
) -> None:
    """Options before any command; each acts by itself."""


def run(argv: list[str]) -> int:
    """Runs one command line and gives its exit code."""
    output = Output(machine="--json" in argv)
    # Errors are printed below, once; without this the logging module would print some of them a second time.
    logging.getLogger("dispatch").addHandler(logging.NullHandler())
    try:
        build()(args=argv, prog_name="dispatch")
        sys.stdout.flush()
    except SystemExit as end:
        # typer's own end: help was asked for, the command line was wrong, a command gave its exit code.
        return end.code if isinstance(end.code, int) else Exit.OK
    except UsageError as error:
        output.problem(str(error))
        return Exit.USAGE
    except CommandFailed as error:
        output.problem(str(error))
        return Exit.FAILED
    except DispatchError as error:
        exit_code = exit_for(error)
        output.problem(str(error), code=error.code, hint=hint_for(error))
        return exit_code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except (ReaderGone, BrokenPipeError):
        _forget_stdout()
    return Exit.OK


def _forget_stdout() -> None:
    """The reader of our output is gone: give the interpreter something to flush into when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
