"""A real server in a process of its own, for tests of what users see: the command line, the documents, the examples."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Live:
    """A server that listens.

    Attributes:
        url: where.
        process: its process.
    """

    url: str
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.url.rpartition(":")[2].partition("/")[0])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it with that signal and give its exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


@contextmanager
def serving(
    *arguments: str,
    db: Path | str,
    port: int = 0,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Generator[Live]:
    """`dispatch serve ARGUMENTS` on that port or a free one, from here to the end of the block."""
    where = ("--db", str(db)) if "--unix" in arguments else ("--port", str(port), "--db", str(db))
    process = subprocess.Popen(
        [sys.executable, "-m", "dispatch", "serve", *arguments, *where, "--json"],
        cwd=cwd,
        env=clean_environment(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=sys.stderr,
        text=True,
    )
    assert process.stdout is not None
    # One that never gets ready is killed; then its output ends, and so does the wait for it.
    deadline = threading.Timer(START_SECONDS, process.kill)
    deadline.start()
    try:
        line = process.stdout.readline()
        deadline.cancel()
        assert line, f"the server ended with exit code {process.wait()} before it was ready"
        yield Live(json.loads(line)["ready"]["url"], process)
    finally:
        deadline.cancel()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            finally:
                process.kill()
        process.stdout.close()


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without what a developer has set for the command line."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCH_")}
    return {**inherited, "COLUMNS": "200", **(more or {})}
