"""One session on trio: a task that keeps its time, and one for each connection; written to without waiting."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled

from dispatch import line
from dispatch.dialing import reason_of
from dispatch.line import FAREWELL, Backlog
from dispatch.wire import ClientWire
from dwp_core.client import ClientSession

if TYPE_CHECKING:
    from dispatch.trio.driver import Driver

_READ = 256 * 1024
_NEVER = float("inf")


class Line(line.Line):
    """Drives one session in the nursery of its client."""

    def __init__(self, session: ClientSession, driver: Driver) -> None:
        super().__init__(session, driver)
        self.now = driver.now
        self._nursery = driver.nursery
        self._dialer = driver.dialer
        self._sleep = trio.CancelScope()
        self._sleeper: Task | None = None
        self._nursery.start_soon(self._keep_time, name="dispatch-time")

    def stop(self) -> None:
        self._wake()

    def _soon(self) -> None:
        self._wake()

    def _set_timer(self, at: float | None) -> None:
        self._sleep.deadline = _NEVER if at is None else at

    async def _keep_time(self) -> None:
        while not self.at_rest:
            with self._sleep:
                while not self.at_rest:
                    while self.scheduled:  # what is written at the end of a turn may ask for another
                        self._end_turn()
                    self._sleeper = current_task()
                    await wait_task_rescheduled(self._overslept)
            if self._sleep.cancelled_caught:
                self._sleep = trio.CancelScope()
                self._timed()

    def _overslept(self, _: RaiseCancelT) -> Abort:
        self._sleeper = None
        return Abort.SUCCEEDED

    def _wake(self) -> None:
        if self._sleeper is not None:
            reschedule(self._sleeper)
            self._sleeper = None

    def _open(self, generation: int) -> trio.CancelScope:
        attempt = trio.CancelScope()
        self._nursery.start_soon(self._try_to_open, generation, attempt, name="dispatch-connection")
        return attempt

    async def _try_to_open(self, generation: int, attempt: trio.CancelScope) -> None:
        connection = None
        try:
            with attempt:
                connection = await self._connect(generation)
        except Exception as error:  # noqa: BLE001  # the session is told, whatever it was
            self.failed(generation, _cause_of(error))
        finally:
            self.gone(attempt)
        if connection is not None:
            await connection.serve()

    async def _connect(self, generation: int) -> Connection:
        dialer = self._dialer
        address = dialer.address
        wire = ClientWire(self.session, generation, address, await dialer.current_token())
        if dialer.transport is not None:
            return Connection(self, wire, generation, dialer.transport.connect_trio())
        proxy = dialer.current_proxy()
        if address.socket_path is not None:
            stream = await trio.open_unix_socket(address.socket_path)
        elif proxy is not None:
            from python_socks.async_.trio import Proxy

            tunnel = Proxy.from_url(proxy.url, rdns=proxy.remote_dns)
            stream = trio.SocketStream(await tunnel.connect(address.host, address.port))
        else:
            stream = await trio.open_tcp_stream(address.host, address.port)
        if dialer.tls is None:
            return Connection(self, wire, generation, stream)
        secure = trio.SSLStream(stream, dialer.tls, server_hostname=address.host, https_compatible=True)
        try:
            await secure.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(secure)
            raise
        return Connection(self, wire, generation, secure)


class Connection(line.Connection):
    """One stream. Says what has happened to the wire or to the session, and pumps."""

    _line: Line

    def __init__(
        self,
        owner: Line,
        wire: ClientWire,
        generation: int,
        stream: trio.abc.Stream,
    ) -> None:
        super().__init__(owner, wire, generation)
        self._now = owner.now
        self._stream = stream
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._backlog = Backlog(owner.session, generation)
        self._writing = False
        self._leaving = False
        self._direct: socket.socket | None = None
        """To read from and write to without waiting, which a trio stream has no way to."""
        if isinstance(stream, trio.SocketStream):
            self._direct = socket.socket(fileno=stream.socket.dup().detach())
            self._direct.setblocking(False)

    async def serve(self) -> None:
        """Read until the end of it."""
        reason = ""
        try:
            with self._scope:
                async with trio.open_nursery() as self._nursery:
                    if self._line.opened(self):
                        await self._read()
                        self.flush()
                    self._leave()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as errors:
            reason = reason_of(_cause_of(_first(errors)))
        finally:
            self._nursery = None
            self._backlog.clear()
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)
            if self._direct is not None:
                self._direct.close()
            self.wire.lost(now=self._now(), reason=reason)
            self._line.pump()
            self._line.gone(self)

    async def _read(self) -> None:
        wire, owner, now = self.wire, self._line, self._now
        while data := await self._receive():
            wire.receive_data(data, now=now())
            owner.received()
            if wire.over:
                return
        wire.receive_eof(now=now())
        owner.pump()

    async def _receive(self) -> bytes:
        direct = self._direct
        if direct is None:
            return bytes(await self._stream.receive_some(_READ))
        while True:
            await trio.lowlevel.wait_readable(direct)  # a stream would try first, and fail, each time
            try:
                return direct.recv(_READ)
            except BlockingIOError:
                pass

    def flush(self) -> None:
        output: bytes | memoryview = self.wire.take_output()
        if not output or self._nursery is None:
            return
        if self._direct is not None and not self._backlog:
            try:
                sent = self._direct.send(output)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # whoever reads is told more of that
            if sent == len(output):
                return
            output = memoryview(output)[sent:]
        self._backlog.add(output, self._now())
        if not self._writing:
            self._writing = True
            self._nursery.start_soon(self._write, name="dispatch-write")
        self._line.poke_later()

    async def _write(self) -> None:
        backlog = self._backlog
        while backlog:
            piece = backlog.next
            await self._stream.send_all(piece)
            backlog.written(len(piece), self._now())
            self._line.pump()
        self._writing = False
        if self._leaving:
            self._scope.cancel()

    def abort(self) -> None:
        self.wire.over = True
        if self._said_farewell:
            self._leave()
        else:
            self._scope.cancel()

    def _leave(self) -> None:
        """Both sides are done: bring out what is left of the farewell, and go."""
        if self._backlog and not self._backlog.blocked:
            self._leaving = True
            self._scope.deadline = min(self._scope.deadline, self._now() + FAREWELL)
        else:
            self._scope.cancel()


def _first(error: BaseException) -> BaseException:
    """One of a group of errors."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _cause_of(error: BaseException) -> Exception:
    """What the operating system or TLS has said, where trio has put an error of its own before it."""
    cause = _first(error.__cause__) if error.__cause__ is not None else None
    wrapped = isinstance(error, trio.BrokenResourceError) or (type(error) is OSError and error.errno is None)
    first = cause if wrapped and isinstance(cause, Exception) else _first(error)
    return first if isinstance(first, Exception) else Exception(str(first))
