"""Q1 and Q2: what group commit gains, and what the store costs above its SQL. SQLite files, `synchronous=FULL`."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.baselines.sql import Replay, Statement, record
from benchmarks.harness import Candidate, Costs, Effort, Figures, interleave
from dispatch.store import NO_TENANT, Completion, Lease, NewJob, Store
from dispatch.store.committer import Committer
from dispatch.store.sqlite import SqliteStore

NAME = "send-email"
PAYLOAD = b'{"to":"user@example.com","subject":"Welcome!"}'
OUTPUT = b'{"sent":true}'
LEASE_NS = 10**10
CONCURRENT = 64
_JOB = NewJob(NAME, PAYLOAD)
_NOW_NS = time.time_ns()


def measure(effort: Effort) -> Figures:
    with tempfile.TemporaryDirectory(prefix="dispatch-bench-") as directory:
        return _group_commit(effort.shared(2), Path(directory)) | _layer(effort.shared(2), Path(directory))


def _group_commit(effort: Effort, directory: Path) -> Figures:
    """Q1: 64 callers at once, each waits until its job is durable. Wall time: most of it is the disk."""
    with (
        closing(_store(directory / "grouped.db")) as grouped,
        closing(_store(directory / "single.db")) as single,
        asyncio.Runner() as runner,
        ThreadPoolExecutor(1) as pool,
    ):
        loop = runner.get_loop()
        committer = Committer(grouped, deliver=loop.call_soon_threadsafe)
        committer.start()

        async def group(_: int) -> None:
            done: asyncio.Future[Any] = loop.create_future()
            committer.submit(
                _enqueue,
                lambda value, error: done.set_result(value) if error is None else done.set_exception(error),
            )
            await done

        async def alone(_: int) -> None:
            await loop.run_in_executor(pool, _in_transaction, single)

        def candidate(call: Callable[[int], Any]) -> Callable[[int], Costs]:
            async def caller(count: int) -> None:
                for number in range(count):
                    await call(number)

            async def run(count: int) -> Costs:
                started = time.perf_counter_ns()
                await asyncio.gather(*[caller(count // CONCURRENT) for _ in range(CONCURRENT)])
                return {"wall": (time.perf_counter_ns() - started) / count}

            return lambda count: runner.run(run(count))

        rounds = interleave(
            {"group": candidate(group), "alone": candidate(alone)}, effort, step=CONCURRENT * 4
        )
        committer.close()
    return {("Q1", ""): rounds.ratio("alone", "group", "wall")}


def _layer(effort: Effort, directory: Path) -> Figures:
    """Q2: CPU of this thread. Jobs are worked off as fast as they come, so that the tables of all files grow alike."""
    _store(directory / "raw.db").close()
    with (
        closing(_store(directory / "store.db")) as store,
        closing(_store(directory / "recorded.db")) as recorded,
        closing(Replay(directory / "raw.db")) as raw,
        closing(_store(directory / "tens.db")) as tens,
    ):
        enqueued: list[list[Statement]] = []
        worked: list[list[Statement]] = []

        def do_again(recordings: list[list[Statement]]) -> Callable[[int], None]:
            return lambda _: raw.run(recordings.pop(0))

        store_life = _timed(
            (lambda count: _enqueue_many(store, count), "enqueue"),
            (lambda count: _work_off(store, count, 10), "work"),
        )
        raw_life = _timed((do_again(enqueued), "enqueue"), (do_again(worked), "work"))

        def recorded_first(count: int) -> Costs:
            """Records the statements outside of what is measured."""
            enqueued.append(record(recorded, lambda: _enqueue_many(recorded, count)))
            worked.append(record(recorded, lambda: _work_off(recorded, count, 10)))
            return raw_life(count)

        rounds = interleave(
            {"store": store_life, "raw": recorded_first}, effort.shared(2), counts={"store": 200, "raw": 200}
        )

        def in_steps(size: int) -> Candidate:
            return _timed(
                (lambda count: _enqueue_many(tens, count), "refill"),
                (lambda count: _work_off(tens, count, size), "cpu"),
            )

        steps = interleave(
            {"ones": in_steps(1), "tens": in_steps(10)}, effort.shared(2), counts={"ones": 50, "tens": 50}
        )
    return {
        ("Q2", "enqueue"): rounds.ratio("store", "raw", "enqueue"),
        ("Q2", "claim, complete"): rounds.ratio("store", "raw", "work"),
        ("Q2", "tens"): steps.ratio("ones", "tens"),
    }


def _timed(*works: tuple[Callable[[int], Any], str]) -> Candidate:
    """Thread CPU of several pieces of work, one after another, each under its name."""

    def run(count: int) -> Costs:
        costs: dict[str, float] = {}
        for work, name in works:
            started = time.thread_time_ns()
            work(count)
            costs[name] = (time.thread_time_ns() - started) / count
        return costs

    return run


def _enqueue_many(store: SqliteStore, count: int) -> None:
    with store.transaction():
        for _ in range(count):
            store.enqueue((_JOB,), tenant=NO_TENANT, now_ns=_NOW_NS)
    store.take_events()


def _work_off(store: SqliteStore, count: int, step: int) -> None:
    """Claims and completes so many jobs, so many at once."""
    for _ in range(count // step):
        with store.transaction():
            jobs = store.claim("wkr", now_ns=_NOW_NS, lease_ns=LEASE_NS, limit=step)
        assert len(jobs) == step
        with store.transaction():
            store.complete([Completion(Lease(job.id, job.epoch), OUTPUT) for job in jobs], now_ns=_NOW_NS)
        store.take_events()


def _enqueue(store: Store) -> str:
    return store.enqueue((_JOB,), tenant=NO_TENANT, now_ns=time.time_ns()).jobs[0].job_id


def _in_transaction(store: SqliteStore) -> str:
    with store.transaction():
        answer = _enqueue(store)
    store.take_events()
    return answer


def _store(path: Path) -> SqliteStore:
    """Its ids come from a counter, as those of the raw loop do: making ids is not the store's layer."""
    numbers = itertools.count(1)
    store = SqliteStore(path, new_id=lambda prefix: f"{prefix}_{next(numbers):026d}")
    with store.transaction():
        store.register_names([NAME])
    return store
