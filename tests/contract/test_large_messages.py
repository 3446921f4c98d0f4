"""Large messages: more than the buffers between two peers hold, in both directions at once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.bindings import Binding, over_http_too
from tests.contract.rough_peers import RoughPeer, Visit
from tests.contract.world import NO_JOB, World, gather, take

pytestmark = pytest.mark.anyio

SIZE = 6_500_000
COUNT = 8
"""Times `SIZE`: over 50 MB."""


@over_http_too
async def test_large_messages_go_in_both_directions_at_once(world: World[Any]) -> None:
    """Far more than the buffers between hold: neither side waits for the other to read first."""
    count = 2  # of each; the 50 MB are below, where no server has to keep them
    async with world.client() as client:
        ids = [(await client.enqueue("noop", f"{n}" * SIZE, queue="nobody")).job_id for n in range(count)]
        reads = [lambda id_=id_: client.get_job(id_) for id_ in ids]
        writes = [lambda n=n: client.enqueue("noop", f"{n}" * SIZE, queue="nobody") for n in range(count)]
        results = await gather(*reads, *writes, client.ping)
        jobs, enqueued = results[:count], results[count:-1]
        assert [job.payload[0] for job in jobs] == [str(n) for n in range(count)]
        assert {len(job.payload) for job in jobs} == {SIZE}
        assert len({job.job_id for job in enqueued}) == count


async def test_a_peer_that_writes_fifty_megabytes_before_it_reads_on_gets_its_turn(binding: Binding) -> None:
    """The reader reads while the writer is stuck: else both would wait for each other for ever."""

    async def writes_first(visit: Visit) -> None:
        await visit.let_in()
        subscribe = await visit.hear_method("subscribe")
        await visit.tell(id="s2", type="response", correl_id=subscribe["id"], data={"channel": "jobs"})
        heard = [await visit.hear()]
        for n in range(COUNT):
            data = {"job_id": NO_JOB, "n": n, "filler": f"{n}" * SIZE}
            event = {"type": "job.completed", "topic": f"job:{NO_JOB}", "data": data}
            await visit.tell(id=f"e{n}", type="event", channel=f"job:{NO_JOB}", data=event)
        heard += [await visit.hear() for _ in range(COUNT)]
        for frame in heard:
            await visit.tell(id="s3", type="response", correl_id=frame["id"], data={"job_id": frame["id"]})
        await visit.until_gone()

    with RoughPeer(writes_first) as peer:
        async with World(None, binding, "json", peer.url).client({"close_timeout": 0.1}) as client:
            subscription = await client.subscribe("jobs")
            writes = [lambda n=n: client.enqueue("noop", f"{n}" * SIZE) for n in range(COUNT)]
            await gather(client.stats, *writes)
            events = await take(subscription, COUNT)
            assert [event["data"]["n"] for event in events] == list(range(COUNT))
            assert {len(event["data"]["filler"]) for event in events} == {SIZE}
