"""T4, and T1, T3 and T6 with threads: what the sync client costs, beside a naive one and bare `websockets.sync`.

Every client is a child process (`python -m benchmarks.sync_clients KIND URL`) and talks to the same peer
(`benchmarks.peer`), so that only the clients differ. CPU is that of all threads of the child, so a client's own are
counted.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from benchmarks.baselines import echo_sync
from benchmarks.baselines.naive_sync import NaiveSyncClient
from benchmarks.child import obey_blocking, timed_call
from benchmarks.clients import BARE_MESSAGE, REQUEST, measure_drain, start_children
from benchmarks.harness import Effort, Figures, interleave

THREADS = 16
"""Callers at once, the number of threads that the contract suite promises the client to."""


def child(kind: str, url: str) -> None:
    with ExitStack() as stack:
        events: Iterator[Any] | None = None
        pool = stack.enter_context(ThreadPoolExecutor(THREADS))

        def connected() -> Any:
            if kind == "bare":
                from websockets.sync.client import connect

                return stack.enter_context(connect(url))
            if kind == "naive":
                return stack.enter_context(NaiveSyncClient(url))
            from dispatch.sync import Dispatch

            return stack.enter_context(Dispatch(url=url, token="dk_full"))

        client = connected()
        request: Callable[..., Any] | None = getattr(
            client, {"ours": "call", "naive": "request"}.get(kind, ""), None
        )

        def sequential(count: int) -> dict[str, float]:
            times: list[int] = []

            def work() -> int:
                if request is None:
                    times.extend(echo_sync.round_trips(client, BARE_MESSAGE, count))
                    return count
                for _ in range(count):
                    started = time.perf_counter_ns()
                    request("job.get", REQUEST)
                    times.append(time.perf_counter_ns() - started)
                return count

            costs = timed_call(work)
            return {**costs, "p50": statistics.median(times)}

        def pipelined(count: int, width: int) -> dict[str, float]:
            assert request is not None

            def caller(share: int) -> None:
                for _ in range(share):
                    request("job.get", REQUEST)

            def work() -> int:
                shares = [count // width + (number < count % width) for number in range(width)]
                for done in [pool.submit(caller, share) for share in shares]:
                    done.result()
                return count

            return timed_call(work)

        def receive(count: int) -> dict[str, float]:
            nonlocal events
            assert request is not None
            if events is None:
                events = iter(client.subscribe("jobs"))
            stream = events

            def work() -> int:
                request("events", {"count": count})
                for _ in range(count):
                    data = next(stream)["data"]
                    assert data["job_id"] if "job_id" in data else data["data"]["job_id"]
                return count

            return timed_call(work)

        def grow(count: int) -> None:
            for _ in range(count):
                connected()

        gc.collect()
        gc.freeze()
        obey_blocking(
            {}, {"pipelined": pipelined, "sequential": sequential, "receive": receive, "grow": grow}
        )


def measure_requests(effort: Effort) -> Figures:
    with ExitStack() as stack:
        ours, simple, bare = start_children(stack, "benchmarks.sync_clients", "ours", "naive", "bare")
        sequential = interleave(
            {child.name: child.candidate("sequential") for child in (ours, simple, bare)},
            effort.shared(2, round_ms=12),
            step=20,
        )
        together = interleave(
            {child.name: child.candidate("pipelined", width=THREADS) for child in (ours, simple)},
            effort.shared(2, round_ms=12),
            step=THREADS * 4,
        )
        return {
            ("T4", ""): sequential.ratio("ours", "bare"),
            ("T3", "sync p50"): sequential.ratio("ours", "bare", "p50"),
            ("T3", "sync CPU"): sequential.ratio("ours", "naive"),
            ("T1", f"sync {THREADS}"): together.ratio("ours", "naive"),
        }


def measure_events(effort: Effort) -> Figures:
    return measure_drain("benchmarks.sync_clients", "sync", effort)


if __name__ == "__main__":
    child(sys.argv[1], sys.argv[2])
