"""The client as its users' type checker sees it. Never run: `test_typing.py` has mypy and pyright check it."""

from __future__ import annotations

from typing import Any, assert_type

from dispatch import Dispatch, DispatchError
from dispatch.asyncio import Subscription
from dispatch.errors import AuthError, ConnectionError, TimeoutError
from dispatch.results import EnqueuedJob, EnqueuedJobs, Event, Job, Jobs, Outcome


async def token() -> str:
    return "dk_asked_anew"


async def calls() -> None:
    async with Dispatch(
        url="ws://127.0.0.1:8080/dwp",
        token="dk_...",
        format="json",
        reconnect=True,
        max_retries=10,
        timeout=30.0,
    ) as client:
        assert_type(client, Dispatch)
        job = await client.enqueue("send-email", {"to": "user@example.com"}, queue="mail", priority=10)
        assert_type(job, EnqueuedJob)
        assert_type(job.job_id, str)
        assert_type(job["job_id"], Any)
        assert_type(job.duplicate, bool)

        found = await client.get_job(job.job_id)
        assert_type(found, Job)
        assert_type(found.state, str)
        assert_type(found.output, Any)
        assert_type(found.error, str | None)

        assert_type(await client.list_jobs(state="failed"), Jobs)
        assert_type(await client.wait(job.job_id, timeout=5), Outcome)
        assert_type(await client.ping(), float)
        assert_type(await client.call("stats"), Any)
        answer = await client.enqueue_many([{"name": "a"}, {"name": "b", "delay": 1}])
        assert_type(answer, EnqueuedJobs)
        assert_type([each.job_id for each in answer.jobs], list[str])


async def connecting() -> None:
    client = Dispatch(url="ws://127.0.0.1:8080/dwp", token=token)
    assert_type(await client.connect(), str)
    await client.close()


async def events(client: Dispatch) -> None:
    sub = await client.subscribe("jobs", since="start")
    assert_type(sub, Subscription)
    async for event in sub:
        assert_type(event, Event)
        assert_type(event.kind, str)
        assert_type(event.seq, int | None)
        await sub.unsubscribe()
    async for event in client.subscribe("jobs", since=17):
        assert_type(event["data"], Any)
    async for event in await client.watch("job_01h455vb4pex5vsknk084sn02q"):
        assert_type(event, Event)


async def errors(client: Dispatch) -> None:
    try:
        await client.enqueue("unknown-job", {})
    except (AuthError, ConnectionError, TimeoutError) as narrow:
        assert_type(narrow.code, int)
    except DispatchError as e:
        assert_type(e.code, int)
        assert_type(e.details, str)
