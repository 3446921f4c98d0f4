"""Peers that do not behave, and servers that are not there: each ends in bounded time, with an error that says why."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import Any

import anyio
import pytest
from websockets.frames import Frame, Opcode

from dispatch.errors import AuthError, ConnectionError, OutcomeUnknown, TimeoutError
from tests.contract.bindings import Binding, over_http_too
from tests.contract.go_server import GoServer
from tests.contract.rough_peers import Manners, RoughPeer, Visit
from tests.contract.world import NO_JOB, World, failure_of, visitor

pytestmark = pytest.mark.anyio

SHORT = {"connect_timeout": 0.1, "close_timeout": 0.1}


async def connecting_fails(binding: Binding, manners: Manners, **settings: Any) -> Exception:
    """What `connect` raises at a peer with these manners."""
    with RoughPeer(manners) as peer:
        client = visitor(binding, peer).client(settings)
        error = await failure_of(client.connect)
        assert client.state == "closed"
        assert peer.url in str(error)
        assert peer.visits == 1
        await client.close()
    return error


def says(answer: bytes) -> Manners:
    async def say(visit: Visit) -> None:
        await visit.request()
        await visit.say(answer)

    return say


def answers(status: str, body: str = "") -> Manners:
    return says(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())


async def hangs_up(visit: Visit) -> None:
    pass


async def stays_silent(visit: Visit) -> None:
    await visit.until_gone()


async def reads_nothing(visit: Visit) -> None:
    await visit.forever()


# Before the WebSocket is open.


@pytest.mark.parametrize(
    ("manners", "why"),
    [
        pytest.param(hangs_up, "closed the connection|reset", id="hangs up at once"),
        pytest.param(says(b""), "closed the connection", id="hangs up after the request"),
        pytest.param(says(b"HTTP/1.1 101 Swi"), "closed the connection", id="hangs up in the middle"),
        pytest.param(says(b"SSH-2.0-OpenSSH_9.6\r\n"), "does not speak WebSocket.*SSH-2.0", id="another protocol"),
        pytest.param(says(b"\x15\x03\x01\x00\x02\x02\x46" * 9), "does not speak WebSocket|closed", id="a TLS alert"),
        pytest.param(says(b"\x00" * 70_000), "does not speak WebSocket", id="zeros"),
        pytest.param(says(b"HTTP/1.0 200 OK\r\n\r\n"), "does not speak WebSocket.*HTTP/1.0", id="HTTP 1.0"),
        pytest.param(answers("200 OK", "<html>"), "HTTP 200: <html>", id="a web page"),
        pytest.param(answers("404 Not Found", "no such page"), "HTTP 404: no such page", id="no such page"),
        pytest.param(answers("301 Moved"), "HTTP 301", id="moved"),
        pytest.param(answers("503 Unavailable", "later"), "HTTP 503: later", id="unavailable"),
        pytest.param(answers("500 Oops", "\x1b" * 300_000), "HTTP 500", id="a long story"),
        pytest.param(
            says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 b"Sec-WebSocket-Accept: nonsense\r\n\r\n"),
            "does not speak WebSocket here.*Sec-WebSocket-Accept", id="a wrong key",
        ),
        pytest.param(
            says(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), "does not speak WebSocket here", id="no upgrade"
        ),
        pytest.param(
            says(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000), "does not speak WebSocket", id="headers without end"
        ),
    ],
)  # fmt: skip
async def test_what_is_no_websocket_server_is_named(binding: Binding, manners: Manners, why: str) -> None:
    """The message says what it answered instead, and where."""
    error = await connecting_fails(binding, manners)
    assert isinstance(error, ConnectionError)
    with pytest.raises(ConnectionError, match=f"cannot connect to .*({why})"):
        raise error


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_a_proxy_that_refuses_is_an_auth_error(binding: Binding, status: str) -> None:
    """401 and 403 are fatal before the upgrade too."""
    error = await connecting_fails(binding, answers(status))
    assert isinstance(error, AuthError)
    assert error.code == int(status[:3])


@pytest.mark.parametrize("manners", [stays_silent, reads_nothing], ids=["silent", "reads nothing"])
async def test_a_peer_that_never_answers_the_upgrade_is_given_up(binding: Binding, manners: Manners) -> None:
    """Within `connect_timeout`, whether it reads or not."""
    error = await connecting_fails(binding, manners, **SHORT)
    assert isinstance(error, ConnectionError)
    assert "within 0.1 s" in str(error)


async def test_an_unreachable_port_is_named(binding: Binding) -> None:
    """503, "refused", and the address."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/dwp"
    error = await failure_of(visitor(binding, url).client().connect)
    assert isinstance(error, ConnectionError)
    assert error.code == 503
    assert url in str(error)
    assert "refused" in str(error).lower()


async def test_an_unknown_host_is_named(binding: Binding) -> None:
    """It is in the message."""
    error = await failure_of(visitor(binding, "ws://no-such-host.invalid/dwp").client().connect)
    assert isinstance(error, ConnectionError)
    assert "no-such-host.invalid" in str(error)


# Logging in.


async def test_a_peer_that_never_answers_the_login_is_given_up(binding: Binding) -> None:
    """Within `connect_timeout`, which counts from the first packet."""

    async def never(visit: Visit) -> None:
        await visit.upgrade()
        await visit.until_gone()

    error = await connecting_fails(binding, never, **SHORT)
    assert "did not answer the login within 0.1 s" in str(error)


@pytest.mark.parametrize(
    "answer",
    [b"{}", b"[]", b"\xff\xff", b'{"id":"s1","type":"event"}', b"", b"{" * 100_000, b"\x81\xa1"],
    ids=lambda answer: repr(answer[:10]),
)
async def test_a_peer_that_answers_the_login_with_nonsense_does_not_speak_dwp(
    binding: Binding, answer: bytes
) -> None:
    """The error says so, and no further attempt is made."""

    async def nonsense(visit: Visit) -> None:
        await visit.upgrade()
        await visit.hear()
        await visit.say(Frame(Opcode.TEXT, answer).serialize(mask=False))
        await visit.until_gone()

    error = await connecting_fails(binding, nonsense)
    assert isinstance(error, ConnectionError)
    assert "does not speak DWP" in str(error)


@over_http_too
async def test_a_wrong_token_is_refused(world: World[Any]) -> None:
    """`AuthError`, 401; the message does not repeat the token."""
    client = world.client(token="dk_wrong")
    error = await failure_of(client.connect)
    assert isinstance(error, AuthError)
    assert error.code == 401
    assert "authentication failed" in str(error)
    assert "dk_wrong" not in str(error)
    assert client.state == "closed"


async def test_a_wrong_token_is_tried_once_only(go: World[GoServer]) -> None:
    """Also by a client that would wait for the server."""
    client = go.client(token="dk_wrong", wait_for_server=30)
    assert isinstance(await failure_of(client.connect), AuthError)


# Connected.


async def test_a_half_open_connection_is_found_out(binding: Binding) -> None:
    """Nothing comes any more, and nobody says so: the heartbeat is not answered."""

    async def falls_silent(visit: Visit) -> None:
        await visit.let_in()
        await visit.until_gone()

    with RoughPeer(falls_silent) as peer:
        world = visitor(binding, peer)
        async with world.client({"heartbeat": 0.05, "close_timeout": 0.1}, reconnect=False) as client:
            error = await failure_of(lambda: client.get_job(NO_JOB))
            assert isinstance(error, ConnectionError)
            assert "silent" in str(error)


async def test_a_peer_that_stops_reading_is_found_out(binding: Binding) -> None:
    """A write without progress for `stall_timeout` is the end of the connection, and of the calls on it."""

    async def stops_reading(visit: Visit) -> None:
        await visit.let_in()
        await visit.forever()

    with RoughPeer(stops_reading) as peer:
        world = visitor(binding, peer)
        async with world.client({"stall_timeout": 0.1, "close_timeout": 0.1}, reconnect=False) as client:

            async def enqueue() -> None:
                error = await failure_of(lambda: client.enqueue("noop", "x" * 7_000_000))
                assert isinstance(error, ConnectionError)
                assert "took no data" in str(error) or isinstance(error, OutcomeUnknown)

            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(enqueue)


async def test_calls_to_a_peer_that_stops_reading_run_out_of_time(binding: Binding) -> None:
    """A call waits no longer than it was told to, also one whose write is stuck, and those behind it."""

    async def stops_reading(visit: Visit) -> None:
        await visit.let_in()
        await visit.forever()

    with RoughPeer(stops_reading) as peer:
        client = visitor(binding, peer).client({"close_timeout": 0.05})
        await client.connect()
        error = await failure_of(lambda: client.enqueue("noop", "x" * 7_000_000, timeout=0.05))
        assert isinstance(error, TimeoutError)
        assert isinstance(await failure_of(lambda: client.get_job(NO_JOB, timeout=0.05)), TimeoutError)
        await client.close()
        assert client.state == "closed"


async def test_a_peer_that_asks_and_asks_and_reads_no_answer_is_left(binding: Binding) -> None:
    """What is owed to it is bounded."""

    async def asks_and_asks(visit: Visit) -> None:
        await visit.let_in()
        await visit.reader.read(1)  # the large message has begun
        visit.writer.transport.pause_reading()  # type: ignore[attr-defined]
        while True:
            await visit.say((b"\x89\x7d" + b"?" * 125) * 500)

    with RoughPeer(asks_and_asks) as peer:
        async with visitor(binding, peer).client(reconnect=False) as client:
            error = await failure_of(lambda: client.enqueue("noop", "x" * 8_000_000))
            assert isinstance(error, OutcomeUnknown)
            assert "keeps asking and reads no answers" in str(error.__cause__)
            assert client.state == "closed"


@pytest.mark.parametrize(
    ("violation", "why"),
    [
        pytest.param(b"\x82\x84\x00\x00\x00\x00abcd", "code 1002.*mask", id="a masked frame"),
        pytest.param(b"\x83\x00", "code 1002.*opcode", id="an unknown opcode"),
        pytest.param(b"\x80\x00", "code 1002.*continuation", id="a continuation of nothing"),
        pytest.param(
            b"\x81\x7f\x00\x00\x00\x7f\x00\x00\x00\x00", "code 1009", id="a message of half a terabyte"
        ),
        pytest.param(b"\xc1\x00", "code 1002.*reserved", id="a reserved bit"),
        pytest.param(b"\x81\x02[]", "no frame", id="no frame"),
        pytest.param(b"\x88\x01x", "code 1002", id="a close frame that is none"),
        pytest.param(b"\x88\x02\x03\xe9", "code 1001", id="going away"),
        pytest.param(b"\x88\x07\x03\xf3later", "code 1011, later", id="an error of its own"),
        pytest.param(b"", "code 1006", id="nothing"),
    ],
)
async def test_a_peer_that_breaks_the_rules_is_left_with_a_reason(
    binding: Binding, violation: bytes, why: str
) -> None:
    """The close code and the rule are in the error of every call that waited."""

    async def violates(visit: Visit) -> None:
        await visit.let_in()
        await visit.hear()
        await visit.say(violation)
        if violation:
            await visit.until_gone()

    with RoughPeer(violates) as peer:
        async with visitor(binding, peer).client(reconnect=False) as client:
            error = await failure_of(lambda: client.get_job(NO_JOB))
            with pytest.raises(ConnectionError, match=why):
                raise error
            assert client.state == "closed"


async def test_what_answers_nothing_here_is_left_out(
    binding: Binding, caplog: pytest.LogCaptureFixture
) -> None:
    """Answers to nobody, events for nobody, requests to a client: logged or refused, and the next answer counts."""
    caplog.set_level("INFO")

    async def talks_too_much(visit: Visit) -> None:
        await visit.let_in()
        call = await visit.hear()
        await visit.tell(id="a", type="response", correl_id="unknown", data=1)
        await visit.tell(id="b", type="error", correl_id="unknown", error={"code": 500, "message": "m"})
        await visit.tell(id="c", type="event", data="no event")
        await visit.tell(id="d", type="event", channel="jobs", data={"type": "job.completed", "data": {}})
        await visit.tell(id="e", type="surprise")
        await visit.tell(id="f", type="ping", ts="2026-01-01T00:00:00Z")
        assert (await visit.hear())["correl_id"] == "f"
        await visit.tell(id="g", type="request", method="function.run")
        assert (await visit.hear())["error"]["code"] == 405
        await visit.say(b"\x89\x02hi")
        await visit.tell(id="h", type="response", correl_id=call["id"], data={"id": NO_JOB})
        await visit.until_gone()

    with RoughPeer(talks_too_much) as peer:
        async with visitor(binding, peer).client({"close_timeout": 0.1}) as client:
            assert (await client.get_job(NO_JOB)).id == NO_JOB
    assert len([record for record in caplog.records if "left out" in record.message]) >= 3


async def test_an_answer_that_cannot_be_read_is_an_error_of_the_connection(binding: Binding) -> None:
    """Of that one call; the others get theirs."""

    async def answers_oddly(visit: Visit) -> None:
        await visit.let_in()
        for data in ('"text"', "[1e999]", '{"a":"\\ud800"}', "[" * 200 + "]" * 200, "null", '{"jobs":7}'):
            call = await visit.hear()
            text = f'{{"id":"s","type":"response","correl_id":"{call["id"]}","data":{data}}}'
            await visit.say(Frame(Opcode.TEXT, text.encode()).serialize(mask=False))
        await visit.until_gone()

    with RoughPeer(answers_oddly) as peer:
        async with visitor(binding, peer).client({"close_timeout": 0.1}) as client:
            for _ in range(5):
                error = await failure_of(lambda: client.get_job(NO_JOB))
                assert isinstance(error, ConnectionError)
                assert "answer" in str(error)
            assert (await client.list_jobs()).jobs == []


async def test_a_server_that_accepts_and_closes_is_not_hammered(binding: Binding) -> None:
    """Attempts that got as far as the login count too, until a connection has stood for a while."""

    async def lets_in_and_hangs_up(visit: Visit) -> None:
        await visit.let_in()

    with RoughPeer(lets_in_and_hangs_up) as peer:
        client = visitor(binding, peer).client({"connect_timeout": 5.0}, max_retries=4)
        await client.connect()
        error = await failure_of(lambda: client.get_job(NO_JOB, timeout=20))
        assert isinstance(error, ConnectionError)
        await client.close()
        assert peer.visits <= 5
