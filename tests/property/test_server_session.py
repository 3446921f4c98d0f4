"""Sessions and their hub under any order of inputs: the invariants that hold whatever happens.

Several connections of every kind share one hub. Clients subscribe, go back, grant credit and stop reading; the driver
answers late, reads the log late and in any order; time passes. Credit is never exceeded; every request has exactly one
outcome; each connection gets its events in order, none lost, none twice; a closed session is silent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dwp_core.effects import AbortTransport, CloseTransport
from dwp_core.errors import ConflictError
from dwp_core.events import LoggedEvent
from dwp_core.hub import Hub
from dwp_core.server import ServerSession
from dwp_core.server_events import Identity, ReadLog, RequestReceived, ServerConfig, SessionClosed
from dwp_core.topics import channels_of
from tests.core.serving import ALL, EPOCH_NS, event

JOBS = ("job_01h455vb4pex5vsknk084sn02q", "job_01h455vb4pex5vsknk084sn02r")
CHANNELS = ("jobs", "workflows", "firehose", "queue:mail", f"job:{JOBS[0]}")
KINDS = ("job.enqueued", "job.completed", "workflow.started", "cron.fired")
CONFIG = ServerConfig(credits=6, in_flight=4, subscriptions=4)
BATCHES = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.sampled_from(JOBS),
        st.sampled_from(("mail", "")),
        st.sampled_from((False, False, True)),
    ),
    min_size=1,
    max_size=6,
)


@dataclass
class Wanted:
    """One subscription: since which step, and after which seq."""

    step: int
    start: int


@dataclass
class Change:
    """What a request changes when it is not refused."""

    channel: str
    wanted: Wanted | None
    goes_back: bool = False


@dataclass
class Peer:
    """What the test knows of one connection."""

    session: ServerSession
    base: bool
    tenant: str
    granted: int = CONFIG.credits
    limited: bool = True
    spent: int = 0
    wanted: dict[str, list[Wanted]] = field(default_factory=dict)
    """What was asked for on each channel; asking again takes nothing away."""
    received: list[tuple[int, str, int]] = field(default_factory=list)
    """Step, label and seq of each event frame."""
    went_back: bool = False
    change: Change | None = None
    waiting: list[str] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)
    asked: int = 0
    pages: list[ReadLog] = field(default_factory=list)
    blocked: bool = False
    closed: bool = False


class Sessions(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.step = 0
        self.log: list[LoggedEvent] = []
        self.peers: list[Peer] = []

    @initialize(
        ring=st.integers(1, 6),
        kinds=st.lists(st.sampled_from("nba"), min_size=1, max_size=2),
        channels=st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=3, unique=True),
    )
    def connect(self, ring: int, kinds: list[str], channels: list[str]) -> None:
        self.hub = Hub(ring=ring, epoch_ns=EPOCH_NS)
        for kind in kinds:
            session = ServerSession(
                config=CONFIG,
                hub=self.hub,
                session_id="ws",
                now=0.0,
                epoch_ns=EPOCH_NS,
                owner=len(self.peers),
            )
            base = kind == "b"
            features = [] if base else ["resume", "drain"]
            auth = {"id": "a", "type": "request", "method": "auth", "data": {"features": features}}
            session.receive_message(json.dumps(auth).encode(), now=0.0)
            tenant = "app" if kind == "a" else ""
            session.accept(Identity("me", tenant, "", ALL), now=0.0)
            assert len(session.take_messages()) == 1
            session.take_events()
            peer = Peer(session, base, tenant, limited=not base)
            self.peers.append(peer)
            for channel in channels:
                self.ask(peer, "subscribe", {"channel": channel}, Change(channel, Wanted(0, 0)))

    def pick(self, number: int) -> Peer:
        self.step += 1
        return self.peers[number % len(self.peers)]

    # ── the client ──

    @rule(who=st.integers(0, 1), channel=st.sampled_from(CHANNELS), back=st.none() | st.integers(0, 8))
    def subscribe(self, who: int, channel: str, back: int | None) -> None:
        peer = self.pick(who)
        head = self.hub.head
        data: dict[str, object] = {"channel": channel}
        if back is None or peer.base:
            change = Change(channel, Wanted(self.step, head))
        else:
            data["since"] = max(head - back, 0)
            change = Change(channel, Wanted(self.step, max(head - back, 0)), goes_back=True)
        self.ask(peer, "subscribe", data, change)

    @rule(who=st.integers(0, 1), channel=st.sampled_from(CHANNELS))
    def unsubscribe(self, who: int, channel: str) -> None:
        self.ask(self.pick(who), "unsubscribe", {"channel": channel}, Change(channel, None))

    @rule(who=st.integers(0, 1), credits=st.integers(1, 9))
    def grant(self, who: int, credits: int) -> None:
        peer = self.pick(who)
        if not peer.closed:
            if not peer.limited:
                peer.limited = True
                peer.granted = max(peer.granted, peer.spent)
            peer.granted += credits
        frame = {"id": "", "type": "request", "credits": credits}
        peer.session.receive_message(json.dumps(frame).encode(), now=self.now)
        self.settle(peer)

    @rule(who=st.integers(0, 1), count=st.integers(1, 5))
    def request(self, who: int, count: int) -> None:
        peer = self.pick(who)
        for _ in range(count):
            self.ask(peer, "stats", None, None)

    def ask(self, peer: Peer, method: str, data: object, change: Change | None) -> None:
        peer.asked += 1
        peer.change = change
        frame = {"id": f"c{peer.asked}", "type": "request", "method": method, "data": data}
        if not peer.closed:
            peer.outcomes[f"c{peer.asked}"] = 0
        peer.session.receive_message(json.dumps(frame).encode(), now=self.now)
        self.settle(peer)

    # ── the driver ──

    @rule(who=st.integers(0, 1), which=st.lists(st.integers(-3, 3), min_size=1, max_size=4))
    def answer(self, who: int, which: list[int]) -> None:
        peer = self.pick(who)
        for each in which:
            if peer.waiting:
                id = peer.waiting.pop(abs(each) % len(peer.waiting))
                if each < 0:
                    peer.session.fail(id, ConflictError("no"), now=self.now)
                else:
                    peer.session.respond(id, b"{}", now=self.now)
        self.settle(peer)

    @rule(batch=BATCHES, late=st.booleans())
    def publish(self, batch: list[tuple[str, str, str, bool]], late: bool) -> None:
        """Commit events; the hub hears of them now, or (as with another process's) with the next that it hears of."""
        self.step += 1
        for kind, job, queue, other in batch:
            seq = (self.log[-1].seq if self.log else 0) + (2 if other else 1)
            queue = queue if kind.startswith("job") else ""
            self.log.append(event(seq, kind, job=job, queue=queue, app="app" if other else ""))
        if not late:
            self.tell_hub()

    @rule(batch=BATCHES)
    def publish_more(self, batch: list[tuple[str, str, str, bool]]) -> None:
        self.publish(batch, late=False)

    def tell_hub(self) -> None:
        unpublished = [each for each in self.log if each.seq > self.hub.head]
        for fanout in self.hub.publish(unpublished, now=self.now):
            for owner in fanout.to:
                self.hear(self.peers[owner], fanout.messages)
        for owner in self.hub.take_behind():
            self.peers[owner].session.pump(now=self.now)
            self.settle(self.peers[owner])

    @rule(who=st.integers(0, 1), which=st.integers(0, 3))
    def read_log(self, who: int, which: int) -> None:
        peer = self.pick(who)
        if peer.pages:
            self.read(peer, peer.pages.pop(which % len(peer.pages)))

    def read(self, peer: Peer, page: ReadLog) -> None:
        limit = 3  # a store may give less than was asked for
        found = [each for each in self.log if each.seq > page.after and each.app_id == page.app_id][:limit]
        through = found[-1].seq if len(found) == limit else (self.log[-1].seq if self.log else 0)
        peer.session.log_read(found, after=page.after, through=through, now=self.now)
        self.settle(peer)

    @rule(who=st.integers(0, 1), luck=st.integers(0, 2))
    def block_or_resume(self, who: int, luck: int) -> None:
        peer = self.pick(who)
        if luck and not peer.blocked:
            return
        if peer.blocked:
            peer.session.write_resumed(now=self.now)
        else:
            peer.session.write_blocked(now=self.now)
        peer.blocked = not peer.blocked
        self.settle(peer)

    @rule(seconds=st.sampled_from((0.001, 0.5, 3.0)))
    def time_passes(self, seconds: float) -> None:
        self.step += 1
        self.now += seconds
        for peer in self.peers:
            deadline = peer.session.next_deadline
            if deadline is not None and deadline <= self.now:
                peer.session.handle_timer(now=self.now)
                later = peer.session.next_deadline
                assert later is None or later > self.now
                self.settle(peer)

    @rule(who=st.integers(0, 1), how=st.sampled_from(("drain", "close", "lost")), luck=st.integers(0, 9))
    def end(self, who: int, how: str, luck: int) -> None:
        peer = self.pick(who)
        if luck != 5:
            return  # seldom, or nothing lives long enough to be interesting
        if how == "drain":
            peer.session.drain(deadline=self.now + 1, retry_after=1, now=self.now)
        elif how == "close":
            peer.session.close(now=self.now)
        else:
            peer.session.transport_closed(now=self.now)
        self.settle(peer)

    # ── what comes out ──

    def settle(self, peer: Peer) -> None:
        """Take out everything, as a driver does; log pages wait for their rule."""
        while True:
            messages = peer.session.take_messages()
            events, effects = peer.session.take_events(), peer.session.take_effects()
            if not (messages or events or effects):
                return
            self.hear(peer, messages)
            for told in events:
                assert not peer.closed, "a closed session told something"
                if isinstance(told, RequestReceived):
                    peer.waiting.append(told.id)
                elif isinstance(told, SessionClosed):
                    peer.closed = True
            for effect in effects:
                if isinstance(effect, ReadLog):
                    assert effect.app_id == peer.tenant
                    peer.pages.append(effect)
                else:
                    assert isinstance(effect, CloseTransport | AbortTransport)

    def hear(self, peer: Peer, messages: list[bytes]) -> None:
        for message in messages:
            assert not peer.closed, "a closed session spoke"
            frame = json.loads(message)
            if frame["type"] == "event":
                if frame["data"]["type"] != "drain":
                    self.hear_event(peer, frame)
            elif frame["type"] in ("response", "error"):
                peer.outcomes[frame["correl_id"]] += 1
                if frame["correl_id"] == f"c{peer.asked}" and frame["type"] == "response":
                    self.apply(peer)

    def apply(self, peer: Peer) -> None:
        change, peer.change = peer.change, None
        if change is not None and change.wanted is None:
            peer.wanted.pop(change.channel, None)
        elif (
            change is not None
            and change.wanted is not None
            and (change.goes_back or change.channel not in peer.wanted)
        ):
            peer.wanted.setdefault(change.channel, []).append(change.wanted)
            peer.went_back = peer.went_back or change.goes_back

    def hear_event(self, peer: Peer, frame: dict) -> None:
        seq = frame["data"]["data"]["n"]
        label = frame.get("channel", "")
        [logged] = [each for each in self.log if each.seq == seq]
        on = channels_of(logged.type, logged.topic, logged.queue)
        assert logged.app_id == peer.tenant, "an event of another tenant"
        peer.spent += 1
        if peer.base:
            assert label in peer.wanted
            assert label in on
            assert "seq" not in frame["data"]
            before = [s for _, other, s in peer.received if other == label]
            assert not before or before[-1] < seq, "a base peer heard an event twice or out of order"
        else:
            assert label == logged.topic
            assert frame["data"]["seq"] == seq
            reasons = [
                wanted for channel in on for wanted in peer.wanted.get(channel, ()) if seq > wanted.start
            ]
            assert reasons, "nobody wanted it"
            if not peer.went_back and peer.received:
                assert peer.received[-1][2] < seq, "an event came twice or out of order"
            # Once more only for a subscription that was made after it came.
            last = max((step for step, _, s in peer.received if s == seq), default=-1)
            assert any(wanted.step > last for wanted in reasons), "an event came again for nobody"
            peer.went_back = False
        peer.received.append((self.step, label, seq))

    @invariant()
    def credit_is_never_exceeded(self) -> None:
        for peer in self.peers:
            if peer.limited:
                assert peer.spent <= peer.granted

    @invariant()
    def nothing_is_answered_twice(self) -> None:
        for peer in self.peers:
            assert all(count <= 1 for count in peer.outcomes.values())
            if not peer.closed:
                open_ones = {id for id, count in peer.outcomes.items() if count == 0}
                assert open_ones == set(peer.waiting)

    @invariant()
    def a_closed_session_has_nothing_pending(self) -> None:
        for peer in self.peers:
            if peer.session.state == "closed":
                assert peer.session.next_deadline is None

    def teardown(self) -> None:
        """With credit, a free socket and a log that is read, everything arrives."""
        self.step += 1
        if self.peers:
            self.tell_hub()
        for peer in self.peers:
            if peer.blocked:
                peer.session.write_resumed(now=self.now)
            if peer.limited and not peer.closed:
                peer.granted += 1000
                peer.session.receive_message(b'{"type":"request","credits":1000}', now=self.now)
            self.settle(peer)
            while peer.pages:
                self.read(peer, peer.pages.pop(0))
            if not peer.closed:
                self.nothing_is_lost(peer)
        for peer in self.peers:
            peer.session.transport_closed(now=self.now)
            self.settle(peer)
            assert peer.closed
        if self.peers:
            assert (self.hub.subscribers, self.hub.channels) == (0, 0)

    def nothing_is_lost(self, peer: Peer) -> None:
        for channel, all_wanted in peer.wanted.items():
            for wanted in all_wanted:
                heard = {
                    seq
                    for step, label, seq in peer.received
                    if step >= wanted.step and (not peer.base or label == channel)
                }
                for each in self.log:
                    on = channels_of(each.type, each.topic, each.queue)
                    if each.seq > wanted.start and each.app_id == peer.tenant and channel in on:
                        assert each.seq in heard, f"{each.seq} was lost for {channel}"


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
