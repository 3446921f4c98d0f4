"""Waiting for something that another thread, or another task, makes happen: in asyncio, in trio, or without a loop."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from typing import TypeVar

T = TypeVar("T")


async def awaited(future: Future[T], timeout: float | None) -> T | None:
    """What it gives; None when it has given nothing in time. Other tasks of the loop go on meanwhile.

    Args:
        future: set from any thread.
        timeout: seconds, on the clock of the running loop; None waits as long as it takes.
    """
    try:
        await (_done_on_trio if _on_trio() else _done_on_asyncio)(future, timeout)
    except BaseException:
        future.cancel()
        raise
    return _taken(future)


def awaited_blocking(future: Future[T], timeout: float | None) -> T | None:
    """As `awaited`, in a thread that may block."""
    try:
        return future.result(timeout)
    except NotInTime:
        if future.done():
            raise  # it was not ours
    return _taken(future)


def _taken(future: Future[T]) -> T | None:
    """Its result, or nobody wants it any more."""
    return None if future.cancel() else future.result()


def _on_trio() -> bool:
    if "trio" not in sys.modules:
        return False
    import trio

    return trio.lowlevel.in_trio_task()


async def _done_on_trio(future: Future[T], timeout: float | None) -> None:
    import trio

    done, token = trio.Event(), trio.lowlevel.current_trio_token()

    def wake(_: Future[T]) -> None:
        try:
            token.run_sync_soon(done.set)
        except trio.RunFinishedError:
            pass  # nobody waits any more

    future.add_done_callback(wake)
    with trio.move_on_after(float("inf") if timeout is None else timeout):
        await done.wait()


async def _done_on_asyncio(future: Future[T], timeout: float | None) -> None:
    done, loop = asyncio.Event(), asyncio.get_running_loop()

    def wake(_: Future[T]) -> None:
        try:
            loop.call_soon_threadsafe(done.set)
        except RuntimeError:
            pass  # the loop is closed, and nobody waits any more

    future.add_done_callback(wake)
    try:
        async with asyncio.timeout(timeout):
            await done.wait()
    except TimeoutError:
        pass
