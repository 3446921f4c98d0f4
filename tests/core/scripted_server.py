"""A `ClientSession` between hands: its driver, its clock, and a server that says what a test wants said.

`Script` takes every effect as a driver does and keeps what came out; the server's frames are made by a codec, or given
as raw bytes. Time stands still until a test moves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from dwp_core.client import ClientSession, frame_ids
from dwp_core.client_events import (
    ClientConfig,
    ClientEvent,
    RequestFailed,
    RequestOutcomeUnknown,
    RequestSucceeded,
    SubscriptionItem,
)
from dwp_core.codec import Codec, encode_payload, get_codec
from dwp_core.effects import AbortTransport, CloseTransport, Connect, Delegate, Effect, SendMessage
from dwp_core.errors import DispatchError
from dwp_core.frames import DEFAULT_LIMITS, ErrorDetail
from dwp_core.peer import FEATURES
from dwp_core.requests import Request, Retry
from dwp_core.subscriptions import Since, Subscription

EPOCH_NS = 1_767_323_045_000_000_000
JOB = "job_01h455vb4pex5vsknk084sn02q"

E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame that the client has sent, decoded."""

    type: str
    id: str
    method: str
    data: Any
    correl_id: str
    token: str
    credits: int
    ts: int | None
    error: ErrorDetail | None
    binary: bool


class Script:
    """One client session and everything around it.

    Args:
        config: how the session behaves.
        jitter: what its source of randomness gives, always.
        session: drive this one (a delegate) instead of a new one.
    """

    def __init__(
        self,
        config: ClientConfig | None = None,
        *,
        jitter: float = 0.5,
        now: float = 100.0,
        session: ClientSession | None = None,
        ids: Iterator[str] | None = None,
    ) -> None:
        self.now = now
        self.session = session or ClientSession(
            config or ClientConfig(), epoch_ns=EPOCH_NS, jitter=lambda: jitter, ids=ids or frame_ids()
        )
        self.codec: Codec = get_codec("json")
        self.taking = True
        """Whether the driver takes effects at once; False leaves them with the session."""
        self.effects: list[Effect] = []
        """What was asked of the transport since it was last looked at, messages excepted."""
        self.delegates: list[Script] = []
        self._sent: list[Sent] = []
        self._events: list[ClientEvent] = []
        self._auth_id = ""
        self._count = 0

    # What came out.

    def pump(self) -> None:
        """Take what the session wants, as a driver does after each call."""
        if not self.taking:
            return
        for effect in self.session.take_effects():
            if isinstance(effect, SendMessage):
                self._sent.append(self._read(effect))
            elif isinstance(effect, Delegate):
                delegate = Script(session=effect.session, now=self.now)
                self.delegates.append(delegate)
                delegate.pump()
            else:
                self.effects.append(effect)
        self._events += self.session.take_events()

    def sent(self) -> list[Sent]:
        """The frames sent since the last call."""
        self.pump()
        sent, self._sent = self._sent, []
        return sent

    def asked(self) -> list[tuple[str, Any]]:
        """Method and data of the requests sent since the last call."""
        return [(frame.method, frame.data) for frame in self.sent() if frame.method]

    def methods(self) -> list[str]:
        """The methods of the requests sent since the last call."""
        return [method for method, _ in self.asked()]

    def granted(self) -> int:
        """The credit granted since the last call."""
        return sum(frame.credits for frame in self.sent())

    def events(self) -> list[ClientEvent]:
        """What the session has told since the last call."""
        self.pump()
        events, self._events = self._events, []
        return events

    def told(self, kind: type[E]) -> list[E]:
        """The events of one kind since the last call of any of these; the others are gone too."""
        return [event for event in self.events() if isinstance(event, kind)]

    def one(self, kind: type[E]) -> E:
        """The only event since the last call, of this kind."""
        [event] = self.events()
        assert isinstance(event, kind), event
        return event

    def values(self) -> list[tuple[object, Any]]:
        """Tag and value of each answer since the last call."""
        return [(e.tag, e.codec.value(e.frame, DEFAULT_LIMITS)) for e in self.told(RequestSucceeded)]

    def seqs(self, tag: object = None) -> list[int | None]:
        """The numbers of the items since the last call, those of one subscription if named."""
        return [e.event.seq for e in self.told(SubscriptionItem) if tag is None or e.tag == tag]

    def outcomes(self) -> list[tuple[object, str]]:
        """Each request's tag and how it ended, since the last call."""
        names = {RequestSucceeded: "answer", RequestFailed: "failed", RequestOutcomeUnknown: "unknown"}
        return [
            (e.tag, names[type(e)])
            for e in self.events()
            if isinstance(e, RequestSucceeded | RequestFailed | RequestOutcomeUnknown)
        ]

    def failure(self) -> DispatchError:
        """The error of the only request that has ended since the last call."""
        [error] = [e.error for e in self.events() if isinstance(e, RequestFailed | RequestOutcomeUnknown)]
        return error

    def transport(self) -> list[Effect]:
        """What was asked of the transport since the last call."""
        self.pump()
        effects, self.effects = self.effects, []
        return effects

    @property
    def silent(self) -> bool:
        """Whether nothing at all has come out since the last calls."""
        return not [*self.events(), *self.sent(), *self.transport()]

    @property
    def generation(self) -> int:
        return self.session.generation

    # What the application does.

    def ask(self, method: str = "stats", data: Any = None, *, tag: object = "call", **more: Any) -> Request:
        """A call."""
        raw = b"" if data is None else encode_payload(data)
        request = self.session.request(method, raw, tag=tag, now=self.now, **more)
        self.pump()
        return request

    def read(self, *, tag: object = "read", **more: Any) -> Request:
        """A call that may be sent again."""
        return self.ask("job.get", {"job_id": JOB}, tag=tag, retry=Retry.READ, **more)

    def enqueue(self, *, tag: object = "enqueue", key: str = "k1", **more: Any) -> Request:
        """A call that may be sent again to a server that honours its key."""
        return self.ask("job.enqueue", {"name": "f"}, tag=tag, retry=Retry.IDEMPOTENT, key=key, **more)

    def cancel_job(self, *, tag: object = "cancel", **more: Any) -> Request:
        """A call that may not be sent again."""
        return self.ask("job.cancel", {"job_id": JOB}, tag=tag, **more)

    def start_workflow(self, *, tag: object = "run", **more: Any) -> Request:
        """The call that a base server answers when the run has ended."""
        return self.ask("workflow.start", {"name": "w"}, tag=tag, retry=Retry.IDEMPOTENT, key="k2", **more)

    def wait(self, *, tag: object = "wait", timeout: float | None = None) -> Request:
        """Wait for the end of a job."""
        request = self.session.wait(
            "job.wait", encode_payload({"job_id": JOB}), tag=tag, now=self.now, timeout=timeout
        )
        self.pump()
        return request

    def subscribe(self, channel: str = "jobs", *, tag: object = "sub", since: Since = None) -> Subscription:
        """A subscription."""
        subscription = self.session.subscribe(channel, tag=tag, now=self.now, since=since)
        self.pump()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self.session.unsubscribe(subscription, now=self.now)
        self.pump()

    def consumed(self, subscription: Subscription, count: int) -> None:
        self.session.consumed(subscription, count, now=self.now)
        self.pump()

    def cancel(self, request: Request) -> None:
        self.session.cancel_request(request, now=self.now)
        self.pump()

    def close(self, drain: float = 0.0) -> None:
        self.session.close(now=self.now, drain=drain)
        self.pump()

    # What the transport does.

    def start(self) -> Script:
        """Begin to connect."""
        self.session.start(now=self.now)
        self.pump()
        return self

    def open(self, token: str = "dk_1") -> Sent:
        """The WebSocket is there; the auth frame."""
        self.codec = get_codec("json")
        self.session.transport_opened(self.generation, token=token, now=self.now)
        auth = self.sent()[-1]
        self._auth_id = auth.id
        return auth

    def fail(self, reason: str = "connection refused", **more: Any) -> None:
        """The WebSocket could not be opened."""
        self.session.transport_failed(self.generation, reason, now=self.now, **more)
        self.pump()

    def cut(self, code: int = 1006, reason: str = "") -> None:
        """The connection is gone."""
        self.session.transport_closed(self.generation, now=self.now, code=code, reason=reason)
        self.pump()

    def blocked(self) -> None:
        self.session.write_blocked(self.generation, now=self.now)
        self.pump()

    def progress(self) -> None:
        self.session.write_progress(self.generation, now=self.now)
        self.pump()

    def resumed(self) -> None:
        self.session.write_resumed(self.generation, now=self.now)
        self.pump()

    def timer(self, *, late: float = 0.0) -> float:
        """The next deadline has come, or passed by `late` seconds; when it was."""
        deadline = self.session.next_deadline
        assert deadline is not None, "nothing to wait for"
        self.now = max(self.now, deadline) + late
        self.session.handle_timer(now=self.now)
        following = self.session.next_deadline
        assert following is None or following > self.now, "after a timer the next deadline is later"
        self.pump()
        return deadline

    def sleep(self, seconds: float) -> None:
        """Time passes; every deadline in it is kept."""
        until = self.now + seconds
        while (at := self.session.next_deadline) is not None and at <= until:
            self.timer()
        self.now = until

    # What the server says.

    def receive(self, message: bytes | bytearray) -> None:
        """A raw message."""
        self.session.receive_message(self.generation, message, now=self.now)
        self.pump()

    def say(self, type: str, *, id: str = "", data: Any = None, **more: Any) -> None:
        """A frame in the codec of the connection."""
        self._count += 1
        raw = b"" if data is None else encode_payload(data)
        self.receive(self.codec.encode(type, id or f"s{self._count}", data=raw, ts=EPOCH_NS, **more))

    def welcome(self, *, format: str = "json", **answer: Any) -> None:
        """Let the client in; without `features` as a base server."""
        self.codec = get_codec(format)
        self.say("response", correl_id=self._auth_id, data={"format": format, "session_id": "ws_1", **answer})

    def connect(self, **answer: Any) -> Script:
        """From where it stands (new, or backing off) to logged in, at a base server."""
        if self.session.state == "idle":
            self.start()
        elif self.session.state == "backing_off":
            while self.session.state != "connecting":
                self.timer()
        self.open()
        self.welcome(**answer)
        return self

    def connect_negotiated(self, **answer: Any) -> Script:
        """As `connect`, at a server that has every extension."""
        return self.connect(**{"features": list(FEATURES), "log": "log-1", "credits": 4096, **answer})

    def answer(self, frame: Sent, data: Any = None) -> None:
        """The answer to a request."""
        self.say("response", correl_id=frame.id, data={"status": "ok"} if data is None else data)

    def refuse(self, frame: Sent, code: int, message: str = "no") -> None:
        """An error frame that answers a request."""
        self.say("error", correl_id=frame.id, error=ErrorDetail(code, message))

    def confirm(self, frame: Sent, **more: Any) -> None:
        """The answer to a `subscribe`."""
        assert frame.method == "subscribe", frame
        self.answer(frame, {"channel": frame.data["channel"], "status": "subscribed", **more})

    def happen(
        self,
        seq: int | None = None,
        kind: str = "job.completed",
        *,
        topic: str = f"job:{JOB}",
        data: Any = None,
    ) -> None:
        """An event, labelled with its own topic."""
        event = {
            "type": kind,
            "ts": "2026-01-02T03:04:05Z",
            "topic": topic,
            "data": {} if data is None else data,
        }
        if seq is not None:
            event["seq"] = seq
        self.say("event", channel=topic, data=event)

    def drain(self, **times: Any) -> None:
        """The server goes away."""
        self.say("event", data={"type": "drain", "data": times})

    def _read(self, message: SendMessage) -> Sent:
        codec = get_codec("msgpack" if message.binary else "json")
        frame = codec.decode(message.data, DEFAULT_LIMITS)
        return Sent(
            frame.type,
            frame.id,
            frame.method,
            codec.value(frame, DEFAULT_LIMITS),
            frame.correl_id,
            frame.token,
            frame.credits,
            codec.timestamp(frame),
            frame.error,
            message.binary,
        )


def connecting(script: Script) -> Connect:
    """The only thing that is asked of the transport: to connect."""
    [effect] = script.transport()
    assert isinstance(effect, Connect), effect
    return effect


def aborted(script: Script) -> str:
    """Why the transport was to be dropped."""
    [reason] = [e.reason for e in script.transport() if isinstance(e, AbortTransport)]
    return reason


def said_farewell(script: Script) -> int:
    """The code of the closing handshake that was to be started."""
    [code] = [e.code for e in script.transport() if isinstance(e, CloseTransport)]
    return code


Step = Callable[[Script], None]
