"""Ways to the server: through proxies and Unix sockets, with headers and certificates of one's own."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from dispatch.errors import ConnectionError, InvalidRequest
from tests.contract.bindings import Binding, in_one_codec
from tests.contract.proxies import PASSWORD, USER, Proxy
from tests.contract.rough_peers import RoughPeer, Visit
from tests.contract.world import World, failure_of, in_thread, until, visitor

pytestmark = pytest.mark.anyio

BOTH = pytest.mark.parametrize("kind", ["http", "socks5"])
BOTH_WITH_NAMES = pytest.mark.parametrize("kind", ["http", "socks5h"])
"""The kinds that look names up themselves: by `socks5h` users ask a SOCKS5 proxy to."""
LOGIN = f"{USER}:{PASSWORD}@"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without proxies, whoever runs this."""
    for name in ("ws", "wss", "http", "https", "socks", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_PROXY".upper(), raising=False)
    return monkeypatch


async def echoes(visit: Visit) -> None:
    await visit.let_in()
    while True:
        frame = await visit.hear()
        await visit.tell(id="s", type="response", correl_id=frame["id"], data=frame.get("data"))


@BOTH
@in_one_codec  # what is in the frames does not concern a proxy
async def test_a_proxy_is_gone_through(world: World[Any], kind: str) -> None:
    """An HTTP proxy by CONNECT, or SOCKS5: calls and events as on the straight way, for each connection anew."""
    with Proxy() as proxy:
        async with world.client(proxy=proxy.url(kind)) as client:
            events = await client.subscribe("jobs")
            await client.enqueue("noop", "x" * 300_000)
            assert (await events.__anext__()).kind == "job.enqueued"
        assert proxy.went == [urlsplit(world.url).netloc]
    await in_thread(until, lambda: world.server.connections() == 0)


@BOTH
@in_one_codec
async def test_a_proxy_that_asks_gets_the_login_of_its_url(world: World[Any], kind: str) -> None:
    """User and password as a URL writes them. Without them, the proxy is named and the password is not."""
    with Proxy(asks=True) as proxy:
        async with world.client(proxy=proxy.url(kind, LOGIN)) as client:
            assert await client.ping() > 0
        error = await failure_of(world.client(proxy=proxy.url(kind, f"{USER}:wrong@")).connect)
        assert isinstance(error, ConnectionError)
        assert "proxy" in str(error)
        assert "wrong" not in str(error)


@BOTH_WITH_NAMES
async def test_a_proxy_that_lets_nobody_through_is_named(binding: Binding, kind: str) -> None:
    """The error says that it was the proxy."""
    with Proxy(refuses=True) as proxy:
        client = visitor(binding, "ws://example.com/dwp").client(proxy=proxy.url(kind))
        error = await failure_of(client.connect)
        assert isinstance(error, ConnectionError)
        assert "proxy" in str(error)
        assert proxy.went == ["example.com:80"]


@BOTH
async def test_a_proxy_that_is_not_there_or_says_nothing_ends_in_time(binding: Binding, kind: str) -> None:
    """As a server that is not there or says nothing."""

    async def silent(visit: Visit) -> None:
        await visit.until_gone()

    with RoughPeer(silent) as peer:
        address = peer.url.removeprefix("ws://").removesuffix("/dwp")
        world = visitor(binding, "ws://example.com/dwp")
        error = await failure_of(world.client({"connect_timeout": 0.1}, proxy=f"{kind}://{address}").connect)
        assert isinstance(error, ConnectionError)
    error = await failure_of(world.client(proxy=f"{kind}://{address}").connect)
    assert isinstance(error, ConnectionError)


@BOTH_WITH_NAMES
async def test_tls_is_spoken_with_the_server_behind_the_proxy(binding: Binding, kind: str) -> None:
    """Its certificate is for the server's name, which the proxy looks up: nobody here needs to know where that is."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("dispatch.invalid").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with (
        RoughPeer(echoes, secure=context) as peer,
        Proxy(names={"dispatch.invalid": "127.0.0.1"}) as proxy,
    ):
        url = peer.url.replace("127.0.0.1", "dispatch.invalid")
        async with visitor(binding, url).client(
            {"close_timeout": 0.1}, ssl=trusting, proxy=proxy.url(kind)
        ) as client:
            assert await client.call("echo", "x" * 300_000) == "x" * 300_000
        assert proxy.went == [urlsplit(url).netloc]


@in_one_codec
async def test_the_proxy_of_the_environment_is_taken(
    world: World[Any], environment: pytest.MonkeyPatch
) -> None:
    """As other programs take it; `no_proxy` has exceptions, and `proxy=False` goes straight in any case."""
    with Proxy() as proxy:
        environment.setenv("ws_proxy", proxy.url("http"))
        async with world.client():
            assert len(proxy.went) == 1
        async with world.client(proxy=False):
            assert len(proxy.went) == 1
        environment.setenv("no_proxy", "127.0.0.1")
        async with world.client():
            assert len(proxy.went) == 1


async def test_what_is_no_proxy_is_refused_when_the_client_is_made(binding: Binding) -> None:
    """And its password is not repeated."""
    for wrong in ("nonsense", "ftp://ada:secret@127.0.0.1:1", "http://", 5, True):
        with pytest.raises(InvalidRequest, match="proxy") as refused:
            visitor(binding, "ws://127.0.0.1/dwp").client(proxy=wrong)
        assert "secret" not in str(refused.value)


async def test_a_unix_socket_is_an_address(binding: Binding, tmp_path: Path) -> None:
    """`unix:` and a path: no port, no proxy; and if nobody listens there, the path is named."""
    path = tmp_path / "dispatch.sock"
    with RoughPeer(echoes, path=path) as peer:
        assert peer.url == f"unix:{path}"
        async with visitor(binding, peer).client({"close_timeout": 0.1}, proxy=None) as client:
            assert await client.call("echo", "x" * 300_000) == "x" * 300_000
    error = await failure_of(visitor(binding, f"unix:{path}").client().connect)
    assert isinstance(error, ConnectionError)
    assert str(path) in str(error)


async def test_headers_of_ones_own_go_with_the_opening_handshake(binding: Binding) -> None:
    """Each attempt sends them; neither the log nor a repr shows them."""
    heard: list[bytes] = []

    async def listens(visit: Visit) -> None:
        heard.append(await visit.request())

    with RoughPeer(listens) as peer:
        client = visitor(binding, peer).client(headers={"X-Tenant": "a b", "Authorization": "Bearer secret"})
        await failure_of(client.connect)
        assert b"\r\nX-Tenant: a b\r\n" in heard[0]
        assert b"\r\nAuthorization: Bearer secret\r\n" in heard[0]
        assert "secret" not in repr(client)


async def test_a_client_certificate_is_shown_to_a_server_that_asks(binding: Binding) -> None:
    """In the TLS context that is given; without one, the server's refusal is an error that ends in time."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    bare, certified = ssl.create_default_context(), ssl.create_default_context()
    for each in (bare, certified):
        authority.configure_trust(each)
    authority.issue_cert("client@example.com").configure_cert(certified)
    with RoughPeer(echoes, secure=context) as peer:
        async with visitor(binding, peer).client({"close_timeout": 0.1}, ssl=certified) as client:
            assert await client.call("echo", {"a": 1}) == {"a": 1}
        assert isinstance(await failure_of(visitor(binding, peer).client(ssl=bare).connect), ConnectionError)
