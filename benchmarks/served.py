"""Our own server as a child of the harness: `dispatch serve`'s own parts, on asyncio's own loop.

uvicorn listens as it does there; the loop is asyncio's because the servers that it is compared with run on that one.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from benchmarks.child import obey
from benchmarks.peer import JOB_ID
from dispatch.server.engine import EngineOptions
from dispatch.server.serve import _Http
from dispatch.server.server import DispatchServer, default_config
from dispatch.store.memory import MemoryStore
from dispatch.store.sqlite import SqliteStore
from dwp_core.events import LoggedEvent

NAME = "send-email"
EVENT_DATA = json.dumps(
    {
        "job_id": JOB_ID,
        "job_name": NAME,
        "queue": "default",
        "elapsed_ms": 12,
        "state": "completed",
    },
    separators=(",", ":"),
).encode()


async def main(database: str) -> None:
    store = MemoryStore() if database == ":memory:" else SqliteStore(database)
    with store.transaction():
        store.register_names([NAME])
    # Nobody runs what is enqueued: what a job costs beyond its enqueueing is another figure. Connections that only
    # listen for minutes are not asked whether they live.
    server = DispatchServer(
        store,
        config=replace(default_config(), heartbeat=3600.0),
        engine_options=EngineOptions(queues=("nobody's",)),
    )
    await server.start()
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    http = _Http(server)
    serving = asyncio.create_task(http.serve(sockets=[listener]))
    await http.ready.wait()
    seq = server.hub.head

    async def publish(count: int, burst: int = 1) -> Mapping[str, Any]:
        """So many events as if they had been committed, `burst` of them at a time, one burst in a turn of the loop."""
        nonlocal seq
        for _ in range(count // burst):
            events = []
            for _ in range(burst):
                seq += 1
                events.append(
                    LoggedEvent(
                        seq, "job.completed", time.time_ns(), f"job:{JOB_ID}", "default", "", "", EVENT_DATA
                    )
                )
            server._broker.publish(events)
            await asyncio.sleep(0)
        return {}

    await obey({"url": f"ws://127.0.0.1:{listener.getsockname()[1]}/dwp"}, {"publish": publish})
    http.should_exit = True
    await server.stop(0)
    await serving
    store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
