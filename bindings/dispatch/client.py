"""What every client is, whatever it waits with: made of the same arguments, with the same names."""

from __future__ import annotations

import ssl as tls
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar

from dispatch import operations
from dispatch.calls import AwaitedCalls, Calls
from dispatch.dialing import Dialer, ProxySetting, Token, Transport
from dispatch.driver import Driver
from dispatch.lifecycle import Counters
from dispatch.operations import Operation
from dispatch.settings import EVENT_BUFFER, client_config
from dispatch.subscription import AwaitedChanges, AwaitedFeed
from dispatch.wire import Address
from dwp_core.client_events import ClientConfig
from dwp_core.errors import InvalidRequest
from dwp_core.subscriptions import Since

if TYPE_CHECKING:
    from dispatch.telemetry import OpenTelemetry

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D", bound=Driver)


_HOMES = {"telemetry": "telemetry.OpenTelemetry", "transport": "testing.MockTransport"}


class Client(Calls, Generic[D]):
    """A client of a Dispatch server.

    One client serves a whole program. A lost connection is made again and everything restored; what happens to calls
    under way is told by their errors.
    """

    def __init__(
        self,
        url: str,
        token: Token = "",
        *,
        format: str = "json",
        reconnect: bool = True,
        max_retries: int = 10,
        timeout: float | None = 30.0,
        wait_for_server: float = 0.0,
        connect_timeout: float = 10.0,
        ssl: tls.SSLContext | None = None,
        proxy: ProxySetting = None,
        headers: Mapping[str, str] | None = None,
        event_buffer: int = EVENT_BUFFER,
        codec: str | None = None,
        telemetry: OpenTelemetry | None = None,
        transport: Transport | None = None,
    ) -> None:
        """Make a client; nothing is sent before it connects.

        Args:
            url: where the server is: "ws://127.0.0.1:8080/dwp", "wss://example.com/dwp", "unix:/run/dispatch.sock"; or
                "https://example.com/dwp/rpc", where each call is an HTTP request and each subscription an event stream.
            token: the API key, or a function that gives it, asked anew for each attempt; asyncio and trio also take a
                coroutine function. If it raises an OSError, that attempt has failed; any other exception closes the
                client.
            format: "json" or "msgpack", what the frames are sent as; the server has the last word.
            reconnect: whether a lost connection is made again.
            max_retries: attempts in a row before giving up; 0 means no limit.
            timeout: seconds that a call waits for its answer, unless it says otherwise; None waits for ever.
            wait_for_server: seconds for which the first connection is tried again; 0 makes one attempt and raises.
            connect_timeout: seconds for one attempt, login and subscriptions included.
            ssl: TLS context for `wss`, e.g. with a client certificate; None trusts the system's roots.
            proxy: URL of a proxy, e.g. "http://proxy:3128" or "socks5://proxy:1080"; None takes the one that the
                environment names for the address (`wss_proxy`, `all_proxy`, `https_proxy`, `no_proxy` and their like),
                False goes straight.
            headers: more headers for the opening handshake; over HTTP, for each request.
            event_buffer: unread events of one subscription, towards a server that cannot send them again.
            codec: "fast" or "portable"; None takes the fast one where it is there.
            telemetry: spans and metrics for each call (`dispatch.telemetry`); None for none.
            transport: instead of a network, for tests: a `dispatch.testing.MockTransport`.

        Raises:
            InvalidRequest: the URL is none, or another argument cannot be used.
        """
        for name, given, needed in (("telemetry", telemetry, "call"), ("transport", transport, "adapt")):
            if given is not None and not hasattr(given, needed):
                raise InvalidRequest(f"{name}: {type(given).__name__} is none; see dispatch.{_HOMES[name]}")
        address = Address(url, {} if headers is None else headers)
        dialer = Dialer(address, token, ssl, proxy, transport)
        config = client_config(
            address,
            format=format,
            codec=codec,
            reconnect=reconnect,
            max_retries=max_retries,
            timeout=timeout,
            wait_for_server=wait_for_server,
            connect_timeout=connect_timeout,
            event_buffer=event_buffer,
        )
        if transport is not None:
            config = transport.adapt(config)
        self._driver = self._new_driver(config, dialer, timeout)
        self._run: Callable[..., Any] = (
            self._driver.run if telemetry is None else self._observed_run(telemetry)
        )

    @abstractmethod
    def _new_driver(self, config: ClientConfig, dialer: Dialer, timeout: float | None) -> D:
        """What drives this client."""

    @abstractmethod
    def _observed_run(self, telemetry: OpenTelemetry) -> Callable[..., Any]:
        """The driver's `run`, observed."""

    def __repr__(self) -> str:
        return f"<Dispatch {self._driver.config.where} {self.state}>"

    def __del__(self) -> None:
        driver: D | None = getattr(self, "_driver", None)  # None where __init__ has raised
        if driver is not None and driver.abandoned:
            how = "`async with`" if isinstance(self, AwaitedCalls) else "`with`"
            message = f"{self!r} was never closed: use {how}, or close()"
            warnings.warn(message, ResourceWarning, stacklevel=1, source=self)

    @property
    def state(self) -> str:
        """Where the connection stands, e.g. "ready", "backing_off", "closed" (docs/architecture.md has them all)."""
        return self._driver.state

    @property
    def session_id(self) -> str | None:
        """The server's name for the present connection; None while there is none."""
        peer = self._driver.peer
        return peer.session_id if peer is not None else None

    @property
    def counters(self) -> Counters:
        """What this client itself counts: connections, losses, open calls, unread events."""
        return self._driver.counters


class AwaitedDriver(Driver):
    """A driver for an event loop."""

    @abstractmethod
    async def connect(self) -> str:
        """Start the session; the server's name for it, or what went wrong."""

    @abstractmethod
    async def close(self, drain: float) -> None:
        """End the session; returns when nothing of it is left. It ends also where this is cancelled meanwhile."""

    @abstractmethod
    async def run(self, build: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """One call, from its arguments to its result."""


A = TypeVar("A", bound=AwaitedDriver)
S = TypeVar("S", bound=AwaitedFeed)
C = TypeVar("C", bound=AwaitedChanges)


class AwaitedClient(Client[A], AwaitedCalls, Generic[A, S, C]):
    """A client for an event loop."""

    def _observed_run(self, telemetry: OpenTelemetry) -> Callable[..., Any]:
        run, where = self._driver.run, self._driver.config.where

        async def observed(build: Callable[..., Operation[Any]], *args: Any, **kwargs: Any) -> Any:
            with telemetry.call(build(*args, **kwargs), where) as operation:
                return await run(lambda: operation)

        return observed

    async def connect(self) -> str:
        """Connect and log in.

        Returns:
            The session id that the server gave; "" over HTTP, which has no sessions.

        Raises:
            AuthError: the server refused the token.
            ConnectionError: the server cannot be reached or does not speak DWP.
            ClosedError: the client was connected before; make a new one.
        """
        return await self._driver.connect()

    async def close(self, *, drain: float = 0.0) -> None:
        """Close the connection. Calls that still wait end with `ClosedError`, subscriptions just end.

        Args:
            drain: seconds to wait for the answers to calls that are under way.
        """
        await self._driver.close(drain)

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    def _new_feed(self, channel: str, until: frozenset[str]) -> S:
        """What a subscription is."""

    def subscribe(self, channel: str, *, since: Since = None) -> S:
        """Listen to a channel: await the subscription to have it confirmed, or iterate over it directly.

        Args:
            channel: "jobs", "workflows", "firehose", "job:<id>", "workflow:<run id>" or "queue:<name>".
            since: events after this `seq`, or all that the server still has, "start"; None means from now on.

        Raises:
            InvalidRequest: there is no such channel.
            ClosedError: the client is closed, or was never connected.

        Source: PROTOCOL.md sections 5 and 9.
        """
        feed = self._new_feed(channel, frozenset())
        self._driver.listen(feed, since)
        return feed

    @abstractmethod
    def _new_changes(self) -> C:
        """What tells of changes."""

    def states(self) -> C:
        """Follow the connection: how it stands now, then every change, until the client is closed.

        Raises:
            ClosedError: the client was never connected.

        Example:
            >>> async def log(client):
            ...     async for change in client.states():
            ...         print(change.state, change.cause, change.retry_in)
        """
        changes = self._new_changes()
        self._driver.follow(changes)
        return changes

    async def watch(self, id: str) -> S:
        """Listen to one job or workflow run until it ends; the iteration ends with it.

        Has it ended already, there is nothing to iterate over. Unlike `subscribe`, this has to be awaited:
        `async for event in await client.watch(id)`.

        Args:
            id: a job id or a run id.

        Raises:
            NotFoundError: there is none of that id.
        """
        look = operations.entity(id)
        feed = self._new_feed(look.channel, look.ends)
        self._driver.listen(feed, None)
        try:
            await feed
            entity = await self._run(lambda: look.operation)
        except BaseException:
            await feed.unsubscribe()
            raise
        if entity.get("state") in operations.ENDED:
            feed.end_here()
        return feed
