"""The inside of a child process of the harness: obeys commands from its standard input, on asyncio, trio or neither.

A command is one JSON line `{"do": name, …}`, the answer one JSON line; the end of the input ends the process.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

Handler = Callable[..., Any]


def say(**answer: Any) -> None:
    os.write(sys.stdout.fileno(), json.dumps(answer).encode() + b"\n")


async def obey(ready: dict[str, Any], handlers: dict[str, Handler]) -> None:
    """Report `ready` and carry out commands until the parent closes the pipe."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()
    rest = b""

    def readable() -> None:
        nonlocal rest
        chunk = os.read(sys.stdin.fileno(), 65536)
        if not chunk:
            loop.remove_reader(sys.stdin.fileno())
            lines.put_nowait(None)
            return
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            lines.put_nowait(line)

    loop.add_reader(sys.stdin.fileno(), readable)
    say(**ready)
    while (line := await lines.get()) is not None:
        await _carry_out(line, handlers)


async def obey_on_trio(ready: dict[str, Any], handlers: dict[str, Handler]) -> None:
    """`obey`, on trio."""
    import trio

    say(**ready)
    rest = b""
    while True:
        await trio.lowlevel.wait_readable(sys.stdin.fileno())
        chunk = os.read(sys.stdin.fileno(), 65536)
        if not chunk:
            return
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            await _carry_out(line, handlers)


def obey_blocking(ready: dict[str, Any], handlers: dict[str, Handler]) -> None:
    """`obey`, without a loop: the commands are carried out in this thread."""
    say(**ready)
    for line in sys.stdin.buffer:
        try:
            # Nothing in it waits for a loop, so it ends at the first step.
            _carry_out(line, handlers).send(None)
        except StopIteration:
            pass


async def _carry_out(line: bytes, handlers: dict[str, Handler]) -> None:
    command = json.loads(line)
    try:
        answer = handlers[command.pop("do")](**command)
        if inspect.isawaitable(answer):
            answer = await answer
        say(**(answer or {}))
    except Exception as error:
        traceback.print_exc()
        say(failed=f"failed: {error!r}")


def timed_call(work: Callable[[], int]) -> dict[str, float]:
    """`timed`, for what does not wait on a loop. CPU is that of all threads."""
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    count = work()
    return {
        "cpu": (time.process_time_ns() - cpu) / count,
        "wall": (time.perf_counter_ns() - wall) / count,
    }


async def timed(work: Awaitable[int]) -> dict[str, float]:
    """Costs of one operation of `work`, which returns how many it did. CPU is that of the whole process."""
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    count = await work
    return {
        "cpu": (time.process_time_ns() - cpu) / count,
        "wall": (time.perf_counter_ns() - wall) / count,
    }
