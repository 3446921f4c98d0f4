"""What is the blocking client's own: threads, Ctrl-C and other signals, forks, the end of the interpreter."""

from __future__ import annotations

import gc
import socket
import ssl
import threading
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import trustme

from dispatch.errors import (
    ClosedError,
    ConnectionError,
    OutcomeUnknown,
    TimeoutError,
)
from tests.bindings.sync_clients import (
    THREADS,
    in_thread,
    new_client,
    nothing_of_ours_afterwards,
    our_threads,
    until,
    waits,
)
from tests.contract.go_server import GoServer
from tests.contract.relay import Relay
from tests.contract.rough_peers import RoughPeer, Visit
from tests.contract.threads import PATIENCE

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
