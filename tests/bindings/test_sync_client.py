"""What is the blocking client's own: threads, Ctrl-C and other signals, forks, the end of the interpreter."""

from __future__ import annotations

import gc
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from dispatch.errors import (
    ClosedError,
    ConnectionError,
    DispatchError,
    OutcomeUnknown,
    TimeoutError,
)
from dispatch.sync import Dispatch
from dwp_core.backoff import Backoff
from tests.bindings.sockets import sockets_to
from tests.contract.go_server import GoServer
from tests.contract.relay import Relay
from tests.contract.rough_peers import RoughPeer, Visit
from tests.contract.threads import PATIENCE

ROOT = Path(__file__).parents[2]
THREADS = 16


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


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        threading.Event().wait(0.001)


def in_thread(call: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Do this in a thread of its own."""
    begun: Future[Any] = Future()

    def work() -> None:
        try:
            begun.set_result(call(*arguments))
        except BaseException as error:
            begun.set_exception(error)

    threading.Thread(target=work, name="test", daemon=True).start()
    return begun


def waits(client: Dispatch, count: int) -> Callable[[], bool]:
    """Whether so many calls of the client are under way."""
    return lambda: client.counters.calls == count


def our_threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("dispatch"))


def descriptors() -> set[str]:
    """What this process holds open but for the sockets of its servers, which come and go in their own time."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            continue
    return {each for each in found if "socket:" not in each}


@contextmanager
def nothing_of_ours_afterwards(url: str) -> Iterator[None]:
    """Neither a thread of a client, nor a descriptor, nor a socket to that address is there after the block."""
    before, inside = descriptors(), unnamed_sockets()
    yield
    assert our_threads() == []
    assert descriptors() - before == set()
    assert sockets_to(url) == 0
    assert unnamed_sockets() == inside


def unnamed_sockets() -> int:
    """How many ends of socket pairs are open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            twin = os.dup(int(name))
        except OSError:
            continue
        try:
            with socket.socket(fileno=twin) as sock:
                found += sock.family == socket.AF_UNIX
        except OSError:
            os.close(twin)
    return found


# Threads.


def test_sixteen_threads_call_at_once(server: GoServer) -> None:
    """Each gets the answers to its own calls."""

    def work(number: int) -> None:
        for n in range(50):
            name = f"job-{number}-{n}"
            job = client.enqueue("noop", {"name": name}, queue=name)
            assert job.queue == name
            assert client.get_job(job.job_id).queue == name

    with (
        nothing_of_ours_afterwards(server.url),
        new_client(server.url) as client,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        for done in [pool.submit(work, number) for number in range(THREADS)]:
            done.result(PATIENCE)


def test_one_thread_subscribes_while_others_call(server: GoServer) -> None:
    def call() -> None:
        while not over.is_set():
            assert client.ping() >= 0

    over = threading.Event()
    with new_client(server.url) as client:
        calls = [in_thread(call) for _ in range(4)]
        for _ in range(50):
            with client.subscribe("firehose") as subscription:
                job = client.enqueue("noop")
                while subscription.next(PATIENCE)["data"]["job_id"] != job.job_id:
                    pass
        over.set()
        for each in calls:
            each.result(PATIENCE)


def test_several_threads_share_a_subscription(server: GoServer) -> None:
    """Each event goes to one of them, and all hear of the end."""
    with new_client(server.url) as client:
        subscription = client.subscribe("jobs")
        seen: list[int] = []
        readers = [in_thread(lambda: seen.extend(e["data"]["n"] for e in subscription)) for _ in range(4)]
        for n in range(200):
            server.publish("job.completed", "job:j", {"n": n})
        until(lambda: len(seen) == 200)
        subscription.unsubscribe()
        for reader in readers:
            reader.result(PATIENCE)
        assert sorted(seen) == list(range(200))


@pytest.mark.parametrize("way", ["unsubscribe", "close"])
@pytest.mark.parametrize("others", ["alone", "with a call", "with readers"])
def test_another_thread_ends_an_iteration(server: GoServer, way: str, others: str) -> None:
    """Whoever of them drives the connection while they wait."""
    with nothing_of_ours_afterwards(server.url), new_client(server.url) as client:
        job = client.enqueue("hold")
        subscription = client.subscribe("firehose")
        more: list[Future[Any]] = []
        if others == "with a call":
            more.append(in_thread(client.wait, job.job_id))
            until(waits(client, 1))
        readers = [in_thread(list, subscription) for _ in range(1 + 3 * (others == "with readers"))]
        until(lambda: len(subscription._readers) == len(readers))
        subscription.unsubscribe() if way == "unsubscribe" else client.close()
        for reader in readers:
            reader.result(PATIENCE)
        if way == "close":
            assert all(isinstance(each.exception(PATIENCE), ClosedError) for each in more)
        else:
            assert client.ping() > 0


def test_closing_from_another_thread_ends_every_call(server: GoServer) -> None:
    with nothing_of_ours_afterwards(server.url):
        client = new_client(server.url)
        client.connect()
        job = client.enqueue("hold")
        calls = [in_thread(client.wait, job.job_id) for _ in range(THREADS)]
        until(waits(client, THREADS))
        closes = [in_thread(client.close) for _ in range(4)]
        for close in closes:
            close.result(PATIENCE)
        assert {type(call.exception(PATIENCE)) for call in calls} == {ClosedError}


def test_a_call_that_waits_is_answered_though_another_thread_drives(server: GoServer) -> None:
    """The thread that drives goes away with its own answer, or is interrupted, and somebody else takes over."""
    with new_client(server.url) as client:
        job = client.enqueue("hold")
        waiting = [in_thread(client.wait, job.job_id) for _ in range(4)]
        until(waits(client, 4))
        for _ in range(20):
            with pytest.raises(TimeoutError):
                client.wait(job.job_id, timeout=0.001)
            client.ping()
        server.release()
        for each in waiting:
            assert each.result(PATIENCE)["state"] == "completed"


def test_next_waits_as_long_as_it_is_told(server: GoServer) -> None:
    with new_client(server.url) as client, client.subscribe("jobs") as subscription:
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError, match=f"within {timeout} s"):
                subscription.next(timeout)
        server.publish("job.completed", "job:j", {"n": 1})
        assert subscription.next(PATIENCE)["data"]["n"] == 1
        assert client.ping() > 0


def test_a_call_times_out_though_a_large_write_is_stalled(server: GoServer) -> None:
    """What is not written yet wakes nobody, and holds up no clock."""
    with Relay(server.url) as relay:
        client = new_client(relay.url, close_timeout=0.05)
        client.connect()
        relay.stall()
        large = in_thread(client.enqueue, "noop", "x" * 8_000_000)
        until(waits(client, 1))
        for _ in range(3):
            with pytest.raises(TimeoutError):
                client.get_job("job_1", timeout=0.05)
        relay.flow()
        assert large.result(PATIENCE).state
        client.close()


def test_large_messages_both_ways_over_tls_from_several_threads() -> None:
    authority = trustme.CA()
    secure, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(secure)
    authority.configure_trust(trusting)

    async def echoes(visit: Visit) -> None:
        await visit.let_in()
        while True:
            frame = await visit.hear()
            kind = "pong" if frame["type"] == "ping" else "response"
            await visit.tell(id="s", type=kind, correl_id=frame["id"], data=frame)

    def work(number: int) -> None:
        for n in range(4):
            payload = f"{number}-{n}-" * 50_000
            assert client.call("echo", payload)["data"] == payload

    with RoughPeer(echoes, secure=secure) as peer:
        client = new_client(peer.url, ssl=trusting, close_timeout=0.1)
        with client, ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(work, number) for number in range(8)]:
                done.result(PATIENCE)


def test_states_and_counters_can_be_read_while_everything_changes(server: GoServer) -> None:
    """By any thread: nobody sees a table that another thread is changing."""

    def look() -> int:
        seen = 0
        while not over.is_set():
            changes = client.states()
            assert changes.next().state
            assert client.counters.calls >= 0
            seen += 1
        return seen

    over = threading.Event()
    with new_client(server.url) as client:
        looking = [in_thread(look) for _ in range(4)]
        for _ in range(20):
            subscriptions = [client.subscribe("jobs") for _ in range(5)]
            server.cut_all()
            client.stats()
            for subscription in subscriptions:
                subscription.unsubscribe()
        over.set()
        assert all(each.result(PATIENCE) for each in looking)


def test_every_call_has_one_outcome_whatever_happens_to_the_connection(server: GoServer) -> None:
    """Threads call, subscribe and read, and connections are cut under them, for a second or two."""
    outcomes: list[str] = []
    over = threading.Event()

    def call(number: int) -> None:
        while not over.is_set():
            try:
                if number % 3 == 0:
                    client.ping()
                elif number % 3 == 1:
                    client.enqueue("noop", "x" * (number * 10_000))
                else:
                    client.stats(timeout=0.05)
                outcomes.append("answered")
            except (TimeoutError, OutcomeUnknown, ConnectionError) as error:
                outcomes.append(type(error).__name__)

    def listen() -> None:
        while not over.is_set():
            try:
                with client.subscribe("jobs") as subscription:
                    subscription.next(0.05)
            except (TimeoutError, ConnectionError) as error:
                outcomes.append(type(error).__name__)

    with nothing_of_ours_afterwards(server.url), Relay(server.url) as relay:
        with new_client(relay.url, timeout=PATIENCE) as client:
            calls = [in_thread(call, number) for number in range(THREADS)]
            calls += [in_thread(listen) for _ in range(3)]
            for n in range(40):
                answered = len(outcomes)
                until(lambda answered=answered: len(outcomes) > answered + 20)  # type: ignore[misc]
                if n % 4 == 3:
                    relay.stall()
                    until(lambda: client.counters.calls > 4)
                    relay.flow()
                else:
                    relay.cut()
            over.set()
            for each in calls:
                each.result(2 * PATIENCE)
            assert client.ping() > 0
            assert client.counters.calls == 0
        assert "answered" in outcomes


# Nothing stays.


@pytest.mark.parametrize(
    "moment", ["idle", "calls in flight", "a run elsewhere", "a stalled write", "backing off", "connecting"]
)
def test_nothing_stays_whatever_was_under_way(server: GoServer, moment: str) -> None:
    with Relay(server.url) as relay, nothing_of_ours_afterwards(relay.url):
        client = new_client(relay.url, close_timeout=0.05)
        calls: list[Future[Any]] = []
        if moment == "connecting":
            relay.stall()
            calls.append(in_thread(client.connect))
            until(lambda: client.state == "connecting")
        else:
            client.connect()
        if moment == "calls in flight":
            relay.stall()
            calls += [in_thread(client.ping) for _ in range(5)]
            until(waits(client, 5))
        elif moment == "a run elsewhere":
            subscription = client.subscribe("workflows")
            calls.append(in_thread(client.start_workflow, "approval"))
            next(subscription)
        elif moment == "a stalled write":
            relay.stall()
            calls.append(in_thread(client.enqueue, "noop", "x" * 8_000_000))
            until(waits(client, 1))
        elif moment == "backing off":
            relay.go_down()
            calls.append(in_thread(client.ping))
            until(waits(client, 1))
        client.close()
        errors = [call.exception(PATIENCE) for call in calls]
        assert all(isinstance(error, ConnectionError) for error in errors), errors


def test_nothing_stays_of_a_connect_that_fails(server: GoServer) -> None:
    async def silent(visit: Visit) -> None:
        await visit.until_gone()

    with RoughPeer(silent) as peer, nothing_of_ours_afterwards(peer.url):
        with pytest.raises(ConnectionError):
            new_client(peer.url, connect_timeout=0.05).connect()
        with pytest.raises(ConnectionError):
            new_client("ws://127.0.0.1:1/dwp").connect()


@pytest.mark.parametrize("stuck", ["tls", "tcp"])
def test_an_attempt_that_gets_no_answer_ends_with_its_client(stuck: str) -> None:
    """Its thread, too: it is waked, not waited for."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        fillers = []
        if stuck == "tcp":  # nobody accepts: when the queue is full, connecting hangs
            for _ in range(4):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
                fillers.append(filler)
        client = new_client(
            f"{'wss' if stuck == 'tls' else 'ws'}://127.0.0.1:{port}/dwp", connect_timeout=300
        )
        connecting = in_thread(client.connect)
        until(lambda: "dispatch-connect" in our_threads())
        if stuck == "tls":
            fillers.append(listening.accept()[0])
            fillers[-1].recv(1)  # it has begun its handshake
        client.close()
        assert isinstance(connecting.exception(PATIENCE), ClosedError)
        until(lambda: our_threads() == [])
        for filler in fillers:
            filler.close()


def test_a_connect_that_is_stuck_in_looking_up_a_name_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = threading.Event()

    def stuck(*_: Any, **__: Any) -> Any:
        assert found.wait(PATIENCE)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    client = new_client("ws://somewhere.invalid/dwp")
    connecting = in_thread(client.connect)
    until(lambda: client.state == "connecting")
    client.close()
    assert isinstance(connecting.exception(PATIENCE), ClosedError)
    found.set()
    until(lambda: our_threads() == [])


def test_a_client_that_was_never_closed_is_told_of(server: GoServer) -> None:
    client = new_client(server.url)
    client.connect()
    driver = client._driver
    with pytest.warns(ResourceWarning, match=r"<Dispatch ws://.* ready> was never closed"):
        del client
    driver.close(0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        closed = new_client(server.url)
        with closed:
            pass
        del closed
        new_client(server.url)
        gc.collect()


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
