"""What a type checker must refuse; each such line says so. Never run: `test_typing.py` has it checked."""

from __future__ import annotations

from dispatch import Dispatch

Dispatch()  # wrong
Dispatch(url=8080)  # wrong
Dispatch("ws://127.0.0.1:8080/dwp", token=1)  # wrong
Dispatch("ws://127.0.0.1:8080/dwp", reconnects=True)  # wrong


async def calls(client: Dispatch) -> None:
    await client.enqueue("send-email", priority="high")  # wrong
    await client.enqueue()  # wrong
    await client.enqueue("send-email", {}, "mail")  # wrong
    await client.get_job(1)  # wrong
    await client.subscribe("jobs", since="beginning")  # wrong
    job = await client.enqueue("send-email")
    job.jobid  # wrong
    job.job_id + 1  # wrong
    client.unknown  # wrong
