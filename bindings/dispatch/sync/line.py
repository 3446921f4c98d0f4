"""One session driven by threads: whoever waits for something drives it meanwhile (the leader/followers pattern).

At most one thread leads: it waits for the sockets and for the time, without the lock, then reads, writes what was
left over, and hands out what has come. A caller that waits for an answer leads if nobody else does, so that an exchange
takes no other thread; else it follows, and sleeps until its answer is there or it is its turn to lead. Where nobody
waits, the line's own thread leads.

Sockets do not block, so that whoever holds the lock never waits for a peer, and so that no two threads are inside TLS
at once, which OpenSSL does not allow.
"""

from __future__ import annotations

import logging
import selectors
import socket
import ssl as tls
import threading
from _thread import get_ident
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from dispatch import line
from dispatch.dialing import reason_of
from dispatch.line import FAREWELL, Backlog
from dispatch.sync.attempt import Attempt
from dispatch.sync.waiting import Waiter, without_lock
from dispatch.wire import ClientWire
from dwp_core.client import ClientSession
from dwp_core.errors import ClosedError

if TYPE_CHECKING:
    from dispatch.sync.driver import Driver

_LOGGER = logging.getLogger("dispatch.client")
_READ = 256 * 1024
NEVER = float("inf")
_LONGEST = 1e6
"""Seconds to wait at a time: no operating system waits for ever when told a number."""
_LULL = 0.02
"""Seconds without a caller that leads, after which the line's own thread takes over. What comes meanwhile waits for it:
nobody waits for what comes."""
_NOT_NOW = (BlockingIOError, InterruptedError, tls.SSLWantReadError, tls.SSLWantWriteError)


_UNSEEN = 0.001
"""Seconds for which what comes may lie unread before something else is sent."""


class Line(line.Line):
    """Drives one session with a thread of its own."""

    def __init__(self, session: ClientSession, driver: Driver) -> None:
        super().__init__(session, driver)
        self._home = driver
        self.now = monotonic
        self._lock = driver.lock
        self._dialer = driver.dialer
        self._connect_timeout = driver.config.connect_timeout
        self._wake_at = NEVER
        self._expires = NEVER
        self._led_at = 0.0
        self._connections: set[Connection] = set()
        self._leader: int | None = None
        self._led = 0
        self._waiting: dict[Waiter, None] = {}
        self._stranded: Callable[[], None] | None = None
        self._relief = threading.Condition(driver.lock)
        self._relief_wanted = False
        self.selector = selectors.DefaultSelector()
        self._select = self.selector.select
        self._alarm, self._bell = socket.socketpair()
        self._alarm.setblocking(False)
        self._bell.setblocking(False)
        self.selector.register(self._alarm, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="dispatch-client", daemon=True)
        driver.threads.add(self)
        self._thread.start()

    # There are no turns: whoever calls writes.
    poke = line.Line.pump
    received = line.Line.pump

    def catch_up(self) -> None:
        """Read what has come while nobody led, before anything is sent to a connection that may be gone."""
        if self._leader is None and monotonic() - self._led_at > _UNSEEN and not self.at_rest:
            self._lead(-NEVER)

    def wake(self) -> None:
        """Have the leader look again at what there is to wait for."""
        if self._leader is not None and self._leader != get_ident():
            self._ring()

    def _ring(self) -> None:
        try:
            self._bell.send(b"\0")
        except (BlockingIOError, OSError):
            pass  # it has been rung often enough, or for the last time

    def stop(self) -> None:
        self.wake()
        self._relief.notify_all()

    def join(self) -> None:
        """Wait, without the lock, until nothing of it is left. It has been stopped."""
        me = get_ident()
        if self._leader != me and self._thread.ident != me:  # else it goes on when this thread has returned
            self._thread.join()

    def _soon(self) -> None:
        self.wake()

    def _set_timer(self, at: float | None) -> None:
        sooner = at is not None and at < self._wake_at
        self._wake_at = NEVER if at is None else at
        if sooner:
            self.wake()

    # Who drives.

    def wait_for(self, waiter: Waiter, until: float = NEVER) -> bool:
        """Wait, and drive meanwhile. The lock is held before and after, not while waiting.

        Returns:
            Whether it is there; else it is `until`.
        """
        self._waiting[waiter] = None
        try:
            while not waiter.done():
                if until != NEVER and self.now() >= until:
                    return False
                if self._leader in (None, get_ident()) and not self.at_rest:
                    self._lead(until)
                else:
                    self._follow(waiter, until)
            return True
        finally:
            del self._waiting[waiter]
            if self._leader is None and (self._waiting or self._relief_wanted):
                self._hand_over()

    def _lead(self, until: float) -> None:
        """Wait for the first thing that happens, then do what it asks for."""
        before, self._leader = self._leader, get_ident()
        self._led += 1
        try:
            if self._stranded is not None:
                opening, self._stranded = self._stranded, None
                without_lock(self._lock, opening)
                return
            at = -NEVER if self.scheduled else min(self._wake_at, self._expires, until)
            timeout = None if at == NEVER else min(max(at - monotonic(), 0.0), _LONGEST)
            ready = without_lock(self._lock, self._select, timeout)
            try:
                self._home.stepping = True
                try:
                    self._handle(ready)
                except BaseException:
                    self._home.break_off()
                    raise
                finally:
                    self._home.stepping = False
            finally:  # where the first was interrupted
                self._home.stepping = False
        finally:
            self._leader = before
            if before is not None:
                self._ring()  # a signal handler led, called where this very thread waits: look again there

    def _follow(self, waiter: Waiter, until: float) -> None:
        """Sleep until it is there, or until it is this thread's turn to lead."""
        waiter.lie_down()
        without_lock(self._lock, waiter.sleep, None if until == NEVER else until - self.now())

    def _hand_over(self) -> None:
        """Nobody leads: another one who waits is to, else the line's own thread."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.nudge()
                return
        if self._relief_wanted:
            self._relief.notify()

    def _serve(self) -> None:
        """The line's own thread: leads where nobody else does."""
        seen = 0
        with self._lock:
            while not self.at_rest:
                if self._led != seen or (self._waiting and self._leader is None):
                    seen = self._led  # one call follows another: leave them to their threads
                    self._relief.wait(_LULL)
                elif self._leader is not None:  # and has been for long
                    self._relief_wanted = True
                    self._relief.wait()
                    self._relief_wanted = False
                else:
                    try:
                        self._lead(NEVER)
                    except Exception:
                        _LOGGER.critical("the client has failed, this is a defect of dispatch", exc_info=True)
                    seen = self._led
                    if self._waiting:
                        self._hand_over()
            while self._leader is not None:
                self._relief_wanted = True
                self._relief.wait()
            self.drop_sockets()

    def _handle(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, events in ready:
            connection: Connection | None = key.data
            if connection is None:
                with suppress(BlockingIOError):
                    self._alarm.recv(4096)
            elif connection in self._connections:
                if events & selectors.EVENT_READ:
                    connection.read()
                if events & selectors.EVENT_WRITE:
                    connection.write_rest()
        if self.scheduled:
            self._end_turn()
        now = self._led_at = monotonic()
        if self._wake_at <= now:
            self._wake_at = NEVER
            self._timed()
        if self._expires <= now:
            for connection in list(self._connections):
                if connection.expires <= now:
                    connection.drop()
            self._expires = min((connection.expires for connection in self._connections), default=NEVER)

    def expire(self, at: float) -> None:
        """A connection is to be dropped then."""
        self._expires = min(self._expires, at)
        self.wake()

    def break_off(self) -> None:
        """End at once, and tell everybody who waits, whatever state the session is in."""
        if self._attempt is not None:
            self._attempt.cancel()
            self._attempt = None
        self._left.clear()
        try:
            self.session.leave(now=self.now())
            self.pump()
        finally:
            error = ClosedError("the client was interrupted in the middle of its work; make a new one")
            for waiter in self._waiting:
                if not waiter.done():
                    waiter.set_exception(copy(error))
            self.wake()

    def drop_sockets(self) -> None:
        """Close everything, at once."""
        for connection in self._connections:
            connection.sock.close()
        self._connections.clear()
        if isinstance(self._attempt, Attempt) and self._attempt.sock is not None:
            self._attempt.sock.close()  # of a parent's thread
        self.selector.close()
        self._alarm.close()
        self._bell.close()

    # Connecting.

    def _open(self, generation: int) -> Attempt:
        attempt = Attempt(self._left)
        opening = partial(self._try_to_open, generation, attempt)
        try:
            threading.Thread(target=opening, name="dispatch-connect", daemon=True).start()
        except RuntimeError:
            self._stranded = opening
            self.wake()
        return attempt

    def _try_to_open(self, generation: int, attempt: Attempt) -> None:
        sock: socket.socket | None = None
        failure: Exception | None = None
        token = ""
        try:
            token = self._dialer.current_token_blocking()
            sock = attempt.connect(self._dialer, self._connect_timeout)
        except Exception as error:  # noqa: BLE001  # the session is told, whatever it was
            failure = error
        with self._lock:
            attempt.sock = None
            unwanted = attempt.cancelled or self.at_rest  # broken off before this line knew of the attempt
            if unwanted or sock is None:
                if sock is not None:
                    sock.close()
                if failure is not None and not unwanted:
                    self.failed(generation, failure)
            else:
                self._begin(generation, token, sock)
            self.gone(attempt)
            self.wake()

    def _begin(self, generation: int, token: str, sock: socket.socket) -> None:
        wire = ClientWire(self.session, generation, self._dialer.address, token)
        connection = Connection(self, wire, generation, sock)
        self._connections.add(connection)
        self.selector.register(sock, selectors.EVENT_READ, connection)
        if not self.opened(connection):
            connection.abort()

    def forget(self, connection: Connection) -> None:
        """It is over."""
        self._connections.discard(connection)
        self.selector.unregister(connection.sock)
        connection.sock.close()
        self.gone(connection)


class Connection(line.Connection):
    """One socket. Says what has happened to the wire or to the session, and pumps."""

    _line: Line

    def __init__(self, owner: Line, wire: ClientWire, generation: int, sock: socket.socket) -> None:
        super().__init__(owner, wire, generation)
        self.sock = sock
        self.expires = NEVER
        """When to drop it, whatever is left to write."""
        self._now = owner.now
        self._backlog = Backlog(owner.session, generation)
        self._leaving = False
        self._reason = ""

    def read(self) -> None:
        """There is something to read, or the end of it."""
        while True:
            try:
                data = self.sock.recv(_READ)
            except _NOT_NOW:
                return
            except OSError as error:
                self._reason = reason_of(error)
                self.drop()
                return
            if data:
                self.wire.receive_data(data, now=self._now())
                self._line.received()
            else:
                self.wire.receive_eof(now=self._now())
                self._line.pump()
            if self.wire.over:
                self.flush()
                self._leave()
                return
            if not isinstance(self.sock, tls.SSLSocket) or not self.sock.pending():
                return

    def flush(self) -> None:
        output: bytes | memoryview = self.wire.take_output()
        if not output or self._leaving:
            return
        if not self._backlog:
            try:
                sent = self.sock.send(output)
            except _NOT_NOW:
                sent = 0
            except OSError:
                return  # whoever reads is told more of that
            if sent == len(output):
                return
            output = memoryview(output)[sent:]
            self._line.selector.modify(self.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, self)
            self._line.wake()
        self._backlog.add(output, self._now())
        self._line.poke_later()

    def write_rest(self) -> None:
        """The socket takes more."""
        backlog = self._backlog
        try:
            while backlog:
                backlog.written(self.sock.send(backlog.next), self._now())
        except _NOT_NOW:
            return
        except OSError as error:
            self._reason = reason_of(error)
            self.drop()
            return
        self._line.selector.modify(self.sock, selectors.EVENT_READ, self)
        if self._leaving:
            self.drop()
        else:
            self._line.pump()

    def abort(self) -> None:
        self.wire.over = True
        if self._said_farewell:
            self._leave()
        else:
            self.expires = -NEVER
            self._line.expire(self.expires)

    def drop(self) -> None:
        """Nothing more of it."""
        self._leaving = True
        self._backlog.clear()
        self.wire.lost(now=self._now(), reason=self._reason)
        self._line.pump()
        self._line.forget(self)

    def _leave(self) -> None:
        """Both sides are done: bring out what is left of the farewell, and go."""
        self._leaving = True
        waits = self._backlog and not self._backlog.blocked
        self.expires = min(self.expires, self._now() + FAREWELL) if waits else -NEVER
        self._line.expire(self.expires)
