"""Every method over a real connection, on every store (`dispatch.server.handlers`)."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dispatch.server.auth import Keys
from dispatch.server.server import default_config
from dispatch.store.memory import MemoryStore
from dispatch.store.port import Store
from dispatch.store.sqlite import SqliteStore
from tests.server.serving import KEYS, RawClient, Served, noop, raw, registry_of, serving

PATIENCE = 30.0
UNKNOWN = "job_01h455vb4pex5vsknk084sn02q"

Program = Callable[[Served, RawClient], Awaitable[None]]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "jobs.db")
    yield store
    store.close()


class Gate:
    """Holds a function until it is let go."""

    def __init__(self) -> None:
        self.open = threading.Event()

    @property
    def function(self) -> Callable[..., Any]:
        def gate(payload: Any = None) -> Any:
            self.open.wait(PATIENCE)
            return payload

        return gate


def broken(payload: Any = None) -> None:
    raise RuntimeError("boom")


def run(store: Store, program: Program, **functions: Callable[..., Any]) -> None:
    """The program, with a client that may do everything."""

    async def main() -> None:
        registry = registry_of(noop=noop, broken=broken, **functions)
        async with (
            serving(store=store, registry=registry, keys=Keys(KEYS)) as served,
            raw(served.url) as client,
        ):
            await program(served, client)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_a_job_is_enqueued_run_and_read(store: Store) -> None:
    async def program(served: Served, client: RawClient) -> None:
        job = await client.ask(
            "job.enqueue", {"name": "noop", "payload": {"to": "é", "n": 1.0}, "priority": -3}
        )
        assert job == {"job_id": job["job_id"], "queue": "default", "state": "pending"}
        ended = await client.ask("job.wait", {"job_id": job["job_id"], "timeout_ms": 20_000})
        assert ended["state"] == "completed"
        assert json.loads(base64.b64decode(ended["output"])) == {"to": "é", "n": 1.0}
        read = await client.ask("job.get", {"job_id": job["job_id"]})
        assert (read["id"], read["state"], read["priority"]) == (job["job_id"], "completed", -3)
        assert (read["scope_app_id"], read["scope_org_id"]) == ("app-1", "org-1")
        assert json.loads(base64.b64decode(read["payload"])) == {"to": "é", "n": 1.0}

    run(store, program)


def test_a_payload_is_kept_byte_for_byte(store: Store) -> None:
    async def program(served: Served, client: RawClient) -> None:
        data = b'{"payload": {"n" : 1.50,"b":[ ]} ,"name":"noop"}'
        frame = b'{"id":"e","type":"request","method":"job.enqueue","data":%b}' % data
        await client.connection.send(frame, text=True)
        job = (await client.answer("e"))["data"]["job_id"]
        read = await client.ask("job.get", {"job_id": job})
        assert base64.b64decode(read["payload"]) == b'{"n" : 1.50,"b":[ ]}'

    run(store, program)


def test_what_cannot_be_enqueued_is_said_why(store: Store) -> None:
    async def program(served: Served, client: RawClient) -> None:
        code, message = await client.refused("job.enqueue", {"name": "nop"})
        assert code == 404
        assert '"nop"' in message
        assert "noop" in message
        assert await client.refused("job.enqueue", {"payload": 1}) == (
            400,
            "job.enqueue: name is missing: it must be a string of 1 to 255 characters",
        )
        code, message = await client.refused("job.enqueue", {"name": "noop", "unique_for_ms": 5})
        assert (code, message) == (
            400,
            "job.enqueue: unique_for_ms says how long unique_key is taken; give unique_key as well",
        )

    run(store, program)


def test_options_of_a_job_are_kept(store: Store) -> None:
    async def program(served: Served, client: RawClient) -> None:
        options = {"delay_ms": 3_600_000, "max_retries": 7, "timeout_ms": 1500, "queue": "nobody"}
        job = await client.ask("job.enqueue", {"name": "noop", **options})
        read = await client.ask("job.get", {"job_id": job["job_id"]})
        assert (read["max_retries"], read["timeout"], read["queue"]) == (7, 1_500_000_000, "nobody")
        assert read["run_at"] > read["created_at"]
        at = await client.ask("job.enqueue", {"name": "noop", "run_at": "2199-01-02T03:04:05Z"})
        read = await client.ask("job.get", {"job_id": at["job_id"]})
        assert read["run_at"] == "2199-01-02T03:04:05Z"

    run(store, program)


def test_a_unique_key_gives_the_job_that_has_it(store: Store) -> None:
    async def program(served: Served, client: RawClient) -> None:
        data = {"name": "noop", "queue": "nobody", "unique_key": "u"}
        first = await client.ask("job.enqueue", data)
        assert await client.ask("job.enqueue", data) == {**first, "duplicate": True}
        other = await client.ask("job.enqueue", {**data, "unique_key": "v", "unique_for_ms": 1})
        assert other["job_id"] != first["job_id"]

    run(store, program)


def test_the_same_key_with_the_same_data_is_the_same_job(store: Store) -> None:
    async def program(served: Served, client: RawClient) -> None:
        data = {"name": "noop", "queue": "nobody", "payload": 1, "idempotency_key": "k"}
        # At once: the second waits for the first and gets its answer.
        ids = [await client.request("job.enqueue", data) for _ in range(3)]
        first, *others = [(await client.answer(id))["data"] for id in ids]
        assert others == [{**first, "duplicate": True}] * 2
        code, message = await client.refused("job.enqueue", {**data, "payload": 2})
        assert code == 409
        assert "k" in message
        many = {"jobs": [{"name": "noop", "queue": "nobody"}], "idempotency_key": "k"}
        answer = await client.ask("job.enqueue_many", many)
        assert "duplicate" not in answer
        assert await client.ask("job.enqueue_many", many) == {**answer, "duplicate": True}

    run(store, program)


def test_many_jobs_are_enqueued_all_or_none(store: Store) -> None:
    async def program(served: Served, client: RawClient) -> None:
        jobs = [{"name": "noop", "payload": {"n": n}, "queue": "nobody"} for n in range(3)]
        answer = await client.ask("job.enqueue_many", {"jobs": jobs})
        assert [job["state"] for job in answer["jobs"]] == ["pending"] * 3
        read = await client.ask("job.get", {"job_id": answer["jobs"][2]["job_id"]})
        assert base64.b64decode(read["payload"]) == b'{"n": 2}'
        assert (await client.refused("job.enqueue_many", {"jobs": [*jobs, {"name": "nop"}]}))[0] == 404
        assert (
            await client.refused("job.enqueue_many", {"jobs": [{"name": "noop", "idempotency_key": "x"}]})
        )[0] == 400
        assert len((await client.ask("job.list", {"queue": "nobody"}))["jobs"]) == 3

    run(store, program)


def test_jobs_are_listed_in_pages(store: Store) -> None:
    async def program(served: Served, client: RawClient) -> None:
        made = [
            (await client.ask("job.enqueue", {"name": "noop", "payload": n, "queue": "nobody"}))["job_id"]
            for n in range(5)
        ]
        found: list[str] = []
        page = await client.ask("job.list", {"state": "pending", "name": "noop", "limit": 2})
        while True:
            found += [job["id"] for job in page["jobs"]]
            if "cursor" not in page:
                break
            page = await client.ask("job.list", {"state": "pending", "limit": 2, "cursor": page["cursor"]})
        assert found == made[::-1]
        assert await client.ask("job.list", {"state": "failed"}) == {"jobs": []}
        assert (await client.refused("job.list", {"cursor": "nonsense"}))[0] == 400

    run(store, program)


def test_a_waiting_job_is_cancelled_once(store: Store) -> None:
    async def program(served: Served, client: RawClient) -> None:
        job = (await client.ask("job.enqueue", {"name": "noop", "queue": "nobody"}))["job_id"]
        await client.ask("subscribe", {"channel": f"job:{job}"})
        assert await client.ask("job.cancel", {"job_id": job}) == {"status": "cancelled"}
        assert (await client.event("job.cancelled"))["data"]["data"]["state"] == "cancelled"
        assert (await client.refused("job.cancel", {"job_id": job}))[0] == 409
        assert (await client.refused("job.cancel", {"job_id": UNKNOWN}))[0] == 404
        assert (await client.ask("job.wait", {"job_id": job}))["state"] == "cancelled"

    run(store, program)


def test_a_running_job_is_told_of_its_cancellation(store: Store) -> None:
    started = threading.Event()

    async def program(served: Served, client: RawClient) -> None:
        job = (await client.ask("job.enqueue", {"name": "endless"}))["job_id"]
        await asyncio.to_thread(started.wait, PATIENCE)
        assert await client.ask("job.cancel", {"job_id": job}) == {"status": "cancelled"}
        assert (await client.ask("job.wait", {"job_id": job}))["state"] == "cancelled"

    async def endless(payload: Any = None) -> None:
        started.set()
        await asyncio.Event().wait()

    run(store, program, endless=endless)


def test_a_wait_is_answered_when_the_job_ends(store: Store) -> None:
    gate = Gate()

    async def program(served: Served, client: RawClient) -> None:
        job = (await client.ask("job.enqueue", {"name": "gate", "payload": 5}))["job_id"]
        waits = [await client.request("job.wait", {"job_id": job}) for _ in range(2)]
        assert (await client.ask("job.wait", {"job_id": job, "timeout_ms": 1}))["timed_out"] is True
        gate.open.set()
        for id in waits:
            answer = (await client.answer(id))["data"]
            assert answer == {"job_id": job, "state": "completed", "output": base64.b64encode(b"5").decode()}
        assert not served.server.waits.by_job

    run(store, program, gate=gate.function)


def test_a_wait_for_a_failure_is_an_answer(store: Store) -> None:
    async def program(served: Served, client: RawClient) -> None:
        job = (await client.ask("job.enqueue", {"name": "broken", "max_retries": 0}))["job_id"]
        answer = await client.ask("job.wait", {"job_id": job})
        assert answer == {"job_id": job, "state": "failed", "error": "RuntimeError: boom"}
        assert (await client.refused("job.wait", {"job_id": UNKNOWN}))[0] == 404

    run(store, program)


def test_a_wait_ends_with_its_connection(store: Store) -> None:
    gate = Gate()

    async def program(served: Served, client: RawClient) -> None:
        job = (await client.ask("job.enqueue", {"name": "gate"}))["job_id"]
        async with raw(served.url) as other:
            await other.request("job.wait", {"job_id": job})
            # Nothing of that order is sure of its own: this one is behind it on the same connection.
            await other.ask("stats")
            assert served.server.waits.by_job
        await client.ask("stats")
        while served.server.waits.by_job:
            await client.ask("stats")
        gate.open.set()

    run(store, program, gate=gate.function)


def test_what_failed_for_good_is_a_dead_letter_and_can_be_done_again(store: Store) -> None:
    async def program(served: Served, client: RawClient) -> None:
        job = (await client.ask("job.enqueue", {"name": "broken", "payload": {"a": 1}, "max_retries": 0}))[
            "job_id"
        ]
        await client.ask("job.wait", {"job_id": job})
        [entry] = (await client.ask("dlq.list", {"queue": "default"}))["entries"]
        assert (entry["job_id"], entry["error"]) == (job, "RuntimeError: boom")
        again = await client.ask("dlq.replay", {"dlq_id": entry["id"]})
        assert again["job_id"] != job
        assert (await client.ask("job.wait", {"job_id": again["job_id"]}))["state"] == "failed"
        code, _ = await client.refused("dlq.replay", {"dlq_id": "dlq_01h455vb4pex5vsknk084sn02q"})
        assert code == 404

    run(store, program)


def test_stats_tell_of_broker_and_connections(store: Store) -> None:
    async def program(served: Served, client: RawClient) -> None:
        await client.ask("subscribe", {"channel": "jobs"})
        stats = await client.ask("stats")
        assert stats["connections"] == 1
        assert stats["broker"]["subscriber_count"] == 1
        assert stats["broker"]["total_dropped"] == 0

    run(store, program)


def test_stats_tell_of_the_callers_own_queues(store: Store) -> None:
    async def program(served: Served, client: RawClient) -> None:
        later = {"name": "noop", "queue": "mail", "delay_ms": 60_000}
        for job in ({"name": "noop", "queue": "nobody"}, {"name": "noop", "queue": "nobody"}, later):
            await client.ask("job.enqueue", job)
        stats = await client.ask("stats")
        assert stats["dead_letters"] == 0
        assert stats["queues"] == [
            {"queue": "mail", "ready": 0, "scheduled": 1, "running": 0},
            {"queue": "nobody", "ready": 2, "scheduled": 0, "running": 0},
        ]
        async with raw(served.url, token="dk_other") as other:
            assert (await other.ask("stats"))["queues"] == []

    run(store, program)


def test_tenants_see_nothing_of_each_other(store: Store) -> None:
    async def program(served: Served, client: RawClient) -> None:
        job = (await client.ask("job.enqueue", {"name": "noop", "queue": "nobody", "idempotency_key": "k"}))[
            "job_id"
        ]
        async with raw(served.url, token="dk_other") as other:
            for method in ("job.get", "job.cancel", "job.wait"):
                assert (await other.refused(method, {"job_id": job}))[0] == 404
            assert await other.ask("job.list") == {"jobs": []}
            theirs = await other.ask(
                "job.enqueue", {"name": "noop", "queue": "nobody", "idempotency_key": "k"}
            )
            assert theirs["job_id"] != job

    run(store, program)


def test_methods_of_later_are_405_and_scopes_are_kept(store: Store) -> None:
    async def program(served: Served, client: RawClient) -> None:
        assert await client.refused("workflow.start", {"name": "x"}) == (
            405,
            "unknown method: workflow.start (not served by this server yet)",
        )
        async with raw(served.url, token="dk_reader") as reader:
            assert await reader.refused("job.enqueue", {"name": "noop"}) == (403, "insufficient permissions")
            assert await reader.refused("stats") == (403, "insufficient permissions")

    run(store, program)


def test_what_a_store_did_not_foresee_is_500_without_a_word_of_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError("secret")

    async def program(served: Served, client: RawClient) -> None:
        monkeypatch.setattr(type(store), "list_dead_letters", explode)
        monkeypatch.setattr(type(store), "replay_dead_letter", explode)
        if isinstance(store, MemoryStore):
            assert (await client.refused("dlq.list")) == (500, "internal error; the server's log says more")
        code, message = await client.refused("dlq.replay", {"dlq_id": "dlq_01h455vb4pex5vsknk084sn02q"})
        assert (code, message) == (500, "internal error; the server's log says more")
        monkeypatch.undo()
        assert await client.ask("dlq.list") == {"entries": []}

    run(store, program)
    assert "ZeroDivisionError" in caplog.text


def test_an_open_server_lets_in_its_own_machine(store: Store) -> None:
    async def main() -> None:
        async with serving(store=store) as served:
            async with raw(served.url, token="") as client:
                assert (await client.ask("stats"))["connections"] == 1
            assert served.server.identify("", "10.0.0.1") is None

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_a_server_with_other_limits_keeps_them(store: Store) -> None:
    async def main() -> None:
        config = replace(default_config(), batch=1, wait=0.01)
        gate = Gate()
        async with serving(store=store, config=config, registry=registry_of(gate=gate.function)) as served:
            async with raw(served.url) as client:
                job = (await client.ask("job.enqueue", {"name": "gate"}))["job_id"]
                answer = await client.ask("job.wait", {"job_id": job, "timeout_ms": 100_000})
                assert answer["timed_out"] is True
                assert answer["state"] in ("pending", "running")
                assert (await client.refused("job.enqueue_many", {"jobs": [{"name": "gate"}] * 2}))[0] == 429
            gate.open.set()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
