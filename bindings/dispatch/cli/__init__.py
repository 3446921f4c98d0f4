"""The command line `dispatch`: this module is its entry point and all that a bare install has of it.

The commands need the extra `cli` (typer, rich), and `serve` and `demo` the extra `server` as well. Whoever lacks one is
told which, and how to get it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

CLI_MODULES = ("typer", "rich")
SERVER_MODULES = ("uvicorn", "starlette", "anyio", "cronsim")


def missing_of(modules: Sequence[str]) -> list[str]:
    """Those of the modules that are not installed."""
    return [name for name in modules if find_spec(name) is None]


def how_to_install(what: str, missing: Sequence[str], extra: str) -> str:
    """One sentence that says what is missing and the command that brings it.

    Example:
        >>> how_to_install("the command line", ["typer"], "cli")
        "the command line needs typer, which is not installed; install it with: pip install 'dispatch-sdk[cli]'"
    """
    names, verb, pronoun = " and ".join(missing), "is", "it"
    if len(missing) > 1:
        verb, pronoun = "are", "them"
    return (
        f"{what} needs {names}, which {verb} not installed;"
        f" install {pronoun} with: pip install 'dispatch-sdk[{extra}]'"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and gives the exit code (see `dispatch.cli.exits`).

    Args:
        argv: the arguments without the program's name; None takes those of this process.
    """
    missing = missing_of(CLI_MODULES)
    if missing:
        sys.stderr.write(f"error: {how_to_install('the command line', missing, 'cli')}\n")
        return 2
    from dispatch.cli.app import run

    return run(sys.argv[1:] if argv is None else list(argv))
