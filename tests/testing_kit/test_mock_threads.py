"""`MockTransport` and threads: the blocking client, and tests that play the server in another thread."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import dispatch.asyncio
from dispatch.errors import OutcomeUnknown
from dispatch.sync import Dispatch
from dispatch.testing import MockTransport, new_id

JOB = "job_01h455vb4pex5vsknk084sn02q"
PATIENCE = 30.0


@pytest.fixture(params=["json", "msgpack"])
def codec(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_call_waits_while_the_test_looks_at_what_was_asked(codec: str) -> None:
    transport = MockTransport()
    transport.answer("job.get", {"state": "running"})
    transport.hold()
    with (
        Dispatch(url="ws://test/dwp", transport=transport, format=codec) as client,
        ThreadPoolExecutor() as threads,
    ):
        call = threads.submit(client.get_job, JOB)
        request = transport.next_request_blocking("job.get")
        assert request.data == {"job_id": JOB}
        assert not call.done()
        request.answer({"state": "completed"})
        assert call.result(PATIENCE).state == "completed"
        lost = threads.submit(client.cancel_job, JOB)
        transport.next_request_blocking("job.cancel")
        transport.drop()
        with pytest.raises(OutcomeUnknown):
            lost.result(PATIENCE)


def test_sixteen_threads_ask_at_once(codec: str) -> None:
    transport = MockTransport()
    transport.answer("job.get", lambda data: {"state": "running", "name": data["job_id"]})
    ids = [new_id("job") for _ in range(400)]
    with (
        Dispatch(url="ws://test/dwp", transport=transport, format=codec) as client,
        ThreadPoolExecutor(16) as threads,
    ):
        names = [job.name for job in threads.map(client.get_job, ids)]
    assert names == ids
    assert len(transport.requests) == len(ids)


def test_events_are_published_from_any_thread_to_a_loop_in_another(codec: str) -> None:
    """A test in one thread, the program under test on a loop in another."""
    transport = MockTransport()
    heard: list[int] = []
    ready = threading.Event()

    async def program() -> None:
        async with dispatch.asyncio.Dispatch(
            url="ws://test/dwp", transport=transport, format=codec
        ) as client:
            events = await client.subscribe("jobs")
            ready.set()
            async for event in events:
                heard.append(event.seq or 0)
                if event.kind == "job.completed":
                    break

    thread = threading.Thread(target=lambda: asyncio.run(program()))
    thread.start()
    assert ready.wait(PATIENCE)
    for _ in range(500):
        transport.publish("job.started", job_id=JOB)
    transport.publish("job.completed", job_id=JOB)
    thread.join(PATIENCE)
    assert heard == list(range(1, 502))


def test_a_transport_has_no_thread_of_its_own(codec: str) -> None:
    before = set(threading.enumerate())
    transport = MockTransport()
    with Dispatch(url="ws://test/dwp", transport=transport, format=codec) as client:
        client.subscribe("jobs")
        names = {thread.name for thread in set(threading.enumerate()) - before}
    assert names == {"dispatch-client"}
    assert transport.connections == 0


def test_a_loop_that_ends_without_closing_its_client_does_no_harm_to_the_transport() -> None:
    transport = MockTransport()
    loop = asyncio.new_event_loop()
    client: Any = dispatch.asyncio.Dispatch(url="ws://test/dwp", transport=transport)
    loop.run_until_complete(client.connect())
    loop.close()
    assert transport.publish("job.started", job_id=JOB) == 1
    transport.drop()
