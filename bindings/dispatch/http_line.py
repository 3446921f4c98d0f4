"""A client of an HTTP address: its session driven, its exchanges carried out with httpx. The same for every binding.

httpx's transports are used without its client: no redirects, no cookies, no credentials out of `.netrc`, and no log of
requests, which would have the token in it that the existing server wants in the address of a stream.
"""

from __future__ import annotations

import random
import socket
import ssl as tls
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.util import find_spec
from typing import Any, cast
from urllib.parse import urlencode, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from dispatch import line
from dispatch.dialing import Dialer, DialError, failure_of
from dispatch.driver import Driver
from dwp_core.client import ClientSession, frame_ids
from dwp_core.client_states import CLOSED
from dwp_core.effects import Effect
from dwp_core.errors import InvalidRequest
from dwp_core.http_client import HttpClientSession
from dwp_core.http_exchange import AbortExchange, BeginExchange, HttpEffect, ResumeReading

FAREWELL = line.FAREWELL
KEPT = 4.0
"""Seconds that an idle connection is kept: less than servers keep it, who would close it on the next request."""
_OURS = frozenset(("accept", "content-length", "content-type", "last-event-id", "transfer-encoding"))


class HttpSide:
    """What goes over the network for one client: how transports are made, what they are given, what their errors mean.

    Args:
        dialer: how to reach the server.
        connect_timeout: seconds for making one connection.
        agent: what the client calls itself.

    Raises:
        InvalidRequest: a header cannot be used here.
    """

    def __init__(self, dialer: Dialer, connect_timeout: float, agent: str) -> None:
        address = dialer.address
        for name in address.headers:
            if name.lower() in _OURS:
                raise InvalidRequest(f"headers: {name} is set for each request; leave it out")
        self._dialer = dialer
        self._connect_timeout = connect_timeout
        self._headers = {
            "user-agent": agent,
            **{name.lower(): value for name, value in address.headers.items()},
        }
        url = urlsplit(address.url)
        self._rpc = url._replace(fragment="")
        self._events = self._rpc._replace(path=url.path.removesuffix("/rpc") + "/sse")
        self._where = address.where
        self._through = ""

    @property
    def has_proxy(self) -> bool:
        """Whether we go through a proxy, as far as was asked yet."""
        return bool(self._through)

    def options(self) -> dict[str, Any]:
        """The arguments of a transport.

        Raises:
            DialError: the environment names a proxy that cannot be used.
        """
        # How many requests there are at a time the session decides.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEPT)
        verify: Any = self._dialer.tls or False  # false where TLS is not spoken
        options: dict[str, Any] = {"limits": limits, "trust_env": False, "verify": verify}
        proxy = self._proxy()
        if proxy is None:
            options["socket_options"] = _SOCKET_OPTIONS
        else:
            options["proxy"] = proxy
            host = f"[{proxy.url.host}]" if ":" in proxy.url.host else proxy.url.host
            port = f":{proxy.url.port}" if proxy.url.port else ""
            self._through = f" (through the proxy {proxy.url.scheme}://{host}{port})"
        return options

    def request(self, begin: BeginExchange, token: str) -> httpx.Request:
        """What to send.

        Raises:
            InvalidRequest: the token cannot be sent.
        """
        sealed = begin.sealed(token)
        url = self._events if begin.is_stream else self._rpc
        headers = {**self._headers, **sealed.headers}
        query = "&".join(filter(None, (url.query, urlencode(sealed.query))))
        request = httpx.Request(
            "GET" if begin.is_stream else "POST",
            urlunsplit(url._replace(query=query)),
            headers=headers,
            content=sealed.body or None,
            # The session keeps the time of everything else.
            extensions={"timeout": {"connect": self._connect_timeout}},
        )
        request.stream = Body(sealed.body)
        return request

    def failure_of(self, error: Exception) -> tuple[DialError, bool]:
        """Why an exchange was lost, and whether the server may have got the request."""
        if isinstance(error, InvalidRequest):
            return DialError(str(error), fatal=True), False
        if isinstance(error, DialError):
            return error, False
        failure, sent = self._failure_on_the_way(error)
        return DialError(failure.reason + self._through, fatal=failure.fatal), sent

    def _failure_on_the_way(self, error: Exception) -> tuple[DialError, bool]:
        if type(error).__module__.startswith("socksio"):
            return DialError(f"the proxy does not speak SOCKS 5 as we do: {error}", fatal=False), False
        if not isinstance(error, httpx.HTTPError):
            return failure_of(error, self._where), True
        unsent = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.PoolTimeout)
        sent = not isinstance(error, unsent)
        if isinstance(error, httpx.ConnectTimeout):
            return DialError(f"no connection within {self._connect_timeout:g} s", fatal=False), sent
        if isinstance(error, httpx.ProxyError):
            return DialError(f"the proxy did not let us through: {error}", fatal=False), sent
        causes = list(_causes(error))
        for kind in (tls.SSLError, OSError):
            for cause in causes:
                if isinstance(cause, kind) and (kind is not OSError or cause.errno):
                    return failure_of(cause, self._where), sent
        reason = str(error) or type(error).__name__
        return DialError(reason[:1].lower() + reason[1:], fatal=False), sent

    def _proxy(self) -> httpx.Proxy | None:
        dialer, address = self._dialer, self._dialer.address
        url: str | None
        if dialer.proxy is None:
            if proxy_bypass(f"{address.host}:{address.port}"):
                return None
            known = getproxies()
            url = known.get("https" if address.secure else "http") or known.get("all")
        else:
            url = dialer.proxy or None
        if url is None:
            return None
        try:
            proxy = _Proxy(url)
        except ValueError:
            raise DialError(
                "proxy: over HTTP it must be a URL of http, https or socks5", fatal=True
            ) from None
        if proxy.url.scheme.startswith("socks") and find_spec("socksio") is None:
            raise DialError("a SOCKS proxy needs socksio: pip install 'httpx[socks]'", fatal=True)
        return proxy


class _Proxy(httpx.Proxy):
    """A proxy whose credentials no log shows: httpcore logs what it is given for SOCKS."""

    @property
    def raw_auth(self) -> tuple[bytes, bytes] | None:
        """User and password."""
        if self.auth is None:
            return None
        user, password = self.auth
        return _Hidden(user.encode()), _Hidden(password.encode())


class _Hidden(bytes):
    def __repr__(self) -> str:
        return "[secure]"


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of a request. httpx's own is a generator, of which trio complains when an exchange is given up."""

    def __init__(self, content: bytes) -> None:
        self._pieces = iter((content,))

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The whole of it, once."""
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


class Carrier:
    """One exchange under way."""

    __slots__ = ("cancel", "resume")

    def __init__(self, cancel: Callable[[], object], resume: Callable[[], object]) -> None:
        self.cancel = cancel
        """Drop it."""
        self.resume = resume
        """Let it read on."""


class HttpLine(line.Line):
    """Drives an HTTP session. A binding adds how an exchange is carried out, and how a transport is closed."""

    def __init__(self, session: HttpClientSession, driver: HttpDriving) -> None:
        # What a line asks of a session this one has too, but for what concerns connections.
        super().__init__(cast("ClientSession", session), driver)
        self.exchanges = session
        self.side = driver.side
        self._carriers: dict[str, Carrier] = {}

    @abstractmethod
    def _carry(self, begin: BeginExchange) -> Carrier:
        """Begin to carry out an exchange."""

    def _perform(self, effect: Effect | HttpEffect) -> None:
        if isinstance(effect, BeginExchange):
            self._carriers[effect.id] = self._carry(effect)
        elif isinstance(effect, AbortExchange):
            carrier = self._carriers.pop(effect.id, None)
            if carrier is not None:
                carrier.cancel()
        elif isinstance(effect, ResumeReading):
            self._carriers[effect.id].resume()

    # Whoever carries out an exchange says what happens to it.

    def _head(self, begin: BeginExchange, response: httpx.Response) -> None:
        headers = response.headers.multi_items()
        self.exchanges.exchange_head(begin.id, response.status_code, headers, now=self._driver.now())
        self.received()

    def _data(self, begin: BeginExchange, data: bytes) -> bool:
        go_on = self.exchanges.exchange_data(begin.id, data, now=self._driver.now())
        self.received()
        return go_on

    def _end(self, begin: BeginExchange) -> None:
        self._carriers.pop(begin.id, None)
        self.exchanges.exchange_end(begin.id, now=self._driver.now())
        self.received()

    def _lost(self, begin: BeginExchange, error: Exception) -> None:
        failure, sent = self.side.failure_of(error)
        self._carriers.pop(begin.id, None)
        self.exchanges.exchange_failed(
            begin.id, failure.reason, now=self._driver.now(), sent=sent, fatal=failure.fatal
        )
        self.received()


class AwaitedHttpLine(HttpLine):
    """Carries exchanges out by awaiting them; asyncio and trio differ in how that is begun and given up."""

    def __init__(self, session: HttpClientSession, driver: HttpDriving) -> None:
        super().__init__(session, driver)
        self._tokens = driver.dialer.current_token
        self._transport: httpx.AsyncHTTPTransport | None = None
        self._closing = False

    @abstractmethod
    def _start_closing(self) -> None:
        """Begin to close the transport: `_close` in a task of its own, which is among those left."""

    @property
    def at_rest(self) -> bool:
        return super().at_rest and self._transport is None

    def pump(self) -> None:
        super().pump()
        self._close_if_over()

    def gone(self, what: object) -> None:
        super().gone(what)
        self._close_if_over()

    async def _talk(self, begin: BeginExchange, gate: Callable[[], Any]) -> None:
        """Carry an exchange out; `gate` gives what to wait for where reading is to stop for a while."""
        try:
            token = await self._tokens()
            if self._transport is None:
                self._transport = httpx.AsyncHTTPTransport(**self.side.options())
            response = await self._send(self._transport, self.side.request(begin, token))
            parts = aiter(cast("httpx.AsyncByteStream", response.stream))
            try:
                self._head(begin, response)
                async for data in parts:
                    if not self._data(begin, data):
                        await gate()
            finally:
                await response.aclose()
                await _finish(parts)
        except Exception as error:  # noqa: BLE001  # the session is told, whatever it was
            self._lost(begin, error)
        else:
            self._end(begin)

    async def _send(self, transport: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        opened: list[Any] = []

        async def learn(event: str, info: dict[str, Any]) -> None:
            if event == "socks.connect_tcp.complete":
                opened.append(info["return_value"])

        if self.side.has_proxy:
            request.extensions["trace"] = learn
        try:
            return await transport.handle_async_request(request)
        except BaseException:
            for stream in opened:  # httpcore forgets it where a SOCKS proxy does not let us through
                await stream.aclose()
            raise

    async def _close(self) -> None:
        """Close what is left of connections."""
        assert self._transport is not None
        try:
            await self._transport.aclose()
        except Exception:  # noqa: BLE001  # they are of no more use to anybody
            pass

    def _close_if_over(self) -> None:
        if (
            self.session.state == CLOSED
            and self._transport is not None
            and not self._left
            and not self._closing
        ):
            self._closing = True
            self._start_closing()


class HttpDriving(Driver):
    """A driver whose session speaks HTTP. The binding's own driver comes after it among the bases."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        agent = f"{self.config.name}/{self.config.version}"
        self.side = HttpSide(self.dialer, self.config.connect_timeout, agent)

    def new_session(self, epoch_ns: int) -> ClientSession:
        session = HttpClientSession(self.config, epoch_ns=epoch_ns, jitter=random.random, ids=frame_ids())
        return cast("ClientSession", session)  # as far as a driver is concerned


async def _finish(parts: AsyncIterator[bytes]) -> None:
    """Bring what reads a body, which is closed, to its end.

    It is generators inside of generators: to close the outer one would leave the others to the garbage collector, which
    for asynchronous ones is a warning in trio and a task of nobody's in asyncio.
    """
    try:
        async for _ in parts:
            pass
    except Exception:  # noqa: BLE001  # that it cannot be read any more is what this is for
        pass


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and whatever it came from."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _causes(each)
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield from _causes(cause)


def _socket_options() -> list[tuple[int, int, int]]:
    """Ask after a peer that is silent: a stream of the existing server has no other sign of life."""
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


_SOCKET_OPTIONS = _socket_options()
