"""A client over a `MockTransport` lives by the clock of its loop: with trio's, an hour takes no time."""

from __future__ import annotations

import time

import pytest
import trio
import trio.testing

from dispatch.errors import TimeoutError
from dispatch.testing import MockTransport
from dispatch.trio import Dispatch
from dwp_core.server_events import ServerConfig

JOB = "job_01h455vb4pex5vsknk084sn02q"
HOUR = 3600.0


@pytest.fixture(params=["json", "msgpack"])
def codec(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_job_that_takes_an_hour_is_waited_for_in_no_time(codec: str) -> None:
    transport = MockTransport()
    transport.answer("job.enqueue", {"job_id": JOB})
    transport.answer("job.wait", {"output": "done"})
    transport.hold("job.wait")

    async def work() -> None:
        await transport.next_request("job.wait")
        await trio.sleep(HOUR)
        transport.publish("job.completed", job_id=JOB)
        transport.release()

    async def main() -> float:
        begun = trio.current_time()
        async with Dispatch(url="ws://test/dwp", transport=transport, format=codec) as client:
            events = await client.subscribe("jobs")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work)
                job = await client.enqueue("send-email")
                outcome = await client.wait(job.job_id)
            assert (outcome.state, outcome.output) == ("completed", "done")
            assert (await events.__anext__()).kind == "job.completed"
            # Both sides looked after the connection all the time: it is the first one still.
            assert client.session_id == "mock_1"
        return trio.current_time() - begun

    waited = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert HOUR <= waited < HOUR + 60
    assert len(transport.asked("job.wait")) == 1


def test_a_server_that_lets_a_call_wait_for_less_is_asked_again(codec: str) -> None:
    """As at our server, whose `job.wait` says after half a minute that the job has not ended."""
    transport = MockTransport(ServerConfig(wait=30.0))
    transport.answer("job.wait")
    transport.hold("job.wait")

    async def main() -> None:
        async with (
            Dispatch(url="ws://test/dwp", transport=transport, format=codec) as client,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(client.wait, JOB)
            await trio.sleep(HOUR - 15.0)
            assert len(transport.held) == 1
            transport.release()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert len(transport.asked("job.wait")) == HOUR / 30


def test_timeouts_pass_in_no_time_too(codec: str) -> None:
    transport = MockTransport()
    transport.hold()

    async def main() -> float:
        async with Dispatch(url="ws://test/dwp", transport=transport, format=codec) as client:
            begun = trio.current_time()
            with pytest.raises(TimeoutError, match=r"no answer .*in time|in time"):
                await client.get_job(JOB, timeout=HOUR)
            with pytest.raises(TimeoutError, match="no stats came within 60 s"):
                await transport.next_request("stats", timeout=60.0)
            return trio.current_time() - begun

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)) == pytest.approx(HOUR + 60)


def test_events_bear_the_time_of_the_clock_of_the_client(codec: str) -> None:
    """So what a program reckons with the times of two events is right under a clock that jumps."""
    transport = MockTransport()

    async def main() -> list[str]:
        async with Dispatch(url="ws://test/dwp", transport=transport, format=codec) as client:
            events = await client.subscribe("jobs")
            transport.publish("job.started", job_id=JOB)
            await trio.sleep(HOUR)
            transport.publish("job.completed", job_id=JOB)
            return [(await events.__anext__()).at for _ in range(2)]

    first, second = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    read = "%Y-%m-%dT%H:%M:%S"
    between = time.mktime(time.strptime(second[:19], read)) - time.mktime(time.strptime(first[:19], read))
    assert HOUR - 2 <= between <= HOUR + 2
