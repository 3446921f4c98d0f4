"""The testing kit as its users' type checker sees it. Never run: `test_typing.py` has mypy and pyright check it."""

from __future__ import annotations

from typing import Any, assert_type

import dispatch.asyncio
import dispatch.sync
import dispatch.trio
from dispatch.errors import NotFoundError
from dispatch.functions.registry import Registry
from dispatch.results import Job
from dispatch.server import Key
from dispatch.testing import MemoryServer, MockTransport, Request, new_id, server
from dwp_core.server_events import ServerConfig


def a_server_that_the_test_plays() -> None:
    transport = MockTransport(ServerConfig(features=frozenset()))
    transport.answer(
        "job.get", {"state": "running"}, NotFoundError("gone"), lambda data: {"id": data["job_id"]}
    )
    dispatch.asyncio.Dispatch(url="ws://test/dwp", transport=transport)
    dispatch.trio.Dispatch(url="ws://test/dwp", transport=transport)
    dispatch.sync.Dispatch(url="ws://test/dwp", transport=transport)
    assert_type(transport.requests, list[Request])
    assert_type(transport.asked("job.get"), list[dict[str, Any]])
    assert_type(transport.publish("job.completed", job_id=new_id("job")), int)
    assert_type(transport.next_request_blocking("job.get", timeout=1.0), Request)
    assert_type(transport.requests[0].data, dict[str, Any])
    assert_type(transport.connections, int)


async def functions_on_a_real_server() -> None:
    async with server(Registry(), keys=[Key("dk_1")], concurrency=1) as running:
        assert_type(running, MemoryServer)
        await running.until_idle(timeout=5)
        assert_type(running.jobs(), list[Job])
    with server("app.py") as running:
        running.until_idle_blocking()
        assert_type(running.url, str)
