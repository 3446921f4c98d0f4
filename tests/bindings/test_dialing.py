"""How to reach a server: which proxy, which token, and what is said where it does not work, by every binding."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import ssl
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

import dispatch.asyncio
import dispatch.sync
import dispatch.trio
from dispatch.dialing import Dialer, DialError, failure_of
from dispatch.errors import ConnectionError, InvalidRequest
from dispatch.wire import Address
from tests.contract.proxies import Proxy
from tests.contract.rough_peers import RoughPeer, Visit

NOBODY = "ws://dispatch.invalid/dwp"
BINDINGS = ["asyncio", "trio", "sync"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without proxies, whoever runs this."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture(params=BINDINGS)
def failure(request: pytest.FixtureRequest) -> Callable[..., Exception]:
    """What `connect()` of a client with these arguments raises."""
    classes: dict[str, Any] = {"asyncio": dispatch.asyncio, "trio": dispatch.trio, "sync": dispatch.sync}
    make = classes[request.param].Dispatch

    async def connect(url: str, options: dict[str, Any]) -> None:
        async with make(url, **{"token": "dk_full", **options}):
            pass

    def fail(url: str, **options: Any) -> Exception:
        with pytest.raises(Exception) as caught:  # noqa: PT012
            if request.param == "asyncio":
                asyncio.run(connect(url, options))
            elif request.param == "trio":
                trio.run(connect, url, options)
            else:
                with make(url, **{"token": "dk_full", **options}):
                    pass
        return caught.value

    return fail


def dialer(url: str = NOBODY, **options: Any) -> Dialer:
    return Dialer(Address(url), "", **options)


def told(error: BaseException) -> str:
    """Everything that is told of it, its traceback and its causes included."""
    return "".join(traceback.format_exception(error))


# Which proxy.


@pytest.mark.parametrize(
    ("given", "url", "where", "remote_dns"),
    [
        ("http://proxy:3128", "http://proxy:3128", "http://proxy:3128", True),
        ("http://proxy", "http://proxy:80", "http://proxy:80", True),
        ("HTTP://Proxy:1/", "http://proxy:1", "http://proxy:1", True),
        ("socks5://proxy", "socks5://proxy:1080", "socks5://proxy:1080", False),
        ("socks5h://proxy:9", "socks5://proxy:9", "socks5h://proxy:9", True),
        ("socks4://proxy:9", "socks4://proxy:9", "socks4://proxy:9", False),
        ("socks4a://proxy:9", "socks4://proxy:9", "socks4a://proxy:9", True),
        ("http://ada:p%40ss@proxy:1", "http://ada:p%40ss@proxy:1", "http://proxy:1", True),
        ("http://ada:s@[::1]:1", "http://ada:s@[::1]:1", "http://[::1]:1", True),
    ],
)
def test_a_proxy_is_what_its_url_says(given: str, url: str, where: str, remote_dns: bool) -> None:
    """With the usual port where it names none, and with names looked up where its scheme says so."""
    proxy = dialer(proxy=given).current_proxy()
    assert proxy is not None
    assert (proxy.url, proxy.where, proxy.remote_dns) == (url, where, remote_dns)
    assert "p%40ss" not in repr(proxy)


@pytest.mark.parametrize(
    ("names", "url", "expected"),
    [
        ({"ws_proxy": "http://a"}, "ws://h/", "http://a:80"),
        ({"wss_proxy": "http://a"}, "ws://h/", None),
        ({"wss_proxy": "http://a"}, "wss://h/", "http://a:80"),
        ({"http_proxy": "http://a"}, "ws://h/", "http://a:80"),
        ({"http_proxy": "http://a"}, "wss://h/", None),
        ({"https_proxy": "http://a"}, "wss://h/", "http://a:80"),
        ({"ALL_PROXY": "socks5h://a"}, "ws://h/", "socks5h://a:1080"),
        ({"all_proxy": "http://a", "https_proxy": "http://b"}, "wss://h/", "http://b:80"),
        ({"all_proxy": "http://a", "no_proxy": "h"}, "wss://h/", None),
        ({"all_proxy": "http://a", "no_proxy": "*"}, "wss://h/", None),
        ({"all_proxy": "http://a", "no_proxy": "other,.example.com"}, "wss://x.example.com/", None),
        ({"all_proxy": "http://a", "NO_PROXY": "h:1"}, "wss://h/", "http://a:80"),
        ({"ws_proxy": ""}, "ws://h/", None),
        ({"ws_proxy": "http://a"}, "unix:/run/dispatch.sock", None),
        ({}, "ws://h/", None),
    ],
)
def test_the_environment_names_a_proxy_as_it_does_for_other_programs(
    environment: pytest.MonkeyPatch, names: dict[str, str], url: str, expected: str | None
) -> None:
    for name, value in names.items():
        environment.setenv(name, value)
    proxy = dialer(url).current_proxy()
    assert (proxy and proxy.where) == expected
    assert dialer(url, proxy=False).current_proxy() is None


@pytest.mark.parametrize(
    "wrong",
    [
        "http://ada:secret",
        "http://ada:sec/secret@proxy:1",
        "http://ada:sec#secret@proxy:1",
        "http://ada:secret\u2100@proxy:1",
        "http://ada:secret@proxy:secret",
        "http://ada:secret@proxy:99999",
        "https://ada:secret@proxy:1",
        "http://ada:secret@",
        "//ada:secret@proxy:1",
        "http://ada:%ffsecret@proxy:1",
    ],
)
@pytest.mark.parametrize("way", ["argument", "environment"])
def test_what_is_no_proxy_is_refused_without_a_word_of_its_password(
    environment: pytest.MonkeyPatch, wrong: str, way: str
) -> None:
    if way == "argument":
        with pytest.raises(InvalidRequest, match="proxy: ") as refused:
            dialer(proxy=wrong)
        error: Exception = refused.value
    else:
        environment.setenv("ws_proxy", wrong)
        with pytest.raises(DialError, match="proxy: ") as failed:
            dialer().current_proxy()
        assert failed.value.fatal
        error = failed.value
    assert "secret" not in f"{error} {error!r} {error.__cause__}"
    assert "one looks like http://proxy:3128" in str(error)


@pytest.mark.parametrize(
    "url", ["ws://ada:sec/secret@h/", "ws://ada:sec#secret@h/", "ws://ada:secret\u2100@h/"]
)
def test_an_address_that_is_none_is_refused_without_a_word_of_its_password(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Address(url)
    assert "sec" not in f"{refused.value} {refused.value!r}"


def test_a_proxy_without_python_socks_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Any:
        return None if name == "python_socks" else importlib.util.find_spec(name)

    monkeypatch.setattr("dispatch.dialing.find_spec", find)
    with pytest.raises(InvalidRequest, match=r"pip install 'dispatch-sdk\[proxy\]'"):
        dialer(proxy="http://proxy:1")
    assert dialer().current_proxy() is None
    dialer("https://h/dwp/rpc", proxy="http://proxy:1")  # httpx has its own


# What a proxy does wrong.


@pytest.mark.parametrize("kind", ["http", "socks5h"])
@pytest.mark.parametrize(
    "fault", ["is not there", "has no address", "refuses", "asks", "says nothing", "hangs up"]
)
def test_a_proxy_that_does_not_let_us_through_is_named_but_not_its_password(
    failure: Callable[..., Exception], kind: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")

    async def silent(visit: Visit) -> None:
        await visit.until_gone()

    async def hangs_up(visit: Visit) -> None:
        await visit.reader.read(1)

    def of(address: str, why: str, **options: Any) -> None:
        error = failure(NOBODY, proxy=f"{kind}://ada:secret@{address}", **options)
        assert isinstance(error, ConnectionError)
        assert f"cannot connect to {NOBODY}: the proxy {kind}://{address} {why}" in str(error)
        assert "secret" not in told(error) + caplog.text

    if fault == "is not there":
        of("127.0.0.1:1", "cannot be reached: Connection refused")
    elif fault == "has no address":
        of("proxy.invalid:1", "cannot be reached: ")
    elif fault in ("refuses", "asks"):
        with Proxy(refuses=fault == "refuses", asks=fault == "asks") as proxy:
            of(f"127.0.0.1:{proxy.port}", "did not let us through: ")
    elif fault == "hangs up":
        with RoughPeer(hangs_up) as peer:
            of(peer.url[5:-4], "did not let us through: ")
    else:
        with RoughPeer(silent) as peer:
            error = failure(NOBODY, proxy=f"{kind}://{peer.url[5:-4]}", connect_timeout=0.1)
            assert isinstance(error, ConnectionError)


def test_who_looks_the_name_up_is_said_by_the_scheme(
    failure: Callable[..., Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`socks5h` and `http` leave it to the proxy; `socks5` does it here, and says so if it cannot."""
    with Proxy(refuses=True) as proxy:
        for kind in ("http", "socks5h"):
            failure(NOBODY, proxy=proxy.url(kind))
        assert proxy.went == ["dispatch.invalid:80"] * 2
        error = failure(NOBODY, proxy=proxy.url("socks5"))
        assert isinstance(error, ConnectionError)
        assert proxy.went == ["dispatch.invalid:80"] * 2
        failure("ws://localhost/dwp", proxy=proxy.url("socks5"))
        assert proxy.went[2:] == ["127.0.0.1:80"]


def test_a_way_that_the_environment_makes_impossible_is_an_error_of_connecting(
    failure: Callable[..., Exception], environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("ws_proxy", "nonsense://ada:secret@proxy")
    error = failure(NOBODY, wait_for_server=30)
    assert isinstance(error, ConnectionError)
    assert "proxy: that is no URL of a proxy" in str(error)
    assert "secret" not in told(error)


# Unix sockets.


def test_a_unix_socket_that_is_none_is_named_with_what_is_wrong(
    failure: Callable[..., Exception], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale"))
    for name, why in {
        "none": "No such file or directory",
        "file": "Connection refused",
        "stale": "Connection refused",
        "x" * 200: "too long",
    }.items():
        error = failure(f"unix:{tmp_path / name}")
        assert isinstance(error, ConnectionError)
        assert f"cannot connect to unix:{tmp_path}/" in str(error)
        assert why in str(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_a_unix_socket_of_somebody_else_is_said(failure: Callable[..., Exception], tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0)
        assert "Permission denied" in str(failure(f"unix:{path}"))


# Certificates.


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_certificate_that_is_missing_is_named(
    failure: Callable[..., Exception], version: ssl.TLSVersion
) -> None:
    """From TLS 1.3 on only after the handshake, as the answer to it."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode, context.maximum_version = ssl.CERT_REQUIRED, version
    bare = ssl.create_default_context()
    authority.configure_trust(bare)

    def shake_hands() -> None:  # not with asyncio, which hangs up and keeps the reason to itself
        came, _ = listening.accept()
        with came.dup() as twin:
            with suppress(OSError), context.wrap_socket(came, server_side=True) as served:
                served.recv(1)
            twin.shutdown(socket.SHUT_WR)
            while twin.recv(65536):  # closed before that, what was said would be lost
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = threading.Thread(target=shake_hands)
        serving.start()
        url = f"wss://127.0.0.1:{listening.getsockname()[1]}/dwp"
        error = failure(url, ssl=bare)
        serving.join()
    assert isinstance(error, ConnectionError)
    assert url in str(error)
    assert any(words in str(error).lower() for words in ("certificate required", "handshake failure")), error


# Tokens.


@pytest.mark.parametrize("raised", [SystemExit(3), KeyError("vault"), TypeError("secret")])
def test_a_function_for_the_token_that_fails_ends_the_client_and_not_the_program(
    failure: Callable[..., Exception], raised: BaseException
) -> None:
    def token() -> str:
        raise raised

    async def silent(visit: Visit) -> None:
        await visit.until_gone()

    with RoughPeer(silent) as peer:
        error = failure(peer.url, token=token, wait_for_server=30)
    assert isinstance(error, ConnectionError)
    assert f"the token could not be had: {type(raised).__name__}" in str(error)


async def a_token() -> str:
    raise AssertionError("it is not awaited")


class Later:
    def __call__(self) -> Any:
        return a_token()


@pytest.mark.parametrize("token", [a_token, Later(), lambda: a_token()], ids=["function", "object", "lambda"])
def test_a_coroutine_function_is_refused_where_nothing_is_awaited(token: Callable[[], Any]) -> None:
    """With a clear error, and without a coroutine that was never awaited."""
    client = dispatch.sync.Dispatch("ws://127.0.0.1:1/dwp", token, wait_for_server=30)
    with pytest.raises(
        ConnectionError, match=r"coroutine function, which only dispatch\.asyncio and dispatch\.trio"
    ):
        client.connect()
    assert client.state == "closed"


# What nobody expected.


def test_what_nobody_expected_is_fatal_and_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failed = failure_of(ZeroDivisionError("a defect"), "ws://h/dwp")
    assert failed.fatal
    assert failed.reason == "ZeroDivisionError: a defect"
    assert caplog.records[0].exc_info
