"""The end of a client: whatever is under way, it comes in bounded time, and everybody who waits hears of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from dispatch.errors import ClosedError, ConnectionError, InvalidRequest
from tests.contract.bindings import Binding, Client, over_http_too, with_cancellation
from tests.contract.go_server import GoServer
from tests.contract.relay import Relay
from tests.contract.rough_peers import RoughPeer, Visit
from tests.contract.world import (
    NO_JOB,
    World,
    confirmed,
    failure_of,
    gather,
    in_thread,
    take_until,
    under_way,
    until,
)

pytestmark = pytest.mark.anyio

Calling = Callable[[], Awaitable[Any]]


async def errors_of(client: Client, calls: list[Calling], meanwhile: Calling) -> list[Exception]:
    """What these calls of the client raise when this happens while they wait."""
    errors: list[Exception] = []

    async def expect(call: Calling) -> None:
        errors.append(await failure_of(call))

    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(expect, call)
        await under_way(client, len(calls))
        await meanwhile()
    return errors


async def error_of_connecting(client: Client, state: str, meanwhile: Calling) -> Exception:
    """What `connect` raises when this happens in that state of it."""
    errors: list[Exception] = []

    async def connect() -> None:
        errors.append(await failure_of(client.connect))

    async with anyio.create_task_group() as group:
        group.start_soon(connect)
        while client.state != state:
            await anyio.lowlevel.checkpoint()
        await meanwhile()
    return errors[0]


# Before and after.


@over_http_too
async def test_a_client_is_used_between_connect_and_close_only(world: World[Any]) -> None:
    """Before and after, every call says what to do instead; a client is connected once."""
    client = world.client()
    assert (client.state, client.session_id) == ("idle", None)
    for moment in ("before", "after"):
        for call in (client.ping, client.stats, lambda: client.enqueue("noop"), lambda: client.watch(NO_JOB)):
            error = await failure_of(call)
            assert isinstance(error, ClosedError), moment
            assert error.code == 503
        assert isinstance(await failure_of(lambda: confirmed(client.subscribe("jobs"))), ClosedError)
        if moment == "before":
            assert (await client.connect()) == client.session_id
            assert client.state == "ready"
            await client.close()
    assert (client.state, client.session_id) == ("closed", None)
    for again in (client.connect, client.__aenter__):
        error = await failure_of(again)
        assert isinstance(error, ClosedError)
        assert "make a new one" in str(error)


@over_http_too
async def test_closing_again_and_closing_what_was_never_connected_does_nothing(world: World[Any]) -> None:
    """`close` may be called at any time, any number of times."""
    client = world.client()
    await client.close()
    async with client:
        await client.close()
        await client.close()
    await client.close()


@over_http_too
async def test_any_number_of_tasks_close_at_once(world: World[Any]) -> None:
    """Each returns when it is over."""
    client = world.client()
    await client.connect()
    await gather(*[client.close for _ in range(5)])
    assert client.state == "closed"


async def test_a_server_sees_an_orderly_end(world: World[Any]) -> None:
    """With the block the connection ends, by a closing handshake."""
    async with world.client() as client:
        await client.ping()
        assert world.server.connections() == 1
    await in_thread(until, lambda: world.server.connections() == 0)


# With something under way.


@over_http_too
async def test_calls_in_flight_end_when_the_client_is_closed(world: World[Any]) -> None:
    """With `ClosedError`, all of them, at once."""
    client = world.client()
    await client.connect()
    job = await client.enqueue("hold")
    calls: list[Calling] = [lambda: client.wait(job.job_id)] * 3
    errors = await errors_of(client, calls, client.close)
    assert [type(error) for error in errors] == [ClosedError] * 3
    assert client.state == "closed"


@over_http_too
async def test_a_draining_close_waits_for_the_answers(world: World[Any], relay: Relay) -> None:
    """What was asked before is answered; what is asked while it drains is refused."""
    client = world.client()
    await client.connect()
    jobs: list[Any] = []

    async def enqueue() -> None:
        jobs.append(await client.enqueue("noop"))

    await in_thread(relay.stall)
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(enqueue)
        await under_way(client, 10)
        group.start_soon(lambda: client.close(drain=20))
        while client.state == "ready":
            await anyio.lowlevel.checkpoint()
        assert isinstance(await failure_of(client.ping), ClosedError)
        await in_thread(relay.flow)
    assert len(jobs) == 10
    assert client.state == "closed"


@over_http_too
async def test_a_draining_close_does_not_wait_longer_than_told(world: World[Any]) -> None:
    """Then what still waits ends with `ClosedError`; a `drain` that is no time is refused."""
    client = world.client()
    await client.connect()
    job = await client.enqueue("hold")
    errors = await errors_of(client, [lambda: client.wait(job.job_id)], lambda: client.close(drain=0.05))
    assert isinstance(errors[0], ClosedError)
    for drain in (-1, None, "soon", float("nan")):
        assert isinstance(await failure_of(lambda drain=drain: client.close(drain=drain)), InvalidRequest)  # type: ignore[misc]


@over_http_too
async def test_closing_again_does_not_wait_for_answers_any_more(world: World[Any]) -> None:
    """A second `close` means now."""
    client = world.client()
    await client.connect()
    job = await client.enqueue("hold")

    async def close_twice() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: client.close(drain=25))
            while client.state == "ready":
                await anyio.lowlevel.checkpoint()
            await client.close()

    errors = await errors_of(client, [lambda: client.wait(job.job_id)], close_twice)
    assert isinstance(errors[0], ClosedError)


async def test_close_while_connecting(binding: Binding) -> None:
    """The peer says nothing; `connect` raises `ClosedError`, and `close` waits for nothing."""

    async def silent(visit: Visit) -> None:
        await visit.until_gone()

    with RoughPeer(silent) as peer:
        client = World(None, binding, "json", peer.url).client()
        error = await error_of_connecting(client, "connecting", client.close)
        assert isinstance(error, ClosedError)
        assert client.state == "closed"


async def test_close_while_the_login_is_under_way(binding: Binding) -> None:
    """As while connecting."""

    async def never_lets_in(visit: Visit) -> None:
        await visit.upgrade()
        await visit.hear()
        await visit.until_gone()

    with RoughPeer(never_lets_in) as peer:
        client = World(None, binding, "json", peer.url).client()
        error = await error_of_connecting(client, "authenticating", client.close)
        assert isinstance(error, ClosedError)


@over_http_too
async def test_close_while_there_is_no_connection(world: World[Any], relay: Relay) -> None:
    """Between two attempts: calls that waited end, subscriptions just end."""
    client = world.client(max_retries=0)
    await client.connect()
    subscription = await client.subscribe("jobs")
    await in_thread(relay.go_down)
    await in_thread(relay.wait_for_connection)
    await in_thread(relay.wait_for_connection)
    [error] = await errors_of(client, [lambda: client.enqueue("noop")], client.close)
    assert isinstance(error, ClosedError)
    assert [event async for event in subscription] == []
    assert client.state == "closed"


async def test_close_while_it_is_connecting_again(binding: Binding) -> None:
    """The second time the peer takes the connection and says nothing: neither the call nor `close` waits for it."""

    async def lets_in_once(visit: Visit) -> None:
        if peer.visits == 1:
            await visit.let_in()
        else:
            await visit.until_gone()

    with RoughPeer(lets_in_once) as peer:
        client = World(None, binding, "json", peer.url).client()
        await client.connect()

        async def close_then() -> None:
            await in_thread(until, lambda: peer.visits == 2)
            await client.close()

        [error] = await errors_of(client, [client.stats], close_then)
        assert isinstance(error, ClosedError)
        assert client.state == "closed"


@over_http_too
async def test_close_at_a_peer_that_does_not_answer_it(world: World[Any], relay: Relay) -> None:
    """The network is stuck, with 5 MB on their way: `close_timeout` is the end of it."""
    client = world.client({"close_timeout": 0.05})
    await client.connect()
    await in_thread(relay.stall)
    [error] = await errors_of(client, [lambda: client.enqueue("noop", "x" * 5_000_000)], client.close)
    assert isinstance(error, ClosedError)
    assert client.state == "closed"


@over_http_too
@with_cancellation
async def test_a_close_that_is_cancelled_closes_all_the_same(world: World[Any], relay: Relay) -> None:
    """Nothing is left half closed, whoever loses patience."""
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
    """The call that started it ends with an error; the run may go on."""
    client = go.client()
    await client.connect()
    events = await client.subscribe("workflows")

    errors: list[Exception] = []

    async def start() -> None:
        errors.append(await failure_of(lambda: client.start_workflow("approval")))

    async with anyio.create_task_group() as group:
        group.start_soon(start)
        await take_until(events, "workflow.step_completed")
        await client.close()
    assert isinstance(errors[0], ConnectionError)
    assert client.state == "closed"


@over_http_too
async def test_what_is_raised_inside_the_block_comes_out_as_it_is(world: World[Any]) -> None:
    """`async with Dispatch(...)` wraps no exception in a group, and the client is closed when it comes out."""
    client = world.client()

    async def block() -> None:
        async with client:
            await client.subscribe("jobs")
            raise KeyError("mine")

    assert isinstance(await failure_of(block), KeyError)
    assert client.state == "closed"
    await in_thread(until, lambda: world.server.connections() == 0)
