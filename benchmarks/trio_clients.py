"""T5, and T1, T3 and T6 on trio: what the trio client costs, beside a naive one and bare `websockets.trio`.

Every client is a child process (`python -m benchmarks.trio_clients KIND URL`) and talks to the same peer
(`benchmarks.peer`), so that only the clients differ.
"""

from __future__ import annotations

import gc
import statistics
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import trio

from benchmarks.baselines import echo_trio
from benchmarks.baselines.naive_trio import naive_trio
from benchmarks.child import obey_on_trio, timed
from benchmarks.clients import BARE_MESSAGE, REQUEST, Call, measure_drain, one_by_one, start_children
from benchmarks.harness import Effort, Figures, interleave


async def in_flight(call: Call, count: int, width: int) -> int:
    """`count` calls by `width` callers, each of which waits for its answer before it asks again."""

    async def caller(share: int) -> None:
        for _ in range(share):
            await call()

    async with trio.open_nursery() as nursery:
        for number in range(width):
            nursery.start_soon(caller, count // width + (number < count % width))
    return count


async def child(kind: str, url: str) -> None:
    async with AsyncExitStack() as stack:
        events: AsyncIterator[Any] | None = None

        async def connected() -> Any:
            if kind == "bare":
                from websockets.trio.client import connect

                return await stack.enter_async_context(connect(url))
            if kind == "naive":
                return await stack.enter_async_context(naive_trio(url))
            from dispatch.trio import Dispatch

            return await stack.enter_async_context(Dispatch(url=url, token="dk_full"))

        client = await connected()
        request: Callable[..., Awaitable[Any]] | None = getattr(
            client, {"ours": "call", "naive": "request"}.get(kind, ""), None
        )

        async def pipelined(count: int, width: int) -> dict[str, float]:
            if request is None:
                return await timed(echo_trio.exchange(client, BARE_MESSAGE, count, width))
            return await timed(in_flight(lambda: request("job.get", REQUEST), count, width))

        async def sequential(count: int) -> dict[str, float]:
            times: list[int] = []

            async def work() -> int:
                if request is None:
                    times.extend(await echo_trio.round_trips(client, BARE_MESSAGE, count))
                else:
                    times.extend(await one_by_one(lambda: request("job.get", REQUEST), count))
                return count

            costs = await timed(work())
            return {**costs, "p50": statistics.median(times)}

        async def receive(count: int) -> dict[str, float]:
            nonlocal events
            assert request is not None
            if events is None:
                events = aiter(await client.subscribe("jobs"))
            stream = events

            async def work() -> int:
                await request("events", {"count": count})
                for _ in range(count):
                    event = await anext(stream)
                    data = event["data"]
                    assert data["job_id"] if "job_id" in data else data["data"]["job_id"]
                return count

            return await timed(work())

        async def grow(count: int) -> None:
            for _ in range(count):
                await connected()

        gc.collect()
        gc.freeze()
        await obey_on_trio(
            {}, {"pipelined": pipelined, "sequential": sequential, "receive": receive, "grow": grow}
        )


def measure_requests(effort: Effort) -> Figures:
    with ExitStack() as stack:
        children = start_children(stack, "benchmarks.trio_clients", "ours", "naive", "bare")
        figures: Figures = {}
        for width in (64, 256):
            rounds = interleave(
                {child.name: child.candidate("pipelined", width=width) for child in children},
                # Long rounds: starting a task takes trio as long as a request, and callers are started in each.
                effort.shared(3, round_ms=50),
                step=width * 4,
            )
            figures["T5", str(width)] = rounds.ratio("ours", "bare")
            figures["T1", f"trio {width}"] = rounds.ratio("ours", "naive")
        rounds = interleave(
            {child.name: child.candidate("sequential") for child in children},
            effort.shared(3, round_ms=12),
            step=20,
        )
        figures["T5", "sequential"] = rounds.ratio("ours", "bare")
        figures["T3", "trio p50"] = rounds.ratio("ours", "bare", "p50")
        figures["T3", "trio CPU"] = rounds.ratio("ours", "naive")
        return figures


def measure_events(effort: Effort) -> Figures:
    return measure_drain("benchmarks.trio_clients", "trio", effort)


if __name__ == "__main__":
    trio.run(child, sys.argv[1], sys.argv[2])
