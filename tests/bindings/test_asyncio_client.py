"""What is asyncio's own: loops, threads, garbage, debug mode, and that nothing stays behind a closed client."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
import uvloop

from dispatch import Dispatch
from dispatch.errors import ClosedError, ConnectionError, DispatchError, InvalidRequest
from dwp_core.backoff import Backoff
from tests.contract.go_server import GoServer
from tests.contract.relay import Relay
from tests.contract.rough_peers import RoughPeer, Visit
from tests.contract.threads import PATIENCE

Program = Callable[[], Coroutine[Any, Any, None]]
MOMENTS = ["calls in flight", "a run elsewhere", "a stalled write", "backing off", "connecting"]
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def new_client(url: str, **options: Any) -> Dispatch:
    settings = {name: options.pop(name) for name in list(options) if name.endswith("_timeout")}
    client = Dispatch(url, "dk_full", max_retries=0, **options)
    quick = Backoff(base=0.01, cap=0.05)
    client._driver.config = replace(client._driver.config, backoff=quick, **settings)
    return client


def run(program: Program, loop: str = "asyncio") -> None:
    """The program on such a loop in debug mode; everything asyncio complains about is an error."""
    complaints: list[str] = []

    async def bounded() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(str(context)))
        async with asyncio.timeout(PATIENCE):
            await program()
        gc.collect()

    with asyncio.Runner(debug=True, loop_factory=LOOPS[loop]) as runner:
        runner.run(bounded())
    gc.collect()
    assert complaints == []


def check_nothing_stays() -> None:
    """Nothing of ours is on the running loop: no task, no timer, no socket."""
    loop: Any = asyncio.get_running_loop()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    for handle in getattr(loop, "_scheduled", ()):
        assert handle.cancelled() or "dispatch" not in repr(handle)
    selector = getattr(loop, "_selector", None)
    if selector is not None:
        assert set(selector.get_map()) == {loop._ssock.fileno()}  # what wakes the loop, and no socket of ours


# Nothing stays.


@pytest.mark.parametrize("loop", LOOPS)
def test_nothing_stays_after_close(server: GoServer, loop: str) -> None:
    async def program() -> None:
        async with new_client(server.url) as client:
            await client.subscribe("jobs")
            await client.enqueue("noop")
            await client.start_workflow("order-pipeline", {"order_id": 1})
        check_nothing_stays()

    run(program, loop)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    "moment", ["calls in flight", "a run elsewhere", "a stalled write", "backing off", "connecting"]
)
def test_nothing_stays_whatever_was_under_way(server: GoServer, loop: str, moment: str) -> None:
    async def program() -> None:
        with Relay(server.url) as relay:
            client = new_client(relay.url, close_timeout=0.05)
            calls: list[Awaitable[Any]] = []
            if moment == "connecting":
                await asyncio.to_thread(relay.stall)
                calls.append(asyncio.ensure_future(client.connect()))
            else:
                await client.connect()
            if moment == "calls in flight":
                await asyncio.to_thread(relay.stall)
                calls += [asyncio.ensure_future(client.ping()) for _ in range(5)]
            elif moment == "a run elsewhere":
                calls.append(asyncio.ensure_future(client.start_workflow("approval")))
                async for event in client.subscribe("workflows"):
                    assert event.kind
                    break
            elif moment == "a stalled write":
                await asyncio.to_thread(relay.stall)
                calls.append(asyncio.ensure_future(client.enqueue("noop", "x" * 8_000_000)))
            elif moment == "backing off":
                await asyncio.to_thread(relay.go_down)
                calls.append(asyncio.ensure_future(client.ping()))
            await asyncio.sleep(0)
            await client.close()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(result, ConnectionError) for result in results), results
            check_nothing_stays()

    run(program, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_nothing_stays_of_a_connect_that_fails_or_is_cancelled(loop: str) -> None:
    async def silent(visit: Visit) -> None:
        await visit.until_gone()

    async def program() -> None:
        with RoughPeer(silent) as peer:
            client = new_client(peer.url, connect_timeout=0.05)
            with pytest.raises(ConnectionError):
                await client.connect()
            check_nothing_stays()
            for turns in range(8):
                client = new_client(peer.url)
                connecting = asyncio.ensure_future(client.connect())
                for _ in range(turns):
                    await asyncio.sleep(0)
                connecting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await connecting
                await client.close()
                check_nothing_stays()

    run(program, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_call_that_is_cancelled_as_it_fails_leaves_no_exception_behind(server: GoServer, loop: str) -> None:
    async def program() -> None:
        async with new_client(server.url) as client:
            for turns in range(20):
                call = asyncio.ensure_future(client.get_job("job_"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
                await client.ping()

    run(program, loop)


def test_a_coroutine_that_is_dropped_withdraws_its_call(server: GoServer) -> None:
    async def program() -> None:
        async with new_client(server.url) as client:
            call = client.get_job("job_")
            call.send(None)
            call.close()
            assert len(client._driver._session._calls.table) == 0
            await client.ping()

    run(program)


# Loops and threads.


def test_another_thread_is_told_and_breaks_nothing(server: GoServer) -> None:
    async def program() -> None:
        async with new_client(server.url) as client:
            subscription = await client.subscribe("jobs")

            async def use(call: Callable[[], Awaitable[Any]]) -> None:
                with pytest.raises(InvalidRequest, match="another event loop or thread"):
                    await call()

            async def subscribe() -> None:
                client.subscribe("jobs")

            def without_a_loop() -> None:
                with pytest.raises(InvalidRequest, match="another event loop or thread"):
                    client.subscribe("jobs")

            for call in (client.ping, subscribe, subscription.unsubscribe, client.close):
                await asyncio.to_thread(asyncio.run, use(call))
            await asyncio.to_thread(without_a_loop)
            assert client.state == "ready"
            assert await client.ping() > 0

    run(program)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # asyncio's own, of a loop that is closed so
def test_a_client_whose_loop_has_ended_says_so_and_closes_quietly(server: GoServer) -> None:
    use_after_its_loop_has_ended(new_client(server.url))
    gc.collect()


def use_after_its_loop_has_ended(client: Dispatch) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client.connect())
    loop.close()

    async def afterwards() -> None:
        with pytest.raises(InvalidRequest, match="another event loop"):
            await client.ping()
        with pytest.raises(InvalidRequest, match="another event loop"):
            client.subscribe("jobs")
        await client.close()

    run(afterwards)


def test_a_client_may_be_made_anywhere_and_used_on_one_loop(server: GoServer) -> None:
    client = new_client(server.url)

    async def program() -> None:
        async with client:
            assert await client.ping() > 0

    thread = threading.Thread(target=run, args=(program,))
    thread.start()
    thread.join(PATIENCE)
    assert client.state == "closed"


# Garbage.


def test_a_client_that_was_never_closed_is_told_of(server: GoServer) -> None:
    async def program() -> None:
        client = new_client(server.url)
        await client.connect()
        driver = client._driver
        with pytest.warns(ResourceWarning, match=r"<Dispatch ws://.* ready> was never closed"):
            del client
        await driver.close(0.0)

    run(program)


def test_a_client_that_was_closed_or_never_connected_is_not(server: GoServer) -> None:
    async def program() -> None:
        client = new_client(server.url)
        del client
        async with new_client(server.url) as client:
            pass
        del client
        with pytest.raises(DispatchError):
            Dispatch("nonsense")
        gc.collect()

    run(program)


# Waiting for events.


def test_a_waiter_that_is_woken_and_cancelled_in_one_turn_is_cancelled(server: GoServer) -> None:
    async def program() -> None:
        async with new_client(server.url) as client:
            subscription = await client.subscribe("jobs")
            waiting = asyncio.ensure_future(subscription.__anext__())
            await asyncio.sleep(0)
            waiting.cancel()
            subscription._wake()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert subscription._waiters == []

    run(program)


def test_what_was_read_is_acknowledged_also_when_a_gap_comes_last(server: GoServer) -> None:
    async def program() -> None:
        async with new_client(server.url, event_buffer=2) as client:
            slow, quick = await client.subscribe("jobs"), await client.subscribe("jobs")
            for n in range(4):
                await asyncio.to_thread(server.publish, "job.completed", "job:j", {"n": n})
                await quick.__anext__()
            for _ in range(3):
                await slow.__anext__()
            assert slow.handle is not None
            assert slow.handle.buffered == 0

    run(program)


# Logs.


def test_what_happens_to_the_connection_is_logged_once(
    server: GoServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def program() -> None:
        async with new_client(server.url) as client:
            await asyncio.to_thread(server.cut_all)
            await client.ping()

    run(program)
    lines = [(r.levelname, r.message) for r in caplog.records if r.name == "dispatch.client"]
    assert [level for level, _ in lines] == ["INFO", "WARNING", "INFO"]
    assert lines[0][1].startswith(f"connected to {server.url} as ws_")
    assert "next attempt in" in lines[1][1]
    assert lines[2][1].startswith(f"reconnected to {server.url} as ws_")


def test_an_error_in_the_function_for_the_token_is_logged_with_its_traceback(
    server: GoServer, caplog: pytest.LogCaptureFixture
) -> None:
    def token() -> str:
        raise KeyError("vault")

    async def program() -> None:
        with pytest.raises(ConnectionError, match="KeyError: 'vault'"):
            await Dispatch(server.url, token).connect()

    run(program)
    [record] = [record for record in caplog.records if record.exc_info]
    assert "the token could not be had" in record.message
    assert isinstance(record.exc_info[1], KeyError) if record.exc_info else False


def test_each_caller_gets_an_error_of_its_own(server: GoServer) -> None:
    async def program() -> None:
        client = Dispatch(server.url, "dk_full", reconnect=False)
        await client.connect()
        job = await client.enqueue("hold")
        subscription = await client.subscribe("jobs")
        while subscription._items:
            await subscription.__anext__()
        calls = [asyncio.ensure_future(client.wait(job.job_id)) for _ in range(3)]
        reads = [asyncio.ensure_future(until_it_ends(subscription)) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.to_thread(server.cut_all)
        errors = await asyncio.gather(*calls, *reads, return_exceptions=True)
        assert all(isinstance(error, ConnectionError) for error in errors), errors
        assert len({id(error) for error in errors}) == 6
        with pytest.raises(ClosedError):
            await client.ping()

    run(program)


async def until_it_ends(subscription: Any) -> None:
    async for _ in subscription:
        pass
