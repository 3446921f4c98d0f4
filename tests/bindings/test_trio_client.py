"""What is trio's own: level cancellation, the nursery that the client owns, clocks, runs, threads, Ctrl-C, the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from dispatch.errors import ClosedError, ConnectionError, DispatchError
from dispatch.trio import Dispatch
from tests.bindings.trio_clients import (
    in_thread,
    new_client,
    nothing_of_ours_afterwards,
    our_tasks,
    run,
    until,
    until_blocking,
)
from tests.contract.go_server import GoServer
from tests.contract.relay import Relay
from tests.contract.rough_peers import RoughPeer, Visit

# Level cancellation.


def test_inside_a_cancelled_scope_nothing_is_sent(server: GoServer) -> None:
    """Every call is cancelled before it begins, however often one tries."""

    async def program() -> None:
        async with new_client(server.url) as client:
            await client.ping()
            heard = len(server.heard)
            calls: list[Callable[[], Awaitable[Any]]] = [
                client.ping,
                client.stats,
                lambda: client.enqueue("noop"),
                lambda: client.start_workflow("order-pipeline"),
                lambda: client.call("job.get", {"job_id": "job_1"}),
                lambda: client.wait("job_1"),
                lambda: client.watch("job_1"),
            ]
            for call in calls:
                with trio.CancelScope() as scope:
                    scope.cancel()
                    for _ in range(2):
                        with pytest.raises(trio.Cancelled):
                            await call()
                    await trio.lowlevel.checkpoint()
                assert scope.cancelled_caught
            await client.stats()
            assert [method for method, _ in server.heard[heard:]] == ["stats"]

    run(program)


def test_a_client_is_not_even_connected_inside_a_cancelled_scope(server: GoServer) -> None:
    async def program() -> None:
        client = new_client(server.url)
        with trio.CancelScope() as scope:
            scope.cancel()
            async with client:
                raise AssertionError("it was not cancelled")
        assert scope.cancelled_caught
        assert client.state == "idle"
        assert our_tasks() == []
        async with client:  # nothing has happened to it
            assert await client.ping() > 0

    run(program)


def test_a_block_that_is_cancelled_ends_promptly_and_leaves_nothing(server: GoServer) -> None:
    """Also towards a server that does not answer: on a clock that stands still nothing can be waited for."""

    async def program() -> None:
        with Relay(server.url) as relay:
            async with nothing_of_ours_afterwards(relay.url):
                client = new_client(relay.url)
                with trio.CancelScope() as scope:
                    async with client:
                        await client.subscribe("jobs")
                        await in_thread(relay.stall)
                        scope.cancel()
                assert scope.cancelled_caught
                assert client.state == "closed"

    run(program, trio.testing.MockClock())


@pytest.mark.parametrize("way", ["with", "by hand"])
def test_close_in_a_cancelled_scope_closes(server: GoServer, way: str) -> None:
    async def program() -> None:
        client = new_client(server.url)
        with trio.CancelScope() as scope:
            await client.connect()
            scope.cancel()
            await client.close()
        assert scope.cancelled_caught
        assert client.state == "closed"
        assert our_tasks() == []
        await client.close()
        await in_thread(until_blocking, lambda: server.connections() == 0)

    run(program)


def test_connecting_can_be_cancelled_after_any_number_of_turns(server: GoServer) -> None:
    async def program() -> None:
        for turns in range(40):
            async with nothing_of_ours_afterwards(server.url):
                client = new_client(server.url)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.connect)
                    for _ in range(turns):
                        await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()
                await client.close()
                assert client.state in ("closed", "idle")
        await in_thread(until_blocking, lambda: server.connections() == 0)

    run(program)


def test_a_subscription_can_be_left_inside_a_cancelled_scope(server: GoServer) -> None:
    """Leaving is what cleaning up does, so it is not refused there."""

    async def program() -> None:
        async with new_client(server.url) as client:
            with trio.CancelScope() as scope:
                async with client.subscribe("jobs") as subscription:
                    scope.cancel()
                    await subscription.__anext__()
            assert scope.cancelled_caught
            assert client._driver._session.subscriptions == []
            assert await client.ping() > 0

    run(program)


def test_no_event_is_lost_to_a_reader_that_is_cancelled(server: GoServer) -> None:
    async def program() -> None:
        async with new_client(server.url) as client:
            subscription = await client.subscribe("jobs")
            seen: list[int] = []

            async def read(scope: trio.CancelScope) -> None:
                with scope:
                    while True:
                        seen.append((await subscription.__anext__())["data"]["n"])

            for n in range(30):
                async with trio.open_nursery() as nursery:
                    scope = trio.CancelScope()
                    nursery.start_soon(read, scope)
                    await in_thread(server.publish, "job.completed", "job:j", {"n": n})
                    for _ in range(n % 7):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, trio.CancelScope())
                await until(lambda: len(seen) == 30)
                nursery.cancel_scope.cancel()
            assert seen == list(range(30))

    run(program)


def test_a_reader_that_never_waits_lets_others_run(server: GoServer) -> None:
    async def program() -> None:
        async with new_client(server.url) as client:
            subscription = await client.subscribe("jobs")
            for n in range(200):
                await in_thread(server.publish, "job.completed", "job:j", {"n": n})
            await client.ping()
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    await trio.lowlevel.checkpoint()
                    turns += 1

            async with trio.open_nursery() as nursery:
                nursery.start_soon(count)
                for _ in range(200):
                    await subscription.__anext__()
                nursery.cancel_scope.cancel()
            assert turns >= 4

    run(program)


# The nursery that the client owns.


def test_nothing_stays_after_close(server: GoServer) -> None:
    async def program() -> None:
        async with nothing_of_ours_afterwards(server.url), new_client(server.url) as client:
            await client.subscribe("jobs")
            await client.enqueue("noop")
            await client.start_workflow("order-pipeline", {"order_id": 1})
            assert our_tasks() != []

    run(program)


@pytest.mark.parametrize(
    "moment", ["calls in flight", "a run elsewhere", "a stalled write", "backing off", "connecting"]
)
def test_nothing_stays_whatever_was_under_way(server: GoServer, moment: str) -> None:
    errors: list[Exception] = []

    async def expect(call: Callable[[], Awaitable[Any]]) -> None:
        try:
            await call()
        except DispatchError as error:
            errors.append(error)

    async def program() -> None:
        with Relay(server.url) as relay:
            client = new_client(relay.url, close_timeout=0.05)
            async with nothing_of_ours_afterwards(relay.url), trio.open_nursery() as nursery:
                if moment == "connecting":
                    await in_thread(relay.stall)
                    nursery.start_soon(expect, client.connect)
                    await until(lambda: client.state == "connecting")
                else:
                    await client.connect()
                if moment == "calls in flight":
                    await in_thread(relay.stall)
                    for _ in range(5):
                        nursery.start_soon(expect, client.ping)
                elif moment == "a run elsewhere":
                    nursery.start_soon(expect, lambda: client.start_workflow("approval"))
                    async for event in client.subscribe("workflows"):
                        assert event.kind
                        break
                elif moment == "a stalled write":
                    await in_thread(relay.stall)
                    nursery.start_soon(expect, lambda: client.enqueue("noop", "x" * 8_000_000))
                elif moment == "backing off":
                    await in_thread(relay.go_down)
                    nursery.start_soon(expect, client.ping)
                await trio.testing.wait_all_tasks_blocked()
                await client.close()
            assert errors
            assert all(isinstance(error, ConnectionError) for error in errors), errors

    run(program)


def test_nothing_stays_of_a_connect_that_fails() -> None:
    async def silent(visit: Visit) -> None:
        await visit.until_gone()

    async def program() -> None:
        with RoughPeer(silent) as peer:
            async with nothing_of_ours_afterwards(peer.url):
                with pytest.raises(ConnectionError):
                    await new_client(peer.url, connect_timeout=0.05).connect()

    run(program)


def test_tasks_that_connect_one_client_at_once_make_one_connection(server: GoServer) -> None:
    """One connects; the others are told that it was connected before. No nursery of theirs stays."""

    async def program() -> None:
        client = new_client(server.url)
        outcomes: list[str] = []

        async def connect() -> None:
            try:
                await client.connect()
                outcomes.append("connected")
            except ClosedError:
                outcomes.append("refused")

        async with nothing_of_ours_afterwards(server.url):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(connect)
            assert sorted(outcomes) == ["connected", "refused", "refused", "refused"]
            assert server.connections() == 1
            assert await client.ping() > 0
            await client.close()

    run(program)


def test_a_client_is_connected_by_one_task_and_closed_by_another(server: GoServer) -> None:
    async def program() -> None:
        client = new_client(server.url)
        async with nothing_of_ours_afterwards(server.url):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.connect)
            assert await client.ping() > 0  # though the nursery that it was connected in is gone
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.close)

    run(program)


def test_a_client_outlives_the_cancelled_scope_that_it_was_connected_in(server: GoServer) -> None:
    async def program() -> None:
        client = new_client(server.url)
        with trio.CancelScope() as scope:
            await client.connect()
            scope.cancel()
        await server_cut(server)
        assert await client.ping() > 0
        await client.close()

    run(program)


async def server_cut(server: GoServer) -> None:
    await in_thread(server.cut_all)


def test_what_the_body_raises_comes_out_as_it_is(server: GoServer) -> None:
    """No exception group around it, of whatever kind it is, also with tasks of the client's under way."""

    async def program() -> None:
        for error in (KeyError("mine"), ExceptionGroup("mine", [KeyError("a")]), SystemExit(3)):
            with pytest.raises(type(error)) as caught:  # noqa: PT012
                async with new_client(server.url) as client:
                    await client.subscribe("jobs")
                    raise error
            assert caught.value is error
            assert our_tasks() == []

    run(program)


def test_a_program_sees_its_own_context_in_the_function_for_the_token(server: GoServer) -> None:
    from contextvars import ContextVar

    tenant: ContextVar[str] = ContextVar("tenant")

    async def token() -> str:
        await trio.lowlevel.checkpoint()
        return tenant.get()

    async def program() -> None:
        tenant.set("dk_full")
        async with Dispatch(server.url, token) as client:
            assert await client.ping() > 0

    run(program)
