"""A server in a few lines, right by construction: what a client must get along with, and what it is checked against.

`ModelServer` is what outlives a connection (the log, the keys, what was carried out), `ModelConnection` one connection,
`Line` a client session (`Script`) with the connection that it has at the moment and everything that is on its way.
Nothing moves by itself: a test delivers each message, or cuts.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dwp_core.client_events import ClientEvent, SubscriptionItem, SubscriptionStarted
from dwp_core.effects import AbortTransport, CloseTransport, Connect
from dwp_core.frames import ErrorDetail
from dwp_core.peer import FEATURES
from dwp_core.topics import channels_of
from tests.core.scripted_server import Script, Sent

Frame = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of the model's log."""

    seq: int
    kind: str
    topic: str

    def is_on(self, channel: str) -> bool:
        return channel in channels_of(self.kind, self.topic)


class ModelServer:
    """What a server keeps.

    Args:
        negotiated: whether it has the extensions of PROTOCOL.md section 9.
        credits: the window that a connection starts with.
    """

    def __init__(self, *, negotiated: bool, credits: int = 1000) -> None:
        self.negotiated = negotiated
        self.credits = credits
        self.log_id = "log-1"
        self.log: list[Happened] = []
        self.removed = 0
        """The last event that retention has removed."""
        self.draining = False
        self.carried_out: Counter[int] = Counter()
        """How often each call was carried out, by the number in its data."""
        self.connections: list[ModelConnection] = []
        self._answers: dict[str, Frame] = {}

    @property
    def head(self) -> int:
        return self.log[-1].seq if self.log else 0

    def publish(self, kind: str = "job.completed", topic: str = "job:j") -> Happened:
        """Something happens."""
        happened = Happened(self.head + 1, kind, topic)
        self.log.append(happened)
        for connection in self.connections:
            connection.happens(happened)
        return happened

    def replace_log(self) -> None:
        """Another store: positions mean nothing any more."""
        self.log_id += "'"
        self.log.clear()
        self.removed = 0
        self._answers.clear()

    def carry_out(self, method: str, data: Frame) -> Frame:
        """Do what a request asks for, once for each key where keys are honoured."""
        key = data.get("idempotency_key") if self.negotiated else None
        if key is not None and key in self._answers:
            return {**self._answers[key], "duplicate": True}
        self.carried_out[data.get("n", -1)] += 1
        answer: Frame = {"n": data.get("n", -1), "method": method, "state": "completed"}
        if self.carried_out[data.get("n", -1)] == 1 and method in ("job.wait", "job.get"):
            answer |= {"state": "running", "timed_out": True}  # who waits has to ask again
        if method == "job.enqueue":
            self.publish("job.enqueued")
        if key is not None:
            self._answers[key] = answer
        return answer


class ModelConnection:
    """One connection of a client to the model."""

    def __init__(self, server: ModelServer) -> None:
        self.server = server
        self.to_server: deque[Sent] = deque()
        self.to_client: deque[Frame] = deque()
        self.channels: list[str] = []
        self.cursor = 0
        self.credit = server.credits
        server.connections.append(self)

    def gone(self) -> None:
        """The connection is over."""
        if self in self.server.connections:
            self.server.connections.remove(self)

    def take_in(self) -> None:
        """Read the next message of the client."""
        frame = self.to_server.popleft()
        if frame.credits:
            self.credit += frame.credits
        elif frame.type == "ping":
            self._say("pong", correl_id=frame.id)
        elif frame.type == "request":
            self._request(frame)
        self._push()

    def happens(self, happened: Happened) -> None:
        """An event, now."""
        if self.server.negotiated:
            self._push()
        elif self.credit and self._wants(happened):
            self.credit -= 1
            self._say_event(happened)

    def _request(self, frame: Sent) -> None:
        server, data = self.server, frame.data or {}
        if frame.method == "auth":
            self._say("response", correl_id=frame.id, data=self._welcome())
        elif server.draining:
            self._say("error", correl_id=frame.id, error=ErrorDetail(503, "draining"))
        elif frame.method == "subscribe":
            self._subscribe(frame, data)
        elif frame.method == "unsubscribe":
            if data["channel"] in self.channels:
                self.channels.remove(data["channel"])
            self._say("response", correl_id=frame.id, data={**data, "status": "unsubscribed"})
        else:
            self._say("response", correl_id=frame.id, data=server.carry_out(frame.method, data))

    def _welcome(self) -> Frame:
        server = self.server
        answer: Frame = {"format": "json", "session_id": "ws_1"}
        if server.negotiated:
            answer |= {"features": list(FEATURES), "credits": server.credits, "log": server.log_id}
        return answer

    def _subscribe(self, frame: Sent, data: Frame) -> None:
        server, since = self.server, data.get("since")
        answer = {"channel": data["channel"], "status": "subscribed"}
        if server.negotiated:
            if isinstance(since, int) and since > server.head:
                error = ErrorDetail(400, f"since is {since}, the log ends at {server.head}")
                self._say("error", correl_id=frame.id, error=error)
                return
            answer["seq"] = server.head
            start = server.removed if since == "start" else server.head if since is None else since
            if start < server.removed:
                answer["gap"] = {"from": start + 1, "to": server.removed}
            first = not self.channels
            self.cursor = start if first else min(self.cursor, start)
        if data["channel"] not in self.channels:
            self.channels.append(data["channel"])
        self._say("response", correl_id=frame.id, data=answer)

    def _wants(self, happened: Happened) -> bool:
        return any(happened.is_on(channel) for channel in self.channels)

    def _push(self) -> None:
        server = self.server
        if not (server.negotiated and self.channels):
            return
        self.cursor = max(self.cursor, server.removed)
        for happened in server.log:
            if happened.seq <= self.cursor:
                continue
            if self._wants(happened):
                if not self.credit:
                    return
                self.credit -= 1
                self._say_event(happened)
            self.cursor = happened.seq

    def _say_event(self, happened: Happened) -> None:
        data: Frame = {
            "type": happened.kind,
            "topic": happened.topic,
            "ts": "2026-01-02T03:04:05Z",
            "data": {},
        }
        if self.server.negotiated:
            data["seq"] = happened.seq
        self._say("event", channel=happened.topic, data=data)

    def _say(self, type: str, **fields: Any) -> None:
        self.to_client.append({"type": type, **fields})


class Line:
    """A client session, the connection that it has, and what is on its way between them."""

    def __init__(self, script: Script, server: ModelServer) -> None:
        self.script = script
        self.server = server
        self.connection: ModelConnection | None = None
        self.dialing = False
        self.closing = False
        """The session has said farewell and waits for the server's."""
        self.delegates: list[Line] = []
        self.told: list[ClientEvent] = []
        self.begun: dict[object, int | None] = {}
        """Where each subscription stood when it was confirmed for the first time, by its tag."""
        self.positions: dict[object, Any] = {}
        """The subscriptions by their tags, to look at."""

    def look(self) -> None:
        """Take what the session wants, and what it tells."""
        script = self.script
        if not script.taking:
            return
        script.pump()
        effects = script.transport()
        # A session that leaves a connection leaves what was not taken for it, too.
        for effect in effects:
            if isinstance(effect, Connect):
                self.dialing = True
            elif isinstance(effect, CloseTransport):
                self.closing = True
            elif isinstance(effect, AbortTransport):
                self._hang_up()
        for frame in script.sent():
            assert self.connection is not None, f"{frame} was sent without a connection"
            self.connection.to_server.append(frame)
        for event in script.events():
            if isinstance(event, SubscriptionStarted) and event.tag in self.positions:
                self.begun[event.tag] = self.positions[event.tag].position
            self.told.append(event)
        while len(self.delegates) < len(script.delegates):
            self.delegates.append(Line(script.delegates[len(self.delegates)], self.server))
        for delegate in self.delegates:
            delegate.script.now = script.now
            delegate.look()

    def steps(self) -> Iterator[str]:
        """What can happen next, in the order in which it would."""
        if self.dialing:
            yield "open"
        if self.connection is not None:
            if self.connection.to_client:
                yield "deliver"
            if self.connection.to_server:
                yield "take in"
            if self.closing and not self.connection.to_client:
                yield "close"

    def step(self, what: str) -> None:
        """One of `steps`."""
        if what == "open":
            self.open()
        elif what == "deliver":
            self.deliver()
        elif what == "take in":
            assert self.connection is not None
            self.connection.take_in()
        else:
            self.cut(1000)

    def open(self) -> None:
        self.dialing = False
        self.connection = ModelConnection(self.server)
        self.script.session.transport_opened(self.script.generation, token="dk", now=self.script.now)
        self.look()

    def deliver(self) -> None:
        """The next message of the server arrives."""
        assert self.connection is not None
        frame = dict(self.connection.to_client.popleft())
        self.script.say(frame.pop("type"), **frame)
        self.look()

    def cut(self, code: int = 1006) -> None:
        """The connection is gone, and what was on its way with it."""
        generation = self.script.generation
        if self.connection is not None or self.dialing:
            self._hang_up()
            self.script.session.transport_closed(generation, now=self.script.now, code=code)
        self.look()

    def timer(self) -> None:
        self.script.timer()
        self.look()

    def seqs(self, tag: object) -> list[int | None]:
        """The numbers of the items that a subscription got."""
        return [e.event.seq for e in self.told if isinstance(e, SubscriptionItem) and e.tag == tag]

    def _hang_up(self) -> None:
        if self.connection is not None:
            self.connection.gone()
        self.connection, self.dialing, self.closing = None, False, False
