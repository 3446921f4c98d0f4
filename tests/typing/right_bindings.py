"""trio and sync as their users' type checker sees them: one signature, and what waiting makes of its result."""

from __future__ import annotations

from typing import assert_type

import dispatch.anyio
import dispatch.trio
from dispatch.lifecycle import Change, Counters
from dispatch.results import EnqueuedJob, Event, Job, Outcome
from dispatch.sync import Dispatch, Subscription
from dispatch.telemetry import OpenTelemetry


def blocking() -> None:
    with Dispatch(url="ws://127.0.0.1:8080/dwp", token=lambda: "dk_...", proxy=False) as client:
        assert_type(client, Dispatch)
        job = client.enqueue("send-email", {"to": "user@example.com"}, queue="mail", priority=10)
        assert_type(job, EnqueuedJob)
        assert_type(client.get_job(job.job_id), Job)
        assert_type(client.wait(job.job_id, timeout=5), Outcome)
        assert_type(client.ping(), float)
        sub = client.subscribe("jobs", since="start", timeout=5)
        assert_type(sub, Subscription)
        for event in sub:
            assert_type(event, Event)
        assert_type(sub.next(timeout=1), Event)
        for change in client.states():
            assert_type(change, Change)
        assert_type(client.counters, Counters)


async def awaited() -> None:
    async with dispatch.trio.Dispatch(url="unix:/run/dispatch.sock", telemetry=OpenTelemetry()) as client:
        assert_type(client, dispatch.trio.Dispatch)
        assert_type(await client.enqueue("send-email"), EnqueuedJob)
        sub = await client.subscribe("jobs")
        assert_type(sub, dispatch.trio.Subscription)
        async for event in sub:
            assert_type(event, Event)
        async for change in client.states():
            assert_type(change.retry_in, float | None)
    either = dispatch.anyio.Dispatch(url="https://example.com/dwp/rpc")
    assert_type(await either.get_job("job_1"), Job)
