"""An HTTP client without an event loop: each exchange is carried out by a thread of its own, which blocks.

Nobody waits for a thread whose exchange is not wanted any more: its socket is shut down where that is known to be its
own, and at the latest when the client closes.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet

from dispatch import http_line
from dispatch.http_line import Carrier, HttpDriving
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


class Exchange:
    """One exchange under way."""

    def __init__(self, left: set[object]) -> None:
        self._cancelled = False
        self.gate = threading.Event()
        self.socket: socket.socket | None = None
        """What its answer comes from, once that has begun."""
        self._left = left

    @property
    def wanted(self) -> bool:
        """Whether somebody still wants to hear of it."""
        return not self._cancelled

    def cancel(self) -> None:
        """Nobody wants it any more, and nobody waits for it."""
        self._cancelled = True
        self._left.discard(self)
        self.gate.set()
        if self.socket is not None:
            _shut(self.socket)


class Workers:
    """Threads that block; as many as there is work at a time, and kept for more."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._over = False

    def do(self, work: Callable[[], None]) -> None:
        """Do this at once, in one of them."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                threading.Thread(target=self._serve, name="dispatch-exchange", daemon=True).start()
        self._work.put(work)

    def stop(self) -> None:
        """Let those go that have nothing to do, and the others when they are done."""
        with self._lock:
            self._over = True
            for _ in range(self._idle):
                self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # or it would be kept until there is more
            with self._lock:
                if self._over:
                    return
                self._idle += 1


class HttpLine(http_line.HttpLine, line.Line):
    """Drives an HTTP session with threads."""

    def __init__(self, session: HttpClientSession, driver: HttpDriver) -> None:
        super().__init__(session, driver)
        self._workers = Workers()
        self._transport: httpx.HTTPTransport | None = None
        self._sockets: WeakSet[socket.socket] = WeakSet()

    def stop(self) -> None:
        super().stop()
        self._workers.stop()
        for sock in list(self._sockets):
            _shut(sock)
        if self._transport is not None:
            self._transport.close()

    def drop_sockets(self) -> None:
        super().drop_sockets()
        for sock in list(
            self._sockets
        ):  # after a fork they are another process's: closed here, not shut down
            sock.close()

    def _carry(self, begin: BeginExchange) -> Carrier:
        exchange = Exchange(self._left)
        self._left.add(exchange)
        self._workers.do(partial(self._talk, begin, exchange))
        return Carrier(exchange.cancel, exchange.gate.set)

    def _talk(self, begin: BeginExchange, exchange: Exchange) -> None:
        failure: Exception | None = None
        try:
            token = self._dialer.current_token_blocking()
            request = self.side.request(begin, token)
            request.extensions["trace"] = self._learn_socket
            response = self._opened_transport().handle_request(request)
            try:
                self._read(begin, exchange, response)
            finally:
                with self._lock:
                    exchange.socket = None  # the next exchange may be on it
                response.close()
        except Exception as error:  # noqa: BLE001  # the session is told, whatever it was
            failure = error
        with self._lock:
            if exchange.wanted:
                if failure is None:
                    self._end(begin)
                else:
                    self._lost(begin, failure)
            self.gone(exchange)
            self.wake()

    def _read(self, begin: BeginExchange, exchange: Exchange, response: httpx.Response) -> None:
        with self._lock:
            exchange.socket = response.extensions["network_stream"].get_extra_info("socket")
            if exchange.wanted:
                self._head(begin, response)
                self.wake()
        for data in cast("httpx.SyncByteStream", response.stream):
            with self._lock:
                if not exchange.wanted:
                    return
                go_on = self._data(begin, data)
                self.wake()
            if not go_on:
                exchange.gate.wait()
                exchange.gate.clear()

    def _opened_transport(self) -> httpx.HTTPTransport:
        from httpx import HTTPTransport

        with self._lock:
            if self._transport is None:
                self._transport = HTTPTransport(**self.side.options())
            return self._transport

    def _learn_socket(self, event: str, info: dict[str, Any]) -> None:
        """httpx tells what it does; a new connection is one of the things that have a result."""
        learn = getattr(info.get("return_value"), "get_extra_info", None)
        if event.endswith(".complete") and learn is not None:
            with self._lock:
                self._sockets.add(learn("socket"))
                if self.at_rest:
                    _shut(learn("socket"))


def _shut(sock: socket.socket) -> None:
    """Have whoever reads from it see the end; TLS is not asked, which another thread may be inside of."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass  # it is closed already
