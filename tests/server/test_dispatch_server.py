"""A server's life: start, drain, stop, and what it keeps (`dispatch.server.server`)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from dispatch.server import server as server_module
from dispatch.server.server import DispatchServer
from dispatch.store.memory import MemoryStore
from dispatch.store.sqlite import SqliteStore
from dispatch.store.values import Retention
from tests.server.serving import noop, raw, registry_of, serving

PATIENCE = 30.0


def run(program: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(program(), PATIENCE)

    asyncio.run(main())


def test_draining_answers_what_is_in_flight_and_sends_everybody_away() -> None:
    started, gate = threading.Event(), threading.Event()

    def slow(payload: Any = None) -> str:
        started.set()
        gate.wait(PATIENCE)
        return "done"

    async def program() -> None:
        async with serving(registry=registry_of(slow=slow)) as served, raw(served.url) as client:
            job = (await client.ask("job.enqueue", {"name": "slow"}))["job_id"]
            wait = await client.request("job.wait", {"job_id": job})
            await asyncio.to_thread(started.wait, PATIENCE)
            stopping = asyncio.create_task(served.server.stop(PATIENCE))
            # A wait is not kept to the end of the drain: it is asked again elsewhere.
            assert (await client.answer(wait))["data"] == {
                "job_id": job,
                "state": "running",
                "timed_out": True,
            }
            assert any(
                frame["type"] == "event" and frame["data"]["type"] == "drain" for frame in client.heard
            )
            await client.connection.wait_closed()
            assert client.connection.close_code == 1001
            assert not served.server.serving
            gate.set()
            await stopping
            assert served.server._store.get_job(job, tenant=None).state == "completed"

    run(program)


def test_a_connection_that_comes_while_it_drains_is_sent_away() -> None:
    async def program() -> None:
        async with serving() as served:
            served.server.drain(10.0)
            served.server.drain(20.0)
            with pytest.raises(InvalidStatus, match="503"):
                async with raw(served.url):
                    pass

    run(program)


def test_a_peer_that_does_not_leave_is_dropped_when_the_server_stops() -> None:
    async def program() -> None:
        async with serving() as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            while not served.server._connections:
                await asyncio.sleep(0)
            await served.server.stop(0.0)
            assert await reader.read() == b""
            writer.close()

    run(program)


def test_a_server_that_cannot_register_its_functions_does_not_start() -> None:
    class Broken(MemoryStore):
        def register_names(self, names: Any) -> None:
            raise OSError("the disk is gone")

    async def program() -> None:
        server = DispatchServer(Broken(), registry=registry_of(noop=noop))
        with pytest.raises(OSError, match="the disk is gone"):
            await server.start()
        assert not server.serving
        await server.stop(0.0)

    run(program)


def test_events_resume_after_a_restart_without_loss_or_duplicate(tmp_path: Path) -> None:
    async def first() -> int:
        store = SqliteStore(tmp_path / "jobs.db")
        async with serving(store=store) as served, raw(served.url) as client:
            await client.ask("subscribe", {"channel": "jobs"})
            job = (await client.ask("job.enqueue", {"name": "noop"}))["job_id"]
            await client.ask("job.wait", {"job_id": job})
            seq: int = (await client.event("job.started"))["data"]["seq"]
        store.close()
        return seq

    async def second(seen: int) -> None:
        store = SqliteStore(tmp_path / "jobs.db")
        async with serving(store=store) as served, raw(served.url) as client:
            answer = await client.ask("subscribe", {"channel": "jobs", "since": seen})
            assert answer["seq"] == seen + 1
            missed = await client.event("job.completed")
            assert missed["data"]["seq"] == seen + 1
            job = (await client.ask("job.enqueue", {"name": "noop"}))["job_id"]
            assert (await client.event("job.enqueued"))["data"]["data"]["job_id"] == job
            everything = await client.ask("subscribe", {"channel": "firehose", "since": "start"})
            assert "gap" not in everything
            assert (await client.event("job.enqueued"))["data"]["seq"] == seen - 1
        store.close()

    async def program() -> None:
        await second(await first())

    run(program)


def test_the_log_is_kept_within_its_bounds_and_a_gap_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_PURGE_EVERY", 0.01)

    async def program() -> None:
        store = MemoryStore()
        server = DispatchServer(store, registry=registry_of(noop=noop), retention=Retention(events=2))
        await server.start()
        client = FakeClient(server)
        for _ in range(5):
            await client.enqueue()
        while server.hub.oldest <= 1 or server.hub.oldest < server.hub.head - 1:
            await asyncio.sleep(0.001)
        await server.stop(0.0)

    run(program)


def test_a_purge_that_fails_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_module, "_PURGE_EVERY", 0.01)
    tries = 0

    class Broken(MemoryStore):
        def purge(self, **_: Any) -> Any:
            nonlocal tries
            tries += 1
            raise OSError("the disk is gone")

    async def program() -> None:
        server = DispatchServer(Broken())
        await server.start()
        while tries < 2:
            await asyncio.sleep(0.001)
        await server.stop(0.0)

    run(program)
    assert "could not be purged" in caplog.text


def test_a_log_that_cannot_be_read_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryStore):
        def read_events(self, *args: Any, **options: Any) -> Any:
            raise OSError("the disk is gone")

    async def program() -> None:
        async with serving(store=Broken()) as served, raw(served.url) as client:
            served.server.hub._floor = served.server.hub.head = 5
            await client.ask("subscribe", {"channel": "jobs", "since": 1})
            await client.connection.wait_closed()
            assert client.connection.close_code == 1011

    run(program)
    assert "cannot be read" in caplog.text


class FakeClient:
    """Enqueues without a connection."""

    def __init__(self, server: DispatchServer) -> None:
        self.server = server

    async def enqueue(self) -> None:
        from dispatch.store.values import NO_TENANT, NewJob

        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.server.committer.submit(
            lambda store: store.enqueue((NewJob("noop", queue="nobody"),), tenant=NO_TENANT, now_ns=1),
            lambda value, error: done.set_result(None),
        )
        await done
