"""One connection, whatever carries it: a session, its requests handed to their handlers, its output collected.

What is answered in one turn of the loop goes out together at its end (`Outbox`), in one write for each connection. How
bytes reach the peer is the business of the subclasses: `ws` is the fast path for WebSockets; `asgi_websocket`,
`http_rpc` and `sse` work with any ASGI server.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from dispatch.store.values import Tenant
from dwp_core.effects import AbortTransport, CloseTransport
from dwp_core.errors import INTERNAL, DispatchError
from dwp_core.hub import OK
from dwp_core.served_peer import ServedPeer
from dwp_core.server_events import (
    LoginReceived,
    ReadLog,
    RequestReceived,
    ServerEvent,
    SessionClosed,
    WaitExpired,
)

if TYPE_CHECKING:
    from dispatch.server.server import DispatchServer
    from dispatch.store.port import ReadableStore
    from dispatch.store.values import EventPage
    from dwp_core.hub import Fanout

logger = logging.getLogger("dispatch.server")

UNSENT_LIMIT = 4 * 1024 * 1024
"""Bytes of unsent output at which nothing more is read: neither from the peer nor, for it, from the store. Far above
what a socket takes at once: a peer that writes much before it reads must not be locked out."""

READS_AT_ONCE = 16
"""What one connection may have the store read at a time, weighed: one payload weighs 1."""

PAGE_WEIGHT = 4
"""What a page of a list weighs."""

_Read = tuple[Callable[["ReadableStore"], Any], Callable[[Any, BaseException | None], None], int]


class Outbox:
    """The connections that have something to write, until the turn of the loop ends."""

    __slots__ = ("_armed", "_loop", "_turns", "_writes")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._armed = False
        self._turns: list[Connection] = []
        self._writes: list[Connection] = []

    def add(self, connection: Connection) -> None:
        """Have `end_turn` of this connection called when the turn is over."""
        self._turns.append(connection)
        self.arm()

    def arm(self) -> None:
        """Have `flush` called when the turn is over."""
        if not self._armed:
            self._armed = True
            self._loop.call_soon(self.flush)

    @property
    def writes(self) -> list[Connection]:
        """Connections that have bytes to write and nothing else to do: append, and `arm`."""
        return self._writes

    def flush(self) -> None:
        """The turn is over."""
        self._armed = False
        turns, self._turns = self._turns, []
        for connection in turns:
            try:
                connection.end_turn()
            except Exception:  # one connection that fails must not cost the others their answers
                logger.exception("%s failed and was dropped", connection.session.session_id)
                connection.abort_transport("internal error")
        writes, self._writes = self._writes, []
        for connection in writes:
            connection.flush()


class Connection(ABC):
    """A session and its driver.

    Args:
        server: whose connection it is.
        host: the peer's address, "" for none.
        session: what decides for it, and belongs to it from now on.
    """

    __slots__ = (
        "_dirty",
        "_methods",
        "_reading",
        "_tenant",
        "_timer",
        "_timer_at",
        "_to_read",
        "host",
        "server",
        "session",
    )

    def __init__(self, server: DispatchServer, host: str, session: ServedPeer) -> None:
        self.server = server
        self.host = host
        self.session = session
        session.owner = self
        self._dirty = False
        self._reading = 0
        self._to_read: deque[_Read] = deque()
        self._tenant: Tenant | None = None
        self._methods: dict[str, str] = {}
        """Of the requests that are with their handlers, by id."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    # What handlers use.

    @property
    def tenant(self) -> Tenant:
        """Whose jobs it may see."""
        if self._tenant is None:
            identity = self.session.identity
            assert identity is not None, "asked before the login"
            self._tenant = Tenant(identity.app_id, identity.org_id)
        return self._tenant

    def answer(self, request_id: str, data: bytes) -> None:
        """Answer a request with this JSON text."""
        self.session.respond(request_id, data, now=self.server.now())
        self._count(request_id, OK)
        self.touch()

    def fail(self, request_id: str, error: BaseException) -> None:
        """Answer a request with this error. Errors that nobody expected are logged and told as 500, without detail."""
        if not isinstance(error, DispatchError):
            logger.error("a request failed unexpectedly", exc_info=error)
            error = DispatchError("internal error; the server's log says more", code=INTERNAL)
        self.session.fail(request_id, error, now=self.server.now())
        self._count(request_id, error.code)
        self.touch()

    def answering(
        self, request_id: str, render: Callable[[Any], bytes]
    ) -> Callable[[Any, BaseException | None], None]:
        """A callback for the store that answers the request with what the store gave, rendered, or with its error."""

        def done(value: Any, error: BaseException | None) -> None:
            if error is not None:
                self.fail(request_id, error)
                return
            try:
                data = render(value)
            except Exception as failure:  # noqa: BLE001 - told and logged by fail
                self.fail(request_id, failure)
            else:
                self.answer(request_id, data)

        return done

    def read_store(
        self,
        operation: Callable[[ReadableStore], Any],
        done: Callable[[Any, BaseException | None], None],
        *,
        weight: int = 1,
    ) -> None:
        """Have the store read for an answer that may be large, in the order asked for.

        It begins at the end of the turn, or later: few are read at once, and none while much of what was answered
        before has not been sent. So what a peer does not take bounds what it costs. A connection that ends meanwhile
        is not read for, and `done` is not called.
        """
        self._to_read.append((operation, done, weight))
        self.touch()

    # What carries it calls these.

    def touch(self) -> None:
        """Something is to be written or done at the end of this turn of the loop."""
        if not self._dirty:
            self._dirty = True
            self.server.outbox.add(self)

    def take_up(self) -> None:
        """Hand what the session has received to its handlers."""
        session = self.session
        while events := session.take_events():
            for event in events:
                if type(event) is RequestReceived:
                    self._handle(event)
                else:
                    self._told(event)
        self.server.hand_over()
        self.touch()

    def end_turn(self) -> None:
        """Write what this turn has brought, and set the timer."""
        self._dirty = False
        self.collect()
        self.flush()
        if self._to_read:
            self._begin_reads()
        at = self.session.next_deadline
        # A timer that is armed for earlier is left alone: it then looks again.
        if at is not None and (self._timer is None or at < self._timer_at):
            self._arm(at)

    def collect(self) -> None:
        """Queue what the session has to say, and do what it asks for."""
        session = self.session
        messages = session.take_messages()
        if messages:
            self.send(messages, binary=session.binary)
        for effect in session.take_effects():
            if type(effect) is ReadLog:
                self._read_log(effect)
            elif type(effect) is CloseTransport:
                self.close_transport(effect.code, effect.reason)
            elif type(effect) is AbortTransport:
                self.abort_transport(effect.reason)

    def collect_first(self) -> None:
        """Before events of a fan-out are queued: what was said in this turn goes first.

        A subscription begins with its answer; an event that overtook it would be lost to it.
        """
        try:
            self.collect()
        except Exception:
            logger.exception("%s failed and was dropped", self.session.session_id)
            self.abort_transport("internal error")

    def over(self, reason: str) -> None:
        """The transport is gone."""
        self.session.transport_closed(now=self.server.now(), reason=reason)
        self.take_up()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What the subclass does.

    @abstractmethod
    def send(self, messages: list[bytes], *, binary: bool) -> None:
        """Queue messages."""

    @abstractmethod
    def send_fanout(self, fanout: Fanout, wire: bytes, writes: list[Connection]) -> None:
        """Queue the events of a fan-out: its messages, or the WebSocket frames that were made of them once for all.

        Where nothing was queued before, the connection goes to the `writes` of the outbox.
        """

    @abstractmethod
    def flush(self) -> None:
        """Write what is queued, in one go."""

    @abstractmethod
    def close_transport(self, code: int, reason: str) -> None:
        """Start the closing handshake after what is queued."""

    @abstractmethod
    def abort_transport(self, reason: str) -> None:
        """Drop the connection."""

    @property
    @abstractmethod
    def unsent(self) -> int:
        """Bytes that were handed over and not sent. Once it has been above `UNSENT_LIMIT`, `touch` when it falls."""

    @abstractmethod
    def look_at_progress(self, now: float) -> None:
        """Tell the session if a blocked write has made progress since the last look."""

    # Inside.

    def _count(self, request_id: str, code: int) -> None:
        method = self._methods.pop(request_id, None)
        if method is not None:
            self.server.hub.answered(method, code)

    def _handle(self, request: RequestReceived) -> None:
        self._methods[request.id] = request.method
        try:
            self.server.handlers[request.method](self, request)
        except Exception as error:  # noqa: BLE001 - a request that fails is answered; the connection lives on
            self.fail(request.id, error)

    def _told(self, event: ServerEvent) -> None:
        if isinstance(event, LoginReceived):
            identity = self.server.identify(event.token, self.host)
            if identity is None:
                self.session.reject(now=self.server.now())
            else:
                self.session.accept(identity, now=self.server.now())
        elif isinstance(event, WaitExpired):
            self.server.waits.expired(self, event.request_id)
        elif isinstance(event, SessionClosed):
            self.server.waits.forget(self)
            self._to_read.clear()
            self._methods.clear()
            logger.debug("%s: %s", self.session.session_id, event.reason)

    def _begin_reads(self) -> None:
        """Begin what waits to be read, as far as it may now."""
        waiting = self._to_read
        while waiting and self._reading < READS_AT_ONCE and self.unsent <= UNSENT_LIMIT:
            operation, done, weight = waiting.popleft()
            self._reading += weight
            finished = partial(self._has_read, done, weight)
            try:
                self.server.committer.read(operation, finished)
            except DispatchError as error:
                finished(None, error)

    def _has_read(
        self,
        done: Callable[[Any, BaseException | None], None],
        weight: int,
        value: Any,
        error: BaseException | None,
    ) -> None:
        self._reading -= weight
        done(value, error)
        # What waits begins at the end of the turn: when this was written, it is known how much is unsent.
        self.touch()

    def _read_log(self, effect: ReadLog) -> None:
        def done(page: EventPage | None, error: BaseException | None) -> None:
            now = self.server.now()
            if page is None:
                logger.error("the event log cannot be read", exc_info=error)
                self.session.close(1011, "the event log cannot be read", now=now)
            else:
                self.session.log_read(page.events, after=effect.after, through=page.through, now=now)
            # At once, not at the end of the turn: what is published in between comes after it.
            self.collect()
            self.take_up()

        try:
            self.server.read_events(effect, done)
        except DispatchError as error:
            done(None, error)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self.server.loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self.server.now()
        self.look_at_progress(now)
        # A loop's clock and its timers may disagree by one tick of the clock.
        self.session.handle_timer(now=max(now, self._timer_at))
        self.take_up()
