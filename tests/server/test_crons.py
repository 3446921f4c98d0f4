"""Functions that the clock calls: the loop that fires them, their methods, and real servers on one file."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatch import Dispatch
from dispatch.functions.registry import Registry
from dispatch.server.auth import Keys
from dispatch.server.crons import LOOK_AGAIN, POLL, CronLoop
from dispatch.store.memory import MemoryStore
from dispatch.store.port import Store
from dispatch.store.sqlite import SqliteStore
from dispatch.store.values import FiredCrons
from dwp_core.errors import DispatchError
from dwp_core.jobs import SECOND
from tests.server.engine_bench import START_NS, Bench
from tests.server.serve_process import ServeProcess
from tests.server.serving import KEYS, RawClient, Served, raw, serving

PATIENCE = 30.0
TO_THE_MINUTE = 40.0
"""Seconds from the bench's start to the next full minute."""


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "jobs.db")
    yield store
    store.close()


@pytest.fixture
def bench(store: Store) -> Iterator[Bench]:
    bench = Bench(store)
    yield bench
    assert bench.close()


class Clockwork:
    """The loop that is tested, beside the engine of a bench."""

    def __init__(self, bench: Bench, writer: Any = None) -> None:
        self.bench = bench
        bench.start()
        self.crons = CronLoop(
            writer or bench.committer,
            bench.registry,
            bench.loop,
            notify=bench.engine.notify,
            wall_ns=bench.loop.wall_ns,
        )
        self.rounds: list[FiredCrons | None] = []
        looked = self.crons._looked

        def counted(fired: FiredCrons | None, error: BaseException | None) -> None:
            self.rounds.append(fired)
            looked(fired, error)

        self.crons._looked = counted  # type: ignore[method-assign]

    def start(self) -> None:
        answers: list[BaseException | None] = []
        self.crons.start(answers.append)
        self.bench.until(lambda: bool(answers))
        assert answers == [None]

    def until_rounds(self, count: int) -> None:
        self.bench.until(lambda: len(self.rounds) >= count)

    def fired(self) -> int:
        return sum(event.type == "cron.fired" for event in self.bench.events)


def counting(bench: Bench) -> list[Any]:
    """A function that is called every minute, and what it was called with."""
    calls: list[Any] = []

    @bench.registry.cron("* * * * *", payload="now")
    @bench.registry.function(name="tick")
    def tick(what: Any) -> None:
        calls.append(what)

    return calls


# ── the loop ──


def test_a_function_is_called_when_its_time_has_come(bench: Bench) -> None:
    calls = counting(bench)
    clock = Clockwork(bench)
    clock.start()
    clock.until_rounds(1)
    bench.loop.advance(POLL)
    clock.until_rounds(2)
    assert clock.fired() == 0
    bench.loop.advance(TO_THE_MINUTE - POLL)
    bench.until(lambda: calls == ["now"])
    assert clock.fired() == 1
    (entry,) = bench.do(lambda store: store.list_crons(tenant=None))
    assert entry.last_fire == START_NS + 40 * SECOND
    assert bench.until_state(entry.last_job_id, "completed").name == "tick"


def test_a_server_without_entries_sets_no_timer(bench: Bench) -> None:
    bench.registry.function(name="plain")(nothing)
    clock = Clockwork(bench)
    clock.start()
    clock.crons.look()
    assert (clock.crons._timer, clock.rounds) == (None, [])


def test_it_looks_now_and_then_because_clocks_are_set(bench: Bench) -> None:
    counting(bench)
    clock = Clockwork(bench)
    shift = 0
    wall_ns = bench.loop.wall_ns
    clock.crons._wall_ns = lambda: wall_ns() + shift
    clock.start()
    clock.until_rounds(1)
    shift = 3600 * SECOND
    bench.loop.advance(POLL)
    bench.until(lambda: clock.fired() == 1)
    # Set back: what has fired does not fire again.
    shift = 0
    for count in (4, 5, 6):
        bench.loop.advance(POLL)
        clock.until_rounds(count - 1)
    assert clock.fired() == 1


def test_what_waits_for_a_job_is_looked_for_soon(store: Store) -> None:
    bench = Bench(store, lease_seconds=36_000)
    gate = threading.Event()

    @bench.registry.cron("* * * * *", overlap="queue")
    @bench.registry.function(name="slow", timeout=3600)
    def slow() -> None:
        gate.wait(PATIENCE)

    clock = Clockwork(bench)
    clock.start()
    clock.until_rounds(1)
    bench.loop.advance(TO_THE_MINUTE)
    bench.until(lambda: any(event.type == "job.started" for event in bench.events))
    for _ in range(2):
        bench.loop.advance(POLL)
        clock.until_rounds(len(clock.rounds) + 1)
    assert clock.rounds[-1] is not None
    assert clock.rounds[-1].waiting
    assert clock.fired() == 1
    gate.set()
    bench.until(lambda: any(event.type == "job.completed" for event in bench.events))
    bench.loop.advance(LOOK_AGAIN)
    bench.until(lambda: clock.fired() == 2)
    bench.until(lambda: sum(event.type == "job.completed" for event in bench.events) == 2)
    assert bench.close()


def test_a_store_that_fails_is_asked_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        broken = False

        def submit(self, operation: Callable[[Store], Any], done: Callable[..., None]) -> None:
            if self.broken:
                raise DispatchError("the disk is full")
            bench.committer.submit(operation, done)

    counting(bench)
    writer = Failing()
    clock = Clockwork(bench, writer)
    clock.start()
    clock.until_rounds(1)
    writer.broken = True
    with caplog.at_level(logging.ERROR, "dispatch.crons"):
        bench.loop.advance(POLL)
    assert clock.rounds[-1] is None
    assert "cron entries could not be fired; trying again in 1 s: the disk is full" in caplog.text
    writer.broken = False
    bench.loop.advance(TO_THE_MINUTE - POLL)
    bench.until(lambda: clock.fired() == 1)


def test_after_it_was_stopped_nothing_fires(bench: Bench) -> None:
    counting(bench)
    clock = Clockwork(bench)
    clock.start()
    clock.until_rounds(1)
    clock.crons.stop()
    clock.crons.look()
    bench.loop.advance(600)
    assert clock.fired() == 0


def test_a_look_that_is_asked_for_under_way_is_made_afterwards(bench: Bench) -> None:
    counting(bench)
    clock = Clockwork(bench)
    clock.start()
    clock.crons.look()
    clock.until_rounds(2)
    assert clock.fired() == 0


def nothing() -> None: ...


def test_two_entries_of_one_name_are_no_server() -> None:
    registry = Registry()
    for name in ("a", "b"):
        one = Registry().cron("@daily", name="same")(Registry().function(name=name)(nothing))
        registry.add(one)
    with pytest.raises(ValueError, match='two entries are named "same"'):
        CronLoop(None, registry, None, notify=print)  # type: ignore[arg-type]


# ── the methods ──


def run(store: Store, program: Callable[[Served, RawClient], Any], **options: Any) -> None:
    registry = Registry()

    @registry.cron("0 0 1 1 *", name="yearly", payload={"a": 1}, app_id="app-1", org_id="org-1", **options)
    @registry.function(name="report", queue="mail")
    def report(payload: Any) -> Any:
        return payload

    async def main() -> None:
        async with (
            serving(store=store, registry=registry, keys=Keys(KEYS)) as served,
            raw(served.url) as client,
        ):
            await program(served, client)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_entries_are_listed_paused_resumed_and_run_now(store: Store) -> None:
    async def program(served: Served, client: RawClient) -> None:
        (entry,) = (await client.ask("cron.list"))["crons"]
        assert (entry["name"], entry["schedule"], entry["timezone"]) == ("yearly", "0 0 1 1 *", "UTC")
        assert (entry["job_name"], entry["queue"], entry["enabled"]) == ("report", "mail", True)
        assert entry["next_run_at"].endswith("-01-01T00:00:00Z")
        paused = await client.ask("cron.pause", {"name": "yearly"})
        assert (paused["enabled"], paused.get("next_run_at")) == (False, None)
        await client.ask("subscribe", {"channel": "firehose"})
        answer = await client.ask("cron.trigger", {"name": "yearly"})
        assert answer == {"name": "yearly", "job_id": answer["job_id"]}
        event = await client.event("cron.fired")
        assert event["data"]["data"] == {"entry_name": "yearly", "job_id": answer["job_id"]}
        assert event["data"]["topic"] == ""
        ended = await client.ask("job.wait", {"job_id": answer["job_id"], "timeout_ms": 20_000})
        assert ended["state"] == "completed"
        resumed = await client.ask("cron.resume", {"name": "yearly"})
        assert (resumed["enabled"], resumed["next_run_at"]) == (True, entry["next_run_at"])
        assert resumed["last_job_id"] == answer["job_id"]

    run(store, program)


def test_what_there_is_not_is_404_and_what_is_missing_400(store: Store) -> None:
    async def program(served: Served, client: RawClient) -> None:
        for method in ("cron.pause", "cron.resume", "cron.trigger"):
            assert await client.refused(method, {"name": "x"}) == (404, 'there is no cron entry "x"')
            assert (await client.refused(method))[0] == 400

    run(store, program)


def test_tenants_see_their_own_entries_and_readers_change_none(store: Store) -> None:
    async def program(served: Served, client: RawClient) -> None:
        async with raw(served.url, token="dk_other") as other:
            assert await other.ask("cron.list") == {"crons": []}
            assert (await other.refused("cron.trigger", {"name": "yearly"}))[0] == 404
        async with raw(served.url, token="dk_reader") as reader:
            assert (await reader.refused("cron.list"))[0] == 403
            assert (await reader.refused("cron.pause", {"name": "yearly"}))[0] == 403

    run(store, program)


def test_a_resumed_entry_fires_without_waiting_for_the_next_look(store: Store) -> None:
    registry = Registry()
    called = threading.Event()

    @registry.cron("* * * * * *", app_id="app-1", org_id="org-1")
    @registry.function(name="tick")
    def tick() -> None:
        called.set()

    async def main() -> None:
        async with serving(store=store, registry=registry, keys=Keys(KEYS)) as served:
            async with raw(served.url, features=None) as client:
                await client.ask("cron.pause", {"name": "tick"})
                await client.ask("subscribe", {"channel": "firehose"})
                await client.ask("cron.resume", {"name": "tick"})
                # As the existing server says it: no topic of its own; labelled for clients that route by channel.
                event = await client.event("cron.fired")
                assert event["channel"] == "firehose"
                assert set(event["data"]) == {"type", "ts", "topic", "data"}
                assert event["data"]["data"]["entry_name"] == "tick"
            assert await asyncio.to_thread(called.wait, PATIENCE)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


# ── real servers ──

APP = """
import dispatch

@dispatch.cron("* * * * * *", name="tick", overlap="allow", catch_up="all")
@dispatch.function(name="tick")
def tick(payload=None):
    return payload
"""


async def _fires(client: Dispatch, count: int) -> list[str]:
    """The jobs of all fires so far, at least so many."""
    jobs: list[str] = []
    async for event in await client.subscribe("firehose", since="start"):
        if event.kind == "cron.fired":
            jobs.append(event["data"]["job_id"])
            if len(jobs) >= count:
                return jobs
    return jobs


def test_two_servers_on_one_file_and_a_restart_fire_each_time_once(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        (folder / "app.py").write_text(APP)
    db = str(tmp_path / "jobs.db")
    with ServeProcess(folders[0], db=db) as one, ServeProcess(folders[1], db=db) as two:
        two.ask(lambda client: _fires(client, 3))
        # Killed, not stopped: what it had fired is on disk, and what it had not is another's.
        one.close()
        two.ask(lambda client: _fires(client, 5))
        assert two.terminate() == 0
    with ServeProcess(folders[0], db=db) as again:
        jobs = again.ask(lambda client: _fires(client, 8))
        assert again.terminate() == 0
    assert len(set(jobs)) == len(jobs)
    store = SqliteStore(db)
    with store.transaction():
        (entry,) = store.list_crons(tenant=None)
        events = store.read_events(0, limit=10_000).events
        made = store.list_jobs(tenant=None, limit=1000).jobs
    store.close()
    fired = [event for event in events if event.type == "cron.fired"]
    # Every second from the first to the last is there, and none is there twice: all were caught up.
    seconds = (entry.next_fire - entry.created_at) // SECOND
    assert len(fired) == len(made) == seconds
    assert Counter(job.name for job in made) == {"tick": len(fired)}
