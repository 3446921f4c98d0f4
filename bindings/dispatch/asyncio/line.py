"""One session on asyncio: connections are `asyncio.Protocol`s, its timer is the loop's, a task only connects."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from dispatch import line
from dispatch.dialing import reason_of
from dispatch.line import CHUNK, FAREWELL
from dispatch.wire import ClientWire
from dwp_core.client import ClientSession

if TYPE_CHECKING:
    from dispatch.asyncio.driver import Driver


class Line(line.Line):
    """Drives one session on an event loop."""

    def __init__(self, session: ClientSession, driver: Driver) -> None:
        super().__init__(session, driver)
        self.now = driver.now
        self.loop = driver.loop
        self._dialer = driver.dialer
        self._timer: asyncio.TimerHandle | None = None

    def _soon(self) -> None:
        self.loop.call_soon(self._end_turn)

    def _set_timer(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self.loop.call_at(at, self._timed)

    def _open(self, generation: int) -> asyncio.Task[None]:
        attempt = self.loop.create_task(self._try_to_open(generation), name="dispatch-connect")
        attempt.add_done_callback(self.gone)
        return attempt

    async def _try_to_open(self, generation: int) -> None:
        dialer, loop = self._dialer, self.loop
        address = dialer.address
        try:
            wire = ClientWire(self.session, generation, address, await dialer.current_token())
            connection = Connection(self, wire, generation)
            tls, name = dialer.tls, address.host if address.secure else None
            proxy = dialer.current_proxy()
            if dialer.transport is not None:
                dialer.transport.connect_asyncio(connection)
            elif address.socket_path is not None:
                await loop.create_unix_connection(lambda: connection, address.socket_path)
            elif proxy is not None:
                from python_socks.async_.asyncio import Proxy

                tunnel = Proxy.from_url(proxy.url, rdns=proxy.remote_dns)
                sock: Any = await tunnel.connect(address.host, address.port)
                await loop.create_connection(lambda: connection, sock=sock, ssl=tls, server_hostname=name)
            else:
                await loop.create_connection(lambda: connection, address.host, address.port, ssl=tls)
        except Exception as error:  # noqa: BLE001  # the session is told, whatever it was
            self.failed(generation, error)


class Connection(line.Connection, asyncio.Protocol):
    """One transport. Says what has happened to the wire or to the session, and pumps."""

    _line: Line

    def __init__(self, owner: Line, wire: ClientWire, generation: int) -> None:
        super().__init__(owner, wire, generation)
        self._time = owner.now
        self._transport: asyncio.Transport | None = None
        self._blocked = False
        self._rest: deque[memoryview] = deque()
        self._owed = 0
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the transport is there."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by class
        if not self._line.opened(self):
            self.abort()  # its attempt was cancelled, so uvloop would not say that it is lost

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
        self.wire.lost(now=self._time(), reason=reason_of(exc) if exc is not None else "")
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
        output = self.wire.take_output()
        if not output or self._transport is None:
            return
        if len(output) <= CHUNK and not self._blocked:
            self._transport.write(output)
            return
        if self._blocked:
            self._owed += len(output)
            self._session.write_owed(self.generation, self._owed, now=self._time())
            self._line.poke_later()
        view = memoryview(output)
        for start in range(0, len(view), CHUNK):
            chunk = view[start : start + CHUNK]
            if self._blocked:
                self._rest.append(chunk)
            else:
                self._write(chunk)

    def abort(self) -> None:
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
            self._end = self._line.loop.call_later(FAREWELL, transport.abort)
