"""Tests of a program that uses Dispatch: pytest examples/test_with_dispatch.py

The first ones play the server themselves, the last one runs the functions on a real server. None needs a sleep, or a
server that is there before. docs/testing.md tells the rest.
"""

import asyncio
import sys

import pytest

import dispatch
from dispatch import Dispatch
from dispatch.errors import DispatchError
from dispatch.sync import Dispatch as BlockingDispatch
from dispatch.testing import MemoryServer, MockTransport

# The program.


@dispatch.function(name="send-welcome")
def send_welcome(to: str) -> str:
    """What a worker does."""
    return f"welcome sent to {to}"


async def sign_up(client: Dispatch, email: str) -> str:
    """Whoever signs up is welcomed, some time."""
    job = await client.enqueue("send-welcome", {"to": email}, unique_key=f"welcome-{email}")
    return job.job_id


async def welcomed(client: Dispatch, job_id: str) -> bool:
    """Whether that has happened, when it has come to an end."""
    async for event in await client.watch(job_id):
        if event.is_gap:
            continue
        return event.kind == "job.completed"
    return (await client.get_job(job_id)).state == "completed"


# Its tests.


def test_who_signs_up_is_welcomed(dispatch_transport: MockTransport) -> None:
    dispatch_transport.answer("job.enqueue")
    dispatch_transport.answer("job.get", {"state": "running"})

    async def main() -> bool:
        async with Dispatch(url="ws://test/dwp", transport=dispatch_transport) as client:
            job_id = await sign_up(client, "user@example.com")
            answer = asyncio.create_task(welcomed(client, job_id))
            await dispatch_transport.next_request("job.get")
            dispatch_transport.drop()  # the connection breaks, and nobody notices
            dispatch_transport.publish("job.completed", job_id=job_id, job_name="send-welcome")
            return await answer

    assert asyncio.run(main())
    assert dispatch_transport.asked("job.enqueue")[0]["payload"] == {"to": "user@example.com"}


def test_who_cannot_be_welcomed_is_told_so(dispatch_transport: MockTransport) -> None:
    dispatch_transport.answer("job.enqueue", DispatchError("too many jobs", code=429))

    async def main() -> None:
        async with Dispatch(url="ws://test/dwp", transport=dispatch_transport) as client:
            with pytest.raises(DispatchError, match="too many jobs"):
                await sign_up(client, "user@example.com")

    asyncio.run(main())


def test_the_function_does_its_work(dispatch_server: MemoryServer, dispatch_client: BlockingDispatch) -> None:
    dispatch_client.enqueue("send-welcome", {"to": "user@example.com"})
    dispatch_server.until_idle_blocking()
    assert [job.output for job in dispatch_server.jobs()] == ["welcome sent to user@example.com"]


if __name__ == "__main__":
    # -p: where Dispatch is not installed but on the path, pytest does not find the fixtures by itself
    # -W: this program has imported Dispatch before pytest could
    plugins = ["-p", "dispatch.testing.plugin", "-p", "no:cacheprovider"]
    sys.exit(pytest.main([__file__, "-q", *plugins, "-W", "ignore::pytest.PytestAssertRewriteWarning"]))
