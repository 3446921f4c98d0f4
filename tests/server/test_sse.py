"""`GET /dwp/sse` over real sockets (PROTOCOL.md section 8)."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from dispatch.server.server import DispatchServer, default_config
from dispatch.server.sse import UNSENT_BYTES, EventStreamConnection, without_token
from dispatch.store.sqlite import SqliteStore
from dwp_core.events import LoggedEvent
from tests.live import serving
from tests.server.http_serving import ServedOverHttp, serving_http

PATIENCE = 30.0
JOB = "job_01h455vb4pex5vsknk084sn02q"


def run(program: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(program(), PATIENCE)

    asyncio.run(main())


def events(first: int, last: int, *, size: int = 0) -> list[LoggedEvent]:
    """Events of `dk_full`'s tenant."""
    return [
        LoggedEvent(
            n,
            "job.completed",
            0,
            f"job:{JOB}",
            "default",
            "app-1",
            "org-1",
            json.dumps({"n": n, "more": "x" * size}).encode(),
        )
        for n in range(first, last + 1)
    ]


async def gone(server: DispatchServer) -> None:
    """Until nobody is connected."""
    while server._connections:
        await asyncio.sleep(0.001)


# ── the stream ──


def test_the_events_of_a_job_come_with_id_type_and_data() -> None:
    async def program() -> None:
        async with serving_http() as served, served.stream("jobs") as stream:
            headers = stream.response.headers
            assert headers["content-type"] == "text/event-stream"
            assert headers["cache-control"] == "no-cache"
            assert headers["x-accel-buffering"] == "no"
            assert headers["dwp-log"] == served.server.hub.log
            assert headers["dwp-features"] == "drain, resume"
            assert await stream.block() == {"retry": "3000", "id": "0"}
            job = (await served.ask("job.enqueue", {"name": "noop"}))["job_id"]
            for seq, kind in enumerate(("job.enqueued", "job.started", "job.completed"), start=1):
                block = await stream.block()
                data = json.loads(block["data"])
                assert (block["id"], block["event"]) == (str(seq), kind)
                assert data.keys() == {"type", "ts", "topic", "seq", "data"}
                assert (data["type"], data["seq"], data["topic"]) == (kind, seq, f"job:{job}")
                assert data["data"]["job_id"] == job

    run(program)


def test_several_channels_give_an_event_once_and_other_tenants_nothing() -> None:
    async def program() -> None:
        async with (
            serving_http() as served,
            served.stream("jobs", "firehose", "queue:default") as ours,
            served.stream("firehose", token="dk_other") as theirs,
        ):
            await served.ask("job.enqueue", {"name": "noop"})
            first = [await ours.block() for _ in range(4)]
            assert [block.get("event") for block in first] == [
                None,
                "job.enqueued",
                "job.started",
                "job.completed",
            ]
            frame = {"id": "1", "type": "request", "method": "job.enqueue", "token": "dk_other"}
            await served.client.post("/dwp/rpc", json={**frame, "data": {"name": "noop"}})
            await theirs.block()
            assert json.loads((await theirs.block())["data"])["data"]["scope_app_id"] == "app-2"

    run(program)


def test_a_reader_that_comes_back_misses_nothing_and_gets_nothing_twice(tmp_path: Path) -> None:
    async def program() -> None:
        path = tmp_path / "d.db"
        store = SqliteStore(path)
        async with serving_http(store=store, queues=()) as served:
            async with served.stream("jobs") as stream:
                await served.ask("job.enqueue", {"name": "noop"})
                await stream.block()
                last = (await stream.block())["id"]
            for _ in range(5):
                await served.ask("job.enqueue", {"name": "noop"})
        store.close()
        store = SqliteStore(path)
        # Another server on the same file; the address is repeated as it was, so the header counts.
        async with serving_http(store=store, queues=()) as served:
            headers = {"last-event-id": last}
            async with served.stream("jobs", since="0", headers=headers) as stream:
                assert (await stream.block())["id"] == last
                await served.ask("job.enqueue", {"name": "noop"})
                seqs = [(await stream.event("job.enqueued"))["seq"] for _ in range(6)]
                assert seqs == list(range(int(last) + 1, int(last) + 7))
            async with served.stream("jobs", since="start") as stream:
                assert (await stream.event("job.enqueued"))["seq"] == 1
        store.close()

    run(program)


def test_what_retention_has_removed_is_told() -> None:
    async def program() -> None:
        async with serving_http() as served:
            served.server._publish(events(1, 10))
            served.server.hub.retained(6)
            async with served.stream("jobs", since="2") as stream:
                assert (await stream.event("gap"))["data"] == {"from": 3, "to": 5}
                assert (await stream.event("job.completed"))["seq"] == 6

    run(program)


def test_comments_keep_the_stream_alive() -> None:
    async def program() -> None:
        config = replace(default_config(), comment_every=0.01)
        async with serving_http(config=config) as served, served.stream("jobs") as stream:
            await stream.block()
            assert await stream.block() == {"": ""}
            assert await stream.block() == {"": ""}

    run(program)


# ── who is refused, before a stream begins ──


def test_refusals_are_real_statuses() -> None:
    async def program() -> None:
        async with serving_http() as served:
            assert (await served.refused_stream("?channel=jobs"))[0] == 401
            assert (await served.refused_stream("?channel=jobs&token=nope"))[0] == 401
            assert (await served.refused_stream("?channel=jobs&token=dk_admin"))[0] == 403
            assert (await served.refused_stream("?token=dk_full"))[0] == 400
            assert (await served.refused_stream("?token=dk_full&channel=nope"))[0] == 400
            assert (await served.refused_stream("?token=dk_full&channel=jobs&channel="))[0] == 400
            assert (await served.refused_stream("?token=dk_full&channel=jobs&since=1"))[0] == 400
            header = {"last-event-id": "soon"}
            assert (await served.refused_stream("?token=dk_full&channel=jobs", **header))[0] == 400
            await gone(served.server)

    run(program)


@pytest.mark.parametrize("authorization", ["dk_reader", "Bearer dk_reader"])
def test_the_key_may_be_in_the_header(authorization: str) -> None:
    async def program() -> None:
        async with (
            serving_http() as served,
            served.stream("jobs", token="", headers={"authorization": authorization}) as stream,
        ):
            await stream.block()

    run(program)


def test_only_get_is_answered_and_no_page_of_another_machine_without_keys() -> None:
    async def program() -> None:
        async with serving_http(keys=None) as served:
            response = await served.client.post("/dwp/sse?channel=jobs")
            assert (response.status_code, response.headers["allow"]) == (405, "GET")
            for headers in ({"origin": "https://evil.example"}, {"host": "evil.example:80"}):
                assert (await served.refused_stream("?channel=jobs", **headers))[0] == 403
            async with served.stream("jobs", token=""):
                pass

    run(program)


# ── readers that are no good ──


def test_a_reader_that_leaves_leaves_nothing_behind() -> None:
    async def program() -> None:
        async with serving_http() as served:
            async with served.stream("jobs") as stream:
                await stream.block()
                assert served.server.hub.subscribers == 1
            await gone(served.server)
            assert (served.server.hub.subscribers, served.server.hub.channels) == (0, 0)

    run(program)


async def slow_reader(served: ServedOverHttp) -> tuple[socket.socket, EventStreamConnection]:
    """One that has asked and reads nothing."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    reader.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(reader, ("127.0.0.1", served.port))
    before = set(served.server._connections)
    asked = b"GET /dwp/sse?channel=jobs&token=dk_full HTTP/1.1\r\nHost: localhost\r\n\r\n"
    await loop.sock_sendall(reader, asked)
    while not served.server._connections - before:
        await asyncio.sleep(0.001)
    [connection] = served.server._connections - before
    assert isinstance(connection, EventStreamConnection)
    return reader, connection


def test_a_slow_reader_is_bounded_costs_the_others_nothing_and_loses_nothing() -> None:
    async def program() -> None:
        async with serving_http() as served, served.stream("jobs") as quick:
            reader, connection = await slow_reader(served)
            most = 0
            for first in range(1, 4001, 100):
                served.server._publish(events(first, first + 99, size=5000))
                for n in range(first, first + 100):
                    assert (await quick.event("job.completed"))["seq"] == n
                most = max(most, connection._unsent)
            # What one page of events may be besides, and no more: 20 MB were published.
            assert most < 2 * UNSENT_BYTES + 256 * 6000
            loop = asyncio.get_running_loop()
            read = b""
            while b"id: 4000\n" not in read[-8000:]:
                read += await loop.sock_recv(reader, 1 << 20)
            ids = [int(line[4:]) for line in read.split(b"\n") if line.startswith(b"id: ")]
            assert ids == [0, *range(1, 4001)]
            reader.close()

    run(program)


def test_a_reader_that_takes_nothing_for_long_is_left() -> None:
    async def program() -> None:
        config = replace(default_config(), stall_timeout=0.05)
        async with serving_http(config=config) as served:
            reader, connection = await slow_reader(served)
            served.server._publish(events(1, 4000, size=5000))
            await gone(served.server)
            assert connection.session.state == "closed"
            assert served.server.hub.subscribers == 0
            reader.close()

    run(program)


# ── the end ──


def test_a_server_that_stops_says_so_and_ends_the_streams() -> None:
    async def program() -> None:
        async with serving_http() as served, served.stream("jobs") as stream:
            await stream.block()
            await served.server.stop(0.0)
            assert (await stream.event("drain"))["data"]["retry_after_ms"] == 1000
            assert await stream.block() == {}
            assert (await served.refused_stream("?channel=jobs&token=dk_full"))[0] == 503

    run(program)


def test_dispatch_serve_offers_it_and_ends_streams_when_it_stops(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving("--token", "dk_live", db=tmp_path / "d.db") as live:
        base = f"http://127.0.0.1:{live.port}"
        query = "channel=jobs&token=dk_live"
        with httpx.Client(base_url=base) as client, client.stream("GET", f"/dwp/sse?{query}") as stream:
            lines = stream.iter_lines()
            assert next(lines) == "retry: 3000"
            assert live.stop() == 0
            assert "event: drain" in list(lines)
    assert "dk_live" not in capfd.readouterr().err


def test_no_key_reaches_a_log(caplog: pytest.LogCaptureFixture) -> None:
    async def program() -> None:
        caplog.set_level("DEBUG")
        async with serving_http(access_log=True) as served:
            async with served.stream("jobs"):
                pass
            await served.refused_stream("?channel=jobs&%74oken=dk_unknown")
            await gone(served.server)
        logged = [r.getMessage() for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
        assert any("/dwp/sse" in line and "channel=jobs" in line for line in logged)
        assert not any("dk_" in line for line in logged)

    run(program)


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        (b"token=dk_1&channel=jobs", b"token=***&channel=jobs"),
        (b"%74oken=dk_1", b"%74oken=***"),
        (b"token=a=b&token=c", b"token=***&token=***"),
        (b"tokens=x&token", b"tokens=x&token"),
        (b"", b""),
    ],
)
def test_a_query_is_shown_without_its_key(query: bytes, shown: Any) -> None:
    assert without_token(query) == shown
