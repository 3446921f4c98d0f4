"""`dispatch.testing.server()`: real functions on a real server in the test's own process, without files and sleeps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import dispatch.asyncio
from dispatch.errors import AuthError, ClosedError, InvalidRequest, NotFoundError, TimeoutError
from dispatch.functions.context import current
from dispatch.functions.registry import REGISTRY, Registry
from dispatch.server import Key
from dispatch.sync import Dispatch
from dispatch.testing import server
from tests.contract.bindings import Binding
from tests.testing_kit.conftest import Connect

registry = Registry()
gate = threading.Event()


@registry.function(name="send-email")
def send_email(to: str) -> dict[str, str]:
    return {"sent_to": to}


@registry.function(name="double")
async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


@registry.function(name="flaky", max_retries=3)
def flaky() -> int:
    if current().attempt < 4:
        raise OSError("not yet")
    return current().attempt


@registry.function(name="hold")
def hold() -> None:
    assert gate.wait(30)


@registry.function(name="fan-out")
def fan_out(url: str, token: str, depth: int) -> None:
    if depth:
        with Dispatch(url=url, token=token) as client:
            for _ in range(2):
                client.enqueue("fan-out", {"url": url, "token": token, "depth": depth - 1})


@pytest.fixture
def held() -> Iterator[None]:
    gate.clear()
    yield
    gate.set()


@pytest.mark.anyio
async def test_functions_run_and_their_jobs_can_be_looked_at(binding: Binding, connect: Connect) -> None:
    async with server(registry) as running:
        async with connect(url=running.url, token=running.token) as client:
            await client.enqueue("send-email", {"to": "user@example.com"})
            await client.enqueue("double", {"number": 21})
            await client.enqueue("flaky")
            await running.until_idle()
        jobs = running.jobs()
    assert [(job.name, job.state, job.output) for job in jobs] == [
        ("send-email", "completed", {"sent_to": "user@example.com"}),
        ("double", "completed", 42),
        ("flaky", "completed", 4),
    ]
    assert jobs[0].payload == {"to": "user@example.com"}


def test_a_test_without_a_loop_waits_until_everything_is_done() -> None:
    with server(registry) as running, Dispatch(url=running.url, token=running.token) as client:
        client.enqueue("fan-out", {"url": running.url, "token": running.token, "depth": 3})
        running.until_idle_blocking()
        assert len(running.jobs()) == 2**4 - 1
        running.until_idle_blocking()  # as it is already


def test_many_jobs_are_listed_all() -> None:
    with server(registry) as running, Dispatch(url=running.url, token=running.token) as client:
        for _ in range(3):
            client.enqueue_many([{"name": "double", "payload": {"number": n}} for n in range(1000)])
        running.until_idle_blocking(60.0)
        jobs = running.jobs()
    assert [job.payload["number"] for job in jobs] == [*range(1000)] * 3
    assert {job.state for job in jobs} == {"completed"}


@pytest.mark.usefixtures("held")
def test_what_is_not_done_in_time_is_told_with_its_reason() -> None:
    with (
        server(registry, queues=("default",)) as running,
        Dispatch(url=running.url, token=running.token) as client,
    ):
        held = client.enqueue("hold")
        later = client.enqueue("double", {"number": 1}, delay=3600)
        with client.watch(held.job_id):
            pass
        with pytest.raises(TimeoutError) as late:
            running.until_idle_blocking(0.2)
        gate.set()
    text = str(late.value)
    assert text.startswith("2 jobs are not done after 0.2 s: ")
    assert f"hold {held.job_id} is running since 20" in text
    assert f"double {later.job_id} is pending, not before 20" in text


@pytest.mark.anyio
async def test_waiting_can_be_given_up_and_taken_up_again(binding: Binding, held: None) -> None:
    async with server(registry) as running:
        with Dispatch(url=running.url, token=running.token) as client:
            client.enqueue("hold")
        with anyio.move_on_after(0.05) as scope:
            await running.until_idle()
        assert scope.cancelled_caught
        gate.set()
        await running.until_idle()


def test_the_functions_of_the_program_are_served_unless_others_are_given() -> None:
    @REGISTRY.function(name="testing-kit-of-the-program")
    def of_the_program() -> str:
        return "here"

    try:
        with server() as running, Dispatch(url=running.url, token=running.token) as client:
            job = client.enqueue("testing-kit-of-the-program")
            assert client.wait(job.job_id).output == "here"
            with pytest.raises(NotFoundError):
                client.enqueue("send-email")
    finally:
        del REGISTRY._exact["testing-kit-of-the-program"]


def test_a_program_is_loaded_as_the_command_line_loads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs.py").write_text(
        "from dispatch.functions.registry import Registry\n"
        "registry = Registry()\n"
        "@registry.function(name='hello')\n"
        "def hello(): return 'hello'\n"
    )
    monkeypatch.chdir(tmp_path)
    with server("jobs.py:registry") as running, Dispatch(url=running.url, token=running.token) as client:
        assert client.wait(client.enqueue("hello").job_id).output == "hello"


def test_only_those_with_a_key_come_in() -> None:
    with server(registry) as running, pytest.raises(AuthError):
        Dispatch(url=running.url, token="guess").connect()
    keys = (Key("dk_full", app_id="a"), Key("dk_reader", frozenset(("job:read",))))
    with server(registry, keys=keys) as running:
        assert running.token == "dk_full"
        with Dispatch(url=running.url, token="dk_reader") as client, pytest.raises(AuthError):
            client.enqueue("double", {"number": 1})
        with Dispatch(url=running.url, token=running.token) as client:
            client.enqueue("double", {"number": 1})
        running.until_idle_blocking()
        assert [job.state for job in running.jobs()] == ["completed"]  # of every tenant


def test_settings_of_the_server_and_of_its_engine_can_be_changed() -> None:
    with server(registry, features=frozenset(), concurrency=1) as running:
        with Dispatch(url=running.url, token=running.token) as client, client.subscribe("jobs") as events:
            client.enqueue("double", {"number": 1})
            assert events.next(10).seq is None
        assert running._server.engine._options.concurrency == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"concurency": 1}, 'there is no setting "concurency"; did you mean "concurrency"?'),
        ({"zzz": 1}, "there are "),
        ({"keys": ()}, "keys: give one at least"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        server(registry, **arguments)
    assert message in str(refused.value)


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(Exception, match=r"no_such_program\.py"), server("no_such_program.py"):
        pass


def test_a_server_is_used_once_and_while_it_runs() -> None:
    running = server(registry)
    assert repr(running) == "<MemoryServer not started>"
    with pytest.raises(ClosedError, match="does not run"):
        running.jobs()
    with running:
        assert repr(running) == f"<MemoryServer {running.url}>"
        with pytest.raises(ClosedError, match="started before"):
            running.__enter__()
    for call in (running.jobs, running.until_idle_blocking):
        with pytest.raises(ClosedError, match="does not run"):
            call()


def test_clients_that_are_still_connected_are_sent_away() -> None:
    with server(registry) as running:
        client = Dispatch(url=running.url, token=running.token, max_retries=1)
        client.connect()
    client.close()
    assert not [each for each in threading.enumerate() if each.name == "dispatch-testing-server"]


@pytest.mark.anyio
async def test_two_servers_at_once_know_nothing_of_each_other(binding: Binding) -> None:
    async with (
        server(registry) as one,
        server(registry) as two,
        dispatch.asyncio.Dispatch(one.url, one.token)
        if binding.backend[0] == "asyncio"
        else dispatch.trio.Dispatch(one.url, one.token) as client,
    ):
        await client.enqueue("double", {"number": 1})
        await one.until_idle()
        assert (len(one.jobs()), len(two.jobs())) == (1, 0)
