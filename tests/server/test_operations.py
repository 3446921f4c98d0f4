"""What whoever runs a server asks of it: `/`, `/healthz`, `/readyz`, `/metrics` (`dispatch.server.operations`)."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest

from dispatch.server import operations
from dispatch.server.asgi import app
from dispatch.server.auth import Key, Keys
from dispatch.server.metrics import _labels
from dispatch.server.server import DispatchServer
from dispatch.store.memory import MemoryStore
from dwp_core.errors import DispatchError
from tests.server.http_serving import ServedOverHttp, serving_http
from tests.server.serving import noop, registry_of

PATIENCE = 30.0
KEYS = Keys(
    [
        Key("dk_ops", frozenset(("stats:read",)), name="ops"),
        Key("dk_full", app_id="app-secret", org_id="org-secret"),
        Key("dk_reader", frozenset(("job:read",))),
    ]
)


def run(program: Callable[[ServedOverHttp], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with serving_http(**options) as served:
            await asyncio.wait_for(program(served), PATIENCE)

    asyncio.run(main())


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def figures(text: str) -> dict[str, float]:
    """Every sample by its name and labels."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def scrape(served: ServedOverHttp, token: str = "dk_ops") -> dict[str, float]:
    response = await served.client.get("/metrics", headers=bearer(token))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return figures(response.text)


# ── what this is ──


def test_the_root_says_what_this_is_and_where_everything_is() -> None:
    async def program(served: ServedOverHttp) -> None:
        about = (await served.client.get("/")).json()
        assert about["dispatch"]["version"] == served.server.config.version
        assert about["dispatch"]["rpc"] == "/dwp/rpc"
        for name in ("healthz", "readyz"):
            assert (await served.client.get(about[name])).status_code == 200

    run(program)


def test_mounted_its_addresses_are_below_the_mount() -> None:
    async def program() -> None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request"}

        scope = {"type": "http", "method": "GET", "path": "/jobs/", "root_path": "/jobs"}
        await app(DispatchServer(MemoryStore()))(scope, receive, send)
        assert b'"websocket": "/jobs/dwp"' in sent[1]["body"]
        assert b'"readyz": "/jobs/readyz"' in sent[1]["body"]

    asyncio.run(program())


def test_only_get_and_head_are_answered() -> None:
    async def program(served: ServedOverHttp) -> None:
        response = await served.client.post("/healthz")
        assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")
        head = await served.client.head("/healthz")
        assert (head.status_code, head.content) == (200, b"")

    run(program)


# ── alive and ready ──


def test_a_server_that_drains_is_alive_and_not_ready() -> None:
    async def program(served: ServedOverHttp) -> None:
        assert (await served.client.get("/readyz")).json() == {"status": "ready"}
        served.server.drain(5.0)
        response = await served.client.get("/readyz")
        assert response.status_code == 503
        assert response.json()["reason"].startswith("draining")
        assert response.headers["retry-after"] == "1"
        assert (await served.client.get("/healthz")).json() == {"status": "ok"}

    run(program)


def test_before_the_start_it_is_alive_and_not_ready() -> None:
    async def program() -> None:
        application = app(DispatchServer(MemoryStore()))
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            assert (await client.get("/healthz")).status_code == 200
            response = await client.get("/readyz")
            assert (response.status_code, response.json()["reason"]) == (503, "the server has not started")
            assert (await client.get("/metrics")).status_code == 503

    asyncio.run(program())


class StuckStore(MemoryStore):
    """A store that can be told to answer no more, or with an error."""

    def __init__(self) -> None:
        super().__init__()
        self.stuck: threading.Event | None = None
        self.broken = False
        self.begun = 0

    def transaction(self) -> AbstractContextManager[None]:
        self.begun += 1
        if self.stuck is not None:
            self.stuck.wait(PATIENCE)
        if self.broken:
            raise DispatchError("the disk that holds /secret/jobs.db is full")
        return super().transaction()


def test_a_store_that_is_broken_makes_it_unready_and_strangers_are_not_told_the_details() -> None:
    store = StuckStore()

    async def program(served: ServedOverHttp) -> None:
        store.broken = True
        response = await served.client.get("/readyz")
        assert response.status_code == 503
        assert response.json()["reason"] == "the store does not answer; the server's log says why"
        metrics = await scrape(served)
        assert metrics["dispatch_store_up"] == 0
        assert metrics["dispatch_connections"] >= 0
        store.broken = False
        assert (await served.client.get("/readyz")).status_code == 200

    run(program, store=store, keys=KEYS)


def test_a_store_that_hangs_makes_it_unready_and_is_asked_once_however_many_want_to_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operations, "STORE_SECONDS", 0.2)
    store = StuckStore()

    async def program(served: ServedOverHttp) -> None:
        store.stuck = threading.Event()
        before = served.server.committer.waiting
        answers = await asyncio.gather(*[served.client.get("/readyz") for _ in range(5)])
        assert [answer.json()["reason"] for answer in answers] == [
            "the store did not answer within 0.2 s"
        ] * 5
        # One is under way in the store's thread, or waits behind what the engine itself asked for.
        assert served.server.committer.waiting <= before + 2
        store.stuck.set()

    run(program, store=store)


# ── metrics ──


def test_metrics_count_jobs_queues_requests_events_and_commits() -> None:
    async def program(served: ServedOverHttp) -> None:
        later = {"name": "noop", "queue": "mail", "delay_ms": 600_000}
        await served.rpc("job.enqueue", later)
        await served.rpc("job.enqueue", {"name": "noop", "queue": "nobody"})
        job = (await served.ask("job.enqueue", {"name": "noop", "payload": "private"}))["job_id"]
        assert (await served.ask("job.wait", {"job_id": job}))["state"] == "completed"
        await served.rpc("job.enqueue", {"name": "unknown"})
        await served.rpc("no.such.method")
        await served.rpc("stats", token="dk_guess")
        await served.rpc("stats", token="dk_reader")
        metrics = await scrape(served)
        assert metrics['dispatch_queue_jobs{queue="mail",state="scheduled"}'] == 1
        assert metrics['dispatch_queue_jobs{queue="nobody",state="ready"}'] == 1
        assert metrics["dispatch_dead_letters"] == 0
        assert metrics["dispatch_jobs_enqueued_total"] == 3
        assert metrics["dispatch_jobs_started_total"] == 1
        assert metrics['dispatch_jobs_total{outcome="completed"}'] == 1
        assert metrics['dispatch_jobs_total{outcome="failed"}'] == 0
        assert metrics["dispatch_jobs_running"] == 0
        assert metrics["dispatch_events_logged_total"] == metrics["dispatch_event_log_events"] == 5
        assert metrics['dispatch_requests_total{method="job.enqueue",code="200"}'] == 3
        assert metrics['dispatch_requests_total{method="job.enqueue",code="404"}'] == 1
        assert metrics['dispatch_requests_total{method="job.wait",code="200"}'] == 1
        assert metrics['dispatch_requests_total{method="unknown",code="405"}'] == 1
        assert metrics['dispatch_requests_total{method="stats",code="403"}'] == 1
        assert metrics['dispatch_requests_total{method="auth",code="401"}'] == 1
        assert (
            metrics['dispatch_commit_operations_bucket{le="+Inf"}']
            == metrics["dispatch_commit_operations_count"]
        )
        assert metrics["dispatch_commit_operations_sum"] >= metrics["dispatch_commit_operations_count"] > 0
        assert metrics["dispatch_store_up"] == 1

    run(program, keys=KEYS)


def test_metrics_name_no_tenant_and_no_key() -> None:
    async def program(served: ServedOverHttp) -> None:
        await served.ask("job.enqueue", {"name": "noop", "queue": "nobody"})
        text = (await served.client.get("/metrics", headers=bearer("dk_ops"))).text
        for secret in ("app-secret", "org-secret", "dk_", "ops"):
            assert secret not in text

    run(program, keys=KEYS)


def test_every_family_says_what_it_is() -> None:
    async def program(served: ServedOverHttp) -> None:
        text = (await served.client.get("/metrics")).text
        told = re.findall(r"^# TYPE (\S+) (counter|gauge|histogram)$", text, re.MULTILINE)
        families = {name for name, _ in told}
        assert len(told) == len(families) == len(re.findall(r"^# HELP \S+ \S+", text, re.MULTILINE))
        for name in figures(text):
            bare = name.partition("{")[0]
            assert bare in families or re.sub("_(bucket|sum|count)$", "", bare) in families
        assert all(name.endswith("_total") == (kind == "counter") for name, kind in told)
        assert text.endswith("\n")

    run(program, keys=None)


def test_metrics_are_for_keys_with_the_scope() -> None:
    async def program(served: ServedOverHttp) -> None:
        nobody = await served.client.get("/metrics")
        assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, "Bearer")
        assert (await served.client.get("/metrics", headers=bearer("dk_reader"))).status_code == 403
        assert (await served.client.get("/metrics", headers=bearer("dk_ops"))).status_code == 200

    run(program, keys=KEYS)


def test_without_keys_metrics_are_for_this_machine_and_not_for_foreign_pages() -> None:
    async def program(served: ServedOverHttp) -> None:
        assert (await served.client.get("/metrics")).status_code == 200
        for headers in ({"origin": "https://evil.example"}, {"host": "evil.example"}):
            assert (await served.client.get("/metrics", headers=headers)).status_code == 403
        transport = httpx.ASGITransport(app=app(served.server), client=("10.0.0.9", 5000))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as stranger:
            assert (await stranger.get("/metrics")).status_code == 401

    run(program, keys=None)


def test_a_tenants_key_sees_the_queues_of_that_tenant_only() -> None:
    async def program(served: ServedOverHttp) -> None:
        await served.rpc("job.enqueue", {"name": "noop", "queue": "ours"}, token="dk_full")
        await served.rpc("job.enqueue", {"name": "noop", "queue": "theirs"}, token="dk_other")
        ours = 'dispatch_queue_jobs{queue="ours",state="ready"}'
        theirs = 'dispatch_queue_jobs{queue="theirs",state="ready"}'
        assert {ours, theirs} <= (await scrape(served, "dk_plain")).keys()
        tenants = await scrape(served, "dk_full")
        assert ours in tenants
        assert theirs not in tenants

    run(program, registry=registry_of(noop=noop))


def test_labels_are_escaped() -> None:
    assert _labels([("queue", 'a"b\\c\nd'), ("state", "ready")]) == r'{queue="a\"b\\c\nd",state="ready"}'
