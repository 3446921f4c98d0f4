"""One client: its session, those that it delegates to, and who waits for what. The same for every binding.

A call waits for a `Waiter`, a subscription for items; both are the `tag` under which the session knows them. How one
waits, and on which clock, is the binding's; so is the `Line` that opens sockets for a session.
"""

from __future__ import annotations

import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar
from weakref import WeakSet

from dispatch.dialing import Dialer
from dispatch.lifecycle import Change, Counters
from dispatch.line import Line
from dispatch.operations import Operation
from dispatch.settings import check_seconds
from dispatch.subscription import Changes, Feed
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
from dwp_core.client_states import BACKING_OFF, CLOSED, READY
from dwp_core.errors import ClosedError, ConnectionError, PayloadError
from dwp_core.frames import ANSWER_LIMITS
from dwp_core.peer import Peer
from dwp_core.requests import Purpose, Request
from dwp_core.subscriptions import Since

T = TypeVar("T")

_LOGGER = logging.getLogger("dispatch.client")


class Moment(Protocol):
    """Something that happens once, and is waited for."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...


class Waiter(Moment, Protocol):
    """What one caller waits for: a result, or an error."""

    def set_exception(self, error: BaseException, /) -> None: ...


class Driver(ABC):
    """What the three bindings share of driving a client.

    Args:
        config: how the session behaves.
        dialer: how to reach the server.
        timeout: seconds that a call waits unless it says otherwise; None for ever.
    """

    ALREADY: ClassVar[type[Exception] | tuple[()]] = ()
    """What a waiter raises that gets a result too late."""

    def __init__(self, config: ClientConfig, dialer: Dialer, timeout: float | None) -> None:
        self.config = config
        self.dialer = dialer
        self.timeout = timeout
        self._lines: dict[ClientSession, Line] = {}
        self._line: Any = None  # a line, which each binding knows more of
        self._session: ClientSession
        self.now: Callable[[], float]
        """The clock that this client lives by, in monotonic seconds."""
        self._connected: Any  # a waiter, which each binding knows more of
        self._closed: Any
        self._followers: WeakSet[Changes] | None = None
        self._counters = Counters()

    # What a binding gives.

    @abstractmethod
    def new_line(self, session: ClientSession) -> Line:
        """What drives a session."""

    @abstractmethod
    def check_place(self) -> None:
        """Refuse to be used from where this client does not live, before anything has changed.

        Raises:
            InvalidRequest: that is the case.
        """

    @abstractmethod
    def run(self, build: Callable[..., Operation[Any]], *args: Any, **kwargs: Any) -> Any:
        """One call, from what builds its operation to its result, or to what is awaited for that."""

    @property
    @abstractmethod
    def reachable(self) -> bool:
        """Whether the event loop, or the process, that this client lives in is still there."""

    def new_session(self, epoch_ns: int) -> ClientSession:
        """What decides for this client; `epoch_ns` is the wall clock at monotonic time 0."""
        return ClientSession(self.config, epoch_ns=epoch_ns, jitter=random.random, ids=frame_ids())

    # What the client asks for.

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
        """Whether it is still connected, where it could have been closed."""
        return self._line is not None and self.state != CLOSED and self.reachable

    @property
    def counters(self) -> Counters:
        """What is counted here, and how things stand."""
        if self._line is None:
            return self._counters
        session, subscriptions = self._session, self._session.subscriptions
        unread = sum(subscription.buffered for subscription in subscriptions)
        return replace(
            self._counters, calls=session.open_calls, subscriptions=len(subscriptions), unread=unread
        )

    def follow(self, changes: Changes) -> None:
        """Tell of changes, beginning with how things stand."""
        if self._line is None:
            raise not_connected()
        self.check_place()
        changes.push(Change(self.state, self.peer.session_id if self.peer is not None else None))
        if self.state == CLOSED:
            changes.end(None)
        else:
            if self._followers is None:
                self._followers = WeakSet()
            self._followers.add(changes)

    def start(self, clock: Callable[[], float], connected: Waiter, closed: Moment) -> None:
        """Begin to connect; `connected` gets the server's name for the session, or what went wrong."""
        if self._line is not None:
            raise connected_before()
        self.now = clock
        now = clock()
        epoch_ns = time.time_ns() - int(now * 1e9)
        session = self.new_session(epoch_ns)
        self._session, self._connected, self._closed = session, connected, closed
        self._line = self._drive(session)
        session.start(now=now)
        self._line.poke()

    def end(self, drain: float = 0.0) -> None:
        """Begin to close."""
        self._session.close(now=self.now(), drain=drain)
        self._pump_all()

    def ask(self, operation: Operation[Any], waiter: Waiter) -> Request:
        """Ask the server; the waiter gets the answer."""
        line = self._line
        if line is None:
            raise not_connected()
        timeout = operation.timeout
        if timeout is not None:
            check_seconds("timeout", timeout)
        elif operation.purpose is not Purpose.WAIT:
            timeout = self.timeout
        request = self._session.request(
            operation.method,
            operation.data,
            tag=waiter,
            now=self.now(),
            timeout=timeout,
            retry=operation.retry,
            key=operation.key,
            purpose=operation.purpose,
            feature=operation.feature,
        )
        if not line.scheduled:  # this saves most of the calls: it is the hot path
            line.poke()
        return request

    def withdraw(self, request: Request) -> None:
        """Its caller does not wait any more."""
        self._session.cancel_request(request, now=self.now())
        self._pump_all()

    def read(self, operation: Operation[T], answer: RequestSucceeded) -> T:
        """The result of a call, of the answer to it."""
        try:
            value = answer.codec.value(answer.frame, ANSWER_LIMITS)
            return value if operation.read is None else operation.read(value)
        except PayloadError as error:
            name = operation.method or "ping"
            raise ConnectionError(
                f"{name}: the answer of {self.config.where} cannot be read: {error}"
            ) from error

    def listen(self, feed: Feed, since: Since) -> None:
        """Let a subscription hear of its channel."""
        line = self._line
        if line is None:
            raise not_connected()
        self.check_place()
        feed.handle = self._session.subscribe(feed.channel, tag=feed, now=self.now(), since=since)
        line.poke()

    def leave(self, feed: Feed) -> None:
        """The application leaves a subscription."""
        if feed.handle is not None and self._line is not None and self.reachable:
            self.check_place()
            self._session.unsubscribe(feed.handle, now=self.now())
            self._line.poke()

    def consumed(self, feed: Feed, count: int) -> None:
        """The application has taken events of a subscription."""
        if feed.handle is not None and self._line is not None:
            self._session.consumed(feed.handle, count, now=self.now())
            self._line.poke()

    def _pump_all(self) -> None:
        for line in list(self._lines.values()):
            line.pump()

    def _drive(self, session: ClientSession) -> Line:
        line = self._lines[session] = self.new_line(session)
        return line

    # What lines tell.

    def delegated(self, session: ClientSession) -> None:
        """A session wants another one driven too, over a connection of its own."""
        self._drive(session).poke()

    def settle(self) -> None:
        """Forget the lines of which nothing is left; when those are all, the client is closed."""
        for session, line in list(self._lines.items()):
            if line.at_rest:
                line.stop()
                del self._lines[session]
        if not self._lines and not self._closed.done():
            self._closed.set_result(None)

    def deliver(self, events: list[ClientEvent]) -> None:
        """What a session says, to whom it concerns."""
        left = iter(events)
        try:
            self._hand_out(left)
        except BaseException:
            for event in left:  # whoever waits for one of these must not wait for ever
                with suppress(Exception):
                    self._hand_out(iter([event]))
            raise

    def _hand_out(self, events: Iterator[ClientEvent]) -> None:
        for event in events:
            if type(event) is RequestSucceeded:  # by its exact type: this is the hot path
                try:
                    event.tag.set_result(event)  # type: ignore[attr-defined]  # the tag is ours
                except self.ALREADY:
                    pass  # its caller was cancelled in this very turn
            elif type(event) is SubscriptionItem:
                event.tag.push(event.event)  # type: ignore[attr-defined]  # likewise
            elif isinstance(event, RequestFailed | RequestOutcomeUnknown):
                waiter: Waiter = event.tag  # type: ignore[assignment]  # likewise
                if not waiter.done():
                    waiter.set_exception(event.error)
            elif isinstance(event, SubscriptionGap | SubscriptionStarted | SubscriptionEnded):
                feed: Feed = event.tag  # type: ignore[assignment]  # likewise
                if isinstance(event, SubscriptionGap):
                    feed.push(event.gap)
                elif isinstance(event, SubscriptionStarted):
                    feed.start()
                else:
                    feed.end(event.error)
            else:
                self._changed(event)

    def _changed(self, event: ClientEvent) -> None:
        where, counters = self.config.where, self._counters
        if isinstance(event, Connected):
            again, name = "re" if event.resumed else "", event.peer.session_id
            _LOGGER.info("%sconnected to %s as %s", again, where, name)
            self._counters = replace(counters, connects=counters.connects + 1)
            if self._session.peer is event.peer:
                self._tell(Change(READY, name, event.resumed))
                if not self._connected.done():
                    self._connected.set_result(name)
        elif isinstance(event, Disconnected):
            wait = event.retry_at - self.now()
            _LOGGER.warning("%s; next attempt in %.1f s", event.cause, wait)
            self._counters = replace(counters, losses=counters.losses + 1, last_error=event.cause)
            if self.state == BACKING_OFF:
                self._tell(Change(BACKING_OFF, cause=event.cause, retry_in=max(wait, 0.0)))
        elif isinstance(event, Discarded):
            _LOGGER.info("left out what %s sent: %s", where, event.reason)
        elif isinstance(event, Closed):
            self._ended(event)

    def _ended(self, event: Closed) -> None:
        if event.cause is not None:
            self._counters = replace(self._counters, losses=self._counters.losses + 1, last_error=event.cause)
            if self._connected.done():
                _LOGGER.error("gave up: %s", event.cause)  # else `connect` raises it
        if self._session.state == CLOSED:
            self._tell(Change(CLOSED, cause=event.cause))
            for follower in list(self._followers or ()):
                follower.end(None)
            self._followers = None
            if not self._connected.done():
                self._connected.set_exception(
                    event.cause or ClosedError("the client was closed while it connected")
                )
        self.settle()

    def _tell(self, change: Change) -> None:
        for follower in list(self._followers or ()):
            follower.push(change)


def not_connected() -> ClosedError:
    """What a client is told that was never connected."""
    return ClosedError(
        "the client is not connected: use it with `with` or `async with`, or call connect() first"
    )


def connected_before() -> ClosedError:
    """What a client is told that is connected again."""
    return ClosedError("this client was connected before; make a new one to connect again")
