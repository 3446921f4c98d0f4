"""Connections that are lost: what is made again, what is sent again, what is told, and when it is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from dispatch.errors import AuthError, ClosedError, ConnectionError, OutcomeUnknown, TimeoutError
from dispatch.store.memory import MemoryStore
from tests.contract.bindings import Binding, ours_over_http_too, over_http_too
from tests.contract.go_server import GoServer
from tests.contract.our_server import OurServer
from tests.contract.relay import Relay
from tests.contract.world import World, failure_of, in_thread, started, take, take_until, under_way, until
from tests.live import serving

pytestmark = pytest.mark.anyio

FOREVER: dict[str, Any] = {"max_retries": 0}


@pytest.fixture
def our_relay(ours: World[OurServer]) -> Iterator[Relay]:
    with Relay(ours.url) as relay:
        ours.url = relay.url
        yield relay


@pytest.fixture
def go_relay(go: World[GoServer]) -> Iterator[Relay]:
    with Relay(go.url) as relay:
        go.url = relay.url
        yield relay


# Events.


@ours_over_http_too
async def test_no_event_is_lost_and_none_comes_twice_however_often_the_network_fails(
    world: World[Any], relay: Relay
) -> None:
    """Eight cuts in sixty jobs: what two subscribers saw is what the server kept."""
    async with world.client(**FOREVER) as client:
        subscription, other = await client.subscribe("jobs"), await client.subscribe("queue:default")

        async def fail() -> None:
            for _ in range(8):
                await in_thread(relay.cut)
                await in_thread(relay.wait_for_connection)

        async def work() -> None:
            for n in range(60):
                await client.enqueue("noop", n)

        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            group.start_soon(work)
            events = await take(subscription, 180)
        assert [event.seq for event in await take(other, 180)] == [event.seq for event in events]
        everything = await take(await client.subscribe("jobs", since="start"), 180)
        assert [(e.seq, e.kind) for e in events] == [(e.seq, e.kind) for e in everything]
        assert not any(event.is_gap for event in events)


async def test_subscriptions_go_on_after_a_reconnect_to_a_base_server(
    go: World[GoServer], go_relay: Relay
) -> None:
    """All of them, before anybody can see that there is a connection again."""
    async with go.client(**FOREVER) as client:
        jobs, runs = await client.subscribe("jobs"), await client.subscribe("workflows")
        for _ in range(3):
            await in_thread(go_relay.cut)
            await client.ping()  # connected means that the subscriptions are back
            await client.enqueue("noop")
            assert (await take_until(jobs, "job.completed"))[0].kind == "job.enqueued"
            await client.start_workflow("order-pipeline", {"order_id": 1})
            assert await take_until(runs, "workflow.completed")


async def test_another_event_log_is_told_as_a_gap(ours: World[OurServer], our_relay: Relay) -> None:
    """Another server took over, with another history: nobody may think that nothing was missed."""
    async with ours.client(**FOREVER) as client:
        subscription = await client.subscribe("jobs")
        await client.enqueue("noop")
        seen = await take_until(subscription, "job.completed")
        with OurServer(MemoryStore()) as another:
            our_relay.come_up(another.url)
            await in_thread(our_relay.cut)
            [gap] = await take(subscription, 1)
            assert (gap.kind, gap["data"]["from"]) == ("gap", seen[-1].seq + 1)
            await client.enqueue("noop")
            assert (await take(subscription, 3))[0].kind == "job.enqueued"
            await client.close()


@over_http_too
async def test_a_subscription_made_while_there_is_no_connection_is_confirmed_by_the_next(
    world: World[Any], relay: Relay
) -> None:
    """It waits, as calls do."""
    async with world.client(**FOREVER) as client:
        await in_thread(relay.go_down)
        subscription = client.subscribe("jobs")
        await under_way(client, 0, subscriptions=1)
        relay.come_up()
        await subscription
        await client.enqueue("noop")
        assert (await take_until(subscription, "job.completed"))[0].kind == "job.enqueued"


# Calls.


@over_http_too
async def test_reads_are_sent_again(world: World[Any], relay: Relay) -> None:
    """To ask twice does no harm, so nobody hears of it."""
    async with world.client(**FOREVER) as client:
        job = await client.enqueue("noop")
        await in_thread(relay.stall)

        async def fail() -> None:
            await in_thread(relay.cut)
            await in_thread(relay.flow)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(client.get_job, job.job_id)
            group.start_soon(client.stats)
            group.start_soon(client.ping)
            await under_way(client, 7)
            group.start_soon(fail)


@ours_over_http_too
async def test_an_enqueue_whose_answer_is_lost_happens_once(world: World[Any], relay: Relay) -> None:
    """It is sent again with the idempotency key that it had from the start: as many jobs as calls."""
    async with world.client(**FOREVER) as client:
        ids: list[str] = []

        async def enqueue() -> None:
            ids.append((await client.enqueue("noop", queue="once")).job_id)

        for _ in range(4):
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(enqueue)
                await started()
                await in_thread(relay.cut)
        page = await client.list_jobs(queue="once", limit=100)
        assert sorted(job.id for job in page.jobs) == sorted(ids)
        assert len(ids) == 20


async def test_what_a_base_server_may_have_done_is_unknown(go: World[GoServer], go_relay: Relay) -> None:
    """It knows no keys, and has done what it was asked when the answer is lost: `OutcomeUnknown`, at once."""
    async with go.client(**FOREVER) as client:
        job = await client.enqueue("hold")
        heard = len(go.server.heard)
        await in_thread(go.server.keep_answers)
        errors: list[Exception] = []

        async def call(what: Any) -> None:
            errors.append(await failure_of(what))

        async with anyio.create_task_group() as group:
            group.start_soon(call, lambda: client.enqueue("noop"))
            group.start_soon(call, lambda: client.cancel_job(job.job_id))
            group.start_soon(call, lambda: client.call("federation.enqueue", {"name": "noop"}))
            await in_thread(until, lambda: len(go.server.heard) == heard + 3)
            await in_thread(go_relay.cut)
        assert [type(error) for error in errors] == [OutcomeUnknown] * 3
        assert "may have been carried out or not" in str(errors[0])
        assert await client.ping() > 0
        go.server.release()


@over_http_too
async def test_what_was_never_sent_waits_for_the_next_connection(world: World[Any], relay: Relay) -> None:
    """Nothing can have happened, so nothing is unknown."""
    async with world.client(**FOREVER) as client:
        await in_thread(relay.go_down)
        jobs: list[Any] = []

        async def enqueue() -> None:
            jobs.append(await client.enqueue("noop"))

        async with anyio.create_task_group() as group:
            group.start_soon(client.stats)  # over HTTP who asks finds out, and reads are asked again
            await in_thread(relay.wait_for_connection)  # the first one
            await in_thread(relay.wait_for_connection)
            await in_thread(until, lambda: client.session_id is None)
            for _ in range(10):
                group.start_soon(enqueue)
            await under_way(client, 11)
            relay.come_up()
        assert len({job.job_id for job in jobs}) == 10


@over_http_too
async def test_a_call_that_cannot_be_sent_in_time_says_why(world: World[Any], relay: Relay) -> None:
    """ "Could not be sent" and where, not "no answer"."""
    async with world.client(**FOREVER) as client:
        await in_thread(relay.go_down)
        async with anyio.create_task_group() as group:
            group.start_soon(client.stats)  # over HTTP who asks finds out, and reads are asked again
            await in_thread(relay.wait_for_connection)
            await in_thread(relay.wait_for_connection)
            await in_thread(until, lambda: client.session_id is None)
            error = await failure_of(lambda: client.enqueue("noop", timeout=0.05))
            assert isinstance(error, TimeoutError)
            assert "could not be sent" in str(error)
            assert world.url in str(error)
            relay.come_up()
        assert await client.ping() > 0


@over_http_too
async def test_a_wait_goes_on_over_a_reconnect(world: World[Any], relay: Relay) -> None:
    """`wait` asks again by itself."""
    async with world.client(**FOREVER) as client:
        job = await client.enqueue("hold")
        outcomes: list[Any] = []

        async def wait() -> None:
            outcomes.append(await client.wait(job.job_id))

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await under_way(client, 1)
            await in_thread(relay.cut)
            await client.ping()
            world.server.release()
        assert outcomes[0].state == "completed"


# Giving up.


@over_http_too
async def test_it_gives_up_after_max_retries_and_everyone_hears_why(world: World[Any], relay: Relay) -> None:
    """Calls and subscriptions raise what went wrong; the client is closed and says because of what."""
    client = world.client(max_retries=3)
    await client.connect()
    job = await client.enqueue("hold")
    subscription = await client.subscribe(f"job:{job.job_id}")
    errors: list[Exception] = []

    async def expect(call: Any) -> None:
        errors.append(await failure_of(call))

    async with anyio.create_task_group() as group:
        group.start_soon(expect, lambda: client.wait(job.job_id))
        group.start_soon(expect, lambda: take_until(subscription, "job.completed"))
        await under_way(client, 1)
        before = relay.accepted
        await in_thread(relay.go_down)
    assert all(isinstance(error, ConnectionError) for error in errors)
    assert client.state == "closed"
    # Over HTTP the wait may still have been on its way, and a stream may be asked for before another has found out.
    assert relay.accepted - before in ((3, 4, 5) if "/rpc" in world.url else (3,))
    error = await failure_of(client.ping)
    assert isinstance(error, ClosedError)
    assert "because" in str(error)
    error = await failure_of(subscription.__anext__)
    assert isinstance(error, ConnectionError)
    await client.close()


async def test_it_does_not_reconnect_where_it_is_told_not_to(world: World[Any], relay: Relay) -> None:
    """`reconnect=False`: the first loss is the end."""
    client = world.client(reconnect=False)
    await client.connect()
    subscription = await client.subscribe("jobs")
    await in_thread(relay.cut)
    assert isinstance(await failure_of(subscription.__anext__), ConnectionError)
    assert isinstance(await failure_of(client.ping), ClosedError)
    assert relay.accepted == 1
    await client.close()


@over_http_too
async def test_a_login_that_is_refused_after_a_reconnect_is_the_end(
    world: World[Any], relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    """No retry mends it; it is an `AuthError` to everyone, and one line in the log without the token."""
    token = "dk_full"
    client = world.client(token=lambda: token, **FOREVER)
    await client.connect()
    subscription = await client.subscribe("jobs")
    token, before = "dk_revoked", relay.accepted
    await in_thread(relay.cut)
    error = await failure_of(subscription.__anext__)
    assert isinstance(error, AuthError)
    assert error.code == 401
    assert client.state == "closed"
    assert relay.accepted == before + 1
    assert "gave up" in caplog.text
    assert "dk_" not in caplog.text
    await client.close()


@over_http_too
async def test_a_server_that_is_not_there_yet_is_waited_for(world: World[Any], relay: Relay) -> None:
    """`wait_for_server=` tries the first connection again for so long."""
    await in_thread(relay.go_down)
    async with anyio.create_task_group() as group:

        async def come_up() -> None:
            await in_thread(relay.wait_for_connection)
            await in_thread(relay.wait_for_connection)
            relay.come_up()

        group.start_soon(come_up)
        async with world.client(wait_for_server=20) as client:
            assert await client.ping() > 0
    assert relay.accepted >= 3


@over_http_too
async def test_without_waiting_one_attempt_is_made(world: World[Any], relay: Relay) -> None:
    """And what went wrong is raised."""
    await in_thread(relay.go_down)
    assert isinstance(await failure_of(world.client().connect), ConnectionError)
    assert relay.accepted == 1


async def test_a_server_that_is_restarted_is_followed_without_an_error(
    ours: World[OurServer], our_relay: Relay
) -> None:
    """In the middle of twenty calls: each happens once, none fails, and no event is lost."""
    async with ours.client(**FOREVER) as client:
        subscription = await client.subscribe("jobs")
        jobs: list[Any] = []

        async def restart() -> None:
            await in_thread(ours.server.restart)
            our_relay.come_up(ours.server.url)

        async def enqueue() -> None:
            jobs.append(await client.enqueue("noop", queue="q"))

        async with anyio.create_task_group() as group:
            group.start_soon(restart)
            for _ in range(20):
                group.start_soon(enqueue)
        assert len({job.job_id for job in jobs}) == 20
        assert len((await client.list_jobs(queue="q", limit=100)).jobs) == 20
        seqs = [event.seq for event in await take(subscription, 60)]
        assert seqs == sorted(set(seqs))


# A server that is killed.


@pytest.mark.parametrize("codec", ["json"])  # processes take their time
async def test_a_server_that_is_killed_and_comes_back_has_lost_nothing(
    binding: Binding, codec: str, tmp_path: Path
) -> None:
    """With SIGKILL, in a process of its own: what it had confirmed is there, once, and so is every event."""
    app, db = "dispatch.cli.demo_app", tmp_path / "dispatch.db"
    with serving(app, "--queues", "nobody", db=db) as first, Relay(first.url) as relay:
        world: World[None] = World(None, binding, codec, relay.url)
        async with world.client(**FOREVER) as client:
            subscription = await client.subscribe("jobs")
            ids = [(await client.enqueue("send-email", {"to": "a"})).job_id for _ in range(5)]
            before = await take(subscription, 5)
            more: list[str] = []

            async def enqueue() -> None:
                more.append((await client.enqueue("send-email", {"to": "b"})).job_id)

            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(enqueue)
                await started()
                await in_thread(first.stop, 9)
                with serving(app, "--queues", "nobody", db=db) as second:
                    relay.come_up(second.url)
                    await in_thread(relay.cut)
                    after = await take(subscription, 10)
                    await in_thread(until, lambda: len(more) == 10)  # events may come before the answers
                    listed = (await client.list_jobs(limit=100)).jobs
                    assert {job.id for job in listed} == {*ids, *more}
                    assert len(listed) == 15
                    seqs = [event.seq for event in before + after]
                    assert seqs == sorted(set(seqs))
                    assert {event["data"]["job_id"] for event in before + after} == {job.id for job in listed}
