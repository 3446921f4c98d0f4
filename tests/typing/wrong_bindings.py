"""What a type checker must refuse of trio and sync; each such line says so. Never run."""

from __future__ import annotations

import dispatch.trio
from dispatch.sync import Dispatch


async def calls(blocking: Dispatch, awaited: dispatch.trio.Dispatch) -> None:
    await blocking.enqueue("send-email")  # wrong
    awaited.enqueue("send-email").job_id  # wrong
    blocking.enqueue("send-email", priority="high")  # wrong
    blocking.enqueue("send-email").jobid  # wrong
    async for event in blocking.subscribe("jobs"):  # wrong
        print(event)
    for event in awaited.subscribe("jobs"):  # wrong
        print(event)
    blocking.get_job()  # wrong
