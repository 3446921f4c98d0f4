"""What is trio's own: level cancellation, the nursery that the client owns, clocks, runs, threads, Ctrl-C, the end."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from dispatch.errors import ClosedError, ConnectionError, DispatchError, InvalidRequest, TimeoutError
from dispatch.trio import Dispatch
from dwp_core.backoff import Backoff
from tests.bindings.sockets import sockets_to
from tests.contract.go_server import GoServer
from tests.contract.relay import Relay
from tests.contract.rough_peers import RoughPeer, Visit
from tests.contract.threads import PATIENCE

Program = Callable[[], Awaitable[None]]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server() -> Iterator[GoServer]:
    with GoServer() as server:
        yield server


def new_client(url: str, **options: Any) -> Dispatch:
    settings = {name: options.pop(name) for name in ("close_timeout", "heartbeat") if name in options}
    client = Dispatch(url, "dk_full", **{"max_retries": 0, **options})
    quick = Backoff(base=0.01, cap=0.05)
    client._driver.config = replace(client._driver.config, backoff=quick, **settings)
    return client


def run(program: Program, clock: trio.abc.Clock | None = None) -> None:
    """The program in a run of its own; under its own clock it is bounded all the same."""

    async def bounded() -> None:
        root = trio.lowlevel.current_root_task()
        assert root is not None
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:
            alarm = threading.Timer(PATIENCE, token.run_sync_soon, (scope.cancel,))
            alarm.start()
            try:
                await program()
            finally:
                alarm.cancel()
        assert not scope.cancelled_caught, "it took too long"
        gc.collect()

    trio.run(bounded, clock=clock, strict_exception_groups=True)
    gc.collect()


def our_tasks() -> list[str]:
    """The tasks of clients in this run, wherever they hang."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found, tasks = [], [root]
    while tasks:
        task = tasks.pop()
        for nursery in task.child_nurseries:
            tasks += nursery.child_tasks
        if task.name.startswith("dispatch"):
            found.append(task.name)
    return found


@asynccontextmanager
async def nothing_of_ours_afterwards(url: str) -> AsyncIterator[None]:
    """Neither a task of a client nor a socket to that address is there after the block."""
    yield
    assert our_tasks() == []
    assert sockets_to(url) == 0


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.lowlevel.checkpoint()


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    return await trio.to_thread.run_sync(function, *arguments)


# Level cancellation.


def test_inside_a_cancelled_scope_nothing_is_sent(server: GoServer) -> None:
    """Every call is cancelled before it begins, however often one tries."""

    async def program() -> None:
        async with new_client(server.url) as client:
            await client.ping()
            heard = len(server.heard)
            calls: list[Callable[[], Awaitable[Any]]] = [
                client.ping,
                client.stats,
                lambda: client.enqueue("noop"),
                lambda: client.start_workflow("order-pipeline"),
                lambda: client.call("job.get", {"job_id": "job_1"}),
                lambda: client.wait("job_1"),
                lambda: client.watch("job_1"),
            ]
            for call in calls:
                with trio.CancelScope() as scope:
                    scope.cancel()
                    for _ in range(2):
                        with pytest.raises(trio.Cancelled):
                            await call()
                    await trio.lowlevel.checkpoint()
                assert scope.cancelled_caught
            await client.stats()
            assert [method for method, _ in server.heard[heard:]] == ["stats"]

    run(program)


def test_a_client_is_not_even_connected_inside_a_cancelled_scope(server: GoServer) -> None:
    async def program() -> None:
        client = new_client(server.url)
        with trio.CancelScope() as scope:
            scope.cancel()
            async with client:
                raise AssertionError("it was not cancelled")
        assert scope.cancelled_caught
        assert client.state == "idle"
        assert our_tasks() == []
        async with client:  # nothing has happened to it
            assert await client.ping() > 0

    run(program)


def test_a_block_that_is_cancelled_ends_promptly_and_leaves_nothing(server: GoServer) -> None:
    """Also towards a server that does not answer: on a clock that stands still nothing can be waited for."""

    async def program() -> None:
        with Relay(server.url) as relay:
            async with nothing_of_ours_afterwards(relay.url):
                client = new_client(relay.url)
                with trio.CancelScope() as scope:
                    async with client:
                        await client.subscribe("jobs")
                        await in_thread(relay.stall)
                        scope.cancel()
                assert scope.cancelled_caught
                assert client.state == "closed"

    run(program, trio.testing.MockClock())


@pytest.mark.parametrize("way", ["with", "by hand"])
def test_close_in_a_cancelled_scope_closes(server: GoServer, way: str) -> None:
    async def program() -> None:
        client = new_client(server.url)
        with trio.CancelScope() as scope:
            await client.connect()
            scope.cancel()
            await client.close()
        assert scope.cancelled_caught
        assert client.state == "closed"
        assert our_tasks() == []
        await client.close()
        await in_thread(until_blocking, lambda: server.connections() == 0)

    run(program)


def until_blocking(condition: Callable[[], bool]) -> None:
    patience = threading.Event()
    for _ in range(3000):
        if condition():
            return
        patience.wait(0.01)
    raise AssertionError("it did not happen")


def test_connecting_can_be_cancelled_after_any_number_of_turns(server: GoServer) -> None:
    async def program() -> None:
        for turns in range(40):
            async with nothing_of_ours_afterwards(server.url):
                client = new_client(server.url)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.connect)
                    for _ in range(turns):
                        await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()
                await client.close()
                assert client.state in ("closed", "idle")
        await in_thread(until_blocking, lambda: server.connections() == 0)

    run(program)


def test_a_subscription_can_be_left_inside_a_cancelled_scope(server: GoServer) -> None:
    """Leaving is what cleaning up does, so it is not refused there."""

    async def program() -> None:
        async with new_client(server.url) as client:
            with trio.CancelScope() as scope:
                async with client.subscribe("jobs") as subscription:
                    scope.cancel()
                    await subscription.__anext__()
            assert scope.cancelled_caught
            assert client._driver._session.subscriptions == []
            assert await client.ping() > 0

    run(program)


def test_no_event_is_lost_to_a_reader_that_is_cancelled(server: GoServer) -> None:
    async def program() -> None:
        async with new_client(server.url) as client:
            subscription = await client.subscribe("jobs")
            seen: list[int] = []

            async def read(scope: trio.CancelScope) -> None:
                with scope:
                    while True:
                        seen.append((await subscription.__anext__())["data"]["n"])

            for n in range(30):
                async with trio.open_nursery() as nursery:
                    scope = trio.CancelScope()
                    nursery.start_soon(read, scope)
                    await in_thread(server.publish, "job.completed", "job:j", {"n": n})
                    for _ in range(n % 7):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, trio.CancelScope())
                await until(lambda: len(seen) == 30)
                nursery.cancel_scope.cancel()
            assert seen == list(range(30))

    run(program)


def test_a_reader_that_never_waits_lets_others_run(server: GoServer) -> None:
    async def program() -> None:
        async with new_client(server.url) as client:
            subscription = await client.subscribe("jobs")
            for n in range(200):
                await in_thread(server.publish, "job.completed", "job:j", {"n": n})
            await client.ping()
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    await trio.lowlevel.checkpoint()
                    turns += 1

            async with trio.open_nursery() as nursery:
                nursery.start_soon(count)
                for _ in range(200):
                    await subscription.__anext__()
                nursery.cancel_scope.cancel()
            assert turns >= 4

    run(program)


# The nursery that the client owns.


def test_nothing_stays_after_close(server: GoServer) -> None:
    async def program() -> None:
        async with nothing_of_ours_afterwards(server.url), new_client(server.url) as client:
            await client.subscribe("jobs")
            await client.enqueue("noop")
            await client.start_workflow("order-pipeline", {"order_id": 1})
            assert our_tasks() != []

    run(program)


@pytest.mark.parametrize(
    "moment", ["calls in flight", "a run elsewhere", "a stalled write", "backing off", "connecting"]
)
def test_nothing_stays_whatever_was_under_way(server: GoServer, moment: str) -> None:
    errors: list[Exception] = []

    async def expect(call: Callable[[], Awaitable[Any]]) -> None:
        try:
            await call()
        except DispatchError as error:
            errors.append(error)

    async def program() -> None:
        with Relay(server.url) as relay:
            client = new_client(relay.url, close_timeout=0.05)
            async with nothing_of_ours_afterwards(relay.url), trio.open_nursery() as nursery:
                if moment == "connecting":
                    await in_thread(relay.stall)
                    nursery.start_soon(expect, client.connect)
                    await until(lambda: client.state == "connecting")
                else:
                    await client.connect()
                if moment == "calls in flight":
                    await in_thread(relay.stall)
                    for _ in range(5):
                        nursery.start_soon(expect, client.ping)
                elif moment == "a run elsewhere":
                    nursery.start_soon(expect, lambda: client.start_workflow("approval"))
                    async for event in client.subscribe("workflows"):
                        assert event.kind
                        break
                elif moment == "a stalled write":
                    await in_thread(relay.stall)
                    nursery.start_soon(expect, lambda: client.enqueue("noop", "x" * 8_000_000))
                elif moment == "backing off":
                    await in_thread(relay.go_down)
                    nursery.start_soon(expect, client.ping)
                await trio.testing.wait_all_tasks_blocked()
                await client.close()
            assert errors
            assert all(isinstance(error, ConnectionError) for error in errors), errors

    run(program)


def test_nothing_stays_of_a_connect_that_fails() -> None:
    async def silent(visit: Visit) -> None:
        await visit.until_gone()

    async def program() -> None:
        with RoughPeer(silent) as peer:
            async with nothing_of_ours_afterwards(peer.url):
                with pytest.raises(ConnectionError):
                    await new_client(peer.url, connect_timeout=0.05).connect()

    run(program)


def test_tasks_that_connect_one_client_at_once_make_one_connection(server: GoServer) -> None:
    """One connects; the others are told that it was connected before. No nursery of theirs stays."""

    async def program() -> None:
        client = new_client(server.url)
        outcomes: list[str] = []

        async def connect() -> None:
            try:
                await client.connect()
                outcomes.append("connected")
            except ClosedError:
                outcomes.append("refused")

        async with nothing_of_ours_afterwards(server.url):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(connect)
            assert sorted(outcomes) == ["connected", "refused", "refused", "refused"]
            assert server.connections() == 1
            assert await client.ping() > 0
            await client.close()

    run(program)


def test_a_client_is_connected_by_one_task_and_closed_by_another(server: GoServer) -> None:
    async def program() -> None:
        client = new_client(server.url)
        async with nothing_of_ours_afterwards(server.url):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.connect)
            assert await client.ping() > 0  # though the nursery that it was connected in is gone
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.close)

    run(program)


def test_a_client_outlives_the_cancelled_scope_that_it_was_connected_in(server: GoServer) -> None:
    async def program() -> None:
        client = new_client(server.url)
        with trio.CancelScope() as scope:
            await client.connect()
            scope.cancel()
        await server_cut(server)
        assert await client.ping() > 0
        await client.close()

    run(program)


async def server_cut(server: GoServer) -> None:
    await in_thread(server.cut_all)


def test_what_the_body_raises_comes_out_as_it_is(server: GoServer) -> None:
    """No exception group around it, of whatever kind it is, also with tasks of the client's under way."""

    async def program() -> None:
        for error in (KeyError("mine"), ExceptionGroup("mine", [KeyError("a")]), SystemExit(3)):
            with pytest.raises(type(error)) as caught:  # noqa: PT012
                async with new_client(server.url) as client:
                    await client.subscribe("jobs")
                    raise error
            assert caught.value is error
            assert our_tasks() == []

    run(program)


def test_a_program_sees_its_own_context_in_the_function_for_the_token(server: GoServer) -> None:
    from contextvars import ContextVar

    tenant: ContextVar[str] = ContextVar("tenant")

    async def token() -> str:
        await trio.lowlevel.checkpoint()
        return tenant.get()

    async def program() -> None:
        tenant.set("dk_full")
        async with Dispatch(server.url, token) as client:
            assert await client.ping() > 0

    run(program)


# Clocks.


def test_timeouts_and_backoff_go_by_the_clock_of_the_run(server: GoServer) -> None:
    clock = trio.testing.MockClock()

    async def program() -> None:
        with Relay(server.url) as relay:
            client = Dispatch(relay.url, "dk_full", max_retries=0)
            await client.connect()
            await in_thread(relay.stall)
            ended: list[str] = []

            async def call(timeout: float) -> None:
                with pytest.raises(TimeoutError):
                    await client.ping(timeout=timeout)
                ended.append(f"{timeout:g}")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, 3.0)
                nursery.start_soon(call, 9.0)
                await trio.testing.wait_all_tasks_blocked(0.01)
                clock.jump(2.9)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert ended == []
                clock.jump(0.2)
                await until(lambda: ended == ["3"])
                clock.jump(6)
            assert ended == ["3", "9"]

            await in_thread(relay.go_down)
            await in_thread(relay.flow)
            await until(lambda: client.state == "backing_off")
            accepted = relay.accepted
            await in_thread(relay.come_up)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert relay.accepted == accepted  # it waits, for as long as the clock stands still
            while client.state != "ready":
                clock.jump(1)
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert await client.ping() >= 0
            await client.close()

    run(program, clock)


def test_a_connect_that_is_not_answered_times_out_by_the_clock_of_the_run() -> None:
    clock = trio.testing.MockClock()

    async def silent(visit: Visit) -> None:
        await visit.until_gone()

    async def program() -> None:
        with RoughPeer(silent) as peer:
            client = Dispatch(peer.url, "dk_full", connect_timeout=1000)
            ended = False

            async def connect() -> None:
                nonlocal ended
                with pytest.raises(ConnectionError):
                    await client.connect()
                ended = True

            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect)
                await in_thread(until_blocking, lambda: peer.visits == 1)
                await trio.testing.wait_all_tasks_blocked(0.01)
                clock.jump(999)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert not ended
                clock.jump(2)
            assert our_tasks() == []

    run(program, clock)


# Runs and threads.


def test_another_run_or_thread_is_told_and_breaks_nothing(server: GoServer) -> None:
    async def program() -> None:
        async with new_client(server.url) as client:
            subscription = await client.subscribe("jobs")

            async def use(call: Callable[[], Awaitable[Any]]) -> None:
                with pytest.raises(InvalidRequest, match="another trio run or thread"):
                    await call()

            async def subscribe() -> None:
                client.subscribe("jobs")

            def without_a_run() -> None:
                with pytest.raises(InvalidRequest, match="another trio run or thread"):
                    client.subscribe("jobs")
                with pytest.raises(InvalidRequest, match="another trio run or thread"):
                    client.ping().send(None)

            for call in (client.ping, subscribe, subscription.unsubscribe, client.close):
                await in_thread(trio.run, use, call)
            await in_thread(without_a_run)
            assert client.state == "ready"
            assert await client.ping() > 0

    run(program)


def test_iterating_in_another_run_is_told(server: GoServer) -> None:
    async def program() -> None:
        async with new_client(server.url) as client:
            subscription = await client.subscribe("jobs")

            async def iterate() -> None:
                with trio.fail_after(PATIENCE), pytest.raises(InvalidRequest, match="another trio run"):
                    await subscription.__anext__()

            await in_thread(trio.run, iterate)
            await in_thread(server.publish, "job.completed", "job:j", {"n": 1})
            assert (await subscription.__anext__())["data"]["n"] == 1

    run(program)


def test_a_client_may_be_made_anywhere_and_used_in_one_run(server: GoServer) -> None:
    client = new_client(server.url)

    async def program() -> None:
        async with client:
            assert await client.ping() > 0

    thread = threading.Thread(target=trio.run, args=(program,))
    thread.start()
    thread.join(PATIENCE)
    assert client.state == "closed"


def test_a_run_that_ends_with_the_client_open_ends_cleanly(server: GoServer) -> None:
    """The client is of no more use afterwards, says so, and closing it then does nothing."""
    client = new_client(server.url)

    async def leaves_it_open() -> None:
        await client.connect()
        await client.subscribe("jobs")

    async def afterwards() -> None:
        with pytest.raises(DispatchError):
            await client.ping()
        with pytest.raises(DispatchError):
            client.subscribe("jobs")
        with pytest.raises(ClosedError):
            await client.connect()
        await client.close()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(leaves_it_open)
        run(afterwards)
    until_blocking(lambda: server.connections() == 0)
    assert client.state == "closed"


@pytest.mark.parametrize("moment", ["backing off", "connecting", "a stalled write"])
def test_a_run_that_ends_with_the_client_busy_ends_cleanly(server: GoServer, moment: str) -> None:
    clients: list[Dispatch] = []

    async def program() -> None:
        relay = Relay(server.url)
        await in_thread(relay.__enter__)
        client = new_client(relay.url)
        clients.append(client)
        await client.connect()
        if moment == "backing off":
            await in_thread(relay.go_down)
            await until(lambda: client.state == "backing_off")
        elif moment == "connecting":
            await in_thread(relay.stall)
            await in_thread(relay.cut)
            await until(lambda: client.state == "connecting")
        else:
            await in_thread(relay.stall)
            with trio.move_on_after(0.05):
                await client.enqueue("noop", "x" * 8_000_000)
        await in_thread(relay.__exit__)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(program)
        assert clients.pop().state == "closed"


def test_a_client_that_was_never_closed_is_told_of(server: GoServer) -> None:
    async def program() -> None:
        client = new_client(server.url)
        await client.connect()
        driver = client._driver
        with pytest.warns(ResourceWarning, match=r"<Dispatch ws://.* ready> was never closed"):
            del client
        await driver.close(0.0)

    run(program)


# Ctrl-C.


def python(program: str, *arguments: str, patience: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """A program in a Python of its own, where warnings are errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'bindings'}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
    )


@pytest.mark.parametrize(
    "call", ["client.wait('job_1')", "client.enqueue('noop', 'x' * 8_000_000)", "client.subscribe('jobs')"]
)
def test_ctrl_c_in_a_waiting_call_ends_the_program_at_once(call: str) -> None:
    """KeyboardInterrupt and nothing else: no group around it, nothing said of what was under way."""
    program = f"""
import dataclasses, signal, sys
import trio, trio.testing
from dispatch.trio import Dispatch

async def main():
    client = Dispatch(sys.argv[1], "dk_full", timeout=None)
    client._driver.config = dataclasses.replace(client._driver.config, close_timeout=0.05)
    async with client:
        trio.lowlevel.spawn_system_task(interrupt)
        await {call}

async def interrupt():
    await trio.testing.wait_all_tasks_blocked(0.05)
    signal.raise_signal(signal.SIGINT)

try:
    trio.run(main)
except KeyboardInterrupt as error:
    print("interrupted", error.__cause__)
"""

    async def lets_in_and_no_more(visit: Visit) -> None:
        await visit.let_in()
        await visit.forever()

    with RoughPeer(lets_in_and_no_more) as peer:
        done = python(program, peer.url)
    assert (done.stdout, done.stderr, done.returncode) == ("interrupted None\n", "", 0)


def test_ctrl_c_in_connect_leaves_nothing_for_a_program_that_goes_on() -> None:
    """Whoever catches KeyboardInterrupt finds the client closed, and no task of it."""
    program = """
import signal, sys
import trio, trio.testing
from dispatch.trio import Dispatch

async def interrupt():
    await trio.testing.wait_all_tasks_blocked(0.05)
    signal.raise_signal(signal.SIGINT)

async def main():
    client = Dispatch(sys.argv[1], "dk_full", timeout=None)
    trio.lowlevel.spawn_system_task(interrupt)
    try:
        await client.connect()
    except KeyboardInterrupt:
        print(client.state)
        root = trio.lowlevel.current_root_task()
        tasks = [task.name for nursery in root.child_nurseries for task in nursery.child_tasks]
        print([name for name in tasks if name.startswith("dispatch")])

trio.run(main)
"""

    async def silent(visit: Visit) -> None:
        await visit.until_gone()

    with RoughPeer(silent) as peer:
        done = python(program, peer.url)
    assert (done.stdout, done.stderr, done.returncode) == ("closed\n[]\n", "", 0)


def test_ctrl_c_in_a_call_withdraws_it_for_a_program_that_goes_on(server: GoServer) -> None:
    program = """
import signal, sys
import trio, trio.testing
from dispatch.trio import Dispatch

async def interrupt():
    await trio.testing.wait_all_tasks_blocked(0.05)
    signal.raise_signal(signal.SIGINT)

async def main():
    async with Dispatch(sys.argv[1], "dk_full", timeout=None) as client:
        job = await client.enqueue("hold")
        session = client.session_id
        trio.lowlevel.spawn_system_task(interrupt)
        try:
            await client.wait(job.job_id)
        except KeyboardInterrupt:
            print("interrupted", len(client._driver._session._calls.table))
        await client.ping()
        print(client.session_id == session)

trio.run(main)
"""
    done = python(program, server.url)
    assert (done.stdout, done.stderr, done.returncode) == ("interrupted 0\nTrue\n", "", 0)


@pytest.mark.parametrize("step", ["request", "take_effects", "subscribe", "unsubscribe", "consumed"])
def test_ctrl_c_in_the_middle_of_a_step_waits_until_the_step_is_done(
    server: GoServer, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come at any moment, also in the core. It comes out at the next checkpoint, and all is whole."""

    async def main() -> None:
        async with new_client(server.url) as client:
            subscription = await client.subscribe("firehose")
            await client.enqueue("noop")
            await until(lambda: len(subscription._items) > 0)
            session = client._driver._session
            whole = getattr(session, step)
            steps: list[str] = []

            def interrupted(*arguments: Any, **options: Any) -> Any:
                if not steps:
                    steps.append("begun")
                    signal.raise_signal(signal.SIGINT)
                    steps.append("done")
                return whole(*arguments, **options)

            monkeypatch.setattr(session, step, interrupted)
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012
                await client.stats()
                while subscription._items:
                    await subscription.__anext__()
                async with client.subscribe("jobs"):
                    pass
                await trio.lowlevel.checkpoint()
            assert steps == ["begun", "done"]
            assert await client.ping() > 0
            assert (await client.enqueue("noop")).state

    # Without anything else around it: Ctrl-C is for the main task.
    trio.run(main)


# Defects of our own.


@pytest.mark.parametrize("where", ["reading", "time", "an event"])
def test_a_defect_in_a_task_of_ours_ends_every_wait(
    server: GoServer, where: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged with its traceback, everyone who waits is told, and the run goes on."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    async def program() -> None:
        client = new_client(server.url)
        await client.connect()
        job = await client.enqueue("hold")
        subscription = await client.subscribe("jobs")
        errors: list[BaseException | None] = []

        async def expect(call: Callable[[], Awaitable[Any]]) -> None:
            try:
                await call()
            except (DispatchError, StopAsyncIteration) as error:
                errors.append(error)

        async def iterate() -> None:
            async for _ in subscription:
                pass
            errors.append(None)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, lambda: client.wait(job.job_id, timeout=None))
            nursery.start_soon(expect, lambda: client.wait(job.job_id, timeout=None))
            nursery.start_soon(expect, iterate)
            await trio.testing.wait_all_tasks_blocked(0.01)
            line: Any = client._driver._line
            if where == "reading":
                monkeypatch.setattr(line, "received", broken)
                await in_thread(server.publish, "job.completed", "job:j", {"n": 1})
            elif where == "time":
                monkeypatch.setattr(line, "_end_turn", broken)
                line.poke_later()
            else:
                monkeypatch.setattr(subscription, "push", broken)
                await in_thread(server.publish, "job.completed", "job:j", {"n": 1})
        assert len(errors) == 3
        with pytest.raises(ClosedError):
            await client.ping()
        await client.close()
        assert our_tasks() == []

    run(program)
    [record] = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert "defect of dispatch" in record.message
    assert record.exc_info


def test_a_function_for_the_token_that_exits_does_not_break_the_run(server: GoServer) -> None:
    """trio would call it an internal error."""

    def token() -> str:
        raise SystemExit(5)

    async def program() -> None:
        with pytest.raises(ConnectionError, match="SystemExit"):
            await Dispatch(server.url, token).connect()
        assert our_tasks() == []

    run(program)
