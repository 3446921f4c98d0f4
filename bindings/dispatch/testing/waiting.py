"""Waiting for something that another thread, or another task, makes happen: in asyncio, in trio, or without a loop."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from typing import TypeVar

T = TypeVar("T")


async def awaited(future: Future[T], timeout: float) -> T | None:
    """What it gives; None when it has given nothing in time. Other tasks of the loop go on meanwhile.

    Args:
        future: set from any thread.
        timeout: seconds, on the clock of the running loop.
    """
    try:
        if _on_trio():
            await _until_done_on_trio(future, timeout)
        else:
            await asyncio.wait([asyncio.wrap_future(future)], timeout=timeout)
    except BaseException:
        future.cancel()
        raise
    return _taken(future)


def awaited_blocking(future: Future[T], timeout: float) -> T | None:
    """As `awaited`, in a thread that may block."""
    try:
        return future.result(timeout)
    except NotInTime:
        return _taken(future)


def _taken(future: Future[T]) -> T | None:
    """Its result, or nobody wants it any more."""
    return None if future.cancel() or future.cancelled() else future.result()


def _on_trio() -> bool:
    if "trio" not in sys.modules:
        return False
    import trio

    return trio.lowlevel.in_trio_task()


async def _until_done_on_trio(future: Future[T], timeout: float) -> None:
    import trio

    done, token = trio.Event(), trio.lowlevel.current_trio_token()

    def wake(_: Future[T]) -> None:
        try:
            token.run_sync_soon(done.set)
        except trio.RunFinishedError:
            pass  # nobody waits any more

    future.add_done_callback(wake)
    with trio.move_on_after(timeout):
        await done.wait()
