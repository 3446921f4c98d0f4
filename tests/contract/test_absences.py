"""Peers that are away for a while: a server for long, a network without a word, a client that was stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.contract.bindings import Binding, in_one_codec
from tests.contract.conftest import our_world
from tests.contract.go_server import GoServer
from tests.contract.our_server import OurServer
from tests.contract.relay import Relay
from tests.contract.threads import PATIENCE
from tests.contract.world import NO_JOB, World, gather, in_thread, take, under_way, until

pytestmark = pytest.mark.anyio

BEAT = 0.5
"""Seconds of silence after which a peer is asked, in this file; after as many again it is dead."""
AWAY = 3 * BEAT


@pytest.fixture
def attentive(binding: Binding, codec: str, tmp_path: Path) -> Iterator[World[OurServer]]:
    """Our server, which soon notices that a client is silent, and tells clients to be as quick."""
    with our_world(binding, codec, tmp_path, heartbeat=BEAT) as world:
        yield world


# Servers and networks.


async def test_a_server_that_is_away_for_long_finds_everything_waiting_for_it(
    world: World[Any], relay: Relay
) -> None:
    """Twenty attempts fail. Calls wait, or go on waiting; subscriptions go on; a server that keeps events loses none.

    The pauses between attempts are scaled down; their number is what some minutes have.
    """
    elsewhere = World(world.server, world.binding, world.codec, world.server.url, settings=world.settings)
    async with elsewhere.client() as other, world.client(max_retries=0, timeout=None) as client:
        subscription = await client.subscribe("jobs")
        held = await client.enqueue("hold")
        begun = await take(subscription, 2)
        outcomes: list[Any] = []
        enqueued: list[Any] = []

        async def wait() -> None:
            outcomes.append(await client.wait(held.job_id))

        async def enqueue() -> None:
            enqueued.append(await client.enqueue("noop", queue="later"))

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await under_way(client, 1)
            await in_thread(relay.go_down)
            for _ in range(20):
                await in_thread(relay.wait_for_connection)
            for _ in range(10):
                group.start_soon(enqueue)
            await under_way(client, 11)
            missed = [await other.enqueue("noop") for _ in range(3)]
            for job in missed:
                await other.wait(job.job_id)
            world.server.release()
            relay.come_up()
        assert outcomes[0].state == "completed"
        assert len({job.job_id for job in enqueued}) == 10
        if not world.server.base:
            events = begun + await take(subscription, 1 + 3 * 3 + 10 * 3)
            seqs = [event.seq for event in events]
            assert seqs == sorted(set(seqs))
            everything = await take(await client.subscribe("jobs", since="start"), len(events))
            assert [event.seq for event in everything] == seqs


@in_one_codec  # it takes its time, and the time is what it is about
async def test_a_half_open_connection_is_replaced_and_nothing_is_lost(attentive: World[OurServer]) -> None:
    """The network forgets the connection without a word. It is found out, made again, and resumed."""
    elsewhere = World(attentive.server, attentive.binding, attentive.codec, attentive.url)
    with Relay(attentive.url) as relay:
        attentive.url = relay.url
        async with elsewhere.client() as other, attentive.client(max_retries=0) as client:
            subscription = await client.subscribe("jobs")
            await client.enqueue("noop")
            before = await take(subscription, 3)
            await in_thread(relay.forget)
            await other.enqueue("noop")
            answers = await gather(client.stats, lambda: client.enqueue("noop"))
            events = before + await take(subscription, 6)
            assert answers[1].state == "pending"
            assert relay.accepted == 2
            everything = await take(await client.subscribe("jobs", since="start"), 9)
            assert [event.seq for event in events] == [event.seq for event in everything]


# Clients.


@in_one_codec  # likewise
async def test_a_blocked_event_loop_does_not_cost_the_connection(go: World[GoServer]) -> None:
    """Who was asleep cannot tell whether the peer was silent: it asks once more. What came meanwhile is there.

    A client without an event loop has a thread of its own for that, and does not even notice.
    """
    async with go.client({"heartbeat": BEAT}, reconnect=False) as client:
        session = client.session_id
        subscription = await client.subscribe("jobs")
        await in_thread(go.server.publish, "job.started", f"job:{NO_JOB}", {"job_id": NO_JOB})
        time.sleep(AWAY)  # that is the accident
        assert await client.ping() > 0
        assert client.session_id == session
        assert (await take(subscription, 1))[0].kind == "job.started"


@asynccontextmanager
async def suspended(world: World[Any], count: int) -> AsyncIterator[subprocess.Popen[str]]:
    """A client that wants to see so many events, stopped as a laptop stops whose lid is closed."""

    def subscribed() -> str:
        assert process.stdout is not None
        return process.stdout.readline()

    arguments = [world.binding.name, world.codec, world.url, str(count)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.contract.sleeper", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert await in_thread(subscribed) == "subscribed\n"
            process.send_signal(signal.SIGSTOP)
            yield process
        finally:
            process.kill()


def wake(process: subprocess.Popen[str]) -> Any:
    """Go on; what it has seen."""
    process.send_signal(signal.SIGCONT)
    said, _ = process.communicate("go on\n", timeout=PATIENCE)
    return json.loads(said)


@in_one_codec  # and processes take theirs
async def test_a_suspended_client_goes_on_where_it_was(go: World[GoServer]) -> None:
    """Its clock has jumped and all its timers are late: that says nothing about the server, which still has it."""

    async with suspended(go, 1) as process:
        await in_thread(go.server.publish, "job.started", f"job:{NO_JOB}", {"job_id": NO_JOB})
        await in_thread(time.sleep, AWAY)  # that is the accident
        seen = await in_thread(wake, process)
    assert seen["sessions"][0] == seen["sessions"][1]
    assert seen["kinds"] == ["job.started"]


@in_one_codec  # likewise
async def test_a_suspended_client_that_was_given_up_resumes(attentive: World[OurServer]) -> None:
    """The server took it for dead. It connects again, and sees what it has missed, each event once."""

    async with attentive.client() as other, suspended(attentive, 9) as process:
        await in_thread(until, lambda: attentive.server.connections() == 1)
        jobs = [await other.enqueue("noop") for _ in range(3)]
        for job in jobs:
            await other.wait(job.job_id)
        seen = await in_thread(wake, process)
    assert seen["sessions"][0] != seen["sessions"][1]
    assert sorted(seen["kinds"]) == sorted(["job.enqueued", "job.started", "job.completed"] * 3)
    assert seen["seqs"] == sorted(set(seen["seqs"]))
