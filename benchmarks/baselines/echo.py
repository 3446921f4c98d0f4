"""Bare `websockets` on asyncio: an echo server, a client loop, `broadcast()`, idle connections.

The server knows two kinds of connections: messages to `/echo` come back; those on `/listen` only receive
what the command `publish` broadcasts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, broadcast, serve

from benchmarks.child import obey


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


async def open_client(url: str) -> ClientConnection:
    return await connect(url)


async def main() -> None:
    listeners: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        if connection.request.path == "/listen":
            listeners.add(connection)
            try:
                await connection.wait_closed()
            finally:
                listeners.discard(connection)
            return
        async for message in connection:
            await connection.send(message)

    async def publish(message: str, count: int, burst: int = 1) -> Mapping[str, Any]:
        cpu = time.process_time_ns()
        for _ in range(count // burst):
            for _ in range(burst):
                broadcast(listeners, message)
            await asyncio.sleep(0)
        return {"cpu": (time.process_time_ns() - cpu) / count / max(1, len(listeners))}

    async with serve(handle, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        await obey(
            {"url": f"ws://127.0.0.1:{port}"},
            {"publish": publish, "listeners": lambda: {"count": len(listeners)}},
        )


if __name__ == "__main__":
    asyncio.run(main())
