"""One session driven by asyncio: its effects carried out, its events handed on, its timer armed (DESIGN.md, "Wire").

The reader never writes and never waits; output of one loop turn is joined; nothing is decided here. Each entry is
the same three lines: tell the session, then `poke`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl as tls
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import cast

from websockets.exceptions import InvalidState

from dispatch.wire import Address, ClientWire
from dwp_core.client import ClientSession
from dwp_core.client_events import ClientEvent
from dwp_core.client_states import CLOSED
from dwp_core.effects import AbortTransport, CloseTransport, Connect, Delegate, Effect, SendMessage
from dwp_core.errors import InvalidRequest

Token = str | Callable[[], str | Awaitable[str]]

_LOGGER = logging.getLogger("dispatch.client")
_CHUNK = 256 * 1024
"""Bytes written at a time, so that a write which stalls can be told from one which is long."""
_MOST_OWED = 4 * 1024 * 1024
"""Bytes of answers (pongs and the like) that wait for a peer which reads nothing, but keeps asking."""
_FAREWELL = 1.0
"""Seconds that a transport has to bring out what it holds, once both sides are done with it."""


@dataclass(frozen=True, slots=True)
class Dialer:
    """How to reach the server.

    Attributes:
        address: where it is.
        token: the credentials, or what gives them, asked anew for each attempt.
        ssl: the TLS context for `wss`; None takes the system's roots.

    Raises:
        InvalidRequest: a TLS context that is none, or for an address without TLS.
    """

    address: Address
    token: Token = field(repr=False)
    ssl: tls.SSLContext | None = None

    def __post_init__(self) -> None:
        if self.ssl is not None and not isinstance(self.ssl, tls.SSLContext):
            raise InvalidRequest(f"ssl must be an ssl.SSLContext, got {type(self.ssl).__name__}")
        if self.ssl is not None and not self.address.secure:
            raise InvalidRequest(f"ssl is for wss:// addresses, but url is {self.address.where}")

    async def current_token(self) -> str:
        """The token for one attempt.

        Raises:
            TypeError: the function for it gave something else.
        """
        if isinstance(self.token, str):
            return self.token
        given = self.token()
        token: object = await given if isawaitable(given) else given
        if not isinstance(token, str):
            raise TypeError(f"the function that gives it must return text, got {type(token).__name__}")
        return token


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an attempt has failed, in words, and whether time can mend it."""

    reason: str
    fatal: bool


class Line:
    """Drives one session over as many connections as it asks for.

    Args:
        session: the session; from now on only this line calls it, or pokes after each call.
        deliver: takes the session's events, in order.
        delegated: told of a session that the session wants driven too.
        ended: told when the session is closed and nothing of the line is left, no task, no transport, no timer.
    """

    def __init__(
        self,
        session: ClientSession,
        dialer: Dialer,
        loop: asyncio.AbstractEventLoop,
        *,
        deliver: Callable[[list[ClientEvent]], None],
        delegated: Callable[[ClientSession], None],
        ended: Callable[[], None],
    ) -> None:
        self.session = session
        self._dialer = dialer
        self._loop = loop
        self._deliver = deliver
        self._delegated = delegated
        self._ended = ended
        self._left: set[object] = set()
        self._connection: Connection | None = None
        self._attempt: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._written = False
        self._scheduled = False

    @property
    def at_rest(self) -> bool:
        """Whether the session is closed, and every attempt and transport of it is gone."""
        return self.session.state == CLOSED and not self._left

    def poke(self) -> None:
        """The session was told something: carry out what it wants.

        The first time at once; from then on, until something comes in, once at the end of the loop turn, so that what
        many callers want is written in one piece.
        """
        if not self._written:
            self._written = True
            self.pump()
        elif not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._end_turn)

    def pump(self) -> None:
        """Carry out the session's effects, hand on its events, arm its timer."""
        session, connection = self.session, self._connection
        effects = session.take_effects()
        if effects:
            self._carry_out(effects)
            connection = self._connection
        if connection is not None and connection.wire.has_output:
            connection.flush()
        events = session.take_events()
        if events:
            self._deliver(events)
        self._arm()

    def _end_turn(self) -> None:
        self._scheduled = self._written = False
        self.pump()

    def _arm(self) -> None:
        deadline = self.session.next_deadline
        timer = self._timer
        if deadline is None:
            if timer is not None:
                timer.cancel()
                self._timer = None
        elif timer is None or deadline < self._timer_at:
            if timer is not None:
                timer.cancel()
            self._timer_at = deadline
            self._timer = self._loop.call_at(deadline, self._timed)

    def _timed(self) -> None:
        self._timer = None
        self.session.handle_timer(now=self._loop.time())
        self.pump()

    def _carry_out(self, effects: list[Effect]) -> None:
        wire = self._connection.wire if self._connection is not None else None
        if wire is not None:
            wire.has_output = True
        for effect in effects:
            if type(effect) is not SendMessage:
                self._perform(effect)
            elif wire is not None:
                try:
                    if effect.binary:
                        wire.send_binary(effect.data)
                    else:
                        wire.send_text(effect.data)
                except InvalidState:
                    pass  # it is closing; the session is told, and settles what was under way

    def _perform(self, effect: Effect) -> None:
        connection = self._connection
        if isinstance(effect, Connect):
            self._drop_attempt()
            attempt = self._loop.create_task(self._open(effect.generation), name="dispatch-connect")
            self._attempt = attempt
            self._left.add(attempt)
            attempt.add_done_callback(self.gone)
        elif isinstance(effect, Delegate):
            self._delegated(effect.session)
        elif isinstance(effect, CloseTransport):
            if connection is not None and connection.generation == effect.generation:
                connection.close(effect.code, effect.reason)
        elif isinstance(effect, AbortTransport):
            if connection is not None and connection.generation == effect.generation:
                connection.abort()
                self._connection = None
            elif connection is None:
                self._drop_attempt()

    def _drop_attempt(self) -> None:
        if self._attempt is not None:
            self._attempt.cancel()
            self._attempt = None
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    async def _open(self, generation: int) -> None:
        """One attempt. What goes wrong is told to the session, which decides."""
        failure = await self._try_to_open(generation)
        if failure is not None:
            reason, fatal = failure.reason, failure.fatal
            self.session.transport_failed(generation, reason, now=self._loop.time(), fatal=fatal)
            self.pump()

    async def _try_to_open(self, generation: int) -> _Failure | None:
        dialer, loop = self._dialer, self._loop
        address = dialer.address
        try:
            token = await dialer.current_token()
        except OSError as error:  # it is fetched from somewhere
            return _Failure(f"the token could not be had: {_os_reason(error)}", fatal=False)
        except Exception as error:
            _LOGGER.error("the token could not be had", exc_info=error)
            return _Failure(f"the token could not be had: {type(error).__name__}: {error}", fatal=True)
        try:
            context = (dialer.ssl or tls.create_default_context()) if address.secure else None
            connection = Connection(self, ClientWire(self.session, generation, address, token), generation)
            await loop.create_connection(lambda: connection, address.host, address.port, ssl=context)
        except tls.SSLCertVerificationError as error:
            return _Failure(f"its certificate is not trusted: {error.verify_message}", fatal=True)
        except tls.SSLError as error:
            return _Failure(f"it does not speak TLS as we do ({_os_reason(error)})", fatal=False)
        except OSError as error:
            return _Failure(_os_reason(error), fatal=False)
        except Exception as error:
            _LOGGER.error("cannot connect to %s", address.where, exc_info=error)
            return _Failure(f"{type(error).__name__}: {error}", fatal=True)
        return None

    # What connections tell.

    def opened(self, connection: Connection) -> None:
        """TCP (and TLS) is there; the upgrade is on its way."""
        if connection.generation == self.session.generation:
            self._left.add(connection)
            self._connection = connection
            self._attempt = (
                None  # done; uvloop never says that a connection is lost whose attempt is cancelled now
            )
            connection.flush()
        else:
            connection.abort()  # its attempt was cancelled, so uvloop would not say that it is lost

    def received(self) -> None:
        """Something has come in: what its receivers want next is written at once again."""
        self._written = False
        self.pump()

    def gone(self, what: object) -> None:
        """A connection or an attempt is over."""
        self._left.discard(what)
        if what is self._connection:
            self._connection = None
        elif what is self._attempt:
            self._attempt = None
        if self.at_rest:
            self._ended()


class Connection(asyncio.Protocol):
    """One transport. Says what has happened to the wire or to the session, and pumps."""

    def __init__(self, line: Line, wire: ClientWire, generation: int) -> None:
        self.wire = wire
        self.generation = generation
        self._line = line
        self._session = line.session
        self._loop = line._loop
        self._time = clock_of(line._loop)
        self._transport: asyncio.Transport | None = None
        self._blocked = False
        self._rest: deque[memoryview] = deque()
        self._owed = 0
        self._said_farewell = False
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the transport is there."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by class
        self._line.opened(self)

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes have come."""
        self.wire.receive_data(data, now=self._time())
        self._line.received()
        if self.wire.over:
            self._finish()

    def eof_received(self) -> bool:
        """asyncio: the peer has ended its side."""
        self.wire.receive_eof(now=self._time())
        self._line.pump()
        self._finish()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the transport is gone."""
        self._transport = None
        self._rest.clear()
        if self._end is not None:
            self._end.cancel()
        self.wire.lost(now=self._time(), reason=_os_reason(exc) if exc is not None else "")
        self._line.pump()
        self._line.gone(self)

    def pause_writing(self) -> None:
        """asyncio: the transport's buffer is full."""
        self._blocked = True
        self._session.write_blocked(self.generation, now=self._time())

    def resume_writing(self) -> None:
        """asyncio: there is room again."""
        self._blocked, self._owed = False, 0
        self._session.write_progress(self.generation, now=self._time())
        while self._rest and not self._blocked:
            self._write(self._rest.popleft())
        if not self._blocked:
            self._session.write_resumed(self.generation, now=self._time())
        self._line.pump()

    def flush(self) -> None:
        """Write what the wire has, in one piece unless it is large."""
        output = self.wire.take_output()
        if not output or self._transport is None:
            return
        if len(output) <= _CHUNK and not self._blocked:
            self._transport.write(output)
            return
        if self._blocked:
            self._owed += len(output)
            if self._owed > _MOST_OWED:
                self.wire.lost(now=self._time(), reason="it keeps asking and reads no answers")
                self._transport.abort()
                return
        view = memoryview(output)
        for start in range(0, len(view), _CHUNK):
            chunk = view[start : start + _CHUNK]
            if self._blocked:
                self._rest.append(chunk)
            else:
                self._write(chunk)

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake."""
        self._said_farewell = True
        self.wire.close(code, reason)
        self.flush()

    def abort(self) -> None:
        """Drop the transport at once; only a farewell that is on its way may still get out."""
        self.wire.over = True
        if self._said_farewell:
            self._leave()
        elif self._transport is not None:
            self._transport.abort()

    def _write(self, chunk: memoryview) -> None:
        assert self._transport is not None
        self._transport.write(chunk)

    def _finish(self) -> None:
        """Both sides are done: send what is left of the farewell, and go."""
        if self._transport is not None and not self._transport.is_closing():
            self.flush()
            self._leave()

    def _leave(self) -> None:
        transport = self._transport
        if transport is None:
            return
        if self._blocked:
            transport.abort()
        elif not transport.is_closing():
            transport.close()
            self._end = self._loop.call_later(_FAREWELL, transport.abort)


def clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """The loop's clock, without the call in between where the loop only passes it on."""
    return time.monotonic if type(loop).time is asyncio.BaseEventLoop.time else loop.time


def _os_reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno and not isinstance(error, tls.SSLError | socket.gaierror):
        return os.strerror(error.errno)  # asyncio has put "Connect call failed" in its place
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
