"""`dispatch serve` as a process of its own, for tests: real signals, a real file, a real port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from dispatch import Dispatch

T = TypeVar("T")

PATIENCE = 60.0

_PROGRAM = (
    "import json, sys\n"
    "from dispatch.server.serve import ServeOptions, serve\n"
    "options = json.loads(sys.argv[1])\n"
    "options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}\n"
    "sys.exit(serve(ServeOptions(**options)))\n"
)


class ServeProcess:
    """A server in `folder`; its functions are in `app.py` there.

    Example:
        with ServeProcess(folder) as server:
            server.ask(lambda client: client.enqueue("greet", {"to": "ada"}))
            assert server.terminate() == 0
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.options = {"port": 0, "json": True, **options}
        with (folder / "stderr.txt").open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps(self.options)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"},
            )
        self.ready: dict[str, Any] = {}

    def __enter__(self) -> ServeProcess:
        line = self.line()
        assert line, f"it ended with {self.process.wait(PATIENCE)}: {self.stderr}"
        self.ready = json.loads(line)["ready"]
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def line(self) -> str:
        """The next line of its standard output; "" at its end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr.txt").read_text()

    def ask(self, what: Callable[[Dispatch], Awaitable[T]], *, token: str = "") -> T:
        """Does that with a client of this server."""

        async def asking() -> T:
            async with asyncio.timeout(PATIENCE), Dispatch(url=self.ready["url"], token=token) as client:
                return await what(client)

        return asyncio.run(asking())

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def terminate(self) -> int:
        """As an operator stops it; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()


def refused(folder: Path, **options: Any) -> tuple[int, str]:
    """The exit code and standard error of a server that does not come up."""
    server = ServeProcess(folder, **options)
    with contextlib.closing(server):
        assert server.line() == ""
        code = server.wait()
    return code, server.stderr
