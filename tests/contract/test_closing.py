"""The end of a client, and of single calls: whatever is under way, it comes in bounded time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from dispatch.errors import ClosedError, ConnectionError, InvalidRequest
from tests.contract.bindings import Binding
from tests.contract.go_server import GoServer
from tests.contract.relay import Relay
from tests.contract.rough_peers import RoughPeer, Visit
from tests.contract.world import NO_JOB, World, failure_of, gather, in_thread, until

pytestmark = pytest.mark.anyio

Calling = Callable[[], Awaitable[Any]]


async def together(*calls: Calling) -> None:
    await gather(*calls)


async def errors_of(calls: list[Calling], meanwhile: Calling) -> list[Exception]:
    """What the calls raise when this happens while they wait."""
    errors: list[Exception] = []

    async def expect(call: Calling) -> None:
        errors.append(await failure_of(call))

    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(expect, call)
        await anyio.lowlevel.checkpoint()
        await meanwhile()
    return errors


# Before and after.


async def test_a_client_is_used_between_connect_and_close_only(world: World[Any]) -> None:
    client = world.client()
    assert (client.state, client.session_id) == ("idle", None)
    for moment in ("before", "after"):
        for call in (client.ping, client.stats, lambda: client.enqueue("noop"), lambda: client.watch(NO_JOB)):
            error = await failure_of(call)
            assert isinstance(error, ClosedError), moment
            assert error.code == 503
        with pytest.raises(ClosedError):
            client.subscribe("jobs")
        if moment == "before":
            assert (await client.connect()) == client.session_id
            assert client.state == "ready"
            await client.close()
    assert (client.state, client.session_id) == ("closed", None)
    for again in (client.connect, client.__aenter__):
        error = await failure_of(again)
        assert isinstance(error, ClosedError)
        assert "make a new one" in str(error)


async def test_closing_again_and_closing_what_was_never_connected_does_nothing(world: World[Any]) -> None:
    client = world.client()
    await client.close()
    async with client:
        await client.close()
        await client.close()
    await client.close()


async def test_any_number_of_tasks_close_at_once(world: World[Any]) -> None:
    client = world.client()
    await client.connect()
    await gather(*[client.close for _ in range(5)])
    assert client.state == "closed"


async def test_a_server_sees_an_orderly_end(world: World[Any]) -> None:
    async with world.client() as client:
        await client.ping()
        assert world.server.connections() == 1
    await in_thread(until, lambda: world.server.connections() == 0)


# With something under way.


async def test_calls_in_flight_end_when_the_client_is_closed(world: World[Any]) -> None:
    client = world.client()
    await client.connect()
    job = await client.enqueue("hold")
    calls: list[Calling] = [lambda: client.wait(job.job_id)] * 3
    errors = await errors_of(calls, client.close)
    assert [type(error) for error in errors] == [ClosedError] * 3
    assert client.state == "closed"


async def test_a_draining_close_waits_for_the_answers(world: World[Any]) -> None:
    client = world.client()
    await client.connect()
    jobs: list[Any] = []

    async def enqueue() -> None:
        jobs.append(await client.enqueue("noop"))

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(enqueue)
        await anyio.lowlevel.checkpoint()
        await client.close(drain=20)
    assert len(jobs) == 10
    assert client.state == "closed"


async def test_a_draining_close_does_not_wait_longer_than_told(world: World[Any]) -> None:
    client = world.client()
    await client.connect()
    job = await client.enqueue("hold")
    errors = await errors_of([lambda: client.wait(job.job_id)], lambda: client.close(drain=0.05))
    assert isinstance(errors[0], ClosedError)
    for drain in (-1, None, "soon", float("nan")):
        assert isinstance(await failure_of(lambda drain=drain: client.close(drain=drain)), InvalidRequest)  # type: ignore[misc]


async def test_closing_again_does_not_wait_for_answers_any_more(world: World[Any]) -> None:
    client = world.client()
    await client.connect()
    job = await client.enqueue("hold")

    async def close_twice() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: client.close(drain=25))
            await anyio.lowlevel.checkpoint()
            await client.close()

    errors = await errors_of([lambda: client.wait(job.job_id)], close_twice)
    assert isinstance(errors[0], ClosedError)


async def test_close_while_connecting(binding: Binding) -> None:
    async def silent(visit: Visit) -> None:
        await visit.until_gone()

    with RoughPeer(silent) as peer:
        client = World(None, binding, "json", peer.url).client()
        [error] = await errors_of([client.connect], client.close)
        assert isinstance(error, ClosedError)
        assert client.state == "closed"


async def test_close_while_the_login_is_under_way(binding: Binding) -> None:
    async def never_lets_in(visit: Visit) -> None:
        await visit.upgrade()
        await visit.hear()
        await visit.until_gone()

    with RoughPeer(never_lets_in) as peer:
        client = World(None, binding, "json", peer.url).client()

        async def close_then() -> None:
            while client.state != "authenticating":
                await anyio.lowlevel.checkpoint()
            await client.close()

        [error] = await errors_of([client.connect], close_then)
        assert isinstance(error, ClosedError)


async def test_close_while_there_is_no_connection(world: World[Any], relay: Relay) -> None:
    client = world.client(max_retries=0)
    await client.connect()
    subscription = await client.subscribe("jobs")
    await in_thread(relay.go_down)
    await in_thread(relay.wait_for_connection)
    await in_thread(relay.wait_for_connection)
    [error] = await errors_of([lambda: client.enqueue("noop")], client.close)
    assert isinstance(error, ClosedError)
    assert [event async for event in subscription] == []
    assert client.state == "closed"


async def test_close_at_a_peer_that_does_not_answer_it(world: World[Any], relay: Relay) -> None:
    client = world.client({"close_timeout": 0.05})
    await client.connect()
    await in_thread(relay.stall)
    [error] = await errors_of([lambda: client.enqueue("noop", "x" * 5_000_000)], client.close)
    assert isinstance(error, ClosedError)
    assert client.state == "closed"


async def test_a_close_that_is_cancelled_closes_all_the_same(world: World[Any], relay: Relay) -> None:
    client = world.client({"close_timeout": 0.05})
    await client.connect()
    await in_thread(relay.stall)
    with anyio.move_on_after(0) as scope:
        await client.close()
    assert scope.cancelled_caught
    assert isinstance(await failure_of(client.ping), ClosedError)
    await client.close()
    assert client.state == "closed"


async def test_a_run_over_a_connection_of_its_own_ends_with_its_client(go: World[GoServer]) -> None:
    client = go.client()
    await client.connect()
    events = await client.subscribe("workflows")

    async def close_when_it_runs() -> None:
        async for event in events:
            if event.kind == "workflow.step_completed":
                break
        await client.close()

    [error] = await errors_of([lambda: client.start_workflow("approval")], close_when_it_runs)
    assert isinstance(error, ConnectionError)
    assert client.state == "closed"


# Cancelled at any await.


async def cancelled_at_every_await(call: Calling, healthy: Calling, *, most: int = 200) -> int:
    """Cancel the call after one turn of the loop, after two, ... until it is quicker; check in between."""
    for turns in range(most):
        finished = False

        async def calling() -> None:
            nonlocal finished
            await call()
            finished = True

        async with anyio.create_task_group() as group:
            group.start_soon(calling)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        await healthy()
        if finished:
            return turns
    return most


async def test_cancelling_any_call_at_any_await_leaves_the_connection_healthy(world: World[Any]) -> None:
    async with world.client() as client:
        session = client.session_id
        job = await client.enqueue("noop")

        async def healthy() -> None:
            assert (await client.get_job(job.job_id)).id == job.job_id
            assert client.session_id == session

        async def subscribe_and_leave() -> None:
            async with client.subscribe("jobs") as subscription:
                await client.enqueue("noop")
                await subscription.__anext__()

        calls: list[Calling] = [
            lambda: client.enqueue("noop"),
            lambda: client.enqueue("noop", "x" * 300_000),
            lambda: client.get_job(job.job_id),
            lambda: client.wait(job.job_id),
            client.ping,
            client.stats,
            lambda: awaited(client.subscribe("firehose")),
            lambda: client.watch(job.job_id),
            subscribe_and_leave,
        ]
        for call in calls:
            await cancelled_at_every_await(call, healthy, most=12)


async def awaited(subscription: Any) -> None:
    await subscription


async def test_a_call_that_times_out_leaves_the_connection_healthy(world: World[Any]) -> None:
    async with world.client() as client:
        session = client.session_id
        for microseconds in (0, 1, 10, 100, 1000, 3000):
            with anyio.move_on_after(microseconds / 1e6):
                await client.enqueue("noop", "x" * 10_000)
            with anyio.move_on_after(microseconds / 1e6):
                await client.subscribe("jobs")
            assert await client.ping() > 0
        assert client.session_id == session


async def test_starting_a_run_elsewhere_can_be_cancelled_at_any_await(go: World[GoServer]) -> None:
    async with go.client() as client:

        async def healthy() -> None:
            assert await client.ping() > 0

        await cancelled_at_every_await(lambda: client.start_workflow("approval"), healthy, most=12)


async def test_connecting_can_be_cancelled_at_any_await(world: World[Any]) -> None:
    clients: list[Any] = []

    async def connect() -> None:
        clients.append(world.client())
        await clients[-1].connect()

    async def closed() -> None:
        await clients[-1].close()
        assert clients[-1].state == "closed"

    async with world.client() as other:
        clients.append(other)
        await anyio.lowlevel.checkpoint()
        clients.clear()
        await cancelled_at_every_await(connect, closed_if(clients, closed), most=40)
    await in_thread(until, lambda: world.server.connections() == 0)


def closed_if(clients: list[Any], close: Calling) -> Calling:
    async def closing() -> None:
        if clients:
            await close()

    return closing


# Large messages.


async def test_large_messages_go_in_both_directions_at_once(world: World[Any]) -> None:
    """Far more than the buffers between: neither side waits for the other to read first."""
    size = 6_500_000
    async with world.client() as client:
        ids = [(await client.enqueue("noop", f"{n}" * size, queue="nobody")).job_id for n in range(3)]
        calls: list[Calling] = [lambda id_=id_: client.get_job(id_) for id_ in ids]  # type: ignore[misc]
        calls += [lambda n=n: client.enqueue("noop", f"{n}" * size, queue="nobody") for n in range(3)]  # type: ignore[misc]
        results = await gather(*calls, client.ping)
        assert [job.payload[0] for job in results[:3]] == ["0", "1", "2"]
        assert [len(job.payload) for job in results[:3]] == [size] * 3
        assert len({job.job_id for job in results[3:6]}) == 3
