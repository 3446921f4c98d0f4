"""The programs of the documentation, word for word but for the address, the token and the format.

The blocking client runs the same programs, without `async` and `await`, and nothing else is different in them.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from tests.contract.bindings import inner, over_http_too
from tests.contract.world import World, in_thread

pytestmark = pytest.mark.anyio

QUICK_START = """
async with Dispatch(url="ws://127.0.0.1:8080/dwp", token="dk_...", format="json", reconnect=True, max_retries=10, timeout=30.0) as client:
    job = await client.enqueue("send-email", {"to": "user@example.com", "subject": "Welcome!"})
    print(job["job_id"], await client.get_job(job["job_id"]))
    async for event in await client.subscribe("jobs"):
        print(event)          # {"type": "event", "channel": "jobs", "data": {"job_id": "...", "state": "completed"}}
        break
"""  # noqa: E501  # as it is written there

BY_HAND = """
client = Dispatch(url="...", token="..."); session_id = await client.connect(); ...; await client.close()
"""

UNSUBSCRIBING = """
sub = await client.subscribe("jobs")
async for event in sub:
    if should_stop:
        await sub.unsubscribe()
        break
"""

ERRORS = """
from dispatch.errors import AuthError, ConnectionError, TimeoutError, DispatchError
try:
    await client.enqueue("unknown-job", {})
except DispatchError as e:
    print(f"Error {e.code}: {e}")
"""

OPTIONS = """
job = await client.enqueue("send-email", {"to": "user@example.com"}, queue="mail", priority=10)
"""

WATCHING = """
run = await client.start_workflow("order-pipeline", {"order_id": "ORD-001"})
async for event in await client.watch(run["run_id"]): ...
"""


def spelled_for(world: World[Any], source: str) -> str:
    """The program as users of this binding write it, for this server."""
    for old in ('url="ws://127.0.0.1:8080/dwp", token="dk_..."', 'url="...", token="..."'):
        source = source.replace(old, f'url="{world.url}", token="{world.token}"')
    source = source.replace('format="json"', f'format="{world.codec}"')
    return re.sub(r"\b(async|await) ", "", source) if world.binding.blocking else source


async def run(source: str, world: World[Any], client: Any = None, **names: Any) -> dict[str, Any]:
    """The program, with what it would find around it; what it leaves behind."""
    names.update({"Dispatch": world.binding.client, "client": inner(client)})
    program = textwrap.dedent(spelled_for(world, source))
    if world.binding.blocking:
        await in_thread(exec, compile(program, "<documentation>", "exec"), names)
    else:
        outcome = eval(compile(program, "<documentation>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if inspect.isawaitable(outcome):
            await outcome
    return names


async def while_jobs_run(world: World[Any], program: Callable[[], Awaitable[Any]]) -> None:
    """The program, while somebody else has one job after another done."""
    async with world.client() as other, anyio.create_task_group() as group:

        async def one_after_another() -> None:
            while True:
                await other.wait((await other.enqueue("noop")).job_id)

        group.start_soon(one_after_another)
        await program()
        group.cancel_scope.cancel()


@over_http_too
async def test_the_quick_start_runs(world: World[Any], capsys: pytest.CaptureFixture[str]) -> None:
    """The first program that anybody types."""
    await while_jobs_run(world, lambda: run(QUICK_START, world))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("job_")
    event = ast.literal_eval(second)
    assert (event["type"], event["channel"]) == ("event", "jobs")
    assert event["data"]["job_id"].startswith("job_")
    assert event["data"]["state"] in ("pending", "running", "completed")


async def test_a_client_is_opened_and_closed_by_hand(world: World[Any]) -> None:
    """`connect()` and `close()` without a block."""
    names = await run(BY_HAND, world)
    assert names["session_id"].startswith("ws_")
    assert names["client"].state == "closed"


@over_http_too
async def test_a_subscription_is_left_from_inside_its_loop(world: World[Any]) -> None:
    """`unsubscribe()`, then `break`; the client goes on."""
    async with world.client() as client:
        await while_jobs_run(world, lambda: run(UNSUBSCRIBING, world, client=client, should_stop=True))
        assert (await client.ping()) > 0


@over_http_too
async def test_an_error_has_a_code_and_says_what_is_wrong(
    world: World[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """`except DispatchError as e: e.code`."""
    async with world.client() as client:
        await run(ERRORS, world, client=client)
    said = capsys.readouterr().out
    if world.server.base:
        assert said == ""  # it takes a job of any name
    else:
        assert said.startswith("Error 404: ")
        assert "unknown-job" in said


@over_http_too
async def test_a_job_has_options(world: World[Any]) -> None:
    """As arguments of `enqueue`."""
    async with world.client() as client:
        job = (await run(OPTIONS, world, client=client))["job"]
        assert (job["queue"], job.queue) == ("mail", "mail")
        assert (await client.get_job(job.job_id)).priority == 10


async def test_a_run_is_watched_to_its_end(go: World[Any]) -> None:
    """`watch` takes a run as it takes a job."""
    async with go.client() as client:
        names = await run(WATCHING, go, client=client)
        assert names["run"]["state"] == "completed"
