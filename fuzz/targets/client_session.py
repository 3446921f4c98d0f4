"""A `ClientSession` between an application and a server that both do anything, in any order.

Never an exception but the local errors that commands document; every request has one outcome, at the latest when the
session has closed; a closed session is silent; after a timer the next deadline is later; what one input queues is
bounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

from dwp_core.client import ClientSession
from dwp_core.client_events import (
    ClientConfig,
    Closed,
    RequestFailed,
    RequestOutcomeUnknown,
    RequestSucceeded,
    SubscriptionEnded,
    SubscriptionItem,
)
from dwp_core.effects import Connect, Delegate
from dwp_core.errors import DispatchError
from dwp_core.requests import Request, Retry
from dwp_core.subscriptions import Subscription
from fuzz import script
from fuzz.seeds import Line, conversations

_METHODS = ("job.get", "job.enqueue", "workflow.start", "stats", "job.cancel", "unheard.of")
_RETRIES = (Retry.READ, Retry.IDEMPOTENT, Retry.NEVER)
_CHANNELS = (
    "jobs",
    "firehose",
    "workflows",
    "queue:default",
    "job:job_01m81ac18fes2ta9n43szh8zc2",
    "nonsense",
)
_MOST_QUEUED = 20_000


class Drive:
    """One client session, its delegates, and what it has told so far."""

    def __init__(self, settings: int) -> None:
        config = ClientConfig(
            format="msgpack" if settings & 1 else "json",
            form="portable" if settings & 2 else None,
            max_retries=3 if settings & 4 else 0,
            event_window=8 if settings & 8 else 4096,
            event_buffer=4 if settings & 8 else 1000,
            max_requests=16,
        )
        self.now = 100.0
        session = ClientSession(
            config, epoch_ns=10**18, jitter=lambda: 0.5, ids=map("c1-{}".format, count(1))
        )
        self.sessions: list[ClientSession] = [session]
        self.attempts: list[int] = [0]
        """The connection that the driver of each session has, or had: the last that the session asked for."""
        self.closed: set[int] = set()
        self.open: dict[str, int] = {}
        """Requests without an outcome: tag and how many outcomes it had."""
        self.requests: dict[str, Request] = {}
        self.subscriptions: list[Subscription] = []
        self.ended: set[object] = set()
        self._tags = 0

    def step(self, what: int, argument: bytes) -> None:
        """One input. `what` is a letter; anything else is a message from the server."""
        try:
            self._command(chr(what), argument)
        except DispatchError:
            pass  # the application asked wrongly, and was told
        self._settle()

    def finish(self) -> None:
        """The application leaves: whatever happened before, the session ends in bounded time and is whole."""
        for _ in range(3):
            self.sessions[0].close(now=self.now)
            self._settle()
        for _ in range(200):
            deadline = min((d for s in self.sessions if (d := s.next_deadline) is not None), default=None)
            if deadline is None:
                break
            self._timers(deadline)
            self._settle()
        assert 0 in self.closed, f"the session does not end: {self.sessions[0].state}"
        assert not self.open, f"requests without an outcome: {self.open}"
        assert len(self.ended) == len(self.subscriptions), "a subscription that did not end"

    def _command(self, what: str, argument: bytes) -> None:
        session, now = self.sessions[0], self.now
        number = argument[0] if argument else 0
        match what:
            case "S":
                session.start(now=now)
            case "o":
                for each, attempt in zip(self.sessions, self.attempts, strict=True):
                    each.transport_opened(attempt, token="dk_full", now=now)
            case "f":
                statuses = (0, 0, 401, 400, 503)
                session.transport_failed(self.attempts[0], "refused", now=now, status=statuses[number % 5])
            case "c":
                which = number % len(self.sessions)
                self.sessions[which].transport_closed(
                    self.attempts[which], now=now, code=1000 + number, reason="bye"
                )
            case "r":
                self._request(number, argument[1:])
            case "w":
                tag = self._tag()
                timeout = None if number & 1 else 2.0
                method = "workflow.wait" if number & 2 else "job.wait"
                self.requests[tag] = session.wait(
                    method, b'{"job_id":"x"}', tag=tag, now=now, timeout=timeout
                )
                self.open[tag] = 0
            case "p":
                tag = self._tag()
                self.requests[tag] = session.ping(tag=tag, now=now, timeout=1.0)
                self.open[tag] = 0
            case "x":
                if self.open:
                    tag = list(self.open)[number % len(self.open)]
                    session.cancel_request(self.requests[tag], now=now)
                    del self.open[tag]
            case "s":
                since = (None, "start", 3, 10**12)[(number >> 4) % 4]
                channel = _CHANNELS[number % len(_CHANNELS)]
                tag = self._tag()
                self.subscriptions.append(session.subscribe(channel, tag=tag, now=now, since=since))  # type: ignore[arg-type]
            case "u":
                if self.subscriptions:
                    session.unsubscribe(self.subscriptions[number % len(self.subscriptions)], now=now)
            case "n":
                if self.subscriptions:
                    subscription = self.subscriptions[number % len(self.subscriptions)]
                    session.consumed(subscription, subscription.buffered, now=now)
            case "b":
                session.write_blocked(self.attempts[0], now=now)
            case "g":
                session.write_progress(self.attempts[0], now=now)
            case "B":
                session.write_resumed(self.attempts[0], now=now)
            case "t":
                deadline = session.next_deadline
                if deadline is not None:
                    self._timers(deadline)
            case "a":
                self._timers(now + number / 4)
            case "q":
                session.close(now=now, drain=number / 16)
            case "d":
                if len(self.sessions) > 1:
                    which = 1 + number % (len(self.sessions) - 1)
                    self.sessions[which].receive_message(self.attempts[which], argument[1:], now=now)
            case _:
                session.receive_message(self.attempts[0], argument, now=now)

    def _request(self, number: int, data: bytes) -> None:
        tag = self._tag()
        payload = b'{"name":"send-email","payload":{"to":"a"}}' if number & 1 else b""
        key = "key-1" if number & 2 and payload else ""
        self.requests[tag] = self.sessions[0].request(
            _METHODS[number % len(_METHODS)],
            payload,
            tag=tag,
            now=self.now,
            timeout=None if number & 4 else 5.0,
            retry=_RETRIES[number % 3],
            key=key,
        )
        self.open[tag] = 0

    def _tag(self) -> str:
        self._tags += 1
        return f"tag-{self._tags}"

    def _timers(self, until: float) -> None:
        self.now = max(self.now, until)
        for session in self.sessions:
            deadline = session.next_deadline
            if deadline is not None and deadline <= self.now:
                session.handle_timer(now=self.now)
                later = session.next_deadline
                assert later is None or later > self.now, f"deadline {later} at {self.now}"

    def _settle(self) -> None:
        """Take out everything, as a driver does, and hold it against what was told before."""
        for number, session in enumerate(self.sessions[:64]):
            effects, events = session.take_effects(), session.take_events()
            assert len(effects) + len(events) < _MOST_QUEUED, "one input queued without bound"
            assert number not in self.closed or not (effects or events), f"closed, but: {effects} {events}"
            for effect in effects:
                if isinstance(effect, Delegate):
                    self.sessions.append(effect.session)
                    self.attempts.append(0)
                elif isinstance(effect, Connect):
                    assert effect.generation <= session.generation, "a connection before its time"
                    self.attempts[number] = effect.generation
            for event in events:
                if isinstance(event, RequestSucceeded | RequestFailed | RequestOutcomeUnknown):
                    tag = str(event.tag)
                    assert tag in self.open, f"an outcome too many for {tag}: {event}"
                    del self.open[tag]
                elif isinstance(event, SubscriptionItem):
                    assert event.tag not in self.ended, "an event for a subscription that has ended"
                elif isinstance(event, SubscriptionEnded):
                    assert event.tag not in self.ended, "a subscription ended twice"
                    self.ended.add(event.tag)
                elif isinstance(event, Closed):
                    assert number not in self.closed, "closed twice"
                    self.closed.add(number)
            assert number not in self.closed or session.next_deadline is None, (
                "a closed session has a deadline"
            )


def target(data: bytes) -> None:
    drive = Drive(data[0] if data else 0)
    drive.step(ord("S"), b"")
    for what, argument in script.read(data[1:]):
        drive.step(what, argument)
    drive.finish()


def seeds() -> Iterable[bytes]:
    for settings, codec in ((0, "json"), (2, "json"), (9, "msgpack"), (3, "msgpack")):
        for conversation in conversations(codec):
            yield bytes((settings,)) + script.write(_steps(conversation))


def _steps(conversation: tuple[Line, ...]) -> Iterable[script.Step]:
    """The server's side as recorded; in place of each thing that the recorded client sent, one of our commands."""
    yield ord("o"), b""
    for line in conversation:
        if line.conn != 1:
            continue
        if line.dir == "server":
            yield (ord("c"), b"\x06") if line.op in ("close", "drop") else (ord("m"), line.data)
        elif b"auth" in line.data:
            continue
        elif b"unsubscribe" in line.data:
            yield ord("u"), b""
        elif b"subscribe" in line.data:
            yield ord("s"), bytes((sum(line.data) % 4,))
        elif b"ping" in line.data:
            yield ord("p"), b""
        else:
            yield ord("r"), bytes((sum(line.data) % 24,))
    yield ord("t"), b""
    yield ord("o"), b""
