"""The far end of one connection of a `MockTransport`: websockets' server protocol and the real `ServerSession`.

Bytes in, bytes out, like the server, but for where they come from: from an `End`, which each binding has one of. What
the peer does is the core's; what it answers is the transport's.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from dispatch.testing.script import SUBSCRIBING
from dwp_core.effects import AbortTransport, CloseTransport
from dwp_core.errors import DispatchError
from dwp_core.methods import Method
from dwp_core.served_peer import PACE
from dwp_core.server import ServerSession
from dwp_core.server_events import LoginReceived, ReadLog, RequestReceived, ServerEvent, WaitExpired

if TYPE_CHECKING:
    from dispatch.testing.transport import MockTransport

_MESSAGES = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)

_LOGGER = logging.getLogger("dispatch.testing.websocket")
_LOGGER.setLevel(logging.WARNING)


class End(Protocol):
    """What carries bytes to a client, in its own loop or thread. It may be called from any thread."""

    def now(self) -> float:
        """The client's clock, in monotonic seconds."""
        ...

    def deliver(self, data: bytes) -> None:
        """Give the client these bytes."""
        ...

    def finish(self) -> None:
        """Nothing more follows."""
        ...

    def break_off(self) -> None:
        """The connection is broken, at once."""
        ...

    def set_timer(self, at: float | None) -> None:
        """Call `Peer.timed` then, instead of at any moment set before; None for never."""
        ...


class Session(ServerSession):
    """A session that lets the transport see, and refuse, what sessions answer by themselves."""

    __slots__ = ()

    def _take_up(self, request_id: str, method: Method, params: dict[str, Any], data: bytes) -> None:
        if method.name in SUBSCRIBING:
            self.owner.subscribing(method.name, data)
        super()._take_up(request_id, method, params, data)


class Peer:
    """The server's side of one connection.

    Args:
        transport: whose connection it is. Its lock is held in here.
        end: the way to the client.
    """

    def __init__(self, transport: MockTransport, end: End) -> None:
        self._transport = transport
        self._end = end
        self._ws = ServerProtocol(max_size=transport.config.limits.message, logger=_LOGGER)
        self._message = bytearray()
        self._timer_at: float | None = None
        self.over = False
        """The client is gone, or told to go."""
        self.session = Session(**transport.session_settings(end.now()), owner=self)

    @property
    def now(self) -> float:
        """The client's clock."""
        return self._end.now()

    # What the end tells.

    def receive(self, data: bytes) -> None:
        """The client has sent bytes."""
        with self._transport.lock:
            if self.over:
                return
            ws = self._ws
            ws.receive_data(data)
            for event in ws.events_received():
                if isinstance(event, Request):
                    ws.send_response(ws.accept(event))
                elif isinstance(event, Frame) and event.opcode in _MESSAGES:
                    self._message += event.data
                    if event.fin:
                        message, self._message = bytes(self._message), bytearray()
                        self.session.receive_message(message, now=self.now)
                elif isinstance(event, Frame) and event.opcode is Opcode.CLOSE:
                    self.session.transport_closed(now=self.now, reason="the client closed the connection")
            self._settle()

    def lost(self) -> None:
        """The client has ended the connection."""
        with self._transport.lock:
            if not self.over:
                self.over = True
                self.session.transport_closed(now=self.now)
                self._settle()

    def timed(self) -> None:
        """The time of `End.set_timer` has come."""
        with self._transport.lock:
            self._timer_at = None
            self._settle()

    # What the session tells.

    def subscribing(self, method: str, data: bytes) -> None:
        """A request that the session is about to answer itself. Raises what it is refused with."""
        self._transport.subscribing(self, method, data)

    # What the transport tells, with its lock.

    def respond(self, request_id: str, data: bytes) -> None:
        """Answer a request."""
        self.session.respond(request_id, data, now=self.now)
        self._settle()

    def fail(self, request_id: str, error: DispatchError) -> None:
        """Refuse a request."""
        self.session.fail(request_id, error, now=self.now)
        self._settle()

    def send(self, messages: list[bytes], *, binary: bool) -> None:
        """Write messages of the session or of a fan-out."""
        for message in messages:
            if self._ws.state is OPEN:
                self._ws.send_binary(message) if binary else self._ws.send_text(message)
        self._write()

    def pump(self) -> None:
        """Go on with events, after the hub has said so."""
        self.session.pump(now=self.now)
        self._settle()

    def drain(self, seconds: float) -> None:
        """Ask the client to go."""
        now = self.now
        self.session.drain(deadline=now + seconds, retry_after=0.0, now=now)
        self._settle()

    def cut(self) -> None:
        """Break the connection without a word."""
        if not self.over:
            self.over = True
            self.session.transport_closed(now=self.now, reason="cut by the test")
            self._settle()
            self._end.break_off()

    # Inside.

    def _settle(self) -> None:
        """Carry out what the session wants, and what is due."""
        session = self.session
        while True:
            messages = session.take_messages()
            if messages:
                self.send(messages, binary=session.binary)
            events = session.take_events()
            if events:
                for event in events:
                    self._told(event)
                continue  # what they lead to is said before anything is ended
            effects = session.take_effects()
            for effect in effects:
                self._perform(effect)
            if not (messages or effects or self._time_has_come()):
                break
        self._write()
        at = None if self.over else session.next_deadline
        if at != self._timer_at:
            self._timer_at = at
            self._end.set_timer(at)

    def _time_has_come(self) -> bool:
        # Pages of events are paced by the time that a network takes; here there is none.
        now, at = self.now, self.session.next_deadline
        if at is None or at > now + PACE:
            return False
        self.session.handle_timer(now=max(now, at))
        return True

    def _told(self, event: ServerEvent) -> None:
        transport = self._transport
        if isinstance(event, LoginReceived):
            try:
                identity = transport.log_in(event.token)
            except DispatchError as error:
                self.session.reject(error.code, error.message, now=self.now)
            else:
                self.session.accept(identity, now=self.now)
        elif isinstance(event, RequestReceived):
            transport.asked_by(self, event.id, event.method, event.data)
        elif isinstance(event, WaitExpired):
            transport.wait_expired(self, event.request_id)
        else:
            transport.forget(self)

    def _perform(self, effect: ReadLog | CloseTransport | AbortTransport) -> None:
        if isinstance(effect, ReadLog):
            events, through = self._transport.read_log(effect.after, effect.limit)
            self.session.log_read(events, after=effect.after, through=through, now=self.now)
        elif isinstance(effect, CloseTransport):
            try:
                self._ws.send_close(effect.code, effect.reason)
            except InvalidState:
                pass  # the client was first
        else:
            self.cut()

    def _write(self) -> None:
        output = b"".join(self._ws.data_to_send())
        if output:
            self._end.deliver(output)
        if self._ws.eof_sent and not self.over:
            self.over = True
            self.session.transport_closed(now=self.now)
            self._end.finish()
