"""Live events: who gets what, in which order, from where on, and what happens to those who do not read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from dispatch.errors import AuthError, ClosedError, InvalidRequest, UnsupportedError
from tests.contract.bindings import Binding, over_http_too, with_cancellation
from tests.contract.conftest import our_world
from tests.contract.go_server import GoServer
from tests.contract.our_server import OurServer
from tests.contract.relay import Relay
from tests.contract.world import (
    NO_JOB,
    World,
    confirmed,
    failure_of,
    gather,
    in_thread,
    started,
    take,
    take_until,
    under_way,
)

pytestmark = pytest.mark.anyio

LIFE = ["job.enqueued", "job.started", "job.completed"]


def kinds(events: list[Any]) -> list[str]:
    return [event.kind for event in events]


@over_http_too
async def test_a_job_is_followed_from_beginning_to_end(world: World[Any]) -> None:
    """Each event says its channel, its topic, its job and the state that it is in now."""
    async with world.client() as client:
        subscription = await client.subscribe("jobs")
        job = await client.enqueue("send-email", {"to": "ada"}, queue="mail")
        events = await take(subscription, 3)
        assert kinds(events) == LIFE
        assert [event["data"]["state"] for event in events] == ["pending", "running", "completed"]
        for event in events:
            assert (event["type"], event["channel"], event.topic) == ("event", "jobs", f"job:{job.job_id}")
            assert event["data"]["job_id"] == job.job_id
            assert event["data"]["queue"] == "mail"
            assert event.at.endswith("Z")
            assert not event.is_gap
        seqs = [event.seq for event in events]
        assert seqs == ([None] * 3 if world.server.base else sorted(set(seqs)))


@over_http_too
@with_cancellation
async def test_subscriptions_are_iterated_over_without_awaiting_them_too(world: World[Any]) -> None:
    """`subscribe` only says so; what is wrong with the asking it says at once, what the server thinks later."""
    async with world.client() as client:
        subscription = client.subscribe("jobs")
        await client.ping()  # answers come in order: it is confirmed now
        await client.enqueue("noop")
        async for event in subscription:
            assert event.kind == "job.enqueued"
            break
        with pytest.raises(InvalidRequest, match="channel"):
            client.subscribe("nothing")
    with pytest.raises(ClosedError):
        client.subscribe("jobs")


@over_http_too
async def test_every_channel_gets_what_is_on_it(world: World[Any]) -> None:
    """One event reaches every subscription that it concerns, labelled with the channel that was asked for."""
    async with world.client() as client:
        jobs, firehose, mail, other = [
            await client.subscribe(channel) for channel in ("jobs", "firehose", "queue:mail", "queue:other")
        ]
        job = await client.enqueue("noop", queue="mail")
        for subscription in (jobs, firehose, mail):
            events = await take(subscription, 3)
            assert kinds(events) == LIFE
            assert {event["channel"] for event in events} == {subscription.channel}
        own = await client.subscribe(f"job:{job.job_id}")
        held = await client.enqueue("hold", queue="other")
        assert kinds(await take(other, 2)) == LIFE[:2]
        its_own = await client.subscribe(f"job:{held.job_id}")
        world.server.release()
        assert kinds(await take_until(its_own, "job.completed")) == LIFE[2:]
        await own.unsubscribe()
        assert [event async for event in own] == []


async def test_two_subscribers_of_one_channel_share_one_subscription_on_the_wire(go: World[GoServer]) -> None:
    """Both get every event; when one leaves, the other goes on."""
    async with go.client() as client:
        first, second = await gather(*[lambda: confirmed(client.subscribe("jobs"))] * 2)
        assert go.server.heard == [("subscribe", "jobs")]
        await client.enqueue("noop")
        assert kinds(await take(first, 3)) == kinds(await take(second, 3)) == LIFE
        await first.unsubscribe()
        await first.unsubscribe()
        await client.enqueue("noop")
        assert kinds(await take(second, 3)) == LIFE
        assert [event async for event in first] == []


@over_http_too
async def test_one_that_leaves_leaves_the_others_alone(world: World[Any]) -> None:
    """Also when it had not read all that came."""
    async with world.client() as client:
        async with client.subscribe("jobs") as leaving, client.subscribe("jobs") as staying:
            await client.enqueue("noop")
            await take(leaving, 1)
            await leaving.unsubscribe()
            assert kinds(await take(staying, 3)) == LIFE
            await client.enqueue("noop")
            assert kinds(await take(staying, 3)) == LIFE
        assert await client.ping() > 0


@over_http_too
async def test_leaving_ends_the_iteration_of_other_tasks_at_once(world: World[Any]) -> None:
    """Whoever waits in it, the loop ends without an event or an error."""
    async with world.client() as client:
        subscription = await client.subscribe("jobs")
        seen: list[Any] = []

        async def read() -> None:
            seen.extend([event async for event in subscription])

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(read)
            await started()
            await subscription.unsubscribe()
        assert seen == []


@over_http_too
async def test_tasks_that_share_a_subscription_share_its_events(world: World[Any]) -> None:
    """Each event goes to one of those who iterate over the same subscription."""
    async with world.client() as client:
        subscription = await client.subscribe("jobs")
        readers = [lambda: subscription.__anext__() for _ in range(6)]

        async def jobs() -> None:
            await client.enqueue("noop")
            await client.enqueue("noop")

        async with anyio.create_task_group() as group:
            group.start_soon(jobs)
            events = await gather(*readers)
        assert sorted(kinds(events)) == sorted(LIFE * 2)


async def test_events_that_come_before_the_answer_to_subscribe_are_not_lost(go: World[GoServer]) -> None:
    """The subscription exists here before the server is asked."""

    def publish_first(channel: str) -> None:
        go.server._publish("job.started", channel, {"job_id": NO_JOB})

    go.server.before_subscribed = publish_first
    async with go.client() as client:
        subscription = await client.subscribe(f"job:{NO_JOB}")
        [event] = await take(subscription, 1)
        assert (event.kind, event["data"]["state"]) == ("job.started", "running")


async def test_cron_events_are_on_the_firehose(go: World[GoServer]) -> None:
    """`cron.fired` has no topic of its own: it is on `firehose`, and nowhere else."""
    async with go.client() as client:
        firehose, jobs = await client.subscribe("firehose"), await client.subscribe("jobs")
        data = {"entry_name": "tick", "job_id": NO_JOB}
        await in_thread(go.server.publish, "cron.fired", "", data)
        await in_thread(go.server.publish, "job.completed", f"job:{NO_JOB}", {"job_id": NO_JOB})
        event, _ = await take(firehose, 2)
        assert (event.kind, event.topic, event["data"]) == ("cron.fired", "", data)
        assert kinds(await take(jobs, 1)) == ["job.completed"]


@over_http_too
async def test_a_subscription_that_is_refused_says_so_to_whoever_asks(world: World[Any]) -> None:
    """To whoever awaits it and to whoever iterates, each time; the connection goes on."""
    async with world.client(token="dk_writer") as client:
        for _ in range(2):
            error = await failure_of(lambda: confirmed(client.subscribe("jobs")))
            assert isinstance(error, AuthError)
            assert error.code == 403
        subscription = client.subscribe("jobs")
        for _ in range(2):
            error = await failure_of(subscription.__anext__)
            assert isinstance(error, AuthError)
        assert await client.ping() > 0


async def test_more_events_than_the_first_credit_arrive_without_loss(go: World[GoServer]) -> None:
    """Credit is granted ahead: a base peer would drop the event that finds none, for ever."""
    async with go.client() as client:
        subscription = await client.subscribe("jobs")
        for _ in range(40):
            for n in range(100):
                await in_thread(go.server.publish, "job.completed", f"job:{NO_JOB}", {"n": n})
            assert [event["data"]["n"] for event in await take(subscription, 100)] == list(range(100))
        assert go.server.granted >= 3000


async def test_a_slow_subscriber_loses_at_a_base_server_and_is_told_how_much(go: World[GoServer]) -> None:
    """Its buffer is the bound; what is over it is a gap with a number. The others lose nothing."""
    async with go.client({"event_buffer": 10}) as client:
        slow, quick = await client.subscribe("jobs"), await client.subscribe("jobs")
        for n in range(30):
            await in_thread(go.server.publish, "job.completed", f"job:{NO_JOB}", {"n": n})
            [event] = await take(quick, 1)
            assert event["data"]["n"] == n
        kept = await take(slow, 10)
        assert [event["data"]["n"] for event in kept] == list(range(10))
        [gap] = await take(slow, 1)
        assert (gap.is_gap, gap["type"], gap["data"]["dropped"]) == (True, "gap", 20)
        await in_thread(go.server.publish, "job.completed", f"job:{NO_JOB}", {"n": 30})
        [event] = await take(slow, 1)
        assert event["data"]["n"] == 30


@pytest.fixture
def narrow(binding: Binding, codec: str, tmp_path: Path) -> Iterator[World[OurServer]]:
    """Our server, which sends only so many events before it wants more credit."""
    with our_world(binding, codec, tmp_path, credits=32) as world:
        yield world


async def test_a_slow_subscriber_is_bounded_and_loses_nothing_at_our_server(
    narrow: World[OurServer],
) -> None:
    """What has no room here waits there. The others do not wait for it."""
    async with narrow.client({"event_window": 32}) as client:
        slow, quick = await client.subscribe("jobs"), await client.subscribe("jobs")
        for n in range(50):
            await client.enqueue("noop", n)
            assert kinds(await take_until(quick, "job.completed"))[-1] == "job.completed"
        assert len(slow._items) <= 32
        events = await take(slow, 150)
        assert sorted(kinds(events)) == sorted(LIFE * 50)
        seqs = [event.seq for event in events]
        assert seqs == sorted(set(seqs))
        await client.enqueue("noop")
        assert kinds(await take(slow, 3)) == LIFE


async def test_a_subscription_begins_where_it_is_told_to(ours: World[OurServer]) -> None:
    """After a `seq`, or from the start; a `seq` that the server has not reached is 400."""
    async with ours.client() as client:
        for _ in range(3):
            await client.wait((await client.enqueue("noop")).job_id)
        everything = await take(await client.subscribe("jobs", since="start"), 9)
        assert sorted(kinds(everything)) == sorted(LIFE * 3)
        subscription = await client.subscribe("jobs", since=everything[3].seq)
        rest = await take(subscription, 5)
        assert [event.seq for event in rest] == [event.seq for event in everything[4:]]
        assert subscription.position == everything[-1].seq
        error = await failure_of(lambda: confirmed(client.subscribe("jobs", since=2**40)))
        assert getattr(error, "code", 0) == 400


async def test_since_needs_a_server_that_keeps_events(go: World[GoServer]) -> None:
    """A base peer has nothing to give it: `UnsupportedError`."""
    async with go.client() as client:
        error = await failure_of(lambda: confirmed(client.subscribe("jobs", since=1)))
        assert isinstance(error, UnsupportedError)


@over_http_too
async def test_a_watch_ends_with_its_job(world: World[Any]) -> None:
    """The last event is the last round of the loop."""
    async with world.client() as client:
        job = await client.enqueue("hold")
        events = await client.watch(job.job_id)
        world.server.release()
        assert kinds([event async for event in events])[-1] == "job.completed"
        assert (await client.get_job(job.job_id)).state == "completed"


@over_http_too
async def test_a_watch_ends_with_a_job_that_fails(world: World[Any]) -> None:
    """Whether it fails before, while or after somebody begins to watch."""
    async with world.client() as client, client.subscribe("jobs") as everything:
        job = await client.enqueue("always-fails")
        events = await client.watch(job.job_id)
        last = [event async for event in events][-1:]
        # Nothing, if it had failed before anybody watched; only the dead letter, if it was just about to be one.
        assert kinds(last) in ([], ["job.failed"], ["job.dlq"])
        assert "job.failed" in kinds(await take_until(everything, "job.failed"))


@over_http_too
async def test_to_watch_what_has_ended_ends_at_once(world: World[Any]) -> None:
    """There will be no event, so nobody waits for one."""
    async with world.client() as client:
        job = await client.enqueue("noop")
        await client.wait(job.job_id)
        assert [event async for event in await client.watch(job.job_id)] == []


async def test_what_came_before_the_client_was_closed_can_still_be_read(world: World[Any]) -> None:
    """Then the iteration ends; a new subscription is refused."""
    client = world.client()
    await client.connect()
    first, second = await client.subscribe("jobs"), await client.subscribe("jobs")
    await client.enqueue("noop")
    await take(first, 3)
    await client.close()
    assert kinds([event async for event in second]) == LIFE
    assert [event async for event in first] == []
    assert isinstance(await failure_of(lambda: confirmed(client.subscribe("jobs"))), ClosedError)


@over_http_too
async def test_a_subscription_that_was_never_confirmed_does_not_say_that_it_was(
    world: World[Any], relay: Relay
) -> None:
    """Nothing is heard of the server; whoever waits for its word hears that the client was closed."""
    client = world.client({"close_timeout": 0.05})
    await client.connect()
    await in_thread(relay.stall)
    subscription = client.subscribe("jobs")
    await under_way(client, 0, subscriptions=1)
    await client.close()
    error = await failure_of(lambda: confirmed(subscription))
    assert isinstance(error, ClosedError)
    assert "jobs" in str(error)


@over_http_too
@with_cancellation
async def test_a_subscription_that_was_left_before_it_was_confirmed_does_not_say_that_it_was(
    world: World[Any], relay: Relay
) -> None:
    """Nor does it wait for a server that says nothing."""
    async with world.client({"close_timeout": 0.05}) as client:
        await in_thread(relay.stall)
        left = client.subscribe("firehose")
        await left.unsubscribe()
        assert isinstance(await failure_of(lambda: confirmed(left)), ClosedError)


@over_http_too
@with_cancellation
async def test_a_waiting_reader_can_be_cancelled_at_any_time(world: World[Any]) -> None:
    """No event is lost with it."""
    async with world.client() as client:
        subscription = await client.subscribe("jobs")
        for turns in range(5):
            async with anyio.create_task_group() as group:
                group.start_soon(subscription.__anext__)
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
        await client.enqueue("noop")
        assert kinds(await take(subscription, 3)) == LIFE
