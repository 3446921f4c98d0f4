"""An `HttpClientSession` and both ends of its exchanges, in the hands of a test."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from dwp_core.backoff import Backoff
from dwp_core.client import frame_ids
from dwp_core.client_events import ClientConfig, ClientEvent, Connected, RequestSucceeded
from dwp_core.codec import get_codec
from dwp_core.frames import DEFAULT_LIMITS, ErrorDetail
from dwp_core.http_client import HttpClientSession
from dwp_core.http_exchange import AbortExchange, BeginExchange, ResumeReading
from dwp_core.requests import Request, Retry

E = TypeVar("E")

OURS = [("DWP-Features", "batch, idempotency, options, wait"), ("DWP-Log", "log-1")]
GOS: list[tuple[str, str]] = []
STREAM = [("content-type", "text/event-stream")]
STREAMS = [("dwp-features", "drain, resume"), ("dwp-log", "log-1"), *STREAM]
BACKOFF = Backoff(base=1.0, cap=8.0, stable_after=10.0)


class World:
    """One session, its clock, and what it has begun.

    Args:
        head: the headers with which its server answers; `OURS` or `GOS`.
    """

    def __init__(self, head: list[tuple[str, str]] = OURS, **config: Any) -> None:
        self.now = 0.0
        self.head = head
        settings = ClientConfig(where="the test", **{"backoff": BACKOFF, **config})
        self.session = HttpClientSession(settings, epoch_ns=0, jitter=lambda: 0.5, ids=frame_ids())
        self.events: list[ClientEvent] = []
        self.begun: list[BeginExchange] = []
        """Begun and not taken by the test, in order."""
        self.aborted: list[str] = []
        self.resumed: list[str] = []

    def pump(self) -> None:
        """Take what the session wants and says."""
        for effect in self.session.take_effects():
            if isinstance(effect, BeginExchange):
                self.begun.append(effect)
            elif isinstance(effect, AbortExchange):
                self.aborted.append(effect.id)
                self.begun = [each for each in self.begun if each.id != effect.id]
            else:
                assert isinstance(effect, ResumeReading)
                self.resumed.append(effect.id)
        self.events += self.session.take_events()

    def take(self) -> BeginExchange:
        """The one exchange that was begun."""
        self.pump()
        [begin] = self.begun
        self.begun.clear()
        return begin

    def nothing_begun(self) -> bool:
        """Whether nothing is asked for."""
        self.pump()
        return not self.begun

    def said(self, kind: type[E]) -> list[E]:
        """The events of this kind, since the last look."""
        self.pump()
        found: list[E] = [event for event in self.events if isinstance(event, kind)]
        self.events = [event for event in self.events if not isinstance(event, kind)]
        return found

    def the(self, kind: type[E]) -> E:
        """The one event of this kind."""
        [event] = self.said(kind)
        return event

    # What the application does.

    def ask(self, method: str = "stats", data: Any = None, **options: Any) -> Request:
        """Ask for something; a read unless it says otherwise."""
        text = b"" if data is None else json.dumps(data).encode()
        options = {"tag": method, "retry": Retry.READ, **options}
        return self.session.request(method, text, now=self.now, **options)

    # What the network does.

    def answer(self, begin: BeginExchange, status: int, body: bytes, headers: list[tuple[str, str]]) -> None:
        """An answer, whole."""
        self.session.exchange_head(begin.id, status, headers, now=self.now)
        self.session.exchange_data(begin.id, body, now=self.now)
        self.session.exchange_end(begin.id, now=self.now)
        self.pump()

    def respond(self, begin: BeginExchange, data: Any = None, kind: str = "response") -> None:
        """The answer that was hoped for, in the codec of the question."""
        body = begin.codec.encode(kind, "s", correl_id=begin.id, data=json.dumps(data).encode(), ts=0)
        self.answer(begin, 200, body, [*self.head, ("content-type", f"application/{begin.codec.name}")])

    def refuse(self, begin: BeginExchange, code: int, message: str = "no") -> None:
        """An error frame."""
        error = ErrorDetail(code, message)
        body = get_codec("json").encode("error", "s", correl_id=begin.id, error=error, ts=0)
        self.answer(begin, code, body, self.head)

    def fail(self, begin: BeginExchange, reason: str = "cut", **options: Any) -> None:
        """It is lost."""
        self.session.exchange_failed(begin.id, reason, now=self.now, **options)
        self.pump()

    def found(self) -> None:
        """The server answers the ping."""
        ping = self.take()
        if self.head is GOS:
            self.refuse(ping, 405, "unknown method: ")
        else:
            self.respond(ping, kind="pong")
        self.the(Connected)

    def sleep(self, seconds: float) -> None:
        """Let time pass, and wake the session when it wants to be woken."""
        until = self.now + seconds
        while (at := self.session.next_deadline) is not None and at <= until:
            self.now = max(at, self.now)
            self.session.handle_timer(now=self.now)
            self.pump()
        self.now = until

    def stream(self, begin: BeginExchange, *blocks: str, headers: list[tuple[str, str]] = STREAMS) -> bool:
        """The stream begins, with these blocks; whether it is to be read on at once."""
        self.session.exchange_head(begin.id, 200, headers, now=self.now)
        return self.data(begin, *blocks)

    def data(self, begin: BeginExchange, *blocks: str) -> bool:
        """More of it."""
        go_on = True
        for block in blocks:
            go_on = self.session.exchange_data(begin.id, block.encode(), now=self.now)
        self.pump()
        return go_on


def connected(head: list[tuple[str, str]] = OURS, **config: Any) -> World:
    """A world whose server has answered."""
    world = World(head, **config)
    world.session.start(now=0.0)
    world.found()
    return world


def frame_of(begin: BeginExchange, token: str = "") -> dict[str, Any]:
    """What is asked."""
    frame = begin.codec.decode(begin.sealed(token).body, DEFAULT_LIMITS)
    return {
        "type": frame.type,
        "method": frame.method,
        "token": frame.token,
        "data": begin.codec.value(frame, DEFAULT_LIMITS),
    }


def result(world: World) -> Any:
    """The value of the one answer."""
    event = world.the(RequestSucceeded)
    return event.codec.value(event.frame, DEFAULT_LIMITS)


def event_block(seq: int | None, kind: str = "job.started", topic: str = "job:job_1") -> str:
    """An event, as a stream has it."""
    data = {"type": kind, "ts": "2026-01-02T03:04:05Z", "topic": topic, "data": {"job_id": "job_1"}}
    if seq is None:
        return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
    return f"id: {seq}\nevent: {kind}\ndata: {json.dumps({**data, 'seq': seq})}\n\n"
