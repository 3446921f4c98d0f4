"""Bare `websockets` on trio: a client loop. The same as `echo` does on asyncio."""

from __future__ import annotations

import time

from websockets.trio.client import ClientConnection


async def exchange(connection: ClientConnection, message: str, count: int, in_flight: int) -> int:
    """`count` messages to an echoing peer and back, never more than `in_flight` of them under way."""
    sent = min(in_flight, count)
    for _ in range(sent):
        await connection.send(message)
    for _ in range(count):
        await connection.recv()
        if sent < count:
            sent += 1
            await connection.send(message)
    return count


async def round_trips(connection: ClientConnection, message: str, count: int) -> list[int]:
    """Wall nanoseconds of each of `count` sequential exchanges."""
    times = []
    for _ in range(count):
        started = time.perf_counter_ns()
        await connection.send(message)
        await connection.recv()
        times.append(time.perf_counter_ns() - started)
    return times
