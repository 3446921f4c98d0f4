"""Drives a client session, and those that it delegates to, for the tasks of one event loop.

Calls wait for a future, subscriptions for items; both are the `tag` under which the session knows them.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Any, TypeVar

from dispatch.asyncio.line import Dialer, Line
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
from dwp_core.errors import ClosedError
from dwp_core.frames import DEFAULT_LIMITS
from dwp_core.peer import Peer
from dwp_core.requests import Request
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
        return self._line is not None and self.state != "closed" and not self._loop.is_closed()

    async def connect(self) -> str:
        """Start the session; the server's name for it, or what went wrong."""
        if self._line is not None:
            raise ClosedError("this client was connected before; make a new one to connect again")
        loop = self._loop = asyncio.get_running_loop()
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

    async def close(self, drain: float) -> None:
        """End the session; returns when it has ended, also where this is cancelled meanwhile."""
        if self._line is None:
            return
        self._session.close(now=self._loop.time(), drain=drain)
        self._pump_all()
        await asyncio.shield(self._closed)

    async def run(self, operation: Operation[T], timeout: float | None) -> T:
        """One call, from its arguments to its result."""
        session, loop = self._open_session(), self._loop
        if timeout is None:
            if not operation.waits:
                timeout = self._timeout
        else:
            check_seconds("timeout", timeout)
        future: asyncio.Future[RequestSucceeded] = loop.create_future()
        now = loop.time()
        if operation.waits:
            request = session.wait(operation.method, operation.data, tag=future, now=now, timeout=timeout)
        else:
            request = session.request(
                operation.method,
                operation.data,
                tag=future,
                now=now,
                timeout=timeout,
                retry=operation.retry,
                key=operation.key,
                feature=operation.feature,
            )
        answer = await self._answer(request, future)
        return operation.read(answer.codec.value(answer.frame, DEFAULT_LIMITS))

    async def ping(self, timeout: float | None) -> float:
        """The seconds of one round trip."""
        session, begun = self._open_session(), self._loop.time()
        future: asyncio.Future[RequestSucceeded] = self._loop.create_future()
        request = session.ping(tag=future, now=begun, timeout=self._timeout if timeout is None else timeout)
        await self._answer(request, future)
        return self._loop.time() - begun

    def listen(self, channel: str, since: Since, until: frozenset[str]) -> Subscription:
        """A new subscription."""
        session = self._open_session()
        subscription = Subscription(self, channel, until)
        now = self._loop.time()
        subscription.handle = session.subscribe(channel, tag=subscription, now=now, since=since)
        self._poke()
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """The application leaves a subscription."""
        if subscription.handle is not None:
            self._session.unsubscribe(subscription.handle, now=self._loop.time())
            self._poke()

    def consumed(self, subscription: Subscription, count: int) -> None:
        """The application has taken events of a subscription."""
        if subscription.handle is not None:
            self._session.consumed(subscription.handle, count, now=self._loop.time())
            self._poke()

    async def _answer(self, request: Request, future: asyncio.Future[RequestSucceeded]) -> RequestSucceeded:
        self._poke()
        try:
            return await future
        except asyncio.CancelledError:
            self._session.cancel_request(request, now=self._loop.time())
            self._pump_all()
            raise

    def _open_session(self) -> ClientSession:
        if self._line is None:
            raise ClosedError(
                "the client is not connected: use `async with Dispatch(...)`, or await connect() first"
            )
        return self._session

    def _poke(self) -> None:
        assert self._line is not None
        self._line.poke()

    def _pump_all(self) -> None:
        for line in list(self._lines.values()):
            line.pump()

    def _drive(self, session: ClientSession) -> Line:
        line = Line(session, self.dialer, self._loop, deliver=self._deliver, delegated=self._delegated)
        self._lines[session] = line
        return line

    def _delegated(self, session: ClientSession) -> None:
        self._drive(session).poke()

    # What sessions say.

    def _deliver(self, events: list[ClientEvent]) -> None:
        for event in events:
            tag: Any = getattr(event, "tag", None)
            if isinstance(event, RequestSucceeded):
                if not tag.done():
                    tag.set_result(event)
            elif isinstance(event, SubscriptionItem):
                tag.push(event.event)
            elif isinstance(event, RequestFailed | RequestOutcomeUnknown):
                if not tag.done():
                    tag.set_exception(event.error)
            elif isinstance(event, SubscriptionGap):
                tag.push(event.gap)
            elif isinstance(event, SubscriptionStarted):
                tag.start()
            elif isinstance(event, SubscriptionEnded):
                tag.end(event.error)
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
            wait = event.retry_at - self._loop.time()
            _LOGGER.warning("%s; next attempt in %.1f s", event.cause, wait)
        elif isinstance(event, Discarded):
            _LOGGER.warning("left out what %s sent: %s", where, event.reason)
        elif isinstance(event, Closed):
            self._ended(event)

    def _ended(self, event: Closed) -> None:
        self._lines = {session: line for session, line in self._lines.items() if session.state != "closed"}
        if event.cause is not None:
            _LOGGER.error("gave up: %s", event.cause)
        if self._session.state != "closed" or self._closed.done():
            return
        if not self._connected.done():
            self._connected.set_exception(
                event.cause or ClosedError("the client was closed while it connected")
            )
            self._connected.exception()  # seen, should nobody await it any more
        self._closed.set_result(None)
