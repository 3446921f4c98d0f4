"""A `ServerSession` and its hub between a client and a driver that both do anything, in any order.

Never an exception but the documented one for an answer that nobody waits for; every message is a frame; credit is never
negative and never exceeded; after a timer the next deadline is later; a closed session is silent.
"""

from __future__ import annotations

from collections.abc import Iterable

from dwp_core.codec import get_codec
from dwp_core.effects import AbortTransport, CloseTransport
from dwp_core.errors import DispatchError, NotFoundError
from dwp_core.events import LoggedEvent
from dwp_core.frames import DEFAULT_LIMITS, EVENT
from dwp_core.hub import Hub
from dwp_core.server import ServerSession
from dwp_core.server_events import (
    Identity,
    LoginReceived,
    ReadLog,
    RequestReceived,
    ServerConfig,
    SessionClosed,
    WaitExpired,
)
from fuzz import script
from fuzz.seeds import Line, conversations

_EVERYTHING = frozenset(("*",))
_KINDS = ("job.enqueued", "job.started", "job.completed", "workflow.started", "cron.fired")
_JOB = "job_01m81ac18fes2ta9n43szh8zc2"
_MOST_MESSAGES = 2_000


class Drive:
    """One connection, its hub and its log."""

    def __init__(self, settings: int) -> None:
        config = ServerConfig(
            credits=3 if settings & 2 else 1000,
            in_flight=4 if settings & 2 else 1024,
            subscriptions=3,
            batch=3,
        )
        self.now = 100.0
        self.log: list[LoggedEvent] = []
        form = "portable" if settings & 1 else None
        self.hub = Hub(log="log-1", epoch_ns=10**18, ring=4 if settings & 4 else 64, form=form)
        self.session = ServerSession(
            config=config, hub=self.hub, session_id="ws_1", now=self.now, epoch_ns=10**18, owner=self
        )
        self.tenant = ("app-1", "org-1") if settings & 8 else ("", "")
        self.waiting: list[str] = []
        self.closed = False
        self.judging = False

    def step(self, what: int, argument: bytes) -> None:
        """One input. `what` is a letter; anything else is a message from the client."""
        self._input(chr(what), argument)
        self._settle()

    def finish(self) -> None:
        """The transport ends, whatever happened before."""
        self.session.transport_closed(now=self.now)
        self._settle()
        assert self.closed, "the session did not say that it is over"
        assert self.session.next_deadline is None, "a session that is over has a deadline"

    def _input(self, what: str, argument: bytes) -> None:
        session, now = self.session, self.now
        number = argument[0] if argument else 0
        match what:
            case "+":
                scopes = (_EVERYTHING, frozenset(("job:read", "subscribe")), frozenset[str]())[number % 3]
                session.accept(Identity("me", *self.tenant, scopes), now=now)
            case "-":
                session.reject(now=now)
            case "r":
                id = self.waiting.pop(number % len(self.waiting)) if self.waiting else "nobody"
                self._answer(id, lambda: session.respond(id, b'{"ok":true}', now=now))
            case "e":
                id = self.waiting.pop(number % len(self.waiting)) if self.waiting else "nobody"
                error = DispatchError(argument.decode(errors="replace"), code=500)
                self._answer(id, lambda: session.fail(id, error, now=now))
            case "P":
                self._publish(number)
            case "L":
                self.hub.retained(self.hub.head + 1 - number % 8)
            case "b":
                session.write_blocked(now=now)
            case "g":
                session.write_progress(now=now)
            case "B":
                session.write_resumed(now=now)
            case "p":
                session.pump(now=now)
            case "t":
                if session.next_deadline is not None:
                    self._timer(session.next_deadline)
            case "a":
                self._timer(now + number / 4)
            case "d":
                session.drain(deadline=now + number, retry_after=1.0, now=now)
            case "q":
                session.close(1000 + number, "bye", now=now)
            case "c":
                session.transport_closed(now=now)
            case _:
                session.receive_message(argument, now=now)

    def _answer(self, id: str, answer: object) -> None:
        try:
            answer()  # type: ignore[operator]
        except NotFoundError:
            assert id == "nobody", f"request {id} was given out, and its answer refused"

    def _publish(self, number: int) -> None:
        events: list[LoggedEvent] = []
        for _ in range(1 + number % 4):
            seq = self.hub.head + len(events) + 1 + number % 2
            kind = _KINDS[number % len(_KINDS)]
            topic = "" if kind.startswith("cron") else f"job:{_JOB}"
            tenant = self.tenant if number & 64 else ("", "")
            events.append(
                LoggedEvent(seq, kind, 10**18, topic, "default", *tenant, b'{"job_id":"%b"}' % _JOB.encode())
            )
        self.log += events
        for fanout in self.hub.publish(events, now=self.now):
            assert all(owner is self for owner in fanout.to)
            self._check(fanout.messages)
        for owner in self.hub.take_behind():
            assert owner is self
            self.session.pump(now=self.now)

    def _timer(self, until: float) -> None:
        self.now = max(self.now, until)
        deadline = self.session.next_deadline
        if deadline is not None and deadline <= self.now:
            self.session.handle_timer(now=self.now)
            self._settle()
            later = self.session.next_deadline
            assert later is None or later > self.now, f"deadline {later} at {self.now}"

    def _settle(self) -> None:
        """Take out everything, as a driver does."""
        session = self.session
        while True:
            messages, events, effects = session.take_messages(), session.take_events(), session.take_effects()
            if not (messages or events or effects):
                break
            for event in events:
                assert not self.closed, f"after the end: {event}"
                if isinstance(event, LoginReceived):
                    assert not self.judging, "asked twice to judge a login"
                    self.judging = True
                elif isinstance(event, RequestReceived):
                    assert event.id not in self.waiting, "one id twice in flight"
                    self.waiting.append(event.id)
                elif isinstance(event, WaitExpired):
                    assert event.request_id in self.waiting, "a wait that nobody waits for"
                elif isinstance(event, SessionClosed):
                    self.closed = True
                    self.waiting.clear()
            self._check(messages)
            for effect in effects:
                if isinstance(effect, ReadLog):
                    self._read_log(effect)
                else:
                    assert isinstance(effect, CloseTransport | AbortTransport)
        delivery = session._delivery
        assert delivery is None or delivery.credit.available >= 0, "credit below zero"
        assert session.in_flight <= session._config.in_flight

    def _read_log(self, asked: ReadLog) -> None:
        events = [
            event
            for event in self.log
            if event.seq > asked.after and (event.app_id, event.org_id) == (asked.app_id, asked.org_id)
        ][: asked.limit]
        through = events[-1].seq if len(events) == asked.limit else self.hub.head
        self.session.log_read(events, after=asked.after, through=through, now=self.now)

    def _check(self, messages: list[bytes]) -> None:
        assert len(messages) < _MOST_MESSAGES, "one input queued without bound"
        for message in messages:
            codec = get_codec("msgpack" if message[:1] >= b"\x80" else "json", "portable")
            frame = codec.decode(message, DEFAULT_LIMITS)
            codec.value(frame, DEFAULT_LIMITS)
            assert frame.type != EVENT or codec.event(frame) is not None or not frame.channel


def target(data: bytes) -> None:
    drive = Drive(data[0] if data else 0)
    for what, argument in script.read(data[1:]):
        drive.step(what, argument)
    drive.finish()


def seeds() -> Iterable[bytes]:
    for settings, codec in ((8, "json"), (11, "json"), (14, "msgpack"), (1, "msgpack")):
        for conversation in conversations(codec):
            yield bytes((settings,)) + script.write(_steps(conversation))


def _steps(conversation: tuple[Line, ...]) -> Iterable[script.Step]:
    """The client's side as recorded; answers and events of the server as steps of the driver."""
    for line in conversation:
        if line.conn != 1:
            continue
        if line.dir == "client" and line.op in ("text", "binary"):
            yield ord("m"), line.data
            if b'"auth"' in line.data:
                yield ord("+"), b"\x00"
        elif line.dir == "client":
            yield ord("c"), b""
        elif b"event" in line.data:
            yield ord("P"), bytes((64 + sum(line.data) % 64,))
        elif b"correl_id" in line.data:
            yield ord("r"), b"\x00"
    yield ord("t"), b""
