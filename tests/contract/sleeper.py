"""A client in a process of its own, to be stopped and woken up.

`python -m tests.contract.sleeper BINDING CODEC URL COUNT` subscribes to `jobs`, says so, waits for a line, asks the
server whether it is there, and tells which COUNT events it has seen.
"""

from __future__ import annotations

import json
import sys
from functools import partial

import anyio

from tests.contract.bindings import BINDINGS
from tests.contract.world import World, in_thread, take


async def main(name: str, codec: str, url: str, count: int) -> None:
    """Be a client, and be interrupted."""
    [binding] = [each for each in BINDINGS if each.name == name]
    world = World(None, binding, codec, url)
    async with world.client({"heartbeat": 0.5}) as client:
        subscription = await client.subscribe("jobs")
        sessions = [client.session_id]
        print("subscribed", flush=True)
        await in_thread(sys.stdin.readline)
        await client.ping()
        sessions.append(client.session_id)
        events = await take(subscription, count)
        kinds, seqs = [event.kind for event in events], [event.seq for event in events]
        print(json.dumps({"sessions": sessions, "kinds": kinds, "seqs": seqs}))


if __name__ == "__main__":
    [name, codec, url, count] = sys.argv[1:]
    [(backend, options)] = [each.backend for each in BINDINGS if each.name == name]
    anyio.run(partial(main, name, codec, url, int(count)), backend=backend, backend_options=options)
