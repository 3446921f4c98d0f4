"""Drives a client session, and those that it delegates to, for the tasks of one event loop.

Calls wait for a future, subscriptions for items; both are the `tag` under which the session knows them.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from dispatch import operations
from dispatch.asyncio.line import Dialer, Line, clock_of
from dispatch.asyncio.subscription import Subscription
from dispatch.operations import Operation
from dispatch.settings import check_seconds
from dwp_core.client import ClientSession, frame_ids
from dwp_core.client_events import (
    ClientConfig,
    ClientEvent,
    Closed,
    Connected,
    Discarded,
    Disconnected,
    RequestFailed,
    RequestOutcomeUnknown,
    RequestSucceeded,
    SubscriptionEnded,
    SubscriptionGap,
    SubscriptionItem,
    SubscriptionStarted,
)
from dwp_core.client_states import CLOSED
from dwp_core.errors import ClosedError, ConnectionError, DispatchError, InvalidRequest, PayloadError
from dwp_core.frames import ANSWER_LIMITS
from dwp_core.peer import Peer
from dwp_core.requests import CALL, Purpose
from dwp_core.subscriptions import Since

T = TypeVar("T")

_LOGGER = logging.getLogger("dispatch.client")


class Driver:
    """One session and its lines.

    Args:
        config: how the session behaves.
        dialer: how to reach the server.
        timeout: seconds that a call waits unless it says otherwise; None for ever.
    """

    def __init__(self, config: ClientConfig, dialer: Dialer, timeout: float | None) -> None:
        self.config = config
        self.dialer = dialer
        self._timeout = timeout
        self._lines: dict[ClientSession, Line] = {}
        self._line: Line | None = None
        self._loop: asyncio.AbstractEventLoop
        self._now: Callable[[], float]
        self._session: ClientSession
        self._connected: asyncio.Future[str]
        self._closed: asyncio.Future[None]

    @property
    def state(self) -> str:
        """The state of the session; "idle" before it has one."""
        return self._session.state if self._line is not None else "idle"

    @property
    def peer(self) -> Peer | None:
        """The server of the present connection."""
        return self._session.peer if self._line is not None else None

    @property
    def abandoned(self) -> bool:
        """Whether it is still connected, on a loop that could have closed it."""
        return self._line is not None and self.state != CLOSED and not self._loop.is_closed()

    async def connect(self) -> str:
        """Start the session; the server's name for it, or what went wrong."""
        if self._line is not None:
            raise ClosedError("this client was connected before; make a new one to connect again")
        loop = self._loop = asyncio.get_running_loop()
        self._now = clock_of(loop)
        now = loop.time()
        epoch_ns = time.time_ns() - int(now * 1e9)
        session = ClientSession(self.config, epoch_ns=epoch_ns, jitter=random.random, ids=frame_ids())
        self._session = session
        self._connected, self._closed = loop.create_future(), loop.create_future()
        self._line = self._drive(session)
        session.start(now=now)
        self._line.poke()
        try:
            return await asyncio.shield(self._connected)
        except asyncio.CancelledError:
            session.close(now=loop.time())
            self._line.pump()
            raise
        except DispatchError:
            await asyncio.shield(self._closed)
            raise

    async def close(self, drain: float) -> None:
        """End the session; returns when nothing of it is left. It ends also where this is cancelled meanwhile."""
        check_seconds("drain", drain, least=0.0, or_none=False)
        if self._line is None or self._loop.is_closed():
            return
        self._check_loop()
        self._session.close(now=self._now(), drain=drain)
        self._pump_all()
        await asyncio.shield(self._closed)

    async def run(self, operation: Operation[T], timeout: float | None) -> T:
        """One call, from its arguments to its result."""
        line = self._line
        if line is None:
            raise _not_connected()
        if asyncio.get_running_loop() is not self._loop:
            raise _wrong_loop()
        if timeout is not None:
            check_seconds("timeout", timeout)
        elif operation.purpose is CALL or operation.purpose is Purpose.PING:
            timeout = self._timeout
        future: asyncio.Future[RequestSucceeded] = asyncio.Future(loop=self._loop)
        request = self._session.request(
            operation.method,
            operation.data,
            tag=future,
            now=self._now(),
            timeout=timeout,
            retry=operation.retry,
            key=operation.key,
            purpose=operation.purpose,
            feature=operation.feature,
        )
        line.poke()
        try:
            answer = await future
        except (asyncio.CancelledError, GeneratorExit):
            if not self._loop.is_closed():
                self._session.cancel_request(request, now=self._now())
                self._pump_all()
            raise
        try:
            value = answer.codec.value(answer.frame, ANSWER_LIMITS)
            return value if operation.read is None else operation.read(value)
        except PayloadError as error:
            name = operation.method or "ping"
            raise ConnectionError(
                f"{name}: the answer of {self.config.where} cannot be read: {error}"
            ) from error

    async def ping(self, timeout: float | None) -> float:
        """The seconds of one round trip."""
        begun = time.perf_counter()
        await self.run(operations.ping(), timeout)
        return time.perf_counter() - begun

    def listen(self, channel: str, since: Since, until: frozenset[str]) -> Subscription:
        """A new subscription."""
        line = self._line
        if line is None:
            raise _not_connected()
        self._check_loop()
        subscription = Subscription(self, channel, until)
        subscription.handle = self._session.subscribe(channel, tag=subscription, now=self._now(), since=since)
        line.poke()
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """The application leaves a subscription."""
        if subscription.handle is not None and self._line is not None and not self._loop.is_closed():
            self._check_loop()
            self._session.unsubscribe(subscription.handle, now=self._now())
            self._line.poke()

    def consumed(self, subscription: Subscription, count: int) -> None:
        """The application has taken events of a subscription."""
        if subscription.handle is not None and self._line is not None:
            self._session.consumed(subscription.handle, count, now=self._now())
            self._line.poke()

    def new_future(self) -> asyncio.Future[None]:
        """A future of this client's loop: whoever awaits it on another one is told so."""
        return asyncio.Future(loop=self._loop)

    def _check_loop(self) -> None:
        """Refuse to be used from another thread or event loop, before anything has changed."""
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if not here:
            raise _wrong_loop()

    def _pump_all(self) -> None:
        for line in list(self._lines.values()):
            line.pump()

    def _drive(self, session: ClientSession) -> Line:
        line = Line(
            session,
            self.dialer,
            self._loop,
            deliver=self._deliver,
            delegated=self._delegated,
            ended=self._settle,
        )
        self._lines[session] = line
        return line

    def _delegated(self, session: ClientSession) -> None:
        self._drive(session).poke()

    # What sessions say.

    def _deliver(self, events: list[ClientEvent]) -> None:
        for event in events:
            if type(event) is RequestSucceeded:  # by its exact type: this is the hot path
                future: asyncio.Future[RequestSucceeded] = event.tag  # type: ignore[assignment]  # it is ours
                try:
                    future.set_result(event)
                except asyncio.InvalidStateError:
                    pass  # its caller was cancelled in this very turn
            elif type(event) is SubscriptionItem:
                subscription: Subscription = event.tag  # type: ignore[assignment]  # it is ours
                subscription.push(event.event)
            elif isinstance(event, RequestFailed | RequestOutcomeUnknown):
                future = event.tag  # type: ignore[assignment]  # likewise
                if not future.done():
                    future.set_exception(event.error)
            elif isinstance(event, SubscriptionGap | SubscriptionStarted | SubscriptionEnded):
                subscription = event.tag  # type: ignore[assignment]  # likewise
                if isinstance(event, SubscriptionGap):
                    subscription.push(event.gap)
                elif isinstance(event, SubscriptionStarted):
                    subscription.start()
                else:
                    subscription.end(event.error)
            else:
                self._changed(event)

    def _changed(self, event: ClientEvent) -> None:
        where = self.config.where
        if isinstance(event, Connected):
            again, name = "re" if event.resumed else "", event.peer.session_id
            _LOGGER.info("%sconnected to %s as %s", again, where, name)
            if not self._connected.done() and self._session.peer is event.peer:
                self._connected.set_result(name)
        elif isinstance(event, Disconnected):
            wait = event.retry_at - self._now()
            _LOGGER.warning("%s; next attempt in %.1f s", event.cause, wait)
        elif isinstance(event, Discarded):
            _LOGGER.info("left out what %s sent: %s", where, event.reason)
        elif isinstance(event, Closed):
            self._ended(event)

    def _ended(self, event: Closed) -> None:
        if event.cause is not None and self._connected.done():
            _LOGGER.error("gave up: %s", event.cause)  # else `connect` raises it
        if self._session.state == CLOSED and not self._connected.done():
            self._connected.set_exception(
                event.cause or ClosedError("the client was closed while it connected")
            )
            self._connected.exception()  # seen, should nobody await it any more
        self._settle()

    def _settle(self) -> None:
        """Forget the lines of which nothing is left; when those are all, the client is closed."""
        self._lines = {session: line for session, line in self._lines.items() if not line.at_rest}
        if not self._lines and not self._closed.done():
            self._closed.set_result(None)


def _not_connected() -> ClosedError:
    return ClosedError(
        "the client is not connected: use `async with Dispatch(...)`, or await connect() first"
    )


def _wrong_loop() -> InvalidRequest:
    return InvalidRequest(
        "this client belongs to another event loop or thread; make one Dispatch for each event loop"
    )
