"""`POST /dwp/rpc` over real sockets (PROTOCOL.md section 8)."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from dispatch.server.server import default_config
from dwp_core.codec import get_codec
from dwp_core.frames import DEFAULT_LIMITS
from tests.live import serving
from tests.server.http_serving import serving_http
from tests.server.serving import KEYS, noop, registry_of

PATIENCE = 30.0


def run(program: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(program(), PATIENCE)

    asyncio.run(main())


# ── the same methods as over a WebSocket ──


def test_a_job_is_enqueued_waited_for_and_looked_up() -> None:
    async def program() -> None:
        async with serving_http() as served:
            job = (await served.ask("job.enqueue", {"name": "noop", "payload": {"n": 1}}))["job_id"]
            ended = await served.ask("job.wait", {"job_id": job, "timeout_ms": 20_000})
            assert ended["state"] == "completed"
            assert (await served.ask("job.get", {"job_id": job}))["name"] == "noop"
            assert [each["id"] for each in (await served.ask("job.list"))["jobs"]] == [job]
            assert (await served.rpc("job.cancel", {"job_id": job})).status_code == 409

    run(program)


def test_the_extensions_work_and_every_answer_names_them() -> None:
    async def program() -> None:
        async with serving_http() as served:
            jobs = {"jobs": [{"name": "noop", "delay_ms": 10**9}] * 3, "idempotency_key": "k"}
            first = await served.rpc("job.enqueue_many", jobs)
            again = await served.rpc("job.enqueue_many", jobs)
            assert again.json()["data"] == {**first.json()["data"], "duplicate": True}
            refused = await served.rpc("nonsense", token="nope")
            unasked = await served.client.get("/dwp/rpc")
            for answer in (first, again, refused, unasked):
                assert answer.headers["dwp-features"] == "batch, idempotency, options, wait"
                assert answer.headers["dwp-log"] == served.server.hub.log

    run(program)


def test_a_wait_ends_at_its_bound() -> None:
    async def program() -> None:
        async with serving_http(config=replace(default_config(), wait=0.05), queues=()) as served:
            job = (await served.ask("job.enqueue", {"name": "noop"}))["job_id"]
            answer = await served.ask("job.wait", {"job_id": job, "timeout_ms": 60_000})
            assert answer == {"job_id": job, "state": "pending", "timed_out": True}

    run(program)


def test_messagepack_is_answered_in_messagepack() -> None:
    async def program() -> None:
        codec = get_codec("msgpack")
        async with serving_http() as served:
            frame = codec.encode("request", "7", method="stats", token="dk_full", ts=0)
            headers = {"content-type": "application/msgpack"}
            response = await served.client.post("/dwp/rpc", content=frame, headers=headers)
            assert response.headers["content-type"] == "application/msgpack"
            answer = codec.decode(response.content, DEFAULT_LIMITS)
            assert answer.correl_id == "7"
            assert codec.value(answer, DEFAULT_LIMITS)["connections"] == 1

    run(program)


@pytest.mark.parametrize("authorization", ["dk_reader", "Bearer dk_reader"])
def test_the_key_may_be_in_the_header_and_its_scopes_count(authorization: str) -> None:
    async def program() -> None:
        async with serving_http() as served:
            served.client.headers["authorization"] = authorization
            assert (await served.rpc("job.list", token="")).status_code == 200
            assert (await served.rpc("stats", token="")).status_code == 403
            assert (await served.rpc("stats", token="dk_full")).status_code == 200
            unknown = await served.rpc("stats", token="nope")
            assert unknown.status_code == 401
            assert unknown.headers["www-authenticate"] == "Bearer"

    run(program)


def test_tenants_see_their_own_jobs_only() -> None:
    async def program() -> None:
        async with serving_http() as served:
            job = (await served.ask("job.enqueue", {"name": "noop"}))["job_id"]
            assert (await served.rpc("job.get", {"job_id": job}, token="dk_other")).status_code == 404

    run(program)


# ── what is refused ──


def test_a_frame_that_is_too_large_is_413() -> None:
    async def program() -> None:
        limits = replace(DEFAULT_LIMITS, message=1000)

        async def parts() -> Any:
            for _ in range(4):
                yield b" " * 300

        async with serving_http(config=replace(default_config(), limits=limits)) as served:
            for content in (b" " * 1001, parts()):
                response = await served.client.post("/dwp/rpc", content=content)
                assert response.status_code == 413
                assert response.json()["error"]["code"] == 413
            assert (await served.rpc("stats")).status_code == 200

    run(program)


def test_only_post_is_answered() -> None:
    async def program() -> None:
        async with serving_http() as served:
            for method in ("GET", "PUT", "DELETE", "OPTIONS"):
                response = await served.client.request(method, "/dwp/rpc")
                assert response.status_code == 405
                assert response.headers["allow"] == "POST"

    run(program)


def test_without_keys_it_is_open_to_this_machine_and_to_no_page_of_another() -> None:
    async def program() -> None:
        async with serving_http(keys=None) as served:
            frame = {"id": "1", "type": "request", "method": "stats"}
            for headers, status in (
                ({}, 200),
                ({"origin": "http://localhost:3000"}, 200),
                ({"host": "localhost:8080"}, 200),
                ({"origin": "https://evil.example"}, 403),
                # A name of somebody's that was made to mean this machine.
                ({"host": "evil.example"}, 403),
            ):
                response = await served.client.post("/dwp/rpc", json=frame, headers=headers)
                assert response.status_code == status, headers

    run(program)


def test_a_server_that_drains_takes_nothing_new_and_answers_what_it_has() -> None:
    async def program() -> None:
        async with serving_http(queues=()) as served:
            job = (await served.ask("job.enqueue", {"name": "noop"}))["job_id"]
            waiting = asyncio.ensure_future(served.ask("job.wait", {"job_id": job}))
            while not served.server.waits.by_job:
                await asyncio.sleep(0.001)
            served.server.drain(5.0)
            assert (await waiting)["timed_out"] is True
            refused = await served.rpc("stats")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, 503)
            assert refused.headers["retry-after"] == "1"

    run(program)


# ── clients that are no good ──


def test_a_client_that_leaves_while_it_waits_leaves_nothing_behind() -> None:
    async def program() -> None:
        async with serving_http(queues=()) as served:
            job = (await served.ask("job.enqueue", {"name": "noop"}))["job_id"]
            waiting = asyncio.ensure_future(served.ask("job.wait", {"job_id": job}))
            while not served.server.waits.by_job:
                await asyncio.sleep(0.001)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            while served.server._connections:
                await asyncio.sleep(0.001)
            assert not served.server.waits.by_job

    run(program)


def test_a_client_that_never_ends_its_request_is_told_so() -> None:
    async def program() -> None:
        async with serving_http(config=replace(default_config(), auth_timeout=0.05)) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(b"POST /dwp/rpc HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 ")
            writer.close()

    run(program)


def test_one_key_cannot_have_everything_in_flight() -> None:
    async def program() -> None:
        async with serving_http(config=replace(default_config(), in_flight=2), queues=()) as served:
            job = (await served.ask("job.enqueue", {"name": "noop"}))["job_id"]
            waits = [asyncio.ensure_future(served.rpc("job.wait", {"job_id": job})) for _ in range(2)]
            while len(served.server.waits.by_job.get(job, ())) < 2:
                await asyncio.sleep(0.001)
            assert (await served.rpc("stats")).status_code == 429
            assert (await served.rpc("stats", token="dk_other")).status_code == 200
            await served.rpc("ping-pong", token="dk_other")
            served.server.waits.expire_all()
            assert [(await each).status_code for each in waits] == [200, 200]
            assert (await served.rpc("stats")).status_code == 200

    run(program)


def test_a_thousand_from_fifty_connections_are_all_answered() -> None:
    async def program() -> None:
        async with serving_http() as served:

            async def twenty(first: int) -> list[str]:
                jobs: list[str] = []
                for n in range(first, first + 20):
                    response = await served.rpc("job.enqueue", {"name": "noop", "payload": n}, id=str(n))
                    assert response.json()["correl_id"] == str(n)
                    jobs.append(response.json()["data"]["job_id"])
                return jobs

            jobs = await asyncio.gather(*[twenty(first) for first in range(0, 1000, 20)])
            assert len({job for each in jobs for job in each}) == 1000
            while served.server._connections:
                await asyncio.sleep(0.001)

    run(program)


def test_a_running_job_is_cancelled_over_http() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(payload: Any = None) -> None:
        begun.set()
        go_on.wait(PATIENCE)

    async def program() -> None:
        async with serving_http(registry=registry_of(slow=slow, noop=noop)) as served:
            job = (await served.ask("job.enqueue", {"name": "slow"}))["job_id"]
            await asyncio.to_thread(begun.wait, PATIENCE)
            assert await served.ask("job.cancel", {"job_id": job}) == {"status": "cancelled"}
            go_on.set()

    run(program)


def test_dispatch_serve_offers_it(tmp_path: Path) -> None:
    with serving(db=tmp_path / "d.db") as live, httpx.Client() as client:
        frame = {"id": "1", "type": "request", "method": "stats"}
        response = client.post(f"http://127.0.0.1:{live.port}/dwp/rpc", json=frame)
        assert (response.status_code, response.json()["data"]["connections"]) == (200, 1)


def test_no_key_reaches_a_log(caplog: pytest.LogCaptureFixture) -> None:
    async def program() -> None:
        caplog.set_level("DEBUG")
        async with serving_http(access_log=True) as served:
            await served.rpc("stats")
            await served.rpc("stats", token="dk_unknown")
            await served.client.post("/dwp/rpc", content=b'{"token":"dk_full"')
            body = json.dumps({"id": "1", "type": "request", "method": "stats"})
            await served.client.post("/dwp/rpc", content=body, headers={"authorization": "Bearer dk_full"})
        ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
        assert any("/dwp/rpc" in record.getMessage() for record in ours)
        for record in ours:
            assert "dk_unknown" not in record.getMessage()
            assert not any(key.token in record.getMessage() for key in KEYS)

    run(program)
