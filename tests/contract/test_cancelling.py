"""Calls that are given up, at any moment: by cancelling them or because their time is up. The connection goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from dispatch.errors import DispatchError, TimeoutError
from tests.contract.bindings import Binding, Client, over_http_too, with_cancellation
from tests.contract.go_server import GoServer
from tests.contract.relay import Relay
from tests.contract.rough_peers import RoughPeer, Visit
from tests.contract.world import NO_JOB, World, confirmed, failure_of, gather, in_thread, until

pytestmark = pytest.mark.anyio

Calling = Callable[[], Awaitable[Any]]


def calls_of_every_kind(client: Client, job_id: str, **options: Any) -> list[Calling]:
    """Small and large ones, reads and writes, one that waits at the server, and one that another server refuses."""
    return [
        lambda: client.enqueue("noop", **options),
        lambda: client.enqueue("noop", "x" * 300_000, **options),
        lambda: client.get_job(job_id, **options),
        lambda: client.cancel_job(job_id, **options),
        lambda: client.wait(job_id, **options),
        lambda: client.list_jobs(**options),
        lambda: client.publish_event("nobody-waits-for-it", **options),
        lambda: client.call("stats", **options),
        lambda: client.stats(**options),
        lambda: client.ping(**options),
    ]


async def cancelled_at_every_await(call: Calling, healthy: Calling, *, most: int = 200) -> int:
    """Cancel the call after one turn of the loop, after two, ... until it is quicker; check in between."""
    for turns in range(most):
        finished = False

        async def calling() -> None:
            nonlocal finished
            try:
                await call()
            except DispatchError:  # one that this server does not know
                pass
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


@over_http_too
@with_cancellation
async def test_cancelling_any_call_at_any_await_leaves_the_connection_healthy(world: World[Any]) -> None:
    """Whether it has been written or its answer is on the way: the same connection serves the next call."""
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

        calls = [
            *calls_of_every_kind(client, job.job_id),
            lambda: confirmed(client.subscribe("firehose")),
            lambda: client.watch(job.job_id),
            subscribe_and_leave,
        ]
        for call in calls:
            await cancelled_at_every_await(call, healthy, most=12)


@over_http_too
@with_cancellation
async def test_cancelling_a_large_call_in_the_middle_of_its_write_leaves_the_connection_healthy(
    world: World[Any], relay: Relay
) -> None:
    """What has begun to go out goes out whole: half a message would be the end of the connection."""
    async with world.client() as client:
        session = client.session_id
        await in_thread(relay.stall)
        for _ in range(3):
            with anyio.move_on_after(0.02) as scope:
                await client.enqueue("noop", "x" * 4_000_000, queue="nobody")
            assert scope.cancelled_caught
        await in_thread(relay.flow)
        assert await client.ping() > 0
        assert client.session_id == session


@over_http_too
async def test_timing_out_any_call_leaves_the_connection_healthy(world: World[Any], relay: Relay) -> None:
    """Nothing comes back in time. Later the answers come, to calls that nobody waits for any more."""
    async with world.client() as client:
        session = client.session_id
        job = await client.enqueue("noop")
        await in_thread(relay.stall)
        calls = [
            lambda call=call: failure_of(call)
            for call in calls_of_every_kind(client, job.job_id, timeout=0.02)
        ]
        errors = await gather(*calls)
        assert {type(error) for error in errors} <= {TimeoutError} or world.server.base
        await in_thread(relay.flow)
        assert await client.ping() > 0
        assert (await client.get_job(job.job_id)).id == job.job_id
        assert client.session_id == session


@over_http_too
@with_cancellation
async def test_a_call_that_is_given_up_after_any_time_leaves_the_connection_healthy(
    world: World[Any],
) -> None:
    """Not by turns of the loop but by time: from none to some milliseconds."""
    async with world.client() as client:
        session = client.session_id
        for microseconds in (0, 1, 10, 100, 1000, 3000):
            with anyio.move_on_after(microseconds / 1e6):
                await client.enqueue("noop", "x" * 10_000)
            with anyio.move_on_after(microseconds / 1e6):
                await client.subscribe("jobs")
            assert await client.ping() > 0
        assert client.session_id == session


@with_cancellation
async def test_starting_a_run_elsewhere_can_be_cancelled_at_any_await(go: World[GoServer]) -> None:
    """It has a connection to itself; the client's own does not notice."""
    async with go.client() as client:

        async def healthy() -> None:
            assert await client.ping() > 0

        await cancelled_at_every_await(lambda: client.start_workflow("approval"), healthy, most=12)


@over_http_too
@with_cancellation
async def test_connecting_can_be_cancelled_at_any_await(world: World[Any]) -> None:
    """Nothing of it is left, here or at the server."""
    clients: list[Any] = []

    async def connect() -> None:
        clients.append(world.client())
        await clients[-1].connect()

    async def close() -> None:
        if clients:
            await clients[-1].close()
            assert clients[-1].state in ("closed", "idle")  # idle where it was cancelled before it began

    await cancelled_at_every_await(connect, close, most=40)
    await in_thread(until, lambda: world.server.connections() == 0)


@with_cancellation
async def test_calls_to_a_peer_that_stops_reading_can_be_cancelled(binding: Binding) -> None:
    """Cancelling waits for no write."""

    async def stops_reading(visit: Visit) -> None:
        await visit.let_in()
        await visit.forever()

    with RoughPeer(stops_reading) as peer:
        client = World(None, binding, "json", peer.url).client({"close_timeout": 0.05})
        await client.connect()
        with anyio.move_on_after(0.05) as stuck:
            await client.enqueue("noop", "x" * 7_000_000)
        with anyio.move_on_after(0.05) as behind_it:
            await client.get_job(NO_JOB)
        assert stuck.cancelled_caught
        assert behind_it.cancelled_caught
        await client.close()
        assert client.state == "closed"
