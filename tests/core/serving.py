"""A client's end of a `ServerSession`, in raw frames, for tests: says something, gives back what the server said."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from dwp_core.effects import AbortTransport, CloseTransport
from dwp_core.events import LoggedEvent
from dwp_core.hub import Hub
from dwp_core.peer import FEATURES
from dwp_core.server import ServerSession
from dwp_core.server_events import (
    Identity,
    LoginReceived,
    ReadLog,
    RequestReceived,
    ServerConfig,
    ServerEffect,
    ServerEvent,
    SessionClosed,
)

JOB = "job_01h455vb4pex5vsknk084sn02q"
EPOCH_NS = 1_767_323_045_000_000_000
ALL = frozenset(("*",))


def event(
    seq: int, kind: str = "job.completed", *, job: str = JOB, queue: str = "mail", **tenant: str
) -> LoggedEvent:
    """An event of the log; its inner data says which it is."""
    topic = (
        f"job:{job}" if kind.startswith("job.") else f"workflow:{job}" if kind.startswith("workflow.") else ""
    )
    data = json.dumps({"n": seq}).encode()
    return LoggedEvent(seq, kind, EPOCH_NS, topic, queue, tenant.get("app", ""), tenant.get("org", ""), data)


class Client:
    """One connection, seen from its client. Time stands still until `sleep`."""

    def __init__(
        self, *, hub: Hub | None = None, config: ServerConfig | None = None, log: Iterable[LoggedEvent] = ()
    ) -> None:
        self.hub = hub or Hub(log="log-1", epoch_ns=EPOCH_NS)
        self.config = config or ServerConfig()
        self.now = 100.0
        self.session = ServerSession(
            config=self.config, hub=self.hub, session_id="ws_1", now=self.now, epoch_ns=EPOCH_NS, owner=self
        )
        self.log = list(log)
        self.received: list[dict[str, Any]] = []
        self.closed: str | None = None
        self.close_code: int | None = None
        self.aborted: str | None = None
        self._count = 0

    # What the client says.

    def send(self, message: bytes | dict[str, Any]) -> list[dict[str, Any]]:
        """A message; what came back for it."""
        raw = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.session.receive_message(raw, now=self.now)
        return self.take()

    def login(
        self,
        *,
        features: Sequence[str] | None = FEATURES,
        identity: Identity | None = None,
        scopes: frozenset[str] = ALL,
    ) -> dict[str, Any]:
        """Log in and be accepted; the `data` of the answer."""
        data: dict[str, Any] = {"token": "dk", "format": "json"}
        if features is not None:
            data["features"] = list(features)
        self.send({"id": "login", "type": "request", "method": "auth", "data": data})
        assert self.events() == [LoginReceived("dk")]
        self.session.accept(identity or Identity("me", scopes=scopes), now=self.now)
        [answer] = self.take()
        assert answer["type"] == "response"
        assert answer["correl_id"] == "login"
        return dict(answer["data"])

    def ask(
        self, method: str, data: Any = None, *, id: str | None = None, **more: Any
    ) -> list[dict[str, Any]]:
        """A request; what came back for it."""
        self._count += 1
        frame = {"id": id or f"c{self._count}", "type": "request", "method": method, **more}
        if data is not None:
            frame["data"] = data
        return self.send(frame)

    def subscribe(self, channel: str, **more: Any) -> dict[str, Any]:
        """Subscribe; the `data` of the answer. Events that come along are left in `received`."""
        answer, *events = self.ask("subscribe", {"channel": channel, **more})
        assert answer["type"] == "response", answer
        self.received += events
        return dict(answer["data"])

    # What the server's driver does.

    def take(self) -> list[dict[str, Any]]:
        """Whatever the session has to say; its wishes for the transport and the log are carried out."""
        said: list[dict[str, Any]] = []
        while True:
            messages, effects = self.session.take_messages(), self.session.take_effects()
            if not messages and not effects:
                return said
            assert self.closed is None or not messages, "a closed session spoke"
            said += [json.loads(message) for message in messages]
            for effect in effects:
                self._carry_out(effect)

    def events(self) -> list[ServerEvent]:
        """What the session tells its driver."""
        events = self.session.take_events()
        for told in events:
            if isinstance(told, SessionClosed):
                assert self.closed is None, "told twice that it is over"
                self.closed = told.reason
        return events

    def requests(self) -> list[str]:
        """The ids of requests that wait for their handlers."""
        return [told.id for told in self.events() if isinstance(told, RequestReceived)]

    def publish(self, *events: LoggedEvent) -> list[dict[str, Any]]:
        """Commit events; what came of them."""
        self.log += events
        said: list[dict[str, Any]] = []
        for fanout in self.hub.publish(events, now=self.now):
            if self in fanout.to:
                said += [json.loads(message) for message in fanout.messages]
        for owner in self.hub.take_behind():
            owner.session.pump(now=self.now)
        return said + self.take()

    def sleep(self, seconds: float) -> list[dict[str, Any]]:
        """Time passes; every deadline in it is kept."""
        said: list[dict[str, Any]] = []
        until = self.now + seconds
        while (at := self.session.next_deadline) is not None and at <= until:
            self.now = max(at, self.now)
            self.session.handle_timer(now=self.now)
            later = self.session.next_deadline
            assert later is None or later > self.now, "after a timer the next deadline is later"
            said += self.take()
        self.now = until
        return said

    def _carry_out(self, effect: ServerEffect) -> None:
        if isinstance(effect, ReadLog):
            self.read_log(effect)
        elif isinstance(effect, CloseTransport):
            self.close_code = effect.code
        elif isinstance(effect, AbortTransport):
            self.aborted = effect.reason

    def read_log(self, effect: ReadLog) -> None:
        """Read a page of the log, as a store does."""
        tenant = (effect.app_id, effect.org_id)
        after = [each for each in self.log if each.seq > effect.after and each.seq >= self.hub.oldest]
        page = [each for each in after if (each.app_id, each.org_id) == tenant][: effect.limit]
        head = max([each.seq for each in self.log], default=0)
        through = page[-1].seq if len(page) == effect.limit else head
        self.session.log_read(page, after=effect.after, through=through, now=self.now)


def numbers(said: Iterable[dict[str, Any]]) -> list[int]:
    """The `n` of the events among frames, in order."""
    return [frame["data"]["data"]["n"] for frame in said if frame["type"] == "event"]


def error_of(said: Sequence[dict[str, Any]]) -> tuple[int, str]:
    """Code and message of the one error frame that came back."""
    [frame] = said
    assert frame["type"] == "error", frame
    return frame["error"]["code"], frame["error"]["message"]
