"""Clients of an HTTP address, in every binding: at our server under uvicorn, and at the recorded existing one."""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
import trustme

from dispatch.errors import (
    AuthError,
    ConnectionError,
    InvalidRequest,
    NotFoundError,
    OutcomeUnknown,
    UnsupportedError,
)
from dispatch.store.memory import MemoryStore
from tests.bindings.http_servers import OurHttpServer, RecordedServer
from tests.contract.bindings import BINDINGS, Binding
from tests.contract.proxies import PASSWORD, USER, Proxy
from tests.contract.threads import PATIENCE
from tests.contract.world import World, failure_of, gather, in_thread, take, take_until

pytestmark = pytest.mark.anyio


@pytest.fixture(params=BINDINGS, ids=lambda binding: binding.name)
def binding(request: pytest.FixtureRequest) -> Binding:
    chosen: Binding = request.param
    return chosen


@pytest.fixture
def anyio_backend(binding: Binding) -> tuple[str, dict[str, Any]]:
    return binding.backend


@pytest.fixture(autouse=True)
async def bounded(anyio_backend: Any) -> Any:
    """A scenario that hangs fails."""
    with anyio.fail_after(PATIENCE):
        yield


@pytest.fixture
def ours(binding: Binding) -> Iterator[World[OurHttpServer]]:
    with closing(MemoryStore()) as store, OurHttpServer(store, comment_every=0.05) as server:
        yield World(server, binding, "json", server.url)


@pytest.fixture
def go(binding: Binding) -> Iterator[World[RecordedServer]]:
    with RecordedServer() as server:
        yield World(server, binding, "json", server.url, settings={"poll_interval": 0.05})


# ── at our server ──


async def test_the_quick_start_works_over_http(ours: World[OurHttpServer]) -> None:
    """Connect, subscribe, enqueue, wait; there is no session, so it has no name."""
    client = ours.client()
    assert await client.connect() == ""
    assert (client.state, client.session_id) == ("ready", "")
    async with client.subscribe("jobs") as events:
        job = await client.enqueue("send-email", {"to": "a@b.c"})
        assert (await client.wait(job.job_id)).output == {"sent_to": "a@b.c"}
        heard = await take_until(events, "job.completed")
    assert [(event.kind, event["data"]["state"]) for event in heard] == [
        ("job.enqueued", "pending"),
        ("job.started", "running"),
        ("job.completed", "completed"),
    ]
    assert heard[0].seq is not None
    await client.close()
    assert (client.state, client.session_id) == ("closed", None)


async def test_events_go_on_after_a_server_was_restarted(ours: World[OurHttpServer]) -> None:
    """Nothing is lost and nothing comes twice; calls wait for the server to come back."""
    async with ours.client() as client:
        events = await client.subscribe("firehose")
        first = await client.enqueue("noop")
        heard = await take(events, 3)
        await in_thread(ours.server.restart)
        second = await client.enqueue("noop")
        await client.wait(second.job_id)
        heard += await take(events, 3)
        assert [(event.kind, event["data"]["job_id"]) for event in heard] == [
            (f"job.{what}", job.job_id)
            for job in (first, second)
            for what in ("enqueued", "started", "completed")
        ]
        seqs = [event.seq for event in heard]
        assert seqs == sorted(set(seqs))


async def test_a_subscription_begins_where_it_is_told_to(ours: World[OurHttpServer]) -> None:
    async with ours.client() as client:
        await client.wait((await client.enqueue("noop")).job_id)
        everything = await take(client.subscribe("jobs", since="start"), 3)
        rest = await take(client.subscribe("jobs", since=everything[0].seq), 2)
        assert [event.seq for event in rest] == [event.seq for event in everything[1:]]


async def test_a_subscription_that_is_refused_says_why(ours: World[OurHttpServer]) -> None:
    async with ours.client(token="dk_writer") as client:
        error = await failure_of(lambda: take(client.subscribe("jobs"), 1))
        assert isinstance(error, AuthError)
        assert error.code == 403
        assert (await client.enqueue("noop")).state == "pending"


async def test_a_slow_reader_gets_everything(ours: World[OurHttpServer]) -> None:
    """Its stream is not read meanwhile; others are."""
    async with ours.client({"event_window": 8}) as client:
        slow, quick = await client.subscribe("jobs"), await client.subscribe("jobs")
        jobs = await gather(*[lambda: client.enqueue("noop") for _ in range(100)])
        assert len(await take(quick, 300)) == 300
        heard = await take(slow, 300)
        assert {event["data"]["job_id"] for event in heard} == {job.job_id for job in jobs}
        assert len({event.seq for event in heard}) == 300


async def test_closing_ends_streams_and_waiting_calls(ours: World[OurHttpServer]) -> None:
    client = ours.client()
    await client.connect()
    events = await client.subscribe("jobs")
    job = await client.enqueue("hold")
    async with anyio.create_task_group() as group:

        async def waits() -> None:
            assert isinstance(await failure_of(lambda: client.wait(job.job_id)), ConnectionError)

        group.start_soon(waits)
        await take_until(events, "job.started")
        await client.close()
    assert [event async for event in events] == []


async def test_a_crowd_that_waits_does_not_keep_others_from_their_calls(ours: World[OurHttpServer]) -> None:
    async with ours.client({"poll_interval": 0.02}) as client:
        job = await client.enqueue("hold")
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(client.wait, job.job_id)
            assert (await client.get_job(job.job_id)).name == "hold"
            ours.server.release()


async def test_a_token_is_asked_for_anew_for_each_request(ours: World[OurHttpServer]) -> None:
    given = iter(["dk_full", "dk_full", "dk_reader"])
    async with ours.client(token=lambda: next(given)) as client:
        await client.enqueue("noop")
        assert isinstance(await failure_of(lambda: client.enqueue("noop")), AuthError)
        assert "token could not be had" in str(await failure_of(lambda: client.get_job("job_1", timeout=0.5)))


async def test_where_nobody_listens_connecting_says_so(binding: Binding) -> None:
    with RecordedServer() as server:
        url = server.url
    client = binding.make({}, {"url": url, "token": "t"})
    error = await failure_of(client.connect)
    assert isinstance(error, ConnectionError)
    assert str(error) == f"cannot connect to {url}: Connection refused"
    assert client.state == "closed"


# ── TLS, proxies, headers ──


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[RecordedServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with RecordedServer(context) as server:
        yield server


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_calls_and_streams_go_over_tls(
    binding: Binding, secure: RecordedServer, trusting: ssl.SSLContext
) -> None:
    options = {"url": secure.url, "token": "dk_full", "ssl": trusting}
    async with binding.make({}, options) as client:
        assert "broker" in await client.stats()
        assert (await take(client.subscribe("jobs"), 1))[0].kind == "job.enqueued"


async def test_a_certificate_that_is_not_trusted_is_fatal(binding: Binding, secure: RecordedServer) -> None:
    stranger = binding.make({}, {"url": secure.url, "token": "dk_full", "wait_for_server": PATIENCE})
    error = await failure_of(stranger.connect)
    assert isinstance(error, ConnectionError)
    assert "its certificate is not trusted" in str(error)


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_calls_and_streams_go_through_a_proxy(
    binding: Binding, secure: RecordedServer, trusting: ssl.SSLContext, kind: str
) -> None:
    with Proxy(asks=True) as proxy:
        way = proxy.url(kind, f"{USER}:{PASSWORD}@")
        options = {"url": secure.url, "token": "dk_full", "ssl": trusting, "proxy": way}
        async with binding.make({}, options) as client:
            assert "broker" in await client.stats()
            assert (await take(client.subscribe("jobs"), 1))[0].kind == "job.enqueued"
        assert proxy.went


@pytest.mark.parametrize("straight", [False, True])
async def test_the_proxy_of_the_environment_is_taken_unless_it_is_not_for_this_address(
    binding: Binding,
    secure: RecordedServer,
    trusting: ssl.SSLContext,
    straight: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Proxy() as proxy:
        monkeypatch.setenv("https_proxy", proxy.url("http"))
        monkeypatch.setenv("no_proxy", "127.0.0.1" if straight else "")
        async with binding.make({}, {"url": secure.url, "token": "dk_full", "ssl": trusting}) as client:
            assert "broker" in await client.stats()
        assert bool(proxy.went) is not straight


async def test_a_proxy_of_another_kind_is_said_to_be_of_no_use(binding: Binding) -> None:
    options = {"url": "http://127.0.0.1/dwp/rpc", "proxy": "socks4://127.0.0.1:1"}
    error = await failure_of(binding.make({}, {**options, "wait_for_server": PATIENCE}).connect)
    assert "must be a URL of http, https or socks5" in str(error)


async def test_a_proxy_needs_nothing_but_httpx(binding: Binding, monkeypatch: pytest.MonkeyPatch) -> None:
    known = find_spec
    monkeypatch.setattr("dispatch.dialing.find_spec", lambda name: known(name) if name == "httpx" else None)
    binding.client(url="http://127.0.0.1/dwp/rpc", proxy="socks5://127.0.0.1:1")
    with pytest.raises(InvalidRequest, match="python-socks"):
        binding.client(url="ws://127.0.0.1/dwp", proxy="socks5://127.0.0.1:1")


async def test_a_proxy_that_lets_nobody_through_is_named(binding: Binding, secure: RecordedServer) -> None:
    with Proxy(refuses=True) as proxy:
        error = await failure_of(binding.make({}, {"url": secure.url, "proxy": proxy.url("http")}).connect)
        assert isinstance(error, ConnectionError)
        assert "the proxy did not let us through" in str(error)


async def test_headers_of_the_user_are_sent_with_everything(go: World[RecordedServer]) -> None:
    async with go.client(headers={"X-Team": "blue", "User-Agent": "mine/1"}) as client:
        await take(client.subscribe("jobs"), 1)
    assert {target.partition("?")[0] for target, _, _ in go.server.requests} == {"/dwp/rpc", "/dwp/sse"}
    for _, headers, _ in go.server.requests:
        assert (headers["x-team"], headers["user-agent"]) == ("blue", "mine/1")


async def test_headers_that_belong_to_the_request_are_refused(binding: Binding) -> None:
    with pytest.raises(InvalidRequest, match="Content-Type is set for each request"):
        binding.client(url="http://127.0.0.1/dwp/rpc", headers={"Content-Type": "text/plain"})


async def test_without_httpx_it_is_said_what_to_install(
    binding: Binding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatch.dialing.find_spec", lambda name: None)
    with pytest.raises(InvalidRequest, match=r"pip install 'dispatch-sdk\[http\]'"):
        binding.client(url="http://127.0.0.1/dwp/rpc")


# ── at the existing server, as it was recorded ──


async def test_the_recorded_server_is_spoken_to_as_it_likes(go: World[RecordedServer]) -> None:
    """Plain JSON, the token in the frame, whatever format was wished; results and errors as everywhere."""
    async with go.client(format="msgpack") as client:
        job = await client.enqueue("noop", {"n": 1})
        assert (job.queue, job.state) == ("default", "pending")
        assert "broker" in await client.stats()
        assert (await client.start_workflow("order-pipeline", {"order_id": "1"})).state == "completed"
        assert await client.ping() > 0
        assert isinstance(await failure_of(lambda: client.call("nonsense")), UnsupportedError)
        missing = await failure_of(lambda: client.get_job("job_01h455vb4pex5vsknk084sn02q"))
        assert isinstance(missing, NotFoundError)
        error = await failure_of(lambda: client.enqueue("noop", delay=5))
        assert isinstance(error, UnsupportedError)
    for _, headers, body in go.server.requests:
        assert headers["content-type"] == "application/json"
        assert json.loads(body)["token"] == "dk_full"
        assert "authorization" not in headers


async def test_recorded_events_arrive_with_a_state(go: World[RecordedServer]) -> None:
    """The token goes into the query, where alone that server looks for it."""
    async with go.client() as client:
        heard = await take(client.subscribe("jobs"), 3)
        assert [event["data"]["state"] for event in heard] == ["pending", "running", "completed"]
        assert (heard[0].seq, heard[0].topic) == (None, "job:job_01m81ae85bet99qdkdw4dtsw8x")
        error = await failure_of(lambda: take(client.subscribe("jobs", since="start"), 1))
        assert isinstance(error, UnsupportedError)
    [target] = [target for target, _, _ in go.server.requests if target.startswith("/dwp/sse")]
    assert parse_qs(urlsplit(target).query) == {"channel": ["jobs"], "token": ["dk_full"]}


async def test_a_recorded_stream_that_is_cut_off_is_made_again(go: World[RecordedServer]) -> None:
    async with go.client() as client:
        events = await client.subscribe("jobs")
        await take(events, 3)
        await in_thread(go.server.cut_streams)
        assert [event.kind for event in await take(events, 3)] == [
            "job.enqueued",
            "job.started",
            "job.completed",
        ]


async def test_a_recorded_refusal_ends_what_it_refuses(go: World[RecordedServer]) -> None:
    assert isinstance(await failure_of(go.client(token="nope").connect), AuthError)
    tokens = iter(["dk_full", "nope"])
    async with go.client(token=lambda: next(tokens)) as client:
        error = await failure_of(lambda: take(client.subscribe("jobs"), 1))
        assert isinstance(error, AuthError)
        assert "ended the stream at once" in str(error)


async def test_what_a_base_server_may_have_done_is_unknown_and_reads_are_repeated(
    go: World[RecordedServer],
) -> None:
    async with go.client() as client:
        go.server.lost_answers = 1
        error = await failure_of(lambda: client.enqueue("noop", {"n": 1}))
        assert isinstance(error, OutcomeUnknown)
        go.server.lost_answers = 2
        assert "broker" in await client.stats()
    assert go.server.methods.count("job.enqueue") == 1
    assert go.server.methods.count("stats") == 3


async def test_no_log_line_shows_a_token(go: World[RecordedServer], caplog: pytest.LogCaptureFixture) -> None:
    """Not even where it has to be in the address."""
    caplog.set_level(logging.DEBUG)
    async with go.client() as client:
        await take(client.subscribe("jobs"), 1)
        shown = repr(client)
    assert "dk_full" in str(go.server.requests)
    assert "dk_full" not in caplog.text + shown
    assert "connected to" in caplog.text
