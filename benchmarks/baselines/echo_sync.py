"""Bare `websockets.sync`: a client loop."""

from __future__ import annotations

import time

from websockets.sync.client import ClientConnection


def round_trips(connection: ClientConnection, message: str, count: int) -> list[int]:
    """Wall nanoseconds of each of `count` sequential exchanges."""
    times = []
    for _ in range(count):
        started = time.perf_counter_ns()
        connection.send(message)
        connection.recv()
        times.append(time.perf_counter_ns() - started)
    return times
