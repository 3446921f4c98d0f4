"""A client session under everything that can happen to it, in any order; what is always true of it is written once.

Rules are commands of the application, messages delivered (whole, twice, out of order, or nonsense), cuts, timers
(early, due, much too late), writes that block, servers that go away, change or lose their log. The server is the model
of `tests/core/model_server.py`.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dwp_core import client_states as states
from dwp_core.client_events import (
    ClientConfig,
    Closed,
    Connected,
    Disconnected,
    RequestFailed,
    RequestOutcomeUnknown,
    RequestSucceeded,
    SubscriptionEnded,
    SubscriptionGap,
    SubscriptionItem,
    SubscriptionStarted,
)
from dwp_core.codec import encode_payload, get_codec
from dwp_core.errors import ClosedError, LimitError
from dwp_core.frames import ErrorDetail
from dwp_core.requests import Purpose, Request, Retry
from dwp_core.subscriptions import Subscription
from tests.core.model_server import Line, ModelServer
from tests.core.scripted_server import Script

CONFIG = ClientConfig(
    max_retries=0, wait_for_server=1e9, max_requests=12, event_window=16, event_buffer=6, heartbeat=20.0
)
CHANNELS = ("jobs", "firehose", "workflows", "job:j", "queue:mail")
EVENTS = (
    ("job.completed", "job:j"),
    ("job.failed", "job:k"),
    ("workflow.started", "workflow:w"),
    ("cron.fired", ""),
)

READ, KEYED, OTHER = "read", "keyed", "other"
CALLS: dict[str, tuple[str, Retry]] = {
    READ: ("job.list", Retry.READ),
    KEYED: ("job.enqueue", Retry.IDEMPOTENT),
    "start": ("workflow.start", Retry.IDEMPOTENT),
    OTHER: ("job.cancel", Retry.NEVER),
}

codecs = st.sampled_from([get_codec("json"), get_codec("msgpack")])
SELDOM = st.sampled_from([False, False, False, True])
then = st.sampled_from([50, 0, 1, 2, 3, 5, 50])
"""How many messages arrive before the next thing happens."""

noise = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(str.encode),
    st.builds(
        lambda codec, kind, own_id, correl_id, method, data, code: codec.encode(
            kind,
            own_id,
            correl_id=correl_id,
            method=method,
            data=data,
            error=ErrorDetail(code, "noise"),
            ts=0,
        ),
        codecs,
        st.sampled_from(["request", "response", "event", "error", "ping", "pong"]),
        st.sampled_from(["s-x", "c1"]),
        st.sampled_from(["", "c-unknown", "c0"]),
        st.sampled_from(["", "function.run"]),
        st.sampled_from(
            [b"", b"{}", b"[]", b'{"type":5}', b'{"type":"x","seq":-1}', b'{"type":"drain","data":1}']
        ),
        st.integers(0, 600),
    ),
)


class Listener:
    """What one subscription has been told, and whether that was right."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.last: int | None = None
        self.unread = 0
        self.begun = False
        self.ended = False

    def hear(self, event: object, server: ModelServer) -> None:
        """One thing that it is told, at the moment when it is."""
        assert not self.ended, f"{event} after the end"
        if isinstance(event, SubscriptionStarted):
            assert not self.begun, "begun twice"
            self.begun = True
            # From the "start" is from the oldest that was kept at that moment: its first item tells which.
            self.last = (self.subscription.position or None) if server.negotiated else None
        elif isinstance(event, SubscriptionEnded):
            self.ended = True
        elif isinstance(event, SubscriptionGap):
            self._miss(event, server)
        elif isinstance(event, SubscriptionItem):
            self.unread += 1
            assert self.unread <= 2 * max(CONFIG.event_window, CONFIG.event_buffer), (
                "unread events are bounded"
            )
            self._take(event.event.seq, server)

    def _take(self, seq: int | None, server: ModelServer) -> None:
        if seq is None or not server.negotiated:
            self.last = None
            return
        if self.last is not None:
            assert seq > self.last, f"{seq} after {self.last}"
            self._nothing_between(seq, server)
        self.last = seq

    def _miss(self, event: SubscriptionGap, server: ModelServer) -> None:
        gap = event.gap
        if gap.first is None or gap.last is None:
            self.last = None
            return
        if self.last is not None:
            self._nothing_between(gap.first, server)
        self.last = max(gap.last, self.last or 0)

    def _nothing_between(self, seq: int, server: ModelServer) -> None:
        assert self.last is not None
        lost = [h.seq for h in server.log if self.last < h.seq < seq and h.is_on(self.subscription.channel)]
        assert not lost, f"{lost} were lost between {self.last} and {seq}"


class ClientMachine(RuleBasedStateMachine):
    """The application, the network and the server, as chance will have them."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0
        self.asked: dict[int, tuple[str, Request]] = {}
        self.outcomes: dict[int, str] = {}
        self.cancelled: set[int] = set()
        self.listeners: dict[int, Listener] = {}
        self.heard: dict[Line, int] = {}

    @initialize(
        negotiated=st.sampled_from([True, True, False]),
        credits=st.sampled_from([1, 8, 16, 24]),
        jitter=st.sampled_from([0.0, 0.9]),
        connected=st.sampled_from([True, True, True, False]),
        channels=st.lists(st.sampled_from(CHANNELS[:3]), max_size=3),
    )
    def begin(
        self, negotiated: bool, credits: int, jitter: float, connected: bool, channels: list[str]
    ) -> None:
        self.server = ModelServer(negotiated=negotiated, credits=credits)
        self.script = Script(CONFIG, jitter=jitter)
        self.line = Line(self.script, self.server)
        self.script.start()
        self.line.look()
        for channel in channels:
            self.subscribe(channel, None, 0)
        if connected:
            self._settle(50)

    @property
    def lines(self) -> list[Line]:
        return [self.line, *self.line.delegates]

    @property
    def over(self) -> bool:
        return self.script.session.state in states.OVER

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    # The application.

    @precondition(lambda self: not self.over)
    @rule(
        kinds=st.lists(st.sampled_from([*sorted(CALLS), "wait", "ping"]), min_size=1, max_size=4),
        timeout=st.sampled_from([None, None, None, 0.0, 0.1, 5.0, 100.0]),
        then=then,
    )
    def ask(self, kinds: list[str], timeout: float | None, then: int) -> None:
        for kind in kinds:
            n = self.number()
            if kind in CALLS:
                method, retry = CALLS[kind]
                key = f"k{n}" if retry is Retry.IDEMPOTENT else ""
                self._command(kind, n, method, retry=retry, key=key, timeout=timeout)
            elif kind == "wait":
                self._command(READ, n, "job.wait", retry=Retry.READ, purpose=Purpose.WAIT, timeout=timeout)
            else:
                self._command(READ, n, "", retry=Retry.READ, purpose=Purpose.PING, timeout=timeout)
        self._settle(then)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        n = data.draw(st.sampled_from(sorted(self.asked)))
        if n not in self.outcomes:
            self.cancelled.add(n)
        self.script.cancel(self.asked[n][1])
        self._look()

    @precondition(lambda self: not self.over)
    @rule(
        channel=st.sampled_from(CHANNELS), since=st.sampled_from([None, None, "start", 0, "head"]), then=then
    )
    def subscribe(self, channel: str, since: Any, then: int) -> None:
        n = self.number()
        since = self.server.head if since == "head" else since
        subscription = self.script.session.subscribe(channel, tag=n, now=self.script.now, since=since)
        self.listeners[n] = Listener(subscription)
        self._look()
        self._settle(then)

    @precondition(lambda self: self.listeners)
    @rule(data=st.data())
    def unsubscribe(self, data: st.DataObject) -> None:
        self.script.unsubscribe(
            self.listeners[data.draw(st.sampled_from(sorted(self.listeners)))].subscription
        )
        self._look()

    @precondition(lambda self: self.listeners)
    @rule(data=st.data(), share=st.sampled_from([0.3, 1.0, 1.0]), then=then)
    def read(self, data: st.DataObject, share: float, then: int) -> None:
        listener = self.listeners[data.draw(st.sampled_from(sorted(self.listeners)))]
        count = int(listener.unread * share)
        listener.unread -= count
        self.script.consumed(listener.subscription, count)
        self._look()
        self._settle(then)

    @rule(drain=st.sampled_from([0.0, 0.0, 3.0]), really=st.integers(0, 20))
    def close(self, drain: float, really: int) -> None:
        if really == 20:
            self.script.close(drain)
            self._look()

    # The network.

    @rule(steps=st.integers(1, 8), which=st.integers(0, 3))
    def go_on(self, steps: int, which: int) -> None:
        for _ in range(steps):
            lines = self.lines
            line = lines[which % len(lines)]
            what = next(line.steps(), None)
            if what is None:
                return
            line.step(what)
            self._look()

    @rule(code=st.sampled_from([1000, 1001, 1006]), which=st.integers(0, 3), again=st.booleans(), then=then)
    def cut(self, code: int, which: int, again: bool, then: int) -> None:
        line = self.lines[which % len(self.lines)]
        line.cut(code)
        self._look()
        if again and line.script.session.state == states.BACKING_OFF:
            line.timer()
            self._look()
            self._settle(then)

    @rule(message=noise)
    def nonsense(self, message: bytes) -> None:
        if self.line.connection is not None:
            self.script.receive(message)
            self._look()

    @rule(
        what=st.sampled_from(["twice", "another order", "no transport", "an older connection", "too early"])
    )
    def mischief(self, what: str) -> None:
        waiting = self.line.connection.to_client if self.line.connection is not None else deque()
        answers = [frame for frame in list(waiting)[:2] if frame["type"] != "event"]
        if what == "twice" and answers and answers[0] is waiting[0]:
            waiting.append(waiting[0])
        elif what == "another order" and len(answers) == 2:
            waiting[0], waiting[1] = waiting[1], waiting[0]
        elif what == "no transport" and self.line.dialing:
            self.line.dialing = False
            self.script.fail("refused", status=502)
            self._look()
        elif what == "an older connection":
            self._hear_an_older_connection()
        elif what == "too early" and (self.script.session.next_deadline or 0.0) > self.script.now:
            self.script.session.handle_timer(now=self.script.now)
            assert self.script.silent

    @rule(what=st.sampled_from(["blocked", "progress", "resumed", "resumed"]))
    def write(self, what: str) -> None:
        {"blocked": self.script.blocked, "progress": self.script.progress, "resumed": self.script.resumed}[
            what
        ]()
        self._look()

    # Time.

    @rule(late=st.sampled_from([0.0, 0.0, 0.0, 0.5, 3600.0]), which=st.integers(0, 3), then=then)
    def timer(self, late: float, which: int, then: int = 0) -> None:
        line = self.lines[which % len(self.lines)]
        if line.script.session.next_deadline is not None:
            line.script.timer(late=late)
            self.script.now = max(self.script.now, line.script.now)
            self._look()
            self._settle(then)

    # The server.

    @rule(event=st.sampled_from(EVENTS), times=st.integers(1, 20), then=then)
    def publish(self, event: tuple[str, str], times: int, then: int) -> None:
        for _ in range(times):
            self.server.publish(*event)
        self._settle(then)

    @rule(upto=st.floats(0.0, 1.0))
    def forget_old_events(self, upto: float) -> None:
        self.server.removed = max(self.server.removed, int(self.server.head * upto))
        for line in self.lines:
            connection = line.connection
            if connection is not None and connection.channels and connection.cursor < self.server.removed:
                line.cut(1013)  # it lost its place; it learns of the gap when it comes back and asks
        self._look()

    @rule()
    def go_away(self) -> None:
        if self.server.negotiated:
            self.server.draining = True
            for connection in self.server.connections:
                connection.to_client.append({"type": "event", "data": {"type": "drain", "data": {}}})

    @rule(another_log=SELDOM, another_kind=SELDOM)
    def restart(self, another_log: bool, another_kind: bool) -> None:
        for line in self.lines:
            line.cut()
        self._look()
        self.server.draining = False
        if another_log:
            self.server.replace_log()
        if another_kind:
            self.server.negotiated = not self.server.negotiated

    # What is always true.

    @invariant()
    def something_is_pending_exactly_when_there_is_a_deadline(self) -> None:
        for line in self.lines:
            session = line.script.session
            assert (session.next_deadline is None) == (session.state in (states.IDLE, states.CLOSED))

    @invariant()
    def tables_are_bounded(self) -> None:
        session = self.script.session
        table = session._calls.table
        own = len([r for r in table.flying.values() if r.is_own])
        assert len(table) - own <= CONFIG.max_requests, "open requests are bounded"
        assert len(session._delegates) <= CONFIG.max_requests, "delegated requests are bounded"
        assert len(session._streams._unanswered) <= len(self.listeners)
        window = session._streams._window
        assert window is None or window.remaining >= 0

    @invariant()
    def a_closed_session_refuses_everything(self) -> None:
        if self.over:
            with pytest.raises(ClosedError):
                self.script.ask()
            with pytest.raises(ClosedError):
                self.script.subscribe()

    @invariant()
    def nothing_was_carried_out_twice(self) -> None:
        for n, (kind, _) in self.asked.items():
            times = self.server.carried_out[n]
            if kind != READ:
                assert times <= 1, f"{kind} {n} was carried out {times} times"
                assert times == 1 or self.outcomes.get(n) != "answer", (
                    f"{kind} {n} was answered and not carried out"
                )

    def teardown(self) -> None:
        """After all trouble: everybody gets what he waits for, and then it can be closed."""
        if not hasattr(self, "line"):
            return
        if not self.over:
            self._end_all_trouble()
        self.script.close()
        for line in self.lines:
            for _ in range(10):
                if line.script.session.state != states.CLOSED:
                    line.timer()
        self._look()
        for line in self.lines:
            assert line.script.session.state == states.CLOSED
            assert isinstance(line.told[-1], Closed)
            line.script.session.handle_timer(now=line.script.now + 1e6)
            assert line.script.silent
        assert set(self.outcomes) == set(self.asked) - self.cancelled
        assert all(listener.ended for listener in self.listeners.values())
        self.nothing_was_carried_out_twice()

    # Inside.

    def _hear_an_older_connection(self) -> None:
        session, now = self.script.session, self.script.now
        older = session.generation - 1
        session.receive_message(older, b"{}", now=now)
        session.transport_opened(older, token="t", now=now)
        session.transport_failed(older, "x", now=now)
        session.transport_closed(older, now=now)
        session.write_blocked(older, now=now)
        session.write_progress(older, now=now)
        session.write_resumed(older, now=now)
        assert self.script.silent

    def _end_all_trouble(self) -> None:
        self.server.draining = False
        self.script.resumed()
        for _ in range(60):
            self._settle(300)
            for line in self.lines:
                if line.script.session.state == states.BACKING_OFF:
                    line.timer()
            for listener in self.listeners.values():
                count, listener.unread = listener.unread, 0
                self.script.consumed(listener.subscription, count)
            self._look()
            if self.script.session.state == states.READY and not any(
                True for li in self.lines for _ in li.steps()
            ):
                looks = self.script.session._calls._looks
                if looks.next is None:
                    break
                self.line.timer()
        else:
            pytest.fail(f"it does not come to rest: {self.script.session.state}")
        assert set(self.outcomes) == set(self.asked) - self.cancelled, "everybody has heard"
        for listener in self.listeners.values():
            if self.server.negotiated and not listener.ended:
                assert listener.subscription.confirmed, "a subscription was forgotten"
                if listener.last is not None:
                    listener._nothing_between(self.server.head + 1, self.server)

    def _settle(self, most: int) -> None:
        """Let everything that is on its way arrive."""
        for _ in range(most):
            step = next(((line, what) for line in self.lines for what in line.steps()), None)
            if step is None:
                return
            step[0].step(step[1])
            self._look()

    def _command(self, kind: str, n: int, method: str, **more: Any) -> None:
        session, data = self.script.session, encode_payload({"n": n})
        try:
            self.asked[n] = (kind, session.request(method, data, tag=n, now=self.script.now, **more))
        except LimitError:
            assert len(session._calls.table) + len(session._delegates) >= CONFIG.max_requests
        self._look()

    def _look(self) -> None:
        self.line.look()
        for line in self.lines:
            for event in line.told[self.heard.get(line, 0) :]:
                self._hear(event)
            self.heard[line] = len(line.told)

    def _hear(self, event: object) -> None:
        if isinstance(event, RequestSucceeded | RequestFailed | RequestOutcomeUnknown):
            n = event.tag
            assert isinstance(n, int)
            assert n not in self.outcomes, f"{n} has ended twice"
            assert n not in self.cancelled, f"{n} was cancelled"
            names = {RequestSucceeded: "answer", RequestFailed: "failed", RequestOutcomeUnknown: "unknown"}
            self.outcomes[n] = names[type(event)]
        elif isinstance(event, Connected):
            pending = self.script.session._streams._unanswered
            assert not pending, "connected before the subscriptions are back"
        elif isinstance(event, Disconnected):
            assert event.retry_at >= self.script.now - 3600.0
        elif hasattr(event, "tag"):
            self.listeners[event.tag].hear(event, self.server)


TestClientMachine = ClientMachine.TestCase
TestClientMachine.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
