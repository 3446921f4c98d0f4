"""User code runs beside the server: in threads and loops of its own, and whatever it does, its run ends."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import pytest

from dispatch.functions import Registry, RunContext, current
from dispatch.server import loops
from dispatch.server.runner import Run, Runner
from tests.server.engine_bench import until

PATIENCE = 30.0


class Owner:
    """Stands where the engine stands: hands runs over, collects them on its own thread."""

    def __init__(self, *, threads: int = 8, loops: int = 8) -> None:
        self.registry = Registry()
        self.batches: list[list[Run]] = []
        self.ended: list[Run] = []
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.runner = Runner(collect=self._collect, call_soon=self._calls.put, threads=threads, loops=loops)

    def run(self, function: Callable[..., Any], payload: bytes = b"", *, id: str = "job_1") -> Run:
        name = self.registry.function(function).name
        context = RunContext(
            id=id, name=name, queue="default", attempt=1, deadline_ns=None, clock_ns=time.time_ns
        )
        return Run(self.registry.resolve(name), payload, context)

    def start(self, *runs: Run) -> None:
        self.runner.start(runs)

    def collect(self, count: int) -> list[Run]:
        """Waits until so many runs have ended; which, in the order of their ending."""
        while len(self.ended) < count:
            self._calls.get(timeout=PATIENCE)()
        return self.ended

    def outcome(self, function: Callable[..., Any], payload: bytes = b"") -> Run:
        self.ended.clear()
        self.start(self.run(function, payload))
        return self.collect(1)[0]

    def _collect(self, runs: Sequence[Run]) -> None:
        self.batches.append(list(runs))
        self.ended.extend(runs)


@pytest.fixture
def owner() -> Iterator[Owner]:
    owner = Owner()
    yield owner
    assert owner.runner.close(PATIENCE)


# ── results ──


def greet(to: str) -> dict[str, str]:
    return {"hello": to}


async def greet_later(to: str) -> dict[str, str]:
    await asyncio.sleep(0)
    return {"hello": to}


async def greet_at_once(to: str) -> dict[str, str]:
    return {"hello": to}


@pytest.mark.parametrize("function", [greet, greet_later, greet_at_once])
def test_a_result_comes_back_as_json(owner: Owner, function: Callable[..., Any]) -> None:
    run = owner.outcome(function, b'{"to":"ada"}')

    assert run.failure is None
    assert run.output == b'{"hello":"ada"}'


def test_a_function_that_returns_nothing_has_the_result_null(owner: Owner) -> None:
    def nothing() -> None: ...

    assert owner.outcome(nothing).output == b"null"


@pytest.mark.parametrize(
    "result",
    [object(), {"when": {1, 2}}, float("nan"), {1: 2}, b"bytes"],
    ids=["object", "set", "nan", "key", "bytes"],
)
def test_a_result_that_is_no_json_fails_for_good_and_names_the_path(owner: Owner, result: object) -> None:
    def answer() -> object:
        return result

    failure = owner.outcome(answer).failure

    assert failure is not None
    assert failure.permanent
    assert failure.message.startswith("what answer returned cannot be stored: result")


def test_a_payload_that_does_not_fit_fails_for_good(owner: Owner) -> None:
    def add(left: int, right: int) -> int:
        return left + right

    failure = owner.outcome(add, b'{"left": 1}').failure

    assert failure is not None
    assert failure.permanent
    assert 'missing "right"' in failure.text


def test_a_sync_function_that_returns_a_coroutine_says_what_to_do(owner: Owner) -> None:
    def forgets() -> Any:
        return greet_later("ada")

    failure = owner.outcome(forgets).failure

    assert failure is not None
    assert (
        failure.text == "TypeError: forgets returned a coroutine: declare it with async def, or await inside"
    )


# ── whatever user code raises ──


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __reduce__(self) -> str:
        raise TypeError("cannot be pickled")


@pytest.mark.parametrize(
    "error", [ValueError("boom"), Unprintable(), SystemExit(3), KeyboardInterrupt(), GeneratorExit()]
)
@pytest.mark.parametrize("how", ["sync", "async", "async later"])
def test_whatever_a_function_raises_its_run_fails_and_the_next_one_works(
    owner: Owner, error: BaseException, how: str
) -> None:
    def fails() -> None:
        raise error

    async def fails_async() -> None:
        if how == "async later":
            await asyncio.sleep(0)
        raise error

    failure = owner.outcome(fails if how == "sync" else fails_async).failure

    assert failure is not None
    assert failure.type == type(error).__name__
    assert "fails" in failure.traceback
    assert owner.outcome(greet, b'"ada"').output
    assert owner.outcome(greet_later, b'"ada"').output


def test_a_task_that_a_run_leaves_behind_cannot_end_its_loop(
    owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    raised = threading.Event()

    async def bomb() -> None:
        raised.set()
        raise SystemExit(3)

    async def leaves_a_bomb() -> None:
        task = asyncio.ensure_future(bomb())
        task.add_done_callback(lambda task: task.exception())

    with caplog.at_level(logging.ERROR, logger="dispatch.runner"):
        assert owner.outcome(leaves_a_bomb).failure is None
        assert raised.wait(PATIENCE)
        assert owner.outcome(greet_later, b'"ada"').output


# ── nobody waits for anybody ──


def test_blocked_threads_delay_nobody(owner: Owner) -> None:
    release = threading.Event()

    def blocks() -> None:
        release.wait()

    owner.start(*(owner.run(blocks, id=str(n)) for n in range(7)), owner.run(greet, b'"ada"', id="quick"))

    assert owner.collect(1)[0].context.id == "quick"
    release.set()
    owner.collect(8)


def test_a_blocking_call_in_an_async_function_delays_only_its_own_run(owner: Owner) -> None:
    release = threading.Event()
    waiting = threading.Barrier(4)

    async def blocks() -> None:
        release.wait()

    async def waits() -> None:
        """Is under way, on whatever loop, when the other begins to block."""
        await asyncio.sleep(0)
        await asyncio.to_thread(waiting.wait, PATIENCE)

    owner.start(
        *(owner.run(waits, id=f"before {n}") for n in range(2)),
        owner.run(blocks, id="blocks"),
        *(owner.run(waits, id=f"after {n}") for n in range(2)),
        owner.run(greet_later, b'"ada"', id="quick"),
    )

    ended = owner.collect(5)
    assert {run.context.id for run in ended} == {"before 0", "before 1", "after 0", "after 1", "quick"}
    release.set()
    owner.collect(6)


def test_when_every_loop_is_blocked_another_is_started_and_the_line_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "WARN_AFTER", 0.0)
    owner = Owner(loops=1)
    release, blocking = threading.Event(), threading.Event()

    async def blocks() -> None:
        blocking.set()
        release.wait()

    with caplog.at_level(logging.WARNING, logger="dispatch.runner"):
        owner.start(owner.run(blocks, id="blocks"))
        assert blocking.wait(PATIENCE)
        owner.start(owner.run(greet_later, b'"ada"', id="quick"))
        assert owner.collect(1)[0].context.id == "quick"
        release.set()
        owner.collect(2)
        assert owner.runner.close(PATIENCE)

    (record,) = caplog.records
    assert record.message.startswith(f"blocks blocks its event loop at {__file__}:")


def test_more_runs_than_loops_share_them(owner: Owner) -> None:
    many = 50

    async def meets() -> int:
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)
        return threading.get_ident()

    owner.start(*(owner.run(meets, id=str(n)) for n in range(many)))

    ended = owner.collect(many)
    assert all(run.failure is None for run in ended)
    assert len({run.output for run in ended}) <= 8


def test_hundreds_of_async_runs_wait_at_once(owner: Owner) -> None:
    """Each waits until all have begun: none of them waits for a free loop."""
    many = 300
    begun: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    lock = threading.Lock()

    async def meets() -> None:
        mine = asyncio.Event()
        with lock:
            begun.append((asyncio.get_running_loop(), mine))
            everyone = list(begun) if len(begun) == many else []
        for loop, event in everyone:
            loop.call_soon_threadsafe(event.set)
        await mine.wait()

    owner.start(*(owner.run(meets, id=str(n)) for n in range(many)))

    assert all(run.failure is None for run in owner.collect(many))


def test_short_runs_come_back_in_batches(owner: Owner) -> None:
    owner.start(*(owner.run(greet, b'"ada"', id=str(n)) for n in range(500)))
    owner.collect(500)

    assert len(owner.batches) < 500
    assert {run.context.id for run in owner.ended} == {str(n) for n in range(500)}


# ── each run is alone ──


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_run_knows_itself_and_leaves_no_trace_for_the_next(owner: Owner, how: str) -> None:
    from contextvars import ContextVar

    mark: ContextVar[str] = ContextVar("mark", default="clean")

    def who() -> list[str]:
        seen = mark.get()
        mark.set("dirty")
        return [current().id, seen]

    async def who_async() -> list[str]:
        before = who()
        await asyncio.sleep(0)
        assert current().id == before[0]
        return before

    function = who if how == "sync" else who_async
    owner.start(*(owner.run(function, id=str(n)) for n in range(20)))

    assert {run.output for run in owner.collect(20)} == {f'["{n}","clean"]'.encode() for n in range(20)}


# ── stopping ──


def test_an_async_run_is_cancelled_at_its_await_and_cleans_up(owner: Owner) -> None:
    waiting, cleaned = threading.Event(), threading.Event()

    async def waits() -> None:
        try:
            waiting.set()
            await asyncio.Event().wait()
        finally:
            assert current().cancelled
            cleaned.set()

    run = owner.run(waits)
    owner.start(run)
    assert waiting.wait(PATIENCE)
    owner.runner.cancel(run)

    assert owner.collect(1) == [run]
    assert run.failure is not None
    assert run.failure.type == "CancelledError"
    assert cleaned.is_set()


def test_a_sync_run_is_told_and_returns(owner: Owner) -> None:
    waiting = threading.Event()

    def waits() -> str:
        waiting.set()
        current().wait_cancelled()
        return "half"

    run = owner.run(waits)
    owner.start(run)
    assert waiting.wait(PATIENCE)
    owner.runner.cancel(run)

    assert owner.collect(1)[0].output == b'"half"'
    assert run.context.noticed


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_run_that_is_cancelled_before_it_began_never_begins(how: str) -> None:
    owner = Owner(threads=1, loops=1)
    begun, release, busy = threading.Event(), threading.Event(), threading.Event()

    def blocks() -> None:
        busy.set()
        release.wait()

    async def blocks_async() -> None:
        blocks()

    def begins() -> None:
        begun.set()

    async def begins_async() -> None:
        begun.set()

    first = owner.run(blocks if how == "sync" else blocks_async, id="first")
    second = owner.run(begins if how == "sync" else begins_async, id="second")
    owner.start(first)
    assert busy.wait(PATIENCE)
    owner.start(second)
    owner.runner.cancel(second)
    release.set()

    assert {run.context.id for run in owner.collect(2)} == {"first", "second"}
    assert second.failure is not None
    assert second.failure.message == "cancelled before it started"
    assert not begun.is_set()
    assert owner.runner.close(PATIENCE)


def test_an_abandoned_run_is_dropped_and_its_thread_replaced() -> None:
    owner = Owner(threads=1)
    release, busy = threading.Event(), threading.Event()

    def hangs() -> None:
        busy.set()
        release.wait()

    stuck = owner.run(hangs, id="stuck")
    owner.start(stuck)
    assert busy.wait(PATIENCE)
    owner.runner.abandon(stuck)
    assert owner.runner.stuck == 0

    owner.start(owner.run(greet, b'"ada"', id="next"))
    assert [run.context.id for run in owner.collect(1)] == ["next"]
    release.set()
    owner.start(owner.run(greet, b'"ada"', id="after"))
    owner.collect(2)
    assert owner.runner.close(PATIENCE)
    assert [run.context.id for run in owner.ended] == ["next", "after"]


def test_stuck_threads_are_replaced_only_so_often() -> None:
    owner = Owner(threads=1)
    release = threading.Event()

    def hangs() -> None:
        busy.set()
        release.wait()

    for number in range(2):
        busy = threading.Event()
        run = owner.run(hangs, id=str(number))
        owner.start(run)
        assert busy.wait(PATIENCE)
        owner.runner.abandon(run)

    assert owner.runner.stuck == 1
    owner.start(owner.run(greet, b'"ada"', id="waits"))
    release.set()
    assert [run.context.id for run in owner.collect(1)] == ["waits"]
    assert owner.runner.close(PATIENCE)


def test_loops_that_abandoned_runs_block_are_replaced_only_so_often() -> None:
    owner = Owner(loops=1)
    release = threading.Event()

    async def blocks() -> None:
        busy.set()
        release.wait()

    for number in range(2):
        assert not owner.runner.loops_stuck
        busy = threading.Event()
        run = owner.run(blocks, id=str(number))
        owner.start(run)
        assert busy.wait(PATIENCE)
        owner.runner.abandon(run)

    until(lambda: owner.runner.loops_stuck)
    owner.start(owner.run(greet_later, b'"ada"', id="waits"))
    release.set()
    assert [run.context.id for run in owner.collect(1)] == ["waits"]
    until(lambda: not owner.runner.loops_stuck)
    assert owner.runner.close(PATIENCE)


def test_abandoning_a_run_that_has_not_begun_takes_it_out_of_the_queue() -> None:
    owner = Owner(threads=1)
    release, busy, begun = threading.Event(), threading.Event(), threading.Event()

    def hangs() -> None:
        busy.set()
        release.wait()

    def begins() -> None:
        begun.set()

    first, second = owner.run(hangs, id="first"), owner.run(begins, id="second")
    owner.start(first)
    assert busy.wait(PATIENCE)
    owner.start(second)
    owner.runner.abandon(second)
    release.set()
    owner.collect(1)

    assert owner.runner.close(PATIENCE)
    assert not begun.is_set()


def test_closing_cancels_what_waits_and_does_not_wait_for_what_hangs() -> None:
    owner = Owner()
    release, busy, waiting, cleaned = (threading.Event() for _ in range(4))

    def hangs() -> None:
        busy.set()
        release.wait()

    async def waits() -> None:
        try:
            waiting.set()
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    owner.start(owner.run(hangs), owner.run(waits))
    assert busy.wait(PATIENCE)
    assert waiting.wait(PATIENCE)

    assert not owner.runner.close(0.0)
    assert cleaned.wait(PATIENCE)
    release.set()
    assert owner.runner.close(PATIENCE)


# ── all of it at once ──


@pytest.mark.parametrize("seed", range(6))
def test_every_run_comes_back_exactly_once_whatever_is_cancelled_or_abandoned(seed: int) -> None:
    rng = random.Random(seed)
    owner = Owner(threads=rng.randint(1, 6), loops=rng.randint(1, 4))
    release = threading.Event()

    def short() -> None: ...

    def waits() -> None:
        current().wait_cancelled(PATIENCE)

    def blocks() -> None:
        release.wait(PATIENCE)

    async def short_async() -> None: ...

    async def waits_async() -> None:
        await asyncio.Event().wait()

    async def turns_async() -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    kinds = (short, waits, short_async, waits_async, turns_async, blocks)
    weights = (6, 2, 6, 2, 6, 0.1)
    runs = [owner.run(rng.choices(kinds, weights)[0], id=str(number)) for number in range(300)]
    abandoned: set[Run] = set()
    waiting = list(runs)
    while waiting:
        batch = [waiting.pop() for _ in range(min(len(waiting), rng.randint(1, 40)))]
        owner.start(*batch)
        for run in rng.choices(runs[len(waiting) :], k=5):
            owner.runner.cancel(run)
        if rng.random() < 0.3:
            run = rng.choice(batch)
            owner.runner.cancel(run)
            owner.runner.abandon(run)
            abandoned.add(run)
    release.set()
    for run in runs:
        owner.runner.cancel(run)
    while abandoned.union(owner.ended) != set(runs):
        owner.collect(len(owner.ended) + 1)

    assert owner.runner.close(PATIENCE)
    assert len(owner.ended) == len(set(owner.ended))
    assert all((run.output is None) != (run.failure is None) for run in owner.ended)
