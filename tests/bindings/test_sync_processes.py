"""The blocking client in a process of its own: Ctrl-C and other signals, forks, the end of the interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dispatch.errors import (
    ClosedError,
    DispatchError,
)
from tests.bindings.sync_clients import ROOT, in_thread, new_client, our_threads, until, waits
from tests.contract.go_server import GoServer
from tests.contract.relay import Relay
from tests.contract.rough_peers import RoughPeer, Visit
from tests.contract.threads import PATIENCE

# In a process of its own.


def python(
    program: str, *arguments: str, executable: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    """A program in a Python of its own."""
    with started(program, *arguments, executable=executable) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@contextmanager
def started(
    program: str, *arguments: str, executable: str = sys.executable
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [executable, "-W", "error", "-c", PRELUDE + program, *arguments],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'bindings'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


PRELUDE = """
import dataclasses, os, signal, sys, threading, time
from dispatch.sync import Dispatch
from dispatch.errors import *

def new_client(**options):
    client = Dispatch(sys.argv[1], "dk_full", **{"timeout": None, "max_retries": 0, **options})
    client._driver.config = dataclasses.replace(client._driver.config, close_timeout=0.05)
    return client

def until(condition):
    while not condition():
        time.sleep(0.001)

def say(*words):
    print(*words, flush=True)
"""


def check(process: subprocess.Popen[str], out: str, say: str | None = None) -> None:
    """It ends so, after this was said to it, and complains of nothing."""
    said, complained = process.communicate(say, timeout=PATIENCE)
    complained = "".join(line for line in complained.splitlines(True) if "next attempt in" not in line)
    assert (said, complained, process.returncode) == (out, "", 0), complained


def settle(process: subprocess.Popen[str]) -> None:
    """Wait until its main thread does nothing but wait: it has used no processor for a while."""

    def used() -> int:
        fields = Path(f"/proc/{process.pid}/task/{process.pid}/schedstat").read_text().split()
        return int(fields[0])

    before, now = -1, used()
    while before != now:
        threading.Event().wait(0.1)
        before, now = now, used()


# Ctrl-C.

INTERRUPTED = {
    "a call": "client.wait(job.job_id)",
    "a call that another thread drives": "follow()",
    "an iteration": "[event for event in client.subscribe('jobs')]",
    "a wait with a timeout": "client.subscribe('jobs').next(1000)",
    "a large write": "client.enqueue('noop', 'x' * 8_000_000)",
}


@pytest.mark.parametrize("call", INTERRUPTED.values(), ids=INTERRUPTED.keys())
def test_ctrl_c_interrupts_at_once_and_leaves_the_connection_whole(server: GoServer, call: str) -> None:
    program = f"""
client = new_client()
client.connect()
session = client.session_id
job = client.enqueue("hold")

def wait():
    try:
        client.wait(job.job_id)
    except ClosedError:
        pass

def follow():
    threading.Thread(target=wait).start()
    until(lambda: client.counters.calls == 1)
    client.wait(job.job_id)

say("waiting")
sys.stdin.readline()
try:
    {call}
except KeyboardInterrupt:
    say("interrupted")
sys.stdin.readline()
assert client.ping() > 0
assert client.session_id == session
client.call("job.enqueue", {{"name": "noop"}})
say(client.counters.calls)
client.close()
"""
    with Relay(server.url) as relay, started(program, relay.url) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        if "8_000_000" in call:
            relay.stall()
        process.stdin.write("\n")
        process.stdin.flush()
        settle(process)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        relay.flow()
        check(process, "1\n" if "follow" in call else "0\n", say="\n")


def test_ctrl_c_in_connect_leaves_nothing() -> None:
    program = """
client = new_client()
say("connecting")
try:
    client.connect()
except KeyboardInterrupt:
    client.close()
    say(client.state, [thread.name for thread in threading.enumerate()])
"""

    async def silent(visit: Visit) -> None:
        await visit.until_gone()

    with RoughPeer(silent) as peer, started(program, peer.url) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "connecting\n"
        until(lambda: peer.visits == 1)
        settle(process)
        process.send_signal(signal.SIGINT)
        check(process, "closed ['MainThread']\n")


def test_ctrl_c_ends_a_program_as_python_ends_it(server: GoServer) -> None:
    """With its traceback and the signal's exit code, nothing more, though the client was open in a `with`."""
    program = """
with new_client() as client:
    say("iterating")
    for event in client.subscribe("jobs"):
        pass
"""
    with started(program, server.url) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "iterating\n"
        settle(process)
        process.send_signal(signal.SIGINT)
        _, complained = process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGINT
        assert complained.endswith("KeyboardInterrupt\n")
        assert complained.count("Traceback") == 1


def test_ctrl_c_at_any_moment_ends_or_spares_the_client_but_hangs_nobody(server: GoServer) -> None:
    """In the middle of a step it is the client's last one: everybody who waits is told, and closing it works."""
    program = """
import random

def call(client):
    while not over.is_set():
        try:
            client.ping()
        except ClosedError:
            return

def interrupt():
    while not over.wait(random.random() / 100):
        os.kill(os.getpid(), signal.SIGINT)

def interrupted(*_):
    global armed
    if armed:
        armed = False
        raise KeyboardInterrupt

signal.signal(signal.SIGINT, interrupted)

over, armed, threads, seen = threading.Event(), False, [], {"spared": 0, "ended": 0}
interrupting = threading.Thread(target=interrupt)
interrupting.start()
while seen["spared"] < 100 or not seen["ended"]:
    client = new_client()
    client.connect()
    threads.append(threading.Thread(target=call, args=(client,)))
    threads[-1].start()
    while client.state == "ready" and not (seen["spared"] >= 100 and seen["ended"]):
        try:
            armed = True
            while True:
                client.ping()
        except KeyboardInterrupt:
            seen["spared" if client.state == "ready" else "ended"] += 1
        except ClosedError:
            armed = False
    client.close()
    armed = False
over.set()
for thread in threads:
    thread.join(20)
    assert not thread.is_alive()
interrupting.join()
say([thread.name for thread in threading.enumerate()])
"""
    with started(program, server.url) as process:
        check(process, "['MainThread']\n")


@pytest.mark.parametrize("action", ["client.close()", "client.enqueue('noop')"])
@pytest.mark.parametrize("waiting", ["client.wait(job.job_id)", "list(subscription)", "follow()"])
def test_a_signal_handler_may_call_the_client_whatever_waits(
    server: GoServer, action: str, waiting: str
) -> None:
    """It runs in the thread that waits, so that thread cannot be waited for."""
    program = f"""
client = new_client()
client.connect()
job = client.enqueue("hold")
subscription = client.subscribe("workflows")

def handler(*_):
    {action}
    say("handled")
    if not {action!r}.startswith("client.close"):
        client.close()

signal.signal(signal.SIGTERM, handler)

def follow():
    def wait():
        try:
            client.wait(job.job_id)
        except ClosedError:
            pass
    threading.Thread(target=wait).start()
    until(lambda: client.counters.calls == 1)
    client.wait(job.job_id)

say("waiting")
try:
    {waiting}
except ClosedError:
    pass
say(client.state)
"""
    with started(program, server.url) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        settle(process)
        process.send_signal(signal.SIGTERM)
        check(process, "handled\nclosed\n")


# Forks.


def test_a_fork_leaves_the_connection_to_the_parent(server: GoServer) -> None:
    """The child is told so by whatever it calls, and ends without a word. The parent does not notice."""
    program = """
client = new_client()
client.connect()
job = client.enqueue("hold")
subscription = client.subscribe("jobs")
unread = client.subscribe("firehose")
client.enqueue("noop")
until(lambda: unread._items)
changes = client.states()
changes.next()
stop = threading.Event()
def busy():
    while not stop.is_set():
        client.ping()
for target, arguments in [(busy, ())] * 4 + [(client.wait, (job.job_id,))]:
    threading.Thread(target=target, args=arguments, daemon=True).start()
for _ in range(20):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        told = 0
        for call in (client.ping, client.connect, subscription.next, lambda: list(subscription), changes.next,
                     lambda: client.subscribe("jobs"), client.states, lambda: client.wait("job_1")):
            try:
                call()
            except InvalidRequest as error:
                assert "fork" in str(error), error
                told += 1
        subscription.unsubscribe()
        repr(client), repr(subscription), client.state, client.counters
        client.close()
        links = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3, 64) if os.path.exists(f"/proc/self/fd/{fd}")]
        assert not any("socket" in link for link in links), links
        with new_client() as own:
            own.ping()
        sys.exit(told)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 8
stop.set()
client.ping()
say("parent")
"""
    with started(program, server.url) as process:
        check(process, "parent\n")


# The end of the interpreter.

ENDINGS = {
    "connected": "client.connect()",
    "connected and never idle": "client.connect(); client.ping()",
    "with a subscription": "client.connect(); subscription = client.subscribe('jobs')",
    "while backing off": "client.connect(); say('go down'); until(lambda: client.state == 'backing_off')",
    "with a thread in a call": """client.connect(); job = client.enqueue('hold')
for _ in range(4): threading.Thread(target=client.wait, args=(job.job_id,), daemon=True).start()
until(lambda: client.counters.calls == 4)""",
    "with a thread in an iteration": """client.connect(); subscription = client.subscribe('jobs')
threading.Thread(target=list, args=(subscription,), daemon=True).start()
until(lambda: subscription._readers)""",
    "with a thread that follows": """client.connect(); changes = client.states()
threading.Thread(target=list, args=(changes,), daemon=True).start()""",
    "with a thread that calls": """client.connect()
def call():
    while True: client.ping()
for _ in range(4): threading.Thread(target=call, daemon=True).start()
time.sleep(0.05)""",
    "with threads that take the lock twice": """client.connect()
def follow():
    while True: client.states()
def leave():
    while True: client.subscribe('jobs').unsubscribe()
for work in (follow, leave) * 2: threading.Thread(target=work, daemon=True).start()
time.sleep(0.05)""",
    "with a thread that connects": """other = new_client(wait_for_server=1000)
threading.Thread(target=other.connect, daemon=True).start()
until(lambda: other.state == 'connecting')""",
    "by sys.exit in a block": """
with client:
    client.ping()
    sys.exit(0)""",
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
def test_the_interpreter_ends_cleanly(server: GoServer, ending: str) -> None:
    """Exit code 0, no traceback, no waiting, though nobody has closed the client."""
    with Relay(server.url) as relay, started(f"client = new_client()\n{ending}\n", relay.url) as process:
        assert process.stdout is not None
        if "go down" in ending:
            assert process.stdout.readline() == "go down\n"
            relay.go_down()
        if "that connects" in ending:
            relay.stall()
        check(process, "")
    until(lambda: server.connections() == 0)


def test_a_server_hears_of_the_end_of_the_interpreter() -> None:
    """A close frame, not just the end of the connection."""
    heard: list[bytes] = []

    async def listens(visit: Visit) -> None:
        await visit.let_in()
        while piece := await visit.reader.read(65536):
            heard.append(piece)

    with RoughPeer(listens) as peer, started("client = new_client(); client.connect()", peer.url) as process:
        check(process, "")
        until(lambda: bool(heard))
    assert heard[-1][0] == 0x88


def test_threads_that_outlive_the_main_one_keep_a_client_that_reconnects(server: GoServer) -> None:
    """From Python 3.12 on no thread can be started then; it connects all the same."""
    program = """
client = new_client()
client.connect()
def work():
    threading.main_thread().join()
    say("alone")
    until(lambda: client.state != "ready")
    client.ping()
    say(client.state)
    client.close()
threading.Thread(target=work).start()
"""
    with Relay(server.url) as relay, started(program, relay.url) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "alone\n"
        relay.cut()
        said, complained = process.communicate(timeout=PATIENCE)
    assert (said, process.returncode) == ("ready\n", 0)
    assert "Traceback" not in complained


def test_a_signal_in_the_middle_of_a_step_does_not_get_into_the_client(
    server: GoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a step is nothing to build another one on: the handler is refused, and nobody is left to wait."""
    with new_client(server.url, close_timeout=0.05) as client:
        job = client.enqueue("hold")
        waiting = in_thread(client.wait, job.job_id)
        until(waits(client, 1))
        session = client._driver._session
        whole = session.request

        def interrupted(*arguments: Any, **options: Any) -> Any:
            client.close()
            return whole(*arguments, **options)

        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="signal handler"):  # noqa: PT012
            patch.setattr(session, "request", interrupted)
            client.ping()
        assert isinstance(waiting.exception(PATIENCE), ClosedError)
        with pytest.raises(ClosedError):
            client.ping()


def test_a_defect_of_ours_ends_every_wait(
    server: GoServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a defect")

    client = new_client(server.url)
    client.connect()
    job = client.enqueue("hold")
    subscription = client.subscribe("firehose")
    waiting = [in_thread(client.wait, job.job_id) for _ in range(4)]
    reading = [in_thread(list, subscription) for _ in range(2)]
    until(waits(client, 4))
    until(lambda: len(subscription._readers) == 2)
    assert client._driver._line is not None
    monkeypatch.setattr(client._driver._line, "_handle", broken)
    server.publish("job.completed", "job:j", {"n": 1})
    errors = [each.exception(PATIENCE) for each in waiting]
    assert all(isinstance(error, ClosedError | ZeroDivisionError) for error in errors)
    for each in reading:
        assert isinstance(each.exception(PATIENCE), ClosedError | ZeroDivisionError | None)
    with pytest.raises(DispatchError):
        client.ping()
    in_thread(client.close).result(PATIENCE)
    assert our_threads() == []
