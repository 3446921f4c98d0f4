"""Go's side against our client: every recorded conversation, the server's bytes as they came.

The client core gets the ids of the recording and is driven with the recorded client calls; what it sends must be what
was recorded (method, data, order), every answer must reach its caller, and every event each subscription that it
concerns. Where our client does not do what the recorded one did, `DEVIATIONS` says so, each one.

Always different, and not listed: `ts`; our auth data carry `client` and `features` too, and the token stands in the
frame as well; one frame with credits goes out before the first `subscribe`; `workflow.start` goes over a connection of
its own.
"""

from __future__ import annotations

import base64
import json
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dwp_core.client_events import (
    ClientConfig,
    Closed,
    RequestFailed,
    RequestOutcomeUnknown,
    RequestSucceeded,
    SubscriptionEnded,
    SubscriptionItem,
    SubscriptionStarted,
)
from dwp_core.codec import Codec, get_codec
from dwp_core.errors import InvalidRequest
from dwp_core.frames import DEFAULT_LIMITS, EventHead, Frame
from dwp_core.requests import Purpose
from dwp_core.subscriptions import Subscription
from dwp_core.topics import channels_of
from tests.core.scripted_server import Script, Sent

HERE = Path(__file__).parent
RECORDINGS = sorted([*(HERE / "conversations").glob("*/*.jsonl"), *(HERE / "clients").glob("*.jsonl")])

# What the recorded client did and ours does not, or does otherwise. Counted for each conversation.
NO_FRAME = "sent what is no frame, or of a type that a client does not send; ours cannot"
OWN_LOGIN = (
    "sent an auth frame that is none or is incomplete; ours sends its own, and hears what that one was told"
)
OWN_FORMAT = "asked for no format or for an unknown one; ours asks for json"
OWN_CREDIT = "granted credit when it chose; ours keeps the window open by itself"
BAD_CHANNEL = "asked for a channel that is none; ours refuses it before it is sent"
SHARED = "subscribed to a channel twice; ours shares one subscription on the wire"
NOBODY_LEFT = "left a channel that it did not listen to; ours has nothing to leave"

DEVIATIONS: dict[str, dict[str, int]] = {
    "credits_run_out": {OWN_CREDIT: 1},
    "frame_types": {NO_FRAME: 6},
    "handshake_bad_data": {OWN_LOGIN: 1},
    "handshake_format_absent": {OWN_FORMAT: 1},
    "handshake_format_unknown": {OWN_FORMAT: 1},
    "handshake_msgpack_first": {OWN_LOGIN: 1},
    "handshake_no_data": {OWN_LOGIN: 1},
    "handshake_not_auth": {OWN_LOGIN: 1},
    "handshake_not_json": {OWN_LOGIN: 1},
    "handshake_ping_first": {OWN_LOGIN: 1},
    "handshake_token_in_frame_only": {OWN_LOGIN: 1},
    "pings": {NO_FRAME: 1},
    "subscribe_channels": {BAD_CHANNEL: 11, SHARED: 2, NOBODY_LEFT: 3},
}


class RecordedIds:
    """The ids that the client is to use next; its own where the recording has none."""

    def __init__(self) -> None:
        self.planned: deque[str] = deque()
        self.count = 0

    def __iter__(self) -> RecordedIds:
        return self

    def __next__(self) -> str:
        if self.planned:
            return self.planned.popleft()
        self.count += 1
        return f"own-{self.count}"


@dataclass
class Connection:
    """One connection of a recording, with a client of ours in the place of the recorded one."""

    codec: Codec
    deviations: Counter[str]
    ids: RecordedIds = field(default_factory=RecordedIds)
    script: Script = field(init=False)
    started: bool = False
    over: bool = False
    delegates: dict[str, Script] = field(default_factory=dict)
    expected: dict[object, Any] = field(default_factory=dict)
    """What each call is to be told: ("answer", value), ("failed", code, message), or None while nothing was said."""
    listening: dict[str, list[Subscription]] = field(default_factory=dict)
    events: dict[object, list[EventHead]] = field(default_factory=dict)
    """The events that each subscription is to get."""

    # The recorded client.

    def client_says(self, raw: bytes) -> None:
        if not self.started:
            self._log_in(raw)
            return
        try:
            frame = self.codec.decode(raw, DEFAULT_LIMITS)
        except InvalidRequest:
            self.deviations[NO_FRAME] += 1
            return
        if frame.type == "ping":
            self._call(frame, purpose=Purpose.PING)
        elif frame.type != "request":
            self.deviations[NO_FRAME] += 1
        elif frame.credits:
            self.deviations[OWN_CREDIT] += 1
        elif frame.method == "subscribe":
            self._subscribe(frame)
        elif frame.method == "unsubscribe":
            self._unsubscribe(frame)
        else:
            self._call(frame)

    def client_closes(self) -> None:
        self.script.close()
        self.over = True

    def _log_in(self, raw: bytes) -> None:
        self.started = True
        try:
            recorded = json.loads(raw)
        except ValueError:
            recorded = {}
        data = recorded.get("data")
        complete = isinstance(data, dict) and "token" in data and recorded.get("method") == "auth"
        wanted = data.get("format") if complete else "json"
        self.script = Script(ClientConfig(format="msgpack" if wanted == "msgpack" else "json"), ids=self.ids)
        self.script.start()
        if recorded.get("id"):
            self.ids.planned.append(recorded["id"])
        sent = self.script.open(data["token"] if complete else "dk_full")
        if not complete:
            self.deviations[OWN_LOGIN] += 1
            return
        if wanted not in ("json", "msgpack"):
            self.deviations[OWN_FORMAT] += 1
        assert (sent.type, sent.method, sent.id, sent.binary) == ("request", "auth", recorded["id"], False)
        ours = {name: value for name, value in sent.data.items() if name in data}
        assert ours == {**data, "format": sent.data["format"]} if "format" in data else data

    def _call(self, frame: Frame, *, purpose: Purpose = Purpose.CALL) -> None:
        script, data = self.script, self.codec.data(frame)
        self.ids.planned.append(frame.id)
        script.session.request(frame.method, data, tag=frame.id, now=script.now, purpose=purpose)
        self.expected[frame.id] = None
        [sent] = script.sent() or [self._delegated(frame)]
        assert (sent.type, sent.id, sent.method) == (frame.type, frame.id, frame.method)
        assert sent.data == (json.loads(data) if data else None)
        assert sent.binary == self.codec.binary

    def _delegated(self, frame: Frame) -> Sent:
        """A base server reads nothing while it runs a workflow: the call goes over a connection of its own."""
        assert frame.method == "workflow.start"
        delegate = self.script.delegates[-1]
        delegate.connect(format=self.codec.name)
        self.delegates[frame.id] = delegate
        return delegate.sent()[-1]

    def _subscribe(self, frame: Frame) -> None:
        script = self.script
        value = self.codec.value(frame, DEFAULT_LIMITS)
        channel = value.get("channel") if isinstance(value, dict) else None
        if not any(self.listening.values()):
            self.ids.planned.append("credit")
        here = self.listening.setdefault(str(channel), [])
        if not here:
            self.ids.planned.append(frame.id)
        try:
            subscription = script.subscribe(channel, tag=("events", frame.id))  # type: ignore[arg-type]
        except InvalidRequest:
            self.ids.planned.clear()
            self.deviations[BAD_CHANNEL] += 1
            assert script.sent() == []
            return
        self.events[subscription.tag] = []
        sent = [each for each in script.sent() if not each.credits]
        if here:
            self.deviations[SHARED] += 1
            assert sent == []
        else:
            assert [(each.id, each.method, each.data) for each in sent] == [(frame.id, "subscribe", value)]
        here.append(subscription)

    def _unsubscribe(self, frame: Frame) -> None:
        value = self.codec.value(frame, DEFAULT_LIMITS)
        here = self.listening.pop(value["channel"], [])
        if not here:
            self.deviations[NOBODY_LEFT] += 1
            return
        self.ids.planned.append(frame.id)
        for subscription in here:
            self.script.unsubscribe(subscription)
        assert [(each.id, each.method, each.data) for each in self.script.sent()] == [
            (frame.id, "unsubscribe", value)
        ]

    # The recorded server.

    def server_says(self, raw: bytes) -> None:
        codec = self.codec if self.script.session.peer is not None else get_codec("json")
        if self.script.session.state == "authenticating":
            self.script.receive(raw)
            return
        frame = codec.decode(raw, DEFAULT_LIMITS)
        event = codec.event(frame) if frame.type == "event" else None
        if event is not None:
            self._expect_event(event)
        elif frame.correl_id in self.expected and self.expected[frame.correl_id] is None:
            error = frame.error
            self.expected[frame.correl_id] = (
                ("failed", error.code, error.message)
                if error
                else ("answer", codec.value(frame, DEFAULT_LIMITS))
            )
        self.delegates.get(frame.correl_id, self.script).receive(raw)

    def server_closes(self, code: int) -> None:
        self.script.cut(code)
        self.over = True

    def _expect_event(self, event: EventHead) -> None:
        inner = json.loads(event.data)
        for channel in channels_of(event.type, event.topic, inner.get("queue", "")):
            for subscription in self.listening.get(channel, []):
                self.events[subscription.tag].append(event)

    # What came of it.

    def check(self) -> None:
        scripts = [self.script, *self.delegates.values()]
        told = [event for script in scripts for event in script.events()]
        outcomes: dict[object, Any] = {}
        items: dict[object, list[EventHead]] = {tag: [] for tag in self.events}
        for event in told:
            if isinstance(event, RequestSucceeded):
                outcomes[event.tag] = ("answer", event.codec.value(event.frame, DEFAULT_LIMITS))
            elif isinstance(event, RequestFailed | RequestOutcomeUnknown):
                outcomes[event.tag] = ("failed", event.error.code, event.error.message)
            elif isinstance(event, SubscriptionItem):
                items[event.tag].append(event.event)
        said = {tag: outcome for tag, outcome in self.expected.items() if outcome is not None}
        assert {tag: outcomes.get(tag) for tag in said} == said
        assert items == self.events
        confirmed = [event.tag for event in told if isinstance(event, SubscriptionStarted)]
        assert sorted(map(str, confirmed)) == sorted(map(str, self.events))
        refused = [
            event for event in told if isinstance(event, SubscriptionEnded) and event.error is not None
        ]
        assert refused == []


def load(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The head of a recording and its lines."""
    head, *lines = map(json.loads, path.read_text().splitlines())
    return head, lines


def raw_of(line: dict[str, Any]) -> bytes:
    return base64.b64decode(line["base64"]) if "base64" in line else line["text"].encode()


def replay(path: Path) -> tuple[list[Connection], Counter[str]]:
    """A whole recording."""
    head, lines = load(path)
    deviations: Counter[str] = Counter()
    connections: dict[int, Connection] = {}
    for line in lines:
        codec = get_codec(head["codec"])
        connection = connections.setdefault(line["conn"], Connection(codec, deviations))
        if line["op"] in ("text", "binary"):
            if line["dir"] == "client":
                connection.client_says(raw_of(line))
            elif not connection.over:  # the rest of a recording after its client has left belongs to others
                connection.server_says(raw_of(line))
        elif line["dir"] == "client":
            connection.client_closes()
        else:
            connection.server_closes(line.get("code") or 1006)
    for connection in connections.values():
        connection.check()
    return list(connections.values()), deviations


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_our_client_says_what_was_said_and_everybody_hears_what_concerns_him(path: Path) -> None:
    _, deviations = replay(path)
    assert dict(deviations) == DEVIATIONS.get(path.stem, {})


def test_every_deviation_is_of_a_recording_that_is_there() -> None:
    assert set(DEVIATIONS) <= {path.stem for path in RECORDINGS}


@pytest.mark.parametrize(
    "path",
    [path for path in RECORDINGS if path.stem.startswith("handshake_")],
    ids=lambda path: path.stem,
)
def test_a_refused_login_is_the_end_with_the_servers_own_words(path: Path) -> None:
    _, lines = load(path)
    errors = [
        json.loads(raw_of(line)).get("error") for line in lines if line["dir"] == "server" and "text" in line
    ]
    [connection], _ = replay(path)
    session = connection.script.session
    if errors[0] is None:
        assert session.state == "closed"
        return
    with pytest.raises(Exception, match=errors[0]["message"]):
        session.request("stats", b"", tag=None, now=0.0)
    assert session.state == "closed"


def test_a_closed_conversation_leaves_nothing_open() -> None:
    for path in RECORDINGS:
        for connection in replay(path)[0]:
            if connection.over and connection.script.session.state == "closed":
                assert connection.script.session.next_deadline is None
                assert connection.script.told(Closed) == []


def test_the_recordings_hold_what_makes_these_tests_worth_their_while() -> None:
    answers = events = 0
    for path in RECORDINGS:
        for connection in replay(path)[0]:
            answers += sum(outcome is not None for outcome in connection.expected.values())
            events += sum(map(len, connection.events.values()))
    assert len(RECORDINGS) == 64
    assert answers > 200
    assert events > 100
