"""A simulated server: one `ServerSession` for each connection, a hub, and an application over a ledger that lasts.

It drives its sessions as a binding does (docs/architecture.md) and can be told to crash, to start again and to drain.
What the sessions promise about credit, timers and silence is checked at each step.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from dwp_core.codec import get_codec
from dwp_core.effects import AbortTransport, CloseTransport
from dwp_core.errors import DispatchError
from dwp_core.frames import DEFAULT_LIMITS
from dwp_core.hub import Hub
from dwp_core.server import ServerSession
from dwp_core.server_events import (
    Identity,
    LoginReceived,
    ReadLog,
    RequestReceived,
    ServerConfig,
    ServerEvent,
    SessionClosed,
    WaitExpired,
)
from dwp_core.testing.application import Application, Pace
from dwp_core.testing.clock import Appointment, VirtualClock
from dwp_core.testing.history import History, InvariantBroken
from dwp_core.testing.ledger import Ledger
from dwp_core.testing.link import Link
from dwp_core.testing.weather import Rng

_EVERYTHING = frozenset(("*",))


def open_door(token: str) -> Identity | None:
    """Lets everybody in; what stands before a "/" in the token is the app. "wrong" is nobody's token."""
    app_id, slash, _ = token.partition("/")
    return None if token == "wrong" else Identity(token, app_id=app_id if slash else "", scopes=_EVERYTHING)


class SimulatedServer:
    """A server on a virtual clock.

    Args:
        config: how its sessions behave; may be changed while it is down.
        pace: how slow it is.
        form: which form of the codecs, "fast" or "portable"; None takes the fast one where it is there.
        ring: how many of the newest events its hub keeps.
        identify: who has a token; None for nobody.

    Attributes:
        hub: routes its events; another one after each start.
        connections: those that are not over, oldest first.
        application: answers requests.
        listening: whether it takes connections.
    """

    def __init__(
        self,
        clock: VirtualClock,
        rng: Rng,
        history: History,
        ledger: Ledger,
        *,
        config: ServerConfig,
        pace: Pace,
        form: str | None = None,
        ring: int = 4096,
        identify: Callable[[str], Identity | None] = open_door,
    ) -> None:
        self.clock = clock
        self.config = config
        self.pace = pace
        self.ledger = ledger
        self.identify = identify
        self.listening = False
        self.connections: dict[Connection, None] = {}
        self.history = history
        self._rng = rng
        self._form = form
        self._ring = ring
        self._life = 0
        self._names = count(1)
        self._draining_until: float | None = None
        self._publishing: Appointment | None = None
        self.hub: Hub
        self.application: Application
        self.start()

    # What a test does to it.

    def start(self) -> None:
        """Come up, with what the ledger holds; nothing happens when it is up."""
        if self.listening:
            return
        self.listening = True
        self._life += 1
        self._draining_until = None
        self._publishing = None
        self.note(f"comes up, {self.ledger.log} from {self.ledger.oldest} to {self.ledger.head}")
        self.hub = Hub(
            head=self.ledger.head,
            oldest=self.ledger.oldest,
            log=self.ledger.log,
            epoch_ns=self.clock.epoch_ns,
            ring=self._ring,
            form=self._form,
        )
        self.application = Application(self, self.ledger, self.pace)
        self.application.start()

    def crash(self) -> None:
        """Die: every connection is lost, what was under way is not finished, the ledger stays."""
        self.note("crashes")
        self.listening = False
        self._life += 1
        for connection in list(self.connections):
            connection.die()
        self.connections.clear()

    def drain(self, seconds: float, *, retry_after: float = 1.0) -> None:
        """Tell every client to go; what is in flight is answered for so long (PROTOCOL.md section 9, `drain`)."""
        self.note(f"drains for {seconds:g} s")
        self._draining_until = self.clock.now + seconds
        for connection in list(self.connections):
            connection.drain(self._draining_until, retry_after)
        self.application.expire_waits()

    def retain(self, count: int) -> None:
        """Let retention remove all but the newest events."""
        oldest = self.ledger.retain(count)
        if self.listening:
            self.hub.retained(oldest)

    def publish(self, type: str, topic: str = "", data: dict[str, object] | None = None) -> None:
        """Log an event and publish it, e.g. `publish("job.completed", "job:job_1", {"job_id": "job_1"})`."""
        self.ledger.append(type, topic, data)
        self.publish_soon()

    @property
    def draining(self) -> bool:
        """Whether it is going away."""
        return self.listening and self._draining_until is not None

    # What the application and the connections ask.

    def note(self, what: str, message: bytes = b"") -> None:
        """For the history."""
        self.history.note(self.clock.now, "server", what, message)

    def later(self, most: float, action: Callable[[], None], *, at_least: float = 0.0) -> None:
        """Do it after a while between `at_least` and that, at once for 0, and never when it has crashed by then."""
        if not most and not at_least:
            action()
            return
        life = self._life
        seconds = at_least + self._rng.random() * most
        self.clock.call_later(seconds, lambda: action() if life == self._life else None)

    def publish_soon(self) -> None:
        """What the ledger has and the hub has not is published, in order, before long."""
        if self._publishing is None:
            life = self._life

            def publish() -> None:
                if life == self._life:
                    self._publishing = None
                    self._publish()

            self._publishing = self.clock.call_later(self._rng.random() * self.pace.publish, publish)

    def accept(self, link: Link) -> None:
        """A connection has come (`dwp_core.testing.network.Server`)."""
        connection = Connection(self, link, f"ws_{next(self._names)}")
        self.connections[connection] = None
        link.server.attach(connection)
        if self._draining_until is not None:
            connection.drain(self._draining_until, 1.0)
        connection.settle()

    def _publish(self) -> None:
        fanouts = self.hub.publish(self.ledger.after(self.hub.head), now=self.clock.now)
        for fanout in fanouts:
            for connection in fanout.to:
                connection.send(fanout.messages, binary=fanout.binary)
        for connection in self.hub.take_behind():
            connection.session.pump(now=self.clock.now)
            connection.settle()


class Connection:
    """One connection of a simulated server, and the handler of the server's end of its link."""

    def __init__(self, server: SimulatedServer, link: Link, name: str) -> None:
        self.name = name
        self.link = link
        self.session = ServerSession(
            config=server.config,
            hub=server.hub,
            session_id=name,
            now=server.clock.now,
            epoch_ns=server.clock.epoch_ns,
            owner=self,
        )
        self._server = server
        self._end = link.server
        self._timer: Appointment | None = None
        self._timer_at: float | None = None
        self._paused = False
        self._told_over = False
        self._granted = server.config.credits
        self._sent = 0

    # `Handler`: what the link says.

    def message(self, data: bytes) -> None:
        """A message has come."""
        self._server.history.note(self._now, self.name, "<", data)
        self._count_credit(data)
        self.session.receive_message(data, now=self._now)
        self.settle()
        # A base peer knows of no limit on requests in flight: what it sends beyond waits on its side.
        if self.session.room <= 0 and self.session.identity is not None and not self.session.features:
            self._paused = True
            self._end.pause_reading()

    def closed(self, code: int, reason: str) -> None:
        """The connection is over."""
        self._server.history.note(self._now, self.name, f"closed {code} {reason}")
        self.session.transport_closed(now=self._now, reason=f"closed with {code}")
        self.settle()
        self._over()

    def write_blocked(self) -> None:
        """More was written than the transport takes."""
        self.session.write_blocked(now=self._now)
        self._arm()

    def write_progress(self) -> None:
        """Some of it has left."""
        self.session.write_progress(now=self._now)
        self._arm()

    def write_resumed(self) -> None:
        """It takes more again."""
        self.session.write_resumed(now=self._now)
        self.settle()

    # What the application says.

    def respond(self, request_id: str, data: bytes) -> None:
        """Answer a request."""
        self.session.respond(request_id, data, now=self._now)
        self._answered()

    def fail(self, request_id: str, error: DispatchError) -> None:
        """Answer a request with an error."""
        self.session.fail(request_id, error, now=self._now)
        self._answered()

    def drain(self, deadline: float, retry_after: float) -> None:
        """The server goes away."""
        self.session.drain(deadline=deadline, retry_after=retry_after, now=self._now)
        self.settle()

    def die(self) -> None:
        """The server is dead: the connection breaks, and nobody is left to be told."""
        self._over()
        self.link.cut()

    def send(self, messages: list[bytes], *, binary: bool) -> None:
        """Write messages."""
        for message in messages:
            if self._told_over:
                raise InvariantBroken(f"{self.name}: {message!r} after it was closed")
            self._server.history.note(self._now, self.name, ">", message)
            if b"event" in message[:64] and b"drain" not in message:
                self._spend_credit()
            self._end.send(message, binary=binary)

    def settle(self) -> None:
        """Take everything out of the session and carry it out."""
        session = self.session
        while True:
            messages, events, effects = session.take_messages(), session.take_events(), session.take_effects()
            if messages:
                self.send(messages, binary=session.binary)
            for event in events:
                self._told(event)
            for effect in effects:
                if isinstance(effect, ReadLog):
                    self._read_log(effect)
                else:
                    self._end_transport(effect)
            if not (messages or events or effects):
                break
        self._arm()

    # Inside.

    @property
    def _now(self) -> float:
        return self._server.clock.now

    def _told(self, event: ServerEvent) -> None:
        server = self._server
        if isinstance(event, LoginReceived):
            token = event.token
            server.later(server.pace.login, lambda: self._judge(token))
        elif isinstance(event, RequestReceived):
            if self.session.in_flight > server.config.in_flight:
                raise InvariantBroken(f"{self.name}: {self.session.in_flight} requests in flight")
            server.application.handle(self, event)
        elif isinstance(event, WaitExpired):
            server.application.wait_expired(self, event.request_id)
        else:
            self._closed(event)

    def _judge(self, token: str) -> None:
        identity = self._server.identify(token)
        if identity is None:
            self.session.reject(now=self._now)
        else:
            self.session.accept(identity, now=self._now)
        self.settle()

    def _read_log(self, effect: ReadLog) -> None:
        def read() -> None:
            events, through = self._server.ledger.page(
                effect.after, effect.limit, (effect.app_id, effect.org_id)
            )
            self.session.log_read(events, after=effect.after, through=through, now=self._now)
            self.settle()

        self._server.later(self._server.pace.read, read)

    def _closed(self, event: SessionClosed) -> None:
        self._server.history.note(self._now, self.name, f"session over: {event.reason}")
        self._server.application.forget(self)

    def _end_transport(self, effect: CloseTransport | AbortTransport) -> None:
        self._server.history.note(self._now, self.name, repr(effect))
        if isinstance(effect, CloseTransport):
            self._end.close(effect.code, effect.reason)
        else:
            self._end.abort()
            self._over()

    def _answered(self) -> None:
        self.settle()
        if self._paused and self.session.room > 0:
            self._paused = False
            self._end.resume_reading()

    def _over(self) -> None:
        self._told_over = True
        self._server.connections.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        deadline = self.session.next_deadline
        if self._told_over or deadline == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = deadline
        if deadline is not None:
            self._timer = self._server.clock.call_at(deadline, self._timed)

    def _timed(self) -> None:
        self._timer = self._timer_at = None
        self.session.handle_timer(now=self._now)
        later = self.session.next_deadline
        if later is not None and later <= self._now:
            raise InvariantBroken(f"{self.name}: after the timer of {self._now} the next deadline is {later}")
        self.settle()

    def _count_credit(self, message: bytes) -> None:
        """The witness of credit counts for itself what the client has granted."""
        if b"credits" in message:
            frame = get_codec("msgpack" if message[:1] >= b"\x80" else "json", "portable").decode(
                message, DEFAULT_LIMITS
            )
            self._granted += frame.credits

    def _spend_credit(self) -> None:
        self._sent += 1
        if self.session.features and self._sent > self._granted:
            raise InvariantBroken(f"{self.name}: event {self._sent} with credit for {self._granted}")
