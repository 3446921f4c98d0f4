"""The engine: due jobs run, and what came of them is written down, once."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatch.functions import current
from dispatch.store.memory import MemoryStore
from dispatch.store.port import Store
from dispatch.store.sqlite import SqliteStore
from dispatch.store.values import NO_TENANT, NewJob
from dwp_core.errors import DispatchError, NotFoundError
from dwp_core.jobs import SECOND, Job
from tests.server.engine_bench import PATIENCE, Bench, until


@pytest.fixture(params=["memory", "sqlite"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    store: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "jobs.db")
    bench = Bench(store)
    yield bench
    assert bench.close()
    store.close()


@pytest.fixture
def small() -> Iterator[Bench]:
    bench = Bench(concurrency=2, grace_seconds=1.0)
    yield bench
    assert bench.close()


# ── a job runs ──


def test_a_job_is_taken_run_and_completed(bench: Bench) -> None:
    @bench.registry.function(name="greet")
    def greet(to: str) -> dict[str, str]:
        return {"hello": to}

    bench.start()
    job = bench.until_state(bench.enqueue("greet", b'{"to":"ada"}'), "completed")

    assert job.output == b'{"hello":"ada"}'
    assert job.worker_id == "wkr_1"
    assert bench.kinds(job.id) == ["job.enqueued", "job.started", "job.completed"]


def test_jobs_that_were_there_before_the_start_run_too(bench: Bench) -> None:
    bench.do(lambda store: store.register_names(["greet"]))
    job_id = bench.enqueue("greet", b'"ada"')
    bench.registry.function(name="greet")(lambda_free)
    bench.start()

    assert bench.until_state(job_id, "completed").output == b'"ada"'


def lambda_free(to: Any) -> Any:
    return to


async def lambda_free_async(to: Any) -> Any:
    await asyncio.sleep(0)
    return to


@pytest.mark.parametrize("function", [lambda_free, lambda_free_async])
def test_many_jobs_run_in_few_turns(bench: Bench, function: Callable[..., Any]) -> None:
    bench.registry.function(name="echo")(function)
    bench.start()
    ids = bench.enqueue_many([NewJob("echo", str(number).encode()) for number in range(300)])
    bench.until(lambda: sum(event.type == "job.completed" for event in bench.events) == 300)

    assert [bench.job(job_id).output for job_id in ids] == [str(number).encode() for number in range(300)]


def test_a_job_of_a_name_that_nobody_registered_is_404(bench: Bench) -> None:
    bench.start()
    with pytest.raises(NotFoundError):
        bench.enqueue("nobody-knows")


def test_an_engine_knows_its_functions_and_their_options(bench: Bench) -> None:
    bench.registry.function(name="greet", queue="mail", timeout=5)(lambda_free)

    assert bench.engine.knows("greet")
    assert not bench.engine.knows("other")
    assert bench.engine.options_of("greet").queue == "mail"
    assert bench.engine.options_of("other").queue is None


def test_a_job_may_be_enqueued_under_each_name_of_its_function(bench: Bench) -> None:
    @bench.registry.function
    def send_email(to: str) -> str:
        return to

    bench.start()
    for name in ("send_email", "send-email", send_email.name):
        assert bench.until_state(bench.enqueue(name, b'"ada"'), "completed").name == name


def test_jobs_of_functions_it_does_not_have_are_left_alone(bench: Bench) -> None:
    bench.do(lambda store: store.register_names(["elsewhere"]))
    bench.registry.function(name="here")(lambda_free)
    bench.start()
    elsewhere = bench.enqueue("elsewhere", b"1")
    bench.until_state(bench.enqueue("here", b"1"), "completed")

    assert bench.job(elsewhere).state == "pending"


def test_jobs_of_other_queues_are_left_alone() -> None:
    bench = Bench(queues=("mail",))
    bench.registry.function(name="echo")(lambda_free)
    bench.start()
    other = bench.enqueue("echo", b"1", queue="images")
    bench.until_state(bench.enqueue("echo", b"1", queue="mail"), "completed")

    assert bench.job(other).state == "pending"
    assert bench.close()


def test_no_more_jobs_are_taken_than_there_are_slots(small: Bench) -> None:
    release = threading.Event()

    @small.registry.function(name="wait")
    def wait(to: Any) -> None:
        release.wait()

    small.start()
    ids = small.enqueue_many([NewJob("wait", b"1") for _ in range(5)])
    small.until(lambda: small.engine.running == 2)

    assert [small.job(job_id).state for job_id in ids].count("running") == 2
    release.set()
    small.until(lambda: sum(event.type == "job.completed" for event in small.events) == 5)


def test_a_delayed_job_runs_at_its_time_and_not_before(bench: Bench) -> None:
    bench.registry.function(name="echo")(lambda_free)
    bench.start()
    run_at = bench.loop.wall_ns() + 60 * SECOND
    job_id = bench.enqueue("echo", b"1", run_at=run_at)
    bench.until_state(bench.enqueue("echo", b"1"), "completed")
    assert bench.job(job_id).state == "pending"

    bench.loop.advance(60)
    assert bench.until_state(job_id, "completed").started_at >= run_at


def test_jobs_that_another_process_enqueued_are_found(bench: Bench) -> None:
    bench.registry.function(name="echo")(lambda_free)
    bench.start()
    now_ns = bench.loop.wall_ns()
    enqueued = bench.do(
        lambda store: store.enqueue([NewJob("echo", b"1")], tenant=NO_TENANT, now_ns=now_ns)
    )  # and nobody notifies the engine

    bench.loop.advance(1)
    bench.until_state(enqueued.jobs[0].job_id, "completed")


# ── a job fails ──


def test_a_job_that_raises_is_tried_again_and_then_dead(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[int] = []

    @bench.registry.function(name="fails")
    def fails() -> None:
        attempts.append(current().attempt)
        raise ValueError("no such address")

    bench.start()
    with caplog.at_level(logging.WARNING, logger="dispatch.engine"):
        job_id = bench.enqueue("fails", max_retries=2)
        bench.until_state(job_id, "retrying")
        bench.loop.advance(0.5)
        bench.until(lambda: bench.kinds(job_id).count("job.retrying") == 2)
        bench.loop.advance(1.0)
        job = bench.until_state(job_id, "failed")

    assert attempts == [1, 2, 3]
    assert job.error == job.last_error == "ValueError: no such address"
    assert bench.kinds(job_id)[-2:] == ["job.failed", "job.dlq"]
    assert "in fails" in caplog.text
    assert "failed for good (attempt 3 of 3)" in caplog.text


@pytest.mark.parametrize("payload", [b'{"to":1,"subjct":2}', b"7"])
def test_a_payload_that_does_not_fit_goes_to_the_dead_letters_at_once(bench: Bench, payload: bytes) -> None:
    @bench.registry.function(name="send-email")
    def send_email(to: str, subject: str) -> None: ...

    bench.start()
    job = bench.until_state(bench.enqueue("send-email", payload), "failed")

    assert job.retry_count == 1
    assert "send-email(to: 'str', subject: 'str') -> 'None' cannot take this payload" in job.error


def test_a_programming_error_is_not_tried_again(bench: Bench) -> None:
    @bench.registry.function(name="fails")
    async def fails() -> None:
        raise AttributeError("'NoneType' object has no attribute 'send'")

    bench.start()
    assert bench.until_state(bench.enqueue("fails"), "failed").error.startswith("AttributeError: ")


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()])
def test_the_engine_outlives_what_ends_programs(bench: Bench, error: BaseException) -> None:
    @bench.registry.function(name="fails")
    def fails() -> None:
        raise error

    bench.registry.function(name="echo")(lambda_free)
    bench.start()
    job = bench.until_state(bench.enqueue("fails", max_retries=0), "failed")

    assert job.error.startswith(type(error).__name__)
    bench.until_state(bench.enqueue("echo", b"1"), "completed")


# ── time runs out ──


def test_an_async_run_that_takes_too_long_is_cancelled(small: Bench) -> None:
    waiting, cleaned = threading.Event(), threading.Event()

    @small.registry.function(name="waits")
    async def waits() -> None:
        try:
            waiting.set()
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    small.start()
    job_id = small.enqueue("waits", timeout=5 * SECOND, max_retries=0)
    small.until_state(job_id, "running")
    assert waiting.wait(PATIENCE)
    small.loop.advance(5)
    job = small.until_state(job_id, "failed")

    assert job.error == "TimeoutError: timed out after 5 s"
    assert cleaned.is_set()


def test_a_sync_run_that_takes_too_long_loses_its_lease_and_its_late_result_is_dropped(small: Bench) -> None:
    release, begun = threading.Event(), threading.Event()
    seen: list[bool] = []

    @small.registry.function(name="hangs")
    def hangs() -> str:
        begun.set()
        release.wait()
        seen.append(current().cancelled)
        return "too late"

    small.registry.function(name="echo")(lambda_free)
    small.start()
    job_id = small.enqueue("hangs", timeout=5 * SECOND, max_retries=0)
    small.until_state(job_id, "running")
    assert begun.wait(PATIENCE)
    small.loop.advance(5)
    assert small.job(job_id).state == "running"  # it may clean up
    small.loop.advance(1)
    assert small.until_state(job_id, "failed").error == "TimeoutError: timed out after 5 s"

    for _ in range(4):
        small.until_state(small.enqueue("echo", b"1"), "completed")
    release.set()
    assert small.engine.close(PATIENCE)
    assert seen == [True]
    job = small.job(job_id)
    assert (job.state, job.output) == ("failed", None)


def test_when_given_up_runs_block_every_loop_only_sync_jobs_are_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench(concurrency=2, loops=1, grace_seconds=1.0)
    release, begun = threading.Event(), threading.Semaphore(0)

    @bench.registry.function(name="blocks")
    async def blocks() -> None:
        begun.release()
        release.wait()

    @bench.registry.function(name="quick")
    async def quick() -> int:
        return 1

    bench.registry.function(name="echo")(lambda_free)
    bench.start()
    blocking: list[str] = []
    for _ in range(2):  # one after the other, each blocks a loop of its own
        blocking.append(bench.enqueue("blocks", timeout=5 * SECOND, max_retries=0))
        bench.until_state(blocking[-1], "running")
        assert begun.acquire(timeout=PATIENCE)
    with caplog.at_level("WARNING", logger="dispatch.engine"):
        bench.loop.advance(5)
        until(lambda: all(loop.blocked for loop in bench.engine._runner._loops._loops))
        bench.loop.advance(1)
        for job_id in blocking:
            bench.until_state(job_id, "failed")
        waiting = bench.enqueue("quick", timeout=5 * SECOND, max_retries=0)
        for _ in range(3):
            bench.until_state(bench.enqueue("echo", b"1"), "completed")
        bench.loop.advance(10)
        assert bench.job(waiting).state == "pending"
        release.set()
        until(lambda: not bench.engine._runner.loops_stuck)
        bench.loop.advance(1)
        bench.until_state(waiting, "completed")
    assert sum("every event loop is held" in record.message for record in caplog.records) == 1
    assert bench.close()


def test_what_a_timed_out_run_returns_while_it_cleans_up_does_not_count(small: Bench) -> None:
    begun = threading.Event()

    @small.registry.function(name="gives-up")
    def gives_up() -> str:
        begun.set()
        current().wait_cancelled()
        return "half of it"

    small.start()
    job_id = small.enqueue("gives-up", timeout=5 * SECOND)
    small.until_state(job_id, "running")
    assert begun.wait(PATIENCE)
    small.loop.advance(5)

    assert small.until_state(job_id, "retrying").last_error == "TimeoutError: timed out after 5 s"


# ── cancelling ──


def cancel(bench: Bench, job_id: str) -> str:
    """As the handler of job.cancel does it."""
    now_ns = bench.loop.wall_ns()
    answer = bench.do(lambda store: store.cancel(job_id, tenant=None, now_ns=now_ns))
    if answer.state == "running":
        bench.engine.cancel(job_id)
    return answer.state


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_running_job_is_told_and_ends_cancelled(small: Bench, how: str) -> None:
    begun = threading.Event()

    def waits() -> str:
        begun.set()
        current().wait_cancelled()
        return "half of it"

    async def waits_async() -> None:
        begun.set()
        await asyncio.Event().wait()

    small.registry.function(name="waits")(waits if how == "sync" else waits_async)
    small.start()
    job_id = small.enqueue("waits")
    small.until_state(job_id, "running")
    assert begun.wait(PATIENCE)

    assert cancel(small, job_id) == "running"
    job = small.until_state(job_id, "cancelled")
    assert job.output is None
    assert small.kinds(job_id)[-1] == "job.cancelled"


def test_a_job_that_does_not_listen_is_cancelled_after_the_grace(small: Bench) -> None:
    release, begun = threading.Event(), threading.Event()

    @small.registry.function(name="hangs")
    def hangs() -> None:
        begun.set()
        release.wait()

    small.start()
    job_id = small.enqueue("hangs")
    small.until_state(job_id, "running")
    assert begun.wait(PATIENCE)
    cancel(small, job_id)
    small.loop.advance(1)

    assert small.until_state(job_id, "cancelled").state == "cancelled"
    assert small.engine.running == 0
    release.set()


def test_a_cancellation_asked_for_elsewhere_arrives_with_the_heartbeat(small: Bench) -> None:
    begun = threading.Event()

    @small.registry.function(name="waits")
    async def waits() -> None:
        begun.set()
        await asyncio.Event().wait()

    small.start()
    job_id = small.enqueue("waits")
    small.until_state(job_id, "running")
    assert begun.wait(PATIENCE)
    now_ns = small.loop.wall_ns()
    small.do(lambda store: store.cancel(job_id, tenant=None, now_ns=now_ns))
    small.loop.advance(10)

    small.until_state(job_id, "cancelled")


def test_cancelling_what_does_not_run_here_does_nothing(bench: Bench) -> None:
    bench.start()
    bench.engine.cancel("job_unknown")


# ── leases ──


def test_a_long_run_keeps_its_lease(small: Bench) -> None:
    release = threading.Event()

    @small.registry.function(name="long")
    def long() -> str:
        release.wait()
        return "done"

    small.start()
    job_id = small.enqueue("long", timeout=0)
    small.until_state(job_id, "running")
    for _ in range(20):
        before = small.job(job_id).heartbeat_at
        small.loop.advance(10)
        small.until(lambda before=before: small.job(job_id).heartbeat_at > before)  # type: ignore[misc]
    assert small.job(job_id).lease_until > small.loop.wall_ns()
    release.set()

    assert small.until_state(job_id, "completed").output == b'"done"'
    assert small.kinds(job_id).count("job.started") == 1


def test_what_a_dead_worker_left_is_taken_over(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.do(lambda store: store.register_names(["echo"]))
    job_id = bench.enqueue("echo", b"1")
    now_ns = bench.loop.wall_ns()
    bench.do(lambda store: store.claim("wkr_dead", now_ns=now_ns, lease_ns=5 * SECOND, limit=1))
    bench.registry.function(name="echo")(lambda_free)
    bench.start()
    bench.until(lambda: bench.loop.armed > 0)
    assert bench.job(job_id).worker_id == "wkr_dead"

    with caplog.at_level(logging.WARNING, logger="dispatch.engine"):
        bench.loop.advance(5.1)
        job = bench.until_state(job_id, "completed")
    assert job.worker_id == "wkr_1"
    assert job.retry_count == 1
    assert "1 jobs were taken from workers that stopped answering" in caplog.text


def test_a_run_that_lost_its_lease_writes_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    release, begun = threading.Event(), threading.Event()

    @bench.registry.function(name="slow")
    def slow() -> str:
        begun.set()
        release.wait()
        return "mine"

    bench.start()
    job_id = bench.enqueue("slow", timeout=0)
    bench.until_state(job_id, "running")
    assert begun.wait(PATIENCE)

    def take_over(store: Store) -> list[Job]:
        store.rescue(now_ns=later, workers=["wkr_1"])
        return store.claim("wkr_2", now_ns=later, lease_ns=600 * SECOND, limit=1)

    later = bench.loop.wall_ns()
    assert [job.id for job in bench.do(take_over)] == [job_id]
    with caplog.at_level(logging.WARNING, logger="dispatch.engine"):
        release.set()
        bench.until(lambda: bench.engine.running == 0)
        bench.until(lambda: "its lease was lost" in caplog.text)

    job = bench.job(job_id)
    assert (job.state, job.worker_id, job.output) == ("running", "wkr_2", None)


def test_a_run_whose_lease_is_gone_is_stopped_at_the_heartbeat(small: Bench) -> None:
    begun, stopped = threading.Event(), threading.Event()

    @small.registry.function(name="slow")
    def slow() -> None:
        begun.set()
        current().wait_cancelled()
        stopped.set()

    small.start()
    job_id = small.enqueue("slow", timeout=0)
    small.until_state(job_id, "running")
    assert begun.wait(PATIENCE)
    now_ns = small.loop.wall_ns()
    small.do(lambda store: store.rescue(now_ns=now_ns, workers=["wkr_1"]))
    small.do(lambda store: store.claim("wkr_2", now_ns=now_ns, lease_ns=600 * SECOND, limit=1))
    small.loop.advance(10)
    small.until(lambda: small.engine.running == 0)

    assert stopped.wait(PATIENCE)
    assert small.job(job_id).worker_id == "wkr_2"


# ── a store that does not take it ──


class Moody:
    """A writer that refuses at times."""

    def __init__(self, bench: Bench) -> None:
        self._submit = bench.committer.submit
        self.refuse = 0

    def submit(self, operation: Any, done: Any) -> None:
        if self.refuse:
            self.refuse -= 1
            raise DispatchError("the disk is full")
        self._submit(operation, done)


def test_what_the_store_did_not_take_is_written_later(small: Bench, caplog: pytest.LogCaptureFixture) -> None:
    release, begun = threading.Event(), threading.Event()

    @small.registry.function(name="once")
    def once() -> str:
        begun.set()
        release.wait()
        return "done"

    moody = Moody(small)
    small.engine._writer = moody
    small.start()
    job_id = small.enqueue("once")
    small.until_state(job_id, "running")
    assert begun.wait(PATIENCE)
    moody.refuse = 3
    release.set()
    small.until(lambda: moody.refuse < 3)
    small.loop.advance(1.0)

    assert small.until_state(job_id, "completed").output == b'"done"'
    assert moody.refuse == 0
    assert "the store did not take what has ended; trying again in 0.1 s: the disk is full" in caplog.text


# ── stopping ──


def test_stopping_waits_for_what_runs_and_takes_nothing_more(small: Bench) -> None:
    release, begun = threading.Event(), threading.Event()

    @small.registry.function(name="slow")
    def slow() -> str:
        begun.set()
        release.wait()
        return "done"

    small.start()
    running = small.enqueue("slow")
    small.until_state(running, "running")
    assert begun.wait(PATIENCE)
    done: list[bool] = []
    small.engine.stop(10.0, lambda: done.append(True))
    waiting = small.enqueue("slow")
    small.loop.advance(9)
    assert not done
    release.set()
    small.until(lambda: bool(done))

    assert small.job(running).state == "completed"
    assert small.job(waiting).state == "pending"
    assert small.loop.armed == 0


@pytest.mark.parametrize("how", ["sync", "async"])
def test_what_does_not_end_in_time_is_handed_back_without_spending_an_attempt(small: Bench, how: str) -> None:
    begun = threading.Event()

    def waits() -> str:
        begun.set()
        current().wait_cancelled()
        return "half of it"

    async def waits_async() -> None:
        begun.set()
        await asyncio.Event().wait()

    small.registry.function(name="waits")(waits if how == "sync" else waits_async)
    small.start()
    job_id = small.enqueue("waits")
    small.until_state(job_id, "running")
    assert begun.wait(PATIENCE)
    done: list[bool] = []
    small.engine.stop(5.0, lambda: done.append(True))
    small.loop.advance(5)
    small.until(lambda: bool(done))

    job = small.job(job_id)
    assert (job.state, job.retry_count, job.lease_until) == ("pending", 0, 0)


def test_what_does_not_listen_is_handed_back_after_the_grace(small: Bench) -> None:
    release, begun = threading.Event(), threading.Event()

    @small.registry.function(name="hangs")
    def hangs() -> None:
        begun.set()
        release.wait()

    small.start()
    job_id = small.enqueue("hangs")
    small.until_state(job_id, "running")
    assert begun.wait(PATIENCE)
    done: list[bool] = []
    small.engine.stop(5.0, lambda: done.append(True))
    small.loop.advance(6)
    small.until(lambda: bool(done))

    assert small.job(job_id).state == "pending"
    assert not small.engine.close(0.0)
    release.set()


def test_a_result_that_was_there_before_it_noticed_the_stop_is_kept(small: Bench) -> None:
    release, begun = threading.Event(), threading.Event()

    @small.registry.function(name="slow")
    def slow() -> str:
        begun.set()
        release.wait()
        return "whole"

    small.start()
    job_id = small.enqueue("slow")
    small.until_state(job_id, "running")
    assert begun.wait(PATIENCE)
    done: list[bool] = []
    small.engine.stop(0.0, lambda: done.append(True))
    small.loop.advance(0)
    release.set()
    small.until(lambda: bool(done))

    assert small.job(job_id).output == b'"whole"'


def test_an_idle_engine_stops_at_once(bench: Bench) -> None:
    bench.start()
    done: list[bool] = []
    bench.engine.stop(10.0, lambda: done.append(True))
    bench.until(lambda: bool(done))
    assert bench.loop.armed == 0


def test_an_engine_without_functions_takes_nothing(bench: Bench) -> None:
    bench.do(lambda store: store.register_names(["echo"]))
    bench.start()
    job_id = bench.enqueue("echo", b"1")
    bench.loop.advance(5)

    assert bench.job(job_id).state == "pending"
