"""`dispatch serve`, tried as a process: what it says, what it runs, how it stops, and what it refuses."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from dispatch import Dispatch
from dispatch.errors import AuthError
from tests.server.serve_process import PATIENCE, ServeProcess, refused

# Functions tell the test that they run by writing into a pipe, and go on when the test says so: nothing is timed.
APP = """
import asyncio, os, threading, time
import dispatch

def say(what):
    fd = os.open("said", os.O_WRONLY)
    os.write(fd, what.encode() + b"\\n")
    os.close(fd)

def wait_to_go():
    fd = os.open("go", os.O_RDONLY)
    os.read(fd, 1)
    os.close(fd)

@dispatch.function(name="greet")
def greet(to):
    return {"hello": to}

@dispatch.function(name="greet-async")
async def greet_async(to):
    await asyncio.sleep(0)
    return {"hello": to}

@dispatch.function(name="slow")
def slow():
    say("slow runs")
    wait_to_go()
    return "done"

@dispatch.function(name="blocks")
async def blocks():
    say("blocks runs")
    wait_to_go()
    return "done"

@dispatch.function(name="polite")
async def polite():
    say("polite runs")
    try:
        await asyncio.Event().wait()
    finally:
        say("polite cleans up")

@dispatch.function(name="fails", max_retries=0)
def fails():
    class Unpicklable(Exception):
        def __str__(self):
            raise ValueError("no text")
        def __reduce__(self):
            raise TypeError("cannot be pickled")
    raise Unpicklable()

@dispatch.function(name="exits", max_retries=0)
def exits():
    raise SystemExit(7)

@dispatch.function(name="clings")
def clings():
    def hang():
        wait_to_go()
    threading.Thread(target=hang).start()
    asyncio.run(asyncio.sleep(0))

@dispatch.function(name="pid")
def pid():
    return os.getpid()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    for name in ("said", "go"):
        os.mkfifo(tmp_path / name)
    return tmp_path


class Pipes:
    """The test's ends of the pipes that the functions use."""

    def __init__(self, folder: Path) -> None:
        # Read and write: then opening does not wait, and the end is never reached.
        self._said = os.fdopen(os.open(folder / "said", os.O_RDWR), "rb", buffering=0)
        self._go = os.open(folder / "go", os.O_RDWR)

    def hear(self) -> str:
        return self._said.readline().decode().rstrip("\n")

    def let_go(self) -> None:
        """One of those that wait."""
        os.write(self._go, b".")

    def close(self) -> None:
        self._said.close()
        os.close(self._go)


@pytest.fixture
def pipes(folder: Path) -> Any:
    pipes = Pipes(folder)
    yield pipes
    pipes.close()


async def run(client: Dispatch, name: str, payload: Any = None) -> Any:
    """Enqueues a job and waits for its end."""
    job = await client.enqueue(name, payload)
    await client.wait(job["job_id"], timeout=PATIENCE)
    return await client.get_job(job["job_id"])


# ── what it says and runs ──


def test_it_says_where_it_listens_and_what_it_runs(folder: Path) -> None:
    with ServeProcess(folder) as server:
        assert server.ready["url"].startswith("ws://127.0.0.1:")
        assert server.ready["db"] == "dispatch.db"
        assert "greet" in server.ready["functions"]
        assert "note: no keys: open to every program on this machine" in server.stderr
        assert server.terminate() == 0


def test_for_people_the_ready_line_is_one_line(folder: Path) -> None:
    server = ServeProcess(folder, json=False)
    line = server.line()
    assert line.startswith("ready: ws://127.0.0.1:")
    assert line.endswith(
        "/dwp, dispatch.db, 9 functions: blocks, clings, exits, fails, greet, greet-async, pid, polite, slow"
    )
    assert server.terminate() == 0
    assert server.line() == ""
    server.close()


@pytest.mark.parametrize("name", ["greet", "greet-async"])
def test_it_runs_jobs(folder: Path, name: str) -> None:
    with ServeProcess(folder) as server:
        job = server.ask(lambda client: run(client, name, {"to": "ada"}))
        assert job["state"] == "completed"
        assert job["output"] == {"hello": "ada"}


@pytest.mark.parametrize(
    ("name", "payload", "error"),
    [
        ("fails", None, "Unpicklable: <its text could not be had: ValueError in __str__>"),
        ("exits", None, "SystemExit: 7"),
        ("pid", {"to": "ada"}, 'BindingError: pid() cannot take this payload: unknown "to"'),
    ],
)
def test_whatever_a_function_does_the_server_lives_on(
    folder: Path, name: str, payload: Any, error: str
) -> None:
    async def ask(client: Dispatch) -> tuple[Any, Any]:
        return await run(client, name, payload), await run(client, "greet", "ada")

    with ServeProcess(folder) as server:
        failed, fine = server.ask(ask)
        assert failed["state"] == "failed"
        assert failed["error"].startswith(error)
        assert fine["output"] == {"hello": "ada"}


def test_blocking_user_code_stalls_neither_the_server_nor_other_jobs(folder: Path, pipes: Pipes) -> None:
    async def ask(client: Dispatch) -> list[Any]:
        blocked = [await client.enqueue(name) for name in ("blocks", "slow", "blocks")]
        for _ in blocked:
            await asyncio.to_thread(pipes.hear)
        await client.ping()
        fine = [await run(client, name, "ada") for name in ("greet", "greet-async")]
        for _ in blocked:
            await asyncio.to_thread(pipes.let_go)
        return fine

    with ServeProcess(folder) as server:
        assert [job["output"] for job in server.ask(ask)] == [{"hello": "ada"}] * 2


def test_without_a_program_jobs_wait_for_a_server_that_has_it(folder: Path) -> None:
    with ServeProcess(folder) as server:
        job_id = server.ask(lambda client: client.enqueue("greet", "ada", queue="other"))["job_id"]
        server.ask(lambda client: client.wait(job_id, timeout=PATIENCE))
        server.terminate()
    (folder / "app.py").rename(folder / "later.py")
    with ServeProcess(folder) as server:
        assert server.ready["functions"] == []
        assert "no app.py here and no app given" in server.stderr
        job_id = server.ask(lambda client: client.enqueue("greet", "ada"))["job_id"]
        assert server.ask(lambda client: client.get_job(job_id))["state"] == "pending"
        server.terminate()
    with ServeProcess(folder, app="later.py") as server:
        server.ask(lambda client: client.wait(job_id, timeout=PATIENCE))


def test_only_the_queues_it_is_told_run(folder: Path) -> None:
    async def ask(client: Dispatch) -> tuple[Any, Any]:
        other = await client.enqueue("greet", "ada", queue="images")
        mine = await client.enqueue("greet", "ada", queue="mail")
        await client.wait(mine["job_id"], timeout=PATIENCE)
        return await client.get_job(mine["job_id"]), await client.get_job(other["job_id"])

    with ServeProcess(folder, queues=["mail"]) as server:
        mine, other = server.ask(ask)
        assert (mine["state"], other["state"]) == ("completed", "pending")


def test_with_keys_nobody_comes_in_without_one(folder: Path) -> None:
    with ServeProcess(folder, tokens=["dk_all", "dk_reader:job:read"]) as server:
        assert server.ask(lambda client: run(client, "greet", "ada"), token="dk_all")["state"] == "completed"
        with pytest.raises(AuthError):
            server.ask(lambda client: client.ping(), token="guess")
        with pytest.raises(AuthError):
            server.ask(lambda client: client.enqueue("greet", "ada"), token="dk_reader")


def test_memory_keeps_nothing_and_says_so(folder: Path) -> None:
    with ServeProcess(folder, db=":memory:") as server:
        assert server.ask(lambda client: run(client, "greet", "ada"))["state"] == "completed"
        assert "in memory: jobs end with this process" in server.stderr
        assert server.terminate() == 0
    assert not (folder / ":memory:").exists()


# ── how it stops ──


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_jobs_end(folder: Path, pipes: Pipes, number: int) -> None:
    with ServeProcess(folder) as server:
        job_id = server.ask(lambda client: client.enqueue("slow"))["job_id"]
        assert pipes.hear() == "slow runs"
        server.signal(number)
        pipes.let_go()
        assert server.wait() == 0
    with ServeProcess(folder) as server:
        assert server.ask(lambda client: client.get_job(job_id))["output"] == "done"


def test_what_does_not_end_in_time_is_handed_back_and_runs_again(folder: Path, pipes: Pipes) -> None:
    with ServeProcess(folder, drain_seconds=0) as server:
        ids = [server.ask(lambda c, n=n: c.enqueue(n))["job_id"] for n in ("polite", "slow", "blocks")]  # type: ignore[misc]
        assert {pipes.hear() for _ in ids} == {"polite runs", "slow runs", "blocks runs"}
        assert server.terminate() == 0
        assert pipes.hear() == "polite cleans up"
        assert "stopping: 3 running jobs have 0 s to end" in server.stderr
    with ServeProcess(folder, queues=["none"]) as server:
        jobs = [server.ask(lambda c, i=i: c.get_job(i)) for i in ids]  # type: ignore[misc]
        assert [(job["state"], job["retry_count"]) for job in jobs] == [("pending", 0)] * 3


def test_a_thread_that_user_code_left_behind_does_not_keep_it_alive(folder: Path) -> None:
    with ServeProcess(folder) as server:
        assert server.ask(lambda client: run(client, "clings"))["state"] == "completed"
        assert server.terminate() == 0


def test_a_second_signal_ends_it_at_once_and_the_job_comes_back(folder: Path, pipes: Pipes) -> None:
    with ServeProcess(folder, lease_seconds=0.5) as server:
        job_id = server.ask(lambda client: client.enqueue("slow"))["job_id"]
        assert pipes.hear() == "slow runs"
        server.signal(signal.SIGTERM)
        while "stopping" not in server.stderr:
            assert server.process.poll() is None
        server.signal(signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM
    with ServeProcess(folder, lease_seconds=0.5) as server:
        assert pipes.hear() == "slow runs"
        pipes.let_go()
        assert server.ask(lambda client: client.wait(job_id, timeout=PATIENCE))["state"] == "completed"


def test_after_kill_9_nothing_acknowledged_is_lost(folder: Path, pipes: Pipes) -> None:
    async def enqueue(client: Dispatch) -> list[str]:
        ids = [(await client.enqueue("greet", {"to": n}))["job_id"] for n in range(50)]
        ids.append((await client.enqueue("slow"))["job_id"])
        return ids

    async def outcomes(client: Dispatch) -> list[str]:
        for job_id in ids:
            await client.wait(job_id, timeout=PATIENCE)
        return [(await client.get_job(job_id))["state"] for job_id in ids]

    with ServeProcess(folder, lease_seconds=0.5) as server:
        ids = server.ask(enqueue)
        assert pipes.hear() == "slow runs"
        server.process.kill()
        server.wait()
    with ServeProcess(folder, lease_seconds=0.5) as server:
        assert pipes.hear() == "slow runs"
        pipes.let_go()
        assert server.ask(outcomes) == ["completed"] * 51


def test_two_servers_on_one_file_serve_each_others_clients(folder: Path) -> None:
    async def ask(client: Dispatch) -> set[Any]:
        return {job["output"] for job in await asyncio.gather(*(run(client, "pid") for _ in range(200)))}

    with ServeProcess(folder) as one, ServeProcess(folder, queues=["other"]) as two:
        ran_by = one.ask(ask)
        assert ran_by == {one.process.pid}
        job = two.ask(lambda client: run(client, "pid"))  # runs on the other server, which was not told
        assert job["output"] == one.process.pid


# ── what it refuses ──


def test_a_port_in_use_is_named(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, message = refused(folder, port=port)

    assert code == 2
    assert f"error: port {port} on 127.0.0.1 is in use by another program" in message
    assert "--port" in message


def test_another_host_needs_keys(folder: Path) -> None:
    code, message = refused(folder, host="0.0.0.0")

    assert code == 2
    assert "error: not listening on 0.0.0.0 without keys" in message
    assert "--token" in message
    assert "--insecure" in message


def test_insecure_is_possible_and_said(folder: Path) -> None:
    with ServeProcess(folder, host="0.0.0.0", insecure=True) as server:
        assert "open to everybody who reaches 0.0.0.0" in server.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"app": "no.py"}, "there is no file no.py"),
        ({"app": "nomodule"}, "there is no module nomodule"),
        ({"app": "app:nothing"}, 'app has no attribute "nothing"'),
        ({"host": "no-such-host.invalid", "insecure": True}, 'there is no address "no-such-host.invalid"'),
        ({"host": "192.0.2.1", "insecure": True}, "this machine has no address 192.0.2.1"),
        ({"tokens": ["dk_secret:job:reed"]}, "unknown scope"),
        ({"tokens": [""]}, "is empty"),
        ({"lease_seconds": math.inf}, "lease_seconds (--lease) must be from 0.1 to 86400 seconds, got inf"),
        ({"lease_seconds": math.nan}, "lease_seconds (--lease) must be from 0.1 to 86400 seconds, got nan"),
        ({"drain_seconds": math.inf}, "drain_seconds (--drain) must be from 0 to 86400 seconds, got inf"),
        ({"db": "no/such/folder/x.db"}, "no directory"),
        ({"db": "."}, "directory"),
        ({"db": "/proc/dispatch.db"}, "/proc/dispatch.db"),
    ],
    ids=str,
)
def test_what_cannot_be_served_ends_with_one_message_and_2(
    folder: Path, options: dict[str, Any], message: str
) -> None:
    code, said = refused(folder, **options)

    assert code == 2
    assert said.startswith("error: ")
    assert message in said
    assert "Traceback" not in said
    assert "dk_secret" not in said


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_library", "line 1, in <module>\n    import no_such_library\nModuleNotFoundError"),
        ("def f(:", "SyntaxError"),
        ("x = 1", "declares no functions"),
        (APP + "\n@dispatch.function(name='greet')\ndef other(): ...\n", 'two functions are named "greet"'),
        ("import sys; sys.exit(3)", "ends the program while it is imported (SystemExit: 3)"),
    ],
    ids=["library", "syntax", "none", "twice", "exit"],
)
def test_a_program_that_does_not_import_shows_its_own_lines(folder: Path, source: str, message: str) -> None:
    (folder / "app.py").write_text(source)
    code, said = refused(folder)

    assert code == 2
    assert said.startswith("error: ")
    assert message in said
    assert "dispatch/server" not in said


def test_a_foreign_database_is_left_alone(folder: Path) -> None:
    foreign = sqlite3.connect(folder / "mine.db")
    foreign.execute("CREATE TABLE jobs (id)")
    foreign.commit()
    foreign.close()
    before = (folder / "mine.db").read_bytes()
    code, said = refused(folder, db="mine.db")

    assert code == 2
    assert "mine.db" in said
    assert (folder / "mine.db").read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(folder: Path) -> None:
    code, said = refused(folder, db="app.py")

    assert code == 2
    assert "app.py" in said
    assert (folder / "app.py").read_text() == APP
