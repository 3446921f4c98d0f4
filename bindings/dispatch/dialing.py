"""How to reach a server: its address, the token, TLS, a proxy on the way. What went wrong on the way, in words.

The same for every binding. Opening the sockets is theirs; when to try again is the core's.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl as tls
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit

from websockets.exceptions import InvalidProxy
from websockets.uri import WebSocketURI

from dispatch.wire import Address
from dwp_core.errors import InvalidRequest

if TYPE_CHECKING:
    import asyncio

    import trio

    from dwp_core.client_events import ClientConfig

Token = str | Callable[[], str | Awaitable[str]]
"""The credentials, or what gives them."""
ProxySetting = str | Literal[False] | None
"""The URL of a proxy; None takes the environment's, False none."""

_LOGGER = logging.getLogger("dispatch.client")


class Transport(Protocol):
    """Another way to a server than a socket; `dispatch.testing.MockTransport` is one. Whatever it raises is an attempt
    that has failed."""

    def adapt(self, config: ClientConfig) -> ClientConfig:
        """How a session behaves that goes this way."""
        ...

    def connect_asyncio(self, protocol: asyncio.Protocol) -> None:
        """Connect a protocol of the running loop: it gets an `asyncio.Transport`."""
        ...

    def connect_trio(self) -> trio.abc.Stream:
        """A stream of the current trio run."""
        ...

    def connect_sync(self) -> socket.socket:
        """A socket that does not block, or what is one to selectors and to `send` and `recv`."""
        ...


class DialError(Exception):
    """An attempt that has failed, in words, and whether time cannot mend it."""

    def __init__(self, reason: str, *, fatal: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fatal = fatal


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy to go through.

    Attributes:
        url: as python-socks takes it: socks5, socks4 or http.
        remote_dns: whether it looks up the server's name.
        where: the URL without credentials, for messages.
    """

    url: str = field(repr=False)
    remote_dns: bool
    where: str


@dataclass(frozen=True)
class Dialer:
    """How to reach the server.

    Attributes:
        address: where it is.
        token: the credentials, or what gives them, asked anew for each attempt.
        ssl: the TLS context for `wss`; None takes the system's roots.
        proxy: the URL of a proxy; None takes the one of the environment, False none.
        transport: another way than a socket, which TLS and proxies do not concern; None for sockets.

    Raises:
        InvalidRequest: one of them cannot be used; the message says why.
    """

    address: Address
    token: Token = field(repr=False)
    ssl: tls.SSLContext | None = None
    proxy: ProxySetting = field(default=None, repr=False)
    transport: Transport | None = None

    def __post_init__(self) -> None:
        token: object = self.token
        if not (isinstance(token, str) or callable(token)):
            kind = type(token).__name__
            raise InvalidRequest(f"token must be text or a function that gives it, got {kind}")
        if self.ssl is not None and not isinstance(self.ssl, tls.SSLContext):
            raise InvalidRequest(f"ssl must be an ssl.SSLContext, got {type(self.ssl).__name__}")
        if self.ssl is not None and not self.address.secure:
            raise InvalidRequest(f"ssl is for wss:// and https:// addresses, but url is {self.address.where}")
        proxy: object = self.proxy
        if isinstance(proxy, str):
            try:
                _read_proxy(proxy, tunnelled=not self.address.http)
            except DialError as error:
                raise InvalidRequest(error.reason) from None
        elif proxy is not None and proxy is not False:
            kind = type(proxy).__name__
            raise InvalidRequest(f"proxy must be a URL, None for the environment's, or False, got {kind}")

    @property
    def goes_over_http(self) -> bool:
        """Whether each call is an HTTP request of its own.

        Raises:
            InvalidRequest: it would be, but httpx is missing.
        """
        if not self.address.http or self.transport is not None:
            return False
        if find_spec("httpx") is None:
            raise InvalidRequest(
                f"url: {self.address.where} needs httpx, which is not installed: pip install 'dispatch-sdk[http]'"
            )
        return True

    @cached_property
    def tls(self) -> tls.SSLContext | None:
        """The TLS context to connect with; None where TLS is not spoken."""
        if not self.address.secure or self.transport is not None:
            return None
        return self.ssl or tls.create_default_context()

    def current_proxy(self) -> Proxy | None:
        """The proxy of one attempt; None for a straight way.

        Raises:
            DialError: the environment names one that cannot be used.
        """
        if self.proxy is False or self.address.socket_path is not None or self.transport is not None:
            return None
        url = self.proxy if self.proxy is not None else _proxy_of_environment(self.address.uri)
        return _read_proxy(url) if url is not None else None

    async def current_token(self) -> str:
        """The token of one attempt.

        Raises:
            DialError: it could not be had. An OSError on the way may pass; anything else is for good.
        """
        if isinstance(self.token, str):
            return self.token
        try:
            given = self.token()
            return _checked_token(await given if isawaitable(given) else given)
        except (Exception, SystemExit) as error:
            raise _no_token(error) from error

    def current_token_blocking(self) -> str:
        """As `current_token`, where nothing can be awaited."""
        if isinstance(self.token, str):
            return self.token
        try:
            given = self.token()
            if iscoroutine(given):
                given.close()
                raise TypeError(
                    "it is a coroutine function, which only dispatch.asyncio and dispatch.trio await"
                )
            return _checked_token(given)
        except (Exception, SystemExit) as error:
            raise _no_token(error) from error


def failure_of(error: Exception, where: str, proxy: Callable[[], Proxy | None] = lambda: None) -> DialError:
    """Why an attempt to reach `where` has failed. What nobody expected is logged with its traceback.

    Args:
        error: what came of it.
        where: for the log.
        proxy: what it went through, asked for only where that has failed.
    """
    if isinstance(error, DialError):
        return error
    if isinstance(error, tls.SSLCertVerificationError):
        return DialError(f"its certificate is not trusted: {error.verify_message}", fatal=True)
    if isinstance(error, tls.SSLError):
        return DialError(f"it does not speak TLS as we do ({reason_of(error)})", fatal=False)
    if type(error).__module__.startswith("python_socks"):
        return _proxy_failure(error, proxy())
    if isinstance(error, OSError):
        return DialError(reason_of(error), fatal=False)
    _LOGGER.error("cannot connect to %s", where, exc_info=error)
    return DialError(f"{type(error).__name__}: {error}", fatal=True)


def reason_of(error: BaseException) -> str:
    """What an error of the operating system says, in its own words."""
    if isinstance(error, OSError) and error.errno and not isinstance(error, tls.SSLError | socket.gaierror):
        return os.strerror(error.errno)  # asyncio has put "Connect call failed" in its place
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _proxy_failure(error: Exception, proxy: Proxy | None) -> DialError:
    """What python-socks has said, by the names of its errors: it is not imported for that."""
    name = f"the proxy {proxy.where}" if proxy is not None else "the proxy"
    kind = type(error).__name__
    if kind == "ProxyConnectionError":
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        return DialError(f"{name} cannot be reached: {reason_of(cause)}", fatal=False)
    if kind == "ProxyTimeoutError":
        return DialError(f"{name} does not answer", fatal=False)
    return DialError(f"{name} did not let us through: {reason_of(error)}", fatal=False)


def _checked_token(token: object) -> str:
    if not isinstance(token, str):
        raise TypeError(f"the function that gives it must return text, got {type(token).__name__}")
    return token


def _no_token(error: BaseException) -> DialError:
    if isinstance(error, OSError):  # it is fetched from somewhere
        return DialError(f"the token could not be had: {reason_of(error)}", fatal=False)
    _LOGGER.error("the token could not be had", exc_info=error)
    return DialError(f"the token could not be had: {type(error).__name__}: {error}", fatal=True)


def _proxy_of_environment(uri: WebSocketURI) -> str | None:
    if sys.platform not in ("win32", "darwin") and not any(n.lower().endswith("_proxy") for n in os.environ):
        return None  # elsewhere the system may know of one
    from urllib.request import getproxies, proxy_bypass  # it loads an HTTP client: not for everybody

    from websockets.proxy import get_proxy

    if (special := get_proxy(uri)) is not None:
        return special
    general = getproxies().get("all")
    return None if general is None or proxy_bypass(f"{uri.host}:{uri.port}") else general


def _read_proxy(url: str, *, tunnelled: bool = True) -> Proxy:
    """The proxy of this URL; `tunnelled` where it is we who go through it, and not httpx."""
    from websockets.proxy import parse_proxy

    example = "one looks like http://proxy:3128 or socks5://user:password@proxy:1080"
    try:
        parsed, split = parse_proxy(url), urlsplit(url)
        port = split.port
    except (InvalidProxy, ValueError) as error:
        # The latter repeats what it stumbled over: perhaps a password.
        what = error.msg if isinstance(error, InvalidProxy) else "it cannot be taken apart"
        raise DialError(f"proxy: that is no URL of a proxy, {what}; {example}", fatal=True) from None
    scheme = parsed.scheme
    if scheme == "https":
        raise DialError(f"proxy: TLS to the proxy itself is not supported; {example}", fatal=True)
    if tunnelled and find_spec("python_socks") is None:
        raise DialError("a proxy needs python-socks: pip install 'dispatch-sdk[proxy]'", fatal=True)
    plain = {"socks5h": "socks5", "socks4a": "socks4"}.get(scheme, scheme)
    port = port or (80 if scheme == "http" else 1080)
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    login, at, _ = split.netloc.rpartition("@")
    return Proxy(
        f"{plain}://{login}{at}{host}:{port}",
        remote_dns=scheme in ("socks5h", "socks4a", "http"),
        where=f"{scheme}://{host}:{port}",
    )
