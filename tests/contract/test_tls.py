"""Calls over TLS, and what is said when it cannot be had."""

from __future__ import annotations

import ssl

import pytest
import trustme

from dispatch.errors import ConnectionError, InvalidRequest
from tests.contract.bindings import Binding
from tests.contract.rough_peers import RoughPeer, Visit
from tests.contract.world import failure_of, visitor

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def lets_in_and_answers(visit: Visit) -> None:
    await visit.let_in()
    while True:
        frame = await visit.hear()
        await visit.tell(
            id="s", type="pong" if frame["type"] == "ping" else "response", correl_id=frame["id"], data=frame
        )


async def test_calls_go_over_tls(binding: Binding, authority: trustme.CA, secure: ssl.SSLContext) -> None:
    """With a context of the caller's own; large ones too."""
    with RoughPeer(lets_in_and_answers, secure=secure) as peer:
        async with visitor(binding, peer).client({"close_timeout": 0.1}, ssl=trusting(authority)) as client:
            assert (await client.call("echo", "x" * 300_000))["data"] == "x" * 300_000


async def test_a_certificate_that_is_not_trusted_is_fatal(binding: Binding, secure: ssl.SSLContext) -> None:
    """It is named, and no retry is made."""
    with RoughPeer(lets_in_and_answers, secure=secure) as peer:
        client = visitor(binding, peer).client(wait_for_server=30)
        error = await failure_of(client.connect)
        assert isinstance(error, ConnectionError)
        assert "certificate is not trusted" in str(error)
        assert peer.url in str(error)
        assert client.state == "closed"


async def test_a_certificate_for_another_name_is_fatal(binding: Binding, authority: trustme.CA) -> None:
    """The message names the name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("example.com").configure_cert(context)
    with RoughPeer(lets_in_and_answers, secure=context) as peer:
        error = await failure_of(visitor(binding, peer).client(ssl=trusting(authority)).connect)
        assert "certificate is not trusted" in str(error)
        assert "127.0.0.1" in str(error)


async def test_tls_to_a_plain_port_is_named(binding: Binding) -> None:
    """A `wss:` address where `ws:` would be right."""

    async def answers_in_plain_text(visit: Visit) -> None:
        await visit.reader.read(1)
        await visit.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with RoughPeer(answers_in_plain_text) as peer:
        url = peer.url.replace("ws:", "wss:")
        error = await failure_of(visitor(binding, url).client().connect)
        assert isinstance(error, ConnectionError)
        assert f"{url}: it does not speak TLS as we do" in str(error)


async def test_a_plain_connection_to_a_tls_port_is_named(binding: Binding, secure: ssl.SSLContext) -> None:
    """And the other way round."""
    with RoughPeer(lets_in_and_answers, secure=secure) as peer:
        url = peer.url.replace("wss:", "ws:")
        error = await failure_of(visitor(binding, url).client().connect)
        assert isinstance(error, ConnectionError)
        assert "closed the connection" in str(error) or "does not speak WebSocket" in str(error)


async def test_a_tls_context_for_a_plain_address_is_refused(binding: Binding) -> None:
    """When the client is made: nobody should think that it was used."""
    with pytest.raises(InvalidRequest, match="wss"):
        visitor(binding, "ws://127.0.0.1/dwp").client(ssl=ssl.create_default_context())
    with pytest.raises(InvalidRequest, match="SSLContext"):
        visitor(binding, "wss://127.0.0.1/dwp").client(ssl=True)
