"""D1, D2 and D3: exact counters, the same in every run. `tests/bindings/test_counters.py` holds them to their bars.

The profiler sees every function call of its thread, Python's and C's, in all libraries. The other end of the
conversation runs in another thread and answers whole windows at a time, so that the conversation does not depend on
who is faster.
"""

from __future__ import annotations

import asyncio
import cProfile
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import Effort, Figure, Figures
from benchmarks.peer import JOB_ID, PeerThread

PYTHON = (3, 11)
"""The Python that the counts of D1 belong to: another one calls other things inside asyncio."""

_WRITES = ("'send' of '_socket.socket'", "'sendmsg' of '_socket.socket'", "'sendall' of '_socket.socket'")


@dataclass(frozen=True, slots=True)
class Counts:
    """What one request took."""

    calls: float
    writes: float


def count_requests(width: int, *, windows: int = 20) -> Counts:
    """Calls and socket writes per request of the asyncio client with `width` requests in flight."""
    with PeerThread(together=width) as url:
        return asyncio.run(_count_requests(url, width, windows))


async def _count_requests(url: str, width: int, windows: int) -> Counts:
    from dispatch import Dispatch

    data = {"job_id": JOB_ID}
    async with Dispatch(url=url, token="dk_full") as client:

        async def caller(count: int) -> None:
            for _ in range(count):
                await client.call("job.get", data)

        async def window(count: int) -> None:
            await asyncio.gather(*[caller(count) for _ in range(width)])

        await window(3)
        profile = cProfile.Profile()
        profile.enable()
        await window(windows)
        profile.disable()
    return count(profile, width * windows)


def count(profile: cProfile.Profile, operations: int) -> Counts:
    """What the profile has seen, per operation."""
    stats: list[Any] = profile.getstats()
    calls = sum(entry.callcount for entry in stats)
    writes = sum(
        entry.callcount
        for entry in stats
        if isinstance(entry.code, str) and any(name in entry.code for name in _WRITES)
    )
    return Counts(calls / operations, writes / operations)


def measure_client(effort: Effort) -> Figures:
    del effort  # a count takes as long as it takes
    pipelined, sequential = count_requests(64), count_requests(1, windows=200)
    return {
        ("D1", "pipelined"): Figure.exact(pipelined.calls),
        ("D1", "sequential"): Figure.exact(sequential.calls),
        ("D2", "pipelined"): Figure.exact(pipelined.writes),
        ("D2", "sequential"): Figure.exact(sequential.writes),
    }
