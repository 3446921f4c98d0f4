"""T1, T2, T3 and T6: what the asyncio client costs, beside the naive client and bare `websockets` loops.

Every client is a child process (`python -m benchmarks.clients KIND URL`) and talks to the same peer
(`benchmarks.peer`), so that only the clients differ. What `benchmarks.trio_clients` and `benchmarks.sync_clients` do
alike is here.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from typing import Any

from benchmarks.baselines import echo, naive
from benchmarks.child import obey, timed
from benchmarks.harness import Child, Effort, Figures, interleave
from benchmarks.peer import JOB_ID, TS

REQUEST = {"job_id": JOB_ID}
BARE_DATA = f'"data":{{"job_id":"{JOB_ID}"}},"ts":"{TS}"'
BARE_MESSAGE = f'{{"id":"17953409543444-1","type":"request","method":"job.get",{BARE_DATA}}}'

Call = Callable[[], Awaitable[Any]]


async def in_flight(call: Call, count: int, width: int) -> int:
    """`count` calls by `width` callers, each of which waits for its answer before it asks again."""

    async def caller(share: int) -> None:
        for _ in range(share):
            await call()

    shares = [count // width + (number < count % width) for number in range(width)]
    await asyncio.gather(*[caller(share) for share in shares])
    return count


async def one_by_one(call: Call, count: int) -> list[int]:
    """Wall nanoseconds of each of `count` sequential calls."""
    times = []
    for _ in range(count):
        started = time.perf_counter_ns()
        await call()
        times.append(time.perf_counter_ns() - started)
    return times


async def child(kind: str, url: str) -> None:
    async with AsyncExitStack() as stack:
        events: AsyncIterator[Any] | None = None
        if kind == "bare":
            connection = await stack.enter_async_context(await _bare(url))
        elif kind == "naive":
            simple = await stack.enter_async_context(naive.NaiveClient(url))
            request: Callable[..., Awaitable[Any]] = simple.request
            listen: Callable[[str], Awaitable[AsyncIterator[Any]]] = simple.subscribe
        else:
            client = await stack.enter_async_context(_ours(url))
            request = client.call

            async def subscribe(channel: str) -> AsyncIterator[Any]:
                return aiter(await client.subscribe(channel))

            listen = subscribe

        async def pipelined(
            count: int, width: int, method: str = "job.get", data: Any = REQUEST
        ) -> dict[str, float]:
            if kind == "bare":
                return await timed(echo.exchange(connection, BARE_MESSAGE, count, width))
            return await timed(in_flight(lambda: request(method, data), count, width))

        async def sequential(count: int) -> dict[str, float]:
            times: list[int] = []

            async def work() -> int:
                if kind == "bare":
                    times.extend(await echo.round_trips(connection, BARE_MESSAGE, count))
                else:
                    times.extend(await one_by_one(lambda: request("job.get", REQUEST), count))
                return count

            costs = await timed(work())
            return {**costs, "p50": statistics.median(times)}

        async def receive(count: int) -> dict[str, float]:
            nonlocal events
            if events is None:
                events = await listen("jobs")
            stream = events

            async def work() -> int:
                # Asking for them is part of it: what has come with the answer was received before it is asked for.
                await request("events", {"count": count})
                for _ in range(count):
                    event = await anext(stream)
                    assert (
                        event["data"]["job_id"]
                        if "job_id" in event["data"]
                        else event["data"]["data"]["job_id"]
                    )
                return count

            return await timed(work())

        async def grow(count: int) -> None:
            for _ in range(count):
                await stack.enter_async_context(await _bare(url) if kind == "bare" else _ours(url))

        gc.collect()
        gc.freeze()
        await obey({}, {"pipelined": pipelined, "sequential": sequential, "receive": receive, "grow": grow})


async def _bare(url: str) -> Any:
    return await echo.open_client(url)


def _ours(url: str) -> Any:
    from dispatch import Dispatch

    return Dispatch(url=url, token="dk_full")


def measure_requests(effort: Effort) -> Figures:
    with ExitStack() as stack:
        ours, simple, bare = start_children(stack, "benchmarks.clients", "ours", "naive", "bare")
        figures: Figures = {}
        for width in (64, 256):
            rounds = interleave(
                {child.name: child.candidate("pipelined", width=width) for child in (ours, simple, bare)},
                effort.shared(3, round_ms=12),
                step=width * 4,
            )
            figures["T1", str(width)] = rounds.ratio("ours", "naive")
            figures["T2", str(width)] = rounds.ratio("ours", "bare")
        rounds = interleave(
            {child.name: child.candidate("sequential") for child in (ours, simple, bare)},
            effort.shared(3, round_ms=12),
            step=20,
        )
        figures["T3", "p50"] = rounds.ratio("ours", "bare", "p50")
        figures["T3", "CPU"] = rounds.ratio("ours", "naive")
        return figures


def measure_events(effort: Effort) -> Figures:
    return measure_drain("benchmarks.clients", "", effort)


def measure_drain(module: str, binding: str, effort: Effort) -> Figures:
    """T6 of the clients of that module; `binding` is named in the parts of the figures."""
    with ExitStack() as stack:
        ours, simple = start_children(stack, module, "ours", "naive")
        rounds = interleave(
            {child.name: child.candidate("receive") for child in (ours, simple)},
            effort.shared(2, round_ms=15),
            step=500,
        )
        few, many = ours.candidate("receive"), ours.candidate("receive")
        backlog = interleave(
            {"2,000": few, "200,000": many},
            effort.shared(2),
            counts={"2,000": 2_000, "200,000": 200_000 if effort.full else 50_000},
            at_least_rounds=3 if effort.full else 1,
        )
        return {
            ("T6", f"{binding} CPU".strip()): rounds.ratio("ours", "naive"),
            ("T6", f"{binding} backlog".strip()): backlog.ratio("2,000", "200,000"),
        }


def start_children(stack: ExitStack, module: str, *kinds: str) -> list[Child]:
    """The peer, and clients of these kinds that are connected to it."""
    url = stack.enter_context(Child("benchmarks.peer", name="peer")).ready["url"]
    return [stack.enter_context(Child(module, kind, url, name=kind)) for kind in kinds]


if __name__ == "__main__":
    asyncio.run(child(sys.argv[1], sys.argv[2]))
