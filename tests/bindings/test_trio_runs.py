"""The trio client and its run: clocks, other runs and threads, Ctrl-C, defects of our own."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from dispatch.errors import ClosedError, ConnectionError, DispatchError, InvalidRequest, TimeoutError
from dispatch.trio import Dispatch
from tests.bindings.trio_clients import ROOT, in_thread, new_client, our_tasks, run, until, until_blocking
from tests.contract.go_server import GoServer
from tests.contract.relay import Relay
from tests.contract.rough_peers import RoughPeer, Visit
from tests.contract.threads import PATIENCE

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
