"""D1 and D2 of the trio and the sync client: function calls and socket writes of a request, counted as in `counters`.

The calls of the sync client are those of all its threads. On trio, which shuffles its tasks, and where threads meet,
calls may differ by a few in a thousand from run to run; writes do not.
"""

from __future__ import annotations

import cProfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import trio

from benchmarks.counters import Counts, count
from benchmarks.harness import Effort, Figure, Figures
from benchmarks.peer import JOB_ID, PeerThread

REQUEST = {"job_id": JOB_ID}


def count_on_trio(width: int, *, windows: int = 20) -> Counts:
    """Calls and socket writes per request of the trio client with `width` requests in flight."""
    with PeerThread(together=width) as url:
        return trio.run(_count_on_trio, url, width, windows)


async def _count_on_trio(url: str, width: int, windows: int) -> Counts:
    from dispatch.trio import Dispatch

    async with Dispatch(url=url, token="dk_full") as client:

        async def caller(count: int) -> None:
            for _ in range(count):
                await client.call("job.get", REQUEST)

        async def window(count: int) -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(width):
                    nursery.start_soon(caller, count)

        await window(3)
        profile = cProfile.Profile()
        profile.enable()
        await window(windows)
        profile.disable()
    return count(profile, width * windows)


def count_without_a_loop(*, requests: int = 200) -> Counts:
    """Calls and socket writes per request of the sync client, one at a time, of the caller and of its own threads.

    Connecting and leaving are in the counts of the client's threads, so what a few requests take is taken off.
    """
    few, many = _count_without_a_loop(20), _count_without_a_loop(20 + requests)
    return Counts((many[0] - few[0]) / requests, (many[1] - few[1]) / requests)


def _count_without_a_loop(requests: int) -> tuple[float, float]:
    from dispatch.sync import Dispatch

    with PeerThread() as url, _profiled_threads() as counts:
        with Dispatch(url=url, token="dk_full") as client:
            profile = cProfile.Profile()
            profile.enable()
            for _ in range(requests):
                client.call("job.get", REQUEST)
            profile.disable()
        seen = [count(profile, 1), *(of_thread() for of_thread in counts)]
    return sum(each.calls for each in seen), sum(each.writes for each in seen)


@contextmanager
def _profiled_threads() -> Generator[list[Callable[[], Counts]]]:
    """Count what the threads do that start meanwhile, each to its end."""
    profiles: list[Callable[[], Counts]] = []
    original = threading.Thread.run

    def run(thread: threading.Thread) -> None:
        profile = cProfile.Profile()
        profiles.append(lambda: count(profile, 1))
        profile.enable()
        try:
            original(thread)
        finally:
            profile.disable()

    # A profile can only be enabled from its own thread.
    threading.Thread.run = run  # type: ignore[assignment, method-assign]  # put back below
    try:
        yield profiles
    finally:
        threading.Thread.run = original  # type: ignore[method-assign]  # as it was


def measure(effort: Effort) -> Figures:
    del effort  # a count takes as long as it takes
    pipelined, sequential, blocking = count_on_trio(64), count_on_trio(1, windows=200), count_without_a_loop()
    return {
        ("D1", "trio pipelined"): Figure.exact(pipelined.calls),
        ("D1", "trio sequential"): Figure.exact(sequential.calls),
        ("D1", "sync sequential"): Figure.exact(blocking.calls),
        ("D2", "trio pipelined"): Figure.exact(pipelined.writes),
        ("D2", "trio sequential"): Figure.exact(sequential.writes),
        ("D2", "sync sequential"): Figure.exact(blocking.writes),
    }
