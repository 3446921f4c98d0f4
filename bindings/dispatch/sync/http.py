"""An HTTP client without an event loop: each exchange is carried out by a thread of its own, which blocks.

Nobody waits for a thread whose exchange is not wanted any more: its socket is shut down, and then it comes to an end by
itself; while it connects, that may take as long as connecting may.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet

from dispatch import http_line
from dispatch.http_line import KEPT, Carrier, HttpDriving
from dispatch.sync import driver, line
from dwp_core.client import ClientSession
from dwp_core.http_client import HttpClientSession
from dwp_core.http_exchange import BeginExchange

if TYPE_CHECKING:
    import httpx


class HttpDriver(HttpDriving, driver.Driver):
    """One HTTP session, in one process."""

    def new_line(self, session: ClientSession) -> HttpLine:
        return HttpLine(cast("HttpClientSession", session), self)


class Lane:
    """A thread that carries out one exchange at a time, over a connection of its own.

    So it is known which socket an exchange is on, from its first byte: it can be given up at any moment.
    """

    def __init__(self, lanes: Lanes) -> None:
        self.work: SimpleQueue[Callable[[Lane], None] | None] = SimpleQueue()
        self.transport: httpx.HTTPTransport | None = None
        self.socket: socket.socket | None = None
        """What it talks over, or has last; shared with whoever gives an exchange up, under the lock of the line."""
        self._lanes = lanes

    def serve(self) -> None:
        """The thread."""
        while (work := self._next()) is not None:
            work(self)
            del work  # or it would be kept until there is more
            self._lanes.done(self)
        if self.transport is not None:
            self.transport.close()

    def _next(self) -> Callable[[Lane], None] | None:
        try:
            return self.work.get(timeout=KEPT)
        except Empty:
            return None if self._lanes.left(self) else self.work.get()


class Lanes:
    """As many as there is work at a time, and kept for a while for more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Lane] = []
        self._over = False

    def do(self, work: Callable[[Lane], None]) -> None:
        """Do this at once, in one of them: the one that was busy last, whose connection may still be there."""
        with self._lock:
            lane = self._idle.pop() if self._idle else None
        if lane is None:
            lane = Lane(self)
            threading.Thread(target=lane.serve, name="dispatch-exchange", daemon=True).start()
        lane.work.put(work)

    def done(self, lane: Lane) -> None:
        """It has nothing to do."""
        with self._lock:
            if self._over:
                lane.work.put(None)
            else:
                self._idle.append(lane)

    def left(self, lane: Lane) -> bool:
        """It has had nothing to do for long; whether it may go, since nothing has come for it meanwhile."""
        with self._lock:
            if lane in self._idle:
                self._idle.remove(lane)
                return True
            return False

    def stop(self) -> None:
        """Let those go that have nothing to do, and the others when they are done."""
        with self._lock:
            self._over = True
            for lane in self._idle:
                lane.work.put(None)
            self._idle.clear()


class Exchange:
    """One exchange under way."""

    def __init__(self, left: set[object]) -> None:
        self.wanted = True
        """Whether somebody still wants to hear of it."""
        self.gate = threading.Event()
        self.lane: Lane | None = None
        """Where it is carried out, while it is."""
        self._left = left

    def cancel(self) -> None:
        """Nobody wants it any more, and nobody waits for it."""
        self.wanted = False
        self._left.discard(self)
        self.gate.set()
        if self.lane is not None and self.lane.socket is not None:
            _shut(self.lane.socket)


class HttpLine(http_line.HttpLine, line.Line):
    """Drives an HTTP session with threads."""

    def __init__(self, session: HttpClientSession, driver: HttpDriver) -> None:
        super().__init__(session, driver)
        self._lanes = Lanes()
        self._sockets: WeakSet[socket.socket] = WeakSet()

    def stop(self) -> None:
        super().stop()
        self._lanes.stop()
        for sock in list(self._sockets):
            _shut(sock)

    def drop_sockets(self) -> None:
        super().drop_sockets()
        for sock in list(self._sockets):
            sock.close()  # after a fork they are another process's: closed here, not shut down

    def _carry(self, begin: BeginExchange) -> Carrier:
        exchange = Exchange(self._left)
        self._left.add(exchange)
        self._lanes.do(partial(self._talk, begin, exchange))
        return Carrier(exchange.cancel, exchange.gate.set)

    def _talk(self, begin: BeginExchange, exchange: Exchange, lane: Lane) -> None:
        failure: Exception | None = None
        try:
            token = self._dialer.current_token_blocking()
            request = self.side.request(begin, token)
            request.extensions["trace"] = partial(self._learn_socket, exchange, lane)
            with self._lock:
                wanted, exchange.lane = exchange.wanted, lane
            if wanted:
                self._exchange(begin, exchange, lane, request)
        except Exception as error:  # noqa: BLE001  # the session is told, whatever it was
            failure = error
        with self._lock:
            exchange.lane = None  # the next exchange will be on it
            if exchange.wanted:
                if failure is None:
                    self._end(begin)
                else:
                    self._lost(begin, failure)
            self.gone(exchange)
            self.wake()

    def _exchange(self, begin: BeginExchange, exchange: Exchange, lane: Lane, request: httpx.Request) -> None:
        if lane.transport is None:
            from httpx import HTTPTransport

            lane.transport = HTTPTransport(**self.side.options())
        try:
            response = lane.transport.handle_request(request)
        except BaseException:
            if lane.socket is not None:  # httpcore forgets it where a SOCKS proxy does not let us through
                lane.socket.close()
            raise
        parts = iter(cast("httpx.SyncByteStream", response.stream))
        try:
            with self._lock:
                if exchange.wanted:
                    self._head(begin, response)
                    self.wake()
            for data in parts:
                with self._lock:
                    if not exchange.wanted:
                        return
                    go_on = self._data(begin, data)
                    self.wake()
                if not go_on:
                    exchange.gate.wait()
                    exchange.gate.clear()
        finally:
            response.close()

    def _learn_socket(self, exchange: Exchange, lane: Lane, event: str, info: dict[str, Any]) -> None:
        """httpx tells what it does; a new connection is one of the things that have a result."""
        learn = getattr(info.get("return_value"), "get_extra_info", None)
        if event.endswith(".complete") and learn is not None:
            sock: socket.socket = learn("socket")
            with self._lock:
                lane.socket = sock
                self._sockets.add(sock)
                if self.at_rest or not exchange.wanted:
                    _shut(sock)


def _shut(sock: socket.socket) -> None:
    """Have whoever reads from it see the end; TLS is not asked, which another thread may be inside of."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass  # it is closed already
