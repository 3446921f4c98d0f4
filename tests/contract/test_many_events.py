"""More events than anybody reads at once."""

from __future__ import annotations

import functools
import json

import pytest
from websockets.frames import Frame, Opcode

from tests.contract.bindings import Binding
from tests.contract.rough_peers import RoughPeer, Visit
from tests.contract.world import NO_JOB, in_thread, take, visitor

pytestmark = pytest.mark.anyio

COUNT = 200_000
_AT_ONCE = 5_000


@functools.cache
def flood() -> list[bytes]:
    """So many events, numbered, as a base peer sends them: in large pieces, each made once for all bindings."""
    topic = f"job:{NO_JOB}"
    before, after = json.dumps(
        {
            "id": "e",
            "type": "event",
            "channel": topic,
            "data": {"type": "job.completed", "topic": topic, "data": {"n": "HERE"}},
        }
    ).split('"HERE"')
    frames = [Frame(Opcode.TEXT, f"{before}{n}{after}".encode()).serialize(mask=False) for n in range(COUNT)]
    return [b"".join(frames[start : start + _AT_ONCE]) for start in range(0, COUNT, _AT_ONCE)]


async def test_two_hundred_thousand_events_are_queued_while_nobody_reads(binding: Binding) -> None:
    """They come as fast as the peer can send, calls are answered behind them, and then they are read, in order.

    At a server that keeps events for its clients they would stay there: see the slow subscriber in test_events.py. JSON
    only: the queue holds events of any codec.
    """
    pieces = await in_thread(flood)

    async def floods(visit: Visit) -> None:
        await visit.let_in()
        subscribe = await visit.hear_method("subscribe")
        await visit.tell(id="s2", type="response", correl_id=subscribe["id"], data={"channel": "jobs"})
        stats = await visit.hear_method("stats")
        for piece in pieces:
            await visit.say(piece)
        await visit.tell(id="s3", type="response", correl_id=stats["id"], data={})
        await visit.until_gone()

    with RoughPeer(floods) as peer:
        async with visitor(binding, peer).client({"close_timeout": 0.1}) as client:
            subscription = await client.subscribe("jobs")
            await client.stats()
            assert f"{COUNT} unread" in repr(subscription)
            events = await take(subscription, COUNT)
            assert [event["data"]["n"] for event in events] == list(range(COUNT))
