"""Clients of HTTP addresses at servers and proxies that do not behave, in every binding.

Every wait ends in bounded time, an error says what went wrong and where, and no socket, task or thread is left.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import warnings
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from dispatch.errors import (
    ClosedError,
    ConnectionError,
    DispatchError,
    InvalidRequest,
    OutcomeUnknown,
    TimeoutError,
)
from dwp_core.frames import Limits
from tests.bindings.http_servers import RecordedServer
from tests.contract.bindings import BINDINGS, Binding, with_cancellation
from tests.contract.proxies import PASSWORD, USER, Proxy
from tests.contract.rough_peers import RoughPeer, Visit
from tests.contract.threads import PATIENCE
from tests.contract.world import World, failure_of, gather, in_thread, left_behind, take, under_way, until

pytestmark = pytest.mark.anyio

FEATURES = b"DWP-Features: batch, idempotency, options, resume, wait\r\nDWP-Log: log_1\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + FEATURES + b"\r\n"
Answer = Callable[[Visit, bytes], Awaitable[object]]


@pytest.fixture(params=BINDINGS, ids=lambda binding: binding.name)
def binding(request: pytest.FixtureRequest) -> Binding:
    chosen: Binding = request.param
    return chosen


@pytest.fixture
def anyio_backend(binding: Binding) -> tuple[str, dict[str, Any]]:
    return binding.backend


def sockets() -> set[str]:
    """The TCP sockets that this process has open; what loops talk to themselves with is of another kind."""
    kind = {line.split()[9] for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]}
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if target.removeprefix("socket:[").removesuffix("]") in kind:
            found.add(target)
    return found


@pytest.fixture(autouse=True)
async def bounded(anyio_backend: Any) -> Any:
    """A scenario that hangs fails, and so does one that leaves something behind."""
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always", ResourceWarning)
        before = sockets()
        with anyio.fail_after(PATIENCE):
            yield
            while left_behind() or not sockets() <= before:
                await anyio.lowlevel.checkpoint()
        gc.collect()
    assert [str(each.message) for each in complaints if each.category is ResourceWarning] == []


async def pong(visit: Visit, frame: dict[str, Any]) -> None:
    """The answer to a ping, as our server gives it."""
    body = json.dumps({"id": "s", "type": "pong", "correl_id": frame["id"]}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + FEATURES
    await visit.say(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)


@contextmanager
def rough(binding: Binding, answer: Answer, **options: Any) -> Generator[World[RoughPeer]]:
    """A server that answers pings, and everything else as it is told to: `answer` gets the head of the request."""

    async def manners(visit: Visit) -> None:
        while True:
            head = await visit.request()
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            body = await visit.reader.readexactly(int(length or b"0"))
            frame = json.loads(body) if body else {}
            if frame.get("type") == "ping":
                await pong(visit, frame)
            else:
                await answer(visit, head)

    with RoughPeer(manners) as peer:
        url = peer.url.replace("ws", "http", 1) + "/rpc"
        yield World(peer, binding, "json", url, **options)


def saying(*pieces: bytes) -> Answer:
    """Says that, and ends the connection."""

    async def answer(visit: Visit, head: bytes) -> None:
        for piece in pieces:
            await visit.say(piece)
        raise EOFError

    return answer


def without_end(beginning: bytes, more: bytes) -> Answer:
    """Says that, and then for as long as somebody listens the other."""

    async def answer(visit: Visit, head: bytes) -> None:
        await visit.say(beginning)
        while True:
            await visit.say(more)

    return answer


async def silent(visit: Visit, head: bytes) -> None:
    """Says nothing, until the client is gone."""
    await visit.until_gone()
    raise EOFError


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LAST = OK + b"Connection: close\r\n"
ANSWERS = {
    "garbage": (saying(b"\x00\xff" * 40), "illegal"),
    "no frame": (saying(LAST + b"Content-Length: 4\r\n\r\n]]]]"), "does not speak DWP"),
    "an empty answer": (saying(LAST + b"Content-Length: 0\r\n\r\n"), "an empty answer"),
    "another frame": (
        saying(LAST + b'Content-Length: 24\r\n\r\n{"id":"1","type":"ping"}'),
        'a frame of type "ping"',
    ),
    "headers without end": (without_end(LAST, b"X-More: yes\r\n" * 1000), "too long"),
    "one header without end": (without_end(LAST + b"X-Long: ", b"x" * 10_000), "too long"),
    "a body without end": (without_end(LAST + b"\r\n", b"x" * 100_000), "larger than 100000 bytes"),
    "chunks without end": (
        without_end(LAST + b"Transfer-Encoding: chunked\r\n\r\n", b"2710\r\n" + b"x" * 10_000 + b"\r\n"),
        "larger than 100000 bytes",
    ),
    "a body of one byte too many": (
        saying(LAST + b"Content-Length: 100001\r\n\r\n" + b" " * 100_001),
        "larger than 100000 bytes",
    ),
    "nonsense for chunks": (
        saying(LAST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"),
        "illegal chunk header",
    ),
    "two lengths": (saying(LAST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}}"), "conflicting"),
    "half a head": (saying(b"HTTP/1.1 200"), "without sending"),
    "half a body": (saying(LAST + b"Content-Length: 50\r\n\r\n{"), "peer closed"),
    "nothing at all": (saying(), "disconnected without"),
    "a redirect": (
        saying(
            b"HTTP/1.1 308 Moved\r\nConnection: close\r\nLocation: https://h/x\r\nContent-Length: 0\r\n\r\n"
        ),
        "elsewhere to https://h/x",
    ),
    "a gateway": (
        saying(b"HTTP/1.1 502 Bad\r\nConnection: close\r\nContent-Length: 4\r\n\r\noops"),
        "HTTP 502: oops",
    ),
}


@pytest.mark.parametrize("kind", ANSWERS)
async def test_an_answer_that_is_none_is_an_error_of_its_call(binding: Binding, kind: str) -> None:
    """It says what came and from where; the next call finds the server again."""
    answer, reason = ANSWERS[kind]
    with rough(binding, answer) as world:
        async with world.client({"limits": Limits(message=100_000)}, reconnect=False) as client:
            error = await failure_of(client.stats)
            assert isinstance(error, DispatchError)
            assert reason in str(error)
            assert "/dwp/rpc" in str(error)
            assert client.state == "ready"
            error = await failure_of(lambda: client.cancel_job("job_01h455vb4pex5vsknk084sn02q"))
            assert isinstance(error, OutcomeUnknown) == (kind != "a redirect")
            assert await client.ping() > 0


async def test_a_server_that_never_answers_costs_the_time_of_the_call(binding: Binding) -> None:
    """And nothing else: what was given up is not held until the client closes."""
    with rough(binding, silent) as world:
        async with world.client() as client:
            before = sockets()
            for _ in range(3):
                # Time enough to connect: uvloop keeps the socket of a connect that is cancelled.
                errors = await gather(*[lambda: failure_of(lambda: client.stats(timeout=0.4))] * 20)
                assert {type(error) for error in errors} == {TimeoutError}
            await in_thread(until, lambda: len(sockets() - before) <= 1)
            assert await client.ping() > 0


async def test_a_server_that_trickles_costs_the_time_of_the_call(binding: Binding) -> None:
    async def trickle(visit: Visit, head: bytes) -> None:
        await visit.say(OK + b"Content-Length: 1000\r\n\r\n")
        while True:
            await visit.say(b"x")
            await anyio.sleep(0.005)  # slow is what this peer is

    with rough(binding, trickle) as world:
        async with world.client() as client:
            assert isinstance(await failure_of(lambda: client.stats(timeout=0.05)), TimeoutError)
            assert await client.ping() > 0


async def test_a_peer_that_never_answers_is_given_up_while_connecting(binding: Binding) -> None:
    async def manners(visit: Visit) -> None:
        await visit.until_gone()

    with RoughPeer(manners) as peer:
        url = peer.url.replace("ws", "http", 1) + "/rpc"
        for option in ({}, {"proxy": url.removesuffix("/dwp/rpc")}):
            given = {"url": url, "token": "t", "connect_timeout": 0.05, **option}
            error = await failure_of(binding.make({}, given).connect)
            assert isinstance(error, ConnectionError)
            assert "0.05 s" in str(error)


async def test_a_thousand_calls_go_at_once(binding: Binding) -> None:
    """Each is answered, over connections that are used again."""

    async def empty(visit: Visit, head: bytes) -> None:
        body = b'{"id":"s","type":"response","data":{"n":1}}'
        await visit.say(OK + FEATURES + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    with rough(binding, empty) as world:
        async with world.client() as client:
            assert await gather(*[client.stats] * 1000) == [{"n": 1}] * 1000
            assert world.server.visits < 500


async def test_closing_ends_whatever_is_under_way(binding: Binding) -> None:
    """Calls that nobody answers, streams that never begin, and streams that nobody reads."""

    async def answer(visit: Visit, head: bytes) -> None:
        if b"channel=firehose" in head:
            await visit.say(STREAM)
            event = {"type": "job.started", "topic": "job:job_1", "data": {}}
            for seq in range(1, 100_000):
                await visit.say(
                    b"id: %d\nevent: job.started\ndata: %b\n\n"
                    % (seq, json.dumps({**event, "seq": seq}).encode())
                )
        await silent(visit, head)

    with rough(binding, answer) as world:
        client = world.client({"event_window": 8})
        await client.connect()
        firehose = await client.subscribe("firehose")
        [event] = await take(firehose, 1)
        assert event.seq == 1
        errors: list[Exception] = []

        async def expect(call: Callable[[], Awaitable[Any]]) -> None:
            errors.append(await failure_of(call))

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(expect, client.stats)
            group.start_soon(expect, lambda: take(client.subscribe("jobs"), 1))
            await under_way(client, 100, subscriptions=2)
            await client.close()
        assert [error for error in errors if not isinstance(error, (ClosedError, StopAsyncIteration))] == []
        assert len(errors) == 101


STREAMS = {
    "a line without end": without_end(STREAM + b"data: ", b"x" * 10_000),
    "a block without end": without_end(STREAM, b"data\n" * 1000),
    "an end at once": saying(STREAM),
    "nonsense for chunks": saying(STREAM[:-2] + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "garbage": saying(b"\x00\xff" * 40),
    "a gateway": saying(b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n"),
}


@pytest.mark.parametrize("kind", STREAMS)
async def test_a_stream_that_is_none_is_made_again_so_many_times_and_no_more(
    binding: Binding, kind: str
) -> None:
    with rough(binding, STREAMS[kind]) as world:
        async with world.client({"limits": Limits(message=100_000)}, max_retries=2) as client:
            error = await failure_of(lambda: take(client.subscribe("jobs"), 1))
            assert isinstance(error, ConnectionError)
            assert "the stream of http://127.0.0.1" in str(error)
            assert world.server.visits <= 4
            assert await client.ping() > 0


async def test_a_page_instead_of_a_stream_ends_the_subscription(binding: Binding) -> None:
    page = saying(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>")
    with rough(binding, page) as world:
        async with world.client() as client:
            error = await failure_of(lambda: take(client.subscribe("jobs"), 1))
            assert "no stream of events" in str(error)


async def test_events_that_come_again_are_told_once_and_another_log_is_a_gap(binding: Binding) -> None:
    """Ids that go backwards, and then a stream of a server with another history."""
    event = b'id: %d\r\nevent: job.started\r\ndata: {"type":"job.started","topic":"job:j","data":{},"seq":%d}\r\n\r\n'
    streams = iter(
        [
            [STREAM + b"\xef\xbb\xbfid: 4\r", b"\n\r\n", *(event % (n, n) for n in (5, 6, 5, 3, 7, 7))],
            [STREAM.replace(b"log_1", b"log_2")],
            [STREAM.replace(b"log_1", b"log_2") + b"id: 1\n\n" + event % (2, 2)],
        ]
    )

    async def answer(visit: Visit, head: bytes) -> None:
        for piece in next(streams):
            await visit.say(piece)
        raise EOFError

    with rough(binding, answer) as world:
        async with world.client() as client:
            heard = await take(client.subscribe("jobs"), 5)
        assert [(each.kind, each.seq) for each in heard[:3]] == [("job.started", n) for n in (5, 6, 7)]
        assert (heard[3].kind, heard[3]["data"]["from"]) == ("gap", 8)
        assert heard[4].seq == 2


# ── proxies ──


@pytest.mark.parametrize("kind", ["http", "socks5"])
@pytest.mark.parametrize("login", ["", f"{USER}:wrong@"])
async def test_a_proxy_that_refuses_the_login_is_called_a_proxy(
    binding: Binding, kind: str, login: str
) -> None:
    with RecordedServer() as server, Proxy(asks=True) as proxy:
        given = {"url": server.url, "token": "dk_full", "proxy": proxy.url(kind, login)}
        error = await failure_of(binding.make({}, given).connect)
        assert isinstance(error, ConnectionError)
        assert "the proxy did not let us through" in str(error)
        assert "wrong" not in str(error)


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_a_proxy_that_says_nonsense_is_called_one(binding: Binding, kind: str) -> None:
    async def nonsense(visit: Visit) -> None:
        await visit.reader.read(1)
        await visit.say(b"\x00 what?\r\n\r\n")

    with RoughPeer(nonsense) as peer:
        proxy = peer.url.replace("ws", kind, 1).removesuffix("/dwp")
        given = {"url": "https://127.0.0.1:1/dwp/rpc", "token": "dk_full", "proxy": proxy}
        error = await failure_of(binding.make({}, given).connect)
        assert isinstance(error, ConnectionError)
        assert "proxy" in str(error)


# ── what is never shown ──


@pytest.mark.parametrize("kind", ["", "socks5"])
async def test_no_log_line_shows_a_query_or_a_login(
    binding: Binding, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither ours nor one of the libraries below us, however much they say."""
    caplog.set_level(logging.DEBUG)
    with RecordedServer() as server, Proxy(asks=True) as proxy:
        url = f"{server.url}?key=s3cret"
        way = proxy.url(kind, f"{USER}:{PASSWORD}@") if kind else False
        given = {"url": url, "token": "dk_full", "proxy": way}
        async with binding.make({}, given) as client:
            await take(client.subscribe("jobs"), 1)
            error = await failure_of(lambda: client.get_job("job_01h455vb4pex5vsknk084sn02q"))
        shown = caplog.text + repr(client) + repr(error)
    assert "s3cret" in str(server.requests)
    for secret in ("s3cret", "dk_full", "p@ss", PASSWORD):
        assert secret not in shown


async def test_a_unix_socket_is_not_for_http(binding: Binding) -> None:
    for url in ("http+unix:///run/dispatch.sock", "unix+http:/run/dispatch.sock"):
        with pytest.raises(InvalidRequest, match="unix:/"):
            binding.client(url=url)


# ── giving up ──


@with_cancellation
async def test_cancelling_at_any_await_leaves_nothing_behind(binding: Binding) -> None:
    """Calls and streams, before, in the middle of and after their answers."""

    async def answer(visit: Visit, head: bytes) -> None:
        if head.startswith(b"GET"):
            await visit.say(STREAM + b"id: 1\n\n")
            await silent(visit, head)
        body = b'{"id":"s","type":"response","data":{"n":1}}'
        await visit.say(OK + FEATURES + b"Content-Length: %d\r\n\r\n" % len(body))
        await visit.say(body)

    with rough(binding, answer) as world:
        async with world.client() as client:

            async def listen() -> None:
                async with client.subscribe("jobs") as subscription:
                    await subscription.__anext__()

            for call in (client.stats, listen):
                for turns in range(30):
                    async with anyio.create_task_group() as group:
                        group.start_soon(call)
                        for _ in range(turns):
                            await anyio.lowlevel.checkpoint()
                        group.cancel_scope.cancel()
            assert await client.stats() == {"n": 1}


@with_cancellation
async def test_a_paused_stream_can_be_left(binding: Binding) -> None:
    """Nobody reads it; leaving it closes its connection at once."""
    event = b'id: %d\nevent: job.started\ndata: {"type":"job.started","topic":"job:j","data":{},"seq":%d}\n\n'

    async def answer(visit: Visit, head: bytes) -> None:
        await visit.say(STREAM + b"id: 0\n\n" + b"".join(event % (n, n) for n in range(1, 2000)))
        await silent(visit, head)

    with rough(binding, answer) as world:
        async with world.client({"event_window": 8}) as client:
            before = sockets()
            async with client.subscribe("jobs") as subscription:
                assert (await subscription.__anext__()).seq == 1
            while len(sockets() - before) > 1:
                await anyio.lowlevel.checkpoint()
