"""What the tests of the trio client share: clients that hurry, runs in which every complaint is an error."""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio
import trio.testing

from dispatch.trio import Dispatch
from dwp_core.backoff import Backoff
from tests.bindings.sockets import sockets_to
from tests.contract.threads import PATIENCE

Program = Callable[[], Awaitable[None]]

ROOT = Path(__file__).parents[2]


def new_client(url: str, **options: Any) -> Dispatch:
    settings = {name: options.pop(name) for name in ("close_timeout", "heartbeat") if name in options}
    client = Dispatch(url, "dk_full", **{"max_retries": 0, **options})
    quick = Backoff(base=0.01, cap=0.05)
    client._driver.config = replace(client._driver.config, backoff=quick, **settings)
    return client


def run(program: Program, clock: trio.abc.Clock | None = None) -> None:
    """The program in a run of its own; under its own clock it is bounded all the same."""

    async def bounded() -> None:
        root = trio.lowlevel.current_root_task()
        assert root is not None
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:
            alarm = threading.Timer(PATIENCE, token.run_sync_soon, (scope.cancel,))
            alarm.start()
            try:
                await program()
            finally:
                alarm.cancel()
        assert not scope.cancelled_caught, "it took too long"
        gc.collect()

    trio.run(bounded, clock=clock, strict_exception_groups=True)
    gc.collect()


def our_tasks() -> list[str]:
    """The tasks of clients in this run, wherever they hang."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found, tasks = [], [root]
    while tasks:
        task = tasks.pop()
        for nursery in task.child_nurseries:
            tasks += nursery.child_tasks
        if task.name.startswith("dispatch"):
            found.append(task.name)
    return found


@asynccontextmanager
async def nothing_of_ours_afterwards(url: str) -> AsyncIterator[None]:
    """Neither a task of a client nor a socket to that address is there after the block."""
    yield
    assert our_tasks() == []
    assert sockets_to(url) == 0


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.lowlevel.checkpoint()


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    return await trio.to_thread.run_sync(function, *arguments)


def until_blocking(condition: Callable[[], bool]) -> None:
    patience = threading.Event()
    for _ in range(3000):
        if condition():
            return
        patience.wait(0.01)
    raise AssertionError("it did not happen")
