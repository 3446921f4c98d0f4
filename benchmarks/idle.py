"""S3 for clients: memory of an idle client that is connected and logged in, beside a bare `websockets` connection."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.clients import start_children
from benchmarks.harness import Child, Effort, Figure, Figures

IDLE = 100
BINDINGS = {
    "asyncio": "benchmarks.clients",
    "trio": "benchmarks.trio_clients",
    "sync": "benchmarks.sync_clients",
}


def measure(effort: Effort) -> Figures:
    return {("S3", f"{name} client"): _measure(module, effort) for name, module in BINDINGS.items()}


def _measure(module: str, effort: Effort) -> Figure:
    """Private memory; clients come in portions, so that every portion gives a ratio."""
    portions = 6 if effort.full else 3
    with ExitStack() as stack:
        ours, bare = start_children(stack, module, "ours", "bare")
        # The first one also pays for what is loaded on first use.
        ratios = [_grow(ours) / _grow(bare) for _ in range(portions + 1)]
    return Figure.median(ratios[1:])


def _grow(child: Child) -> int:
    before = child.memory()
    child.ask("grow", count=IDLE)
    return child.memory() - before
