"""One session driven: its effects carried out, its events handed on, its timer armed (DESIGN.md, "Wire and bindings").

Nothing is decided here. Every entry of a binding is the same two lines: tell the session, then `poke`. What a binding
adds is how a connection is opened and written to, how a timer is armed, and what "soon" means.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Protocol

from websockets.exceptions import InvalidState

from dispatch.dialing import failure_of
from dispatch.wire import ClientWire
from dwp_core.client import ClientSession
from dwp_core.client_states import CLOSED
from dwp_core.effects import AbortTransport, CloseTransport, Connect, Delegate, Effect, SendMessage

if TYPE_CHECKING:
    from dispatch.driver import Driver

CHUNK = 256 * 1024
"""Bytes written at a time, so that a write which stalls can be told from one which is long."""
FAREWELL = 1.0
"""Seconds that a transport has to bring out what it holds, once both sides are done with it."""
_HIGH_WATER = 64 * 1024
"""Bytes not yet written from which the session holds back requests."""


class Attempt(Protocol):
    """One attempt to connect, under way."""

    def cancel(self) -> object: ...


class Line(ABC):
    """Drives one session over as many connections as it asks for.

    Args:
        session: the session; from now on only this line calls it, or pokes after each call.
        driver: takes the session's events, in order; told when nothing of the line is left.
    """

    def __init__(self, session: ClientSession, driver: Driver) -> None:
        self.session = session
        self._driver = driver
        self._deliver = driver.deliver
        self._left: set[object] = set()
        self._connection: Connection | None = None
        self._attempt: Attempt | None = None
        self._armed: float | None = None
        self._written = False
        self.scheduled = False
        """The end of the loop turn is waited for; to poke before that does nothing."""

    # What a binding gives.

    @abstractmethod
    def _open(self, generation: int) -> Attempt:
        """Begin to connect; `opened` or `failed`, then `gone` follow."""

    @abstractmethod
    def _soon(self) -> None:
        """Call `_end_turn` when whoever else is ready to run has run."""

    @abstractmethod
    def _set_timer(self, at: float | None) -> None:
        """Call `_timed` then, instead of at any moment set before; None for never."""

    def stop(self) -> None:  # noqa: B027  # not every binding has something to stop
        """Nothing of it is left: end what still runs for it."""

    # What drives it.

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
        elif not self.scheduled:
            self.scheduled = True
            self._soon()

    def poke_later(self) -> None:
        """As `poke`, at the end of the loop turn in any case."""
        if not self.scheduled:
            self.scheduled = True
            self._soon()

    def pump(self) -> None:
        """Carry out the session's effects, hand on its events, arm its timer."""
        session = self.session
        effects = session.take_effects()
        if effects:
            self._carry_out(effects)
        connection = self._connection
        if connection is not None and connection.wire.has_output:
            connection.flush()
        events = session.take_events()
        if events:
            self._deliver(events)
        deadline = session.next_deadline
        if deadline != self._armed:
            self._arm(deadline)

    def _arm(self, deadline: float | None) -> None:
        armed = self._armed
        # A timer that comes too early costs nothing, and is put right then.
        if deadline is None or armed is None or deadline < armed:
            self._armed = deadline
            self._set_timer(deadline)

    def _timed(self) -> None:
        self._armed = None
        self.session.handle_timer(now=self._driver.now())
        self.pump()

    def _end_turn(self) -> None:
        self.scheduled = self._written = False
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
            attempt = self._open(effect.generation)
            self._attempt = attempt
            self._left.add(attempt)
        elif isinstance(effect, Delegate):
            self._driver.delegated(effect.session)
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

    # What connections and attempts tell.

    def opened(self, connection: Connection) -> bool:
        """A transport is there, TLS and all; the upgrade is on its way. False where nobody wants it any more."""
        if connection.generation != self.session.generation:
            return False
        self._left.add(connection)
        self._connection = connection
        # It is done; uvloop never says that a connection is lost whose attempt is cancelled now.
        self._attempt = None
        connection.flush()
        return True

    def failed(self, generation: int, error: Exception) -> None:
        """An attempt has failed. The session decides what that means."""
        failure = failure_of(error, self._driver.config.where, self._driver.dialer.current_proxy)
        now = self._driver.now()
        self.session.transport_failed(generation, failure.reason, now=now, fatal=failure.fatal)
        self.pump()

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
            self._driver.settle()


class Connection(ABC):
    """One transport. Says what has happened to the wire or to the session, and pumps."""

    def __init__(self, line: Line, wire: ClientWire, generation: int) -> None:
        self.wire = wire
        self.generation = generation
        self._line = line
        self._session = line.session
        self._said_farewell = False

    @abstractmethod
    def flush(self) -> None:
        """Write what the wire has, without waiting."""

    @abstractmethod
    def abort(self) -> None:
        """Drop the transport at once; only a farewell that is on its way may still get out."""

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake."""
        self._said_farewell = True
        self.wire.close(code, reason)
        self.flush()


class Backlog:
    """What a socket has not taken yet, and what its session hears of that.

    Args:
        session: is told when the socket takes no more, when it moves, and when it takes more again.
    """

    def __init__(self, session: ClientSession, generation: int) -> None:
        self._session = session
        self._generation = generation
        self._chunks: deque[memoryview] = deque()
        self._size = 0
        self._owed = 0
        self.blocked = False
        """The session holds back requests, because the socket takes too little."""

    def __bool__(self) -> bool:
        return bool(self._chunks)

    @property
    def next(self) -> memoryview:
        """The next piece to write."""
        return self._chunks[0][:CHUNK]

    def add(self, data: bytes | memoryview, now: float) -> None:
        """These bytes were not taken. Poke later: the session may be told so."""
        self._chunks.append(memoryview(data))
        self._size += len(data)
        if self.blocked:
            self._owed += len(data)
            self._session.write_owed(self._generation, self._owed, now=now)
        elif self._size > _HIGH_WATER:
            self.blocked = True
            self._session.write_blocked(self._generation, now=now)

    def written(self, count: int, now: float) -> None:
        """So many bytes of the next piece were taken."""
        rest = self._chunks[0][count:]
        if rest:
            self._chunks[0] = rest
        else:
            self._chunks.popleft()
        self._size -= count
        if not self.blocked:
            return
        if self._size > _HIGH_WATER // 4:
            self._session.write_progress(self._generation, now=now)
        else:
            self.blocked, self._owed = False, 0
            self._session.write_resumed(self._generation, now=now)

    def clear(self) -> None:
        """Nothing of it will be written any more."""
        self._chunks.clear()
        self._size = 0
