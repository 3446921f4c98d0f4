"""The client's side of every recorded conversation, replayed against our server; its answers compared by shape.

What a client sent to the existing Go server is sent to ours, with the ids of our jobs for those of the recording. Every
answer must have the same code, or the same keys with values of the same kind; fixed values must be the same; each event
that the client got must come. Where we differ on purpose, `DIFFERENCES` says so, and why: that is the whole list.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from dispatch.server.auth import Keys
from dwp_core.codec import get_codec
from dwp_core.codec.timestamps import parse_rfc3339
from dwp_core.errors import DispatchError
from dwp_core.frames import DEFAULT_LIMITS
from tests.server.serving import KEYS, noop, registry_of, serving

HERE = Path(__file__).parent
RECORDINGS = sorted([*HERE.glob("conversations/*/*.jsonl"), *HERE.glob("clients/*.jsonl")])
PATIENCE = 20.0


@dataclass(frozen=True)
class Difference:
    """One thing that our server does otherwise than Go.

    Attributes:
        why: the reason, with its place in PROTOCOL.md.
        requests: the requests that it is about: `NAME/id`, or `CODEC:NAME/id` where the two recordings differ.
        code: the error code of our answer; 0 where we answer a request that Go refuses.
    """

    why: str
    requests: frozenset[str]
    code: int = 0


def _of(name: str, *numbers: int) -> frozenset[str]:
    return frozenset(f"{name}/c1-{number}" for number in numbers)


DIFFERENCES = (
    Difference(
        "frames of other types are not requests: 400 (section 4, quirks)",
        _of("frame_types", 3, 4, 5, 6, 7, 8),
        400,
    ),
    Difference(
        "a pong is swallowed, not answered (section 4, quirks)",
        frozenset(("json:pings/c1-8", "msgpack:pings/c1-12")),
        -1,
    ),
    Difference(
        "cancelling a job that has ended is a conflict, not a success (section 4, quirks)",
        frozenset(
            (
                "job_lifecycle/c1-5",
                "go/20261122094910.553430356",
                "typescript/1795340952736-6",
                "python/1795340955054947191",
            )
        ),
        409,
    ),
    Difference("a job that has ended stays as it ended (section 4, quirks)", _of("job_lifecycle", 6)),
    Difference("a job has a name: 400 (section 4)", _of("job_errors", 16, 17), 400),
    Difference("unknown methods are 405 whatever the scopes (section 4, quirks)", _of("scopes", 12), 405),
    Difference(
        "methods that Go only names are served",
        _of("job_list_and_others_405", 2, 5, 6),
        0,
    ),
    Difference("dlq.replay is served, and x is no id", _of("job_list_and_others_405", 7), 400),
)
"""Answers that differ."""

NOT_SERVED_YET = re.compile(r"^(workflow|federation)\.")
"""Methods that wait for durable functions: 405, where the caller has the scope for them."""

VALUES = {
    "priority": "negative priorities are kept (section 4, quirks)",
    "worker_id": "the worker that ran a job is named; Go leaves it empty",
    "connections": "the true number; Go always says 0 (section 4, quirks)",
    "broker": "figures of another server",
    "session_id": "another session",
    "elapsed_ms": "another machine",
    "error": "the class of the exception stands before its text",
    "last_error": "the class of the exception stands before its text",
    "updated_at": "a refused cancellation changes nothing",
}
"""Values that differ, by key."""

OURS = frozenset(
    (
        "output",
        "error",
        "state",
        "heartbeat_at",
        "last_error",
        "jobs_running",
        "store_waiting",
        "queues",
        "dead_letters",
        "elapsed_ms",
        "details",
    )
)
"""Keys that may be on our side only (section 4: `output?` and `error?` of a Job; section 5: `state` of an event)."""

LESS = frozenset(("elapsed_ms",))
"""Keys that may be missing: optional where they are zero."""

SKIPPED = {
    "handshake_bad_ts": "no frame is rejected for its ts (section 2): test_a_login_with_an_odd_time_is_accepted",
    "cron_events": "nobody asks for a fire: tests/server/test_crons.py has ours, as it is recorded",
    "other_tenant_sees_events": "we separate tenants (section 5): test_another_tenant_hears_nothing",
}


def test_another_tenant_hears_nothing() -> None:
    """What `other_tenant_sees_events` shows on Go cannot happen here: neither its events nor the job itself."""

    async def replay() -> None:
        async with serving(keys=Keys(KEYS)) as served:
            first, second = (
                await Conversation.open(served.url, "dk_full"),
                await Conversation.open(served.url, "dk_other"),
            )
            await second.ask("subscribe", {"channel": "firehose"})
            job = (await first.ask("job.enqueue", {"name": "noop", "payload": 1}))["data"]["job_id"]
            assert (await second.ask("job.get", {"job_id": job}))["error"]["code"] == 404
            await first.ask("job.wait", {"job_id": job})
            assert [frame["type"] for frame in second.heard] == ["response", "response", "error"]
            await first.connection.close()
            await second.connection.close()

    asyncio.run(asyncio.wait_for(replay(), PATIENCE))


def test_a_login_with_an_odd_time_is_accepted() -> None:
    """What `handshake_bad_ts` shows on Go: here an unreadable time counts as absent."""

    async def replay() -> None:
        async with serving(keys=Keys(KEYS)) as served, connect(served.url, compression=None) as connection:
            path = HERE / "conversations/json/handshake_bad_ts.jsonl"
            auth = next(
                line for line in map(json.loads, path.read_text().splitlines()) if line.get("dir") == "client"
            )
            await connection.send(auth["text"])
            assert json.loads(await connection.recv())["type"] == "response"

    asyncio.run(asyncio.wait_for(replay(), PATIENCE))


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recorded_client_is_served(path: Path) -> None:
    """Every answer and every event that the recorded client got, it gets from us."""
    if path.stem in SKIPPED:
        pytest.skip(SKIPPED[path.stem])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    asyncio.run(asyncio.wait_for(Replay(path.stem, lines[0]["codec"]).run(lines[1:]), PATIENCE))


def test_every_difference_is_about_a_request_that_was_recorded() -> None:
    """The table names nothing that does not exist."""
    recorded = set()
    for path in RECORDINGS:
        for line in map(json.loads, path.read_text().splitlines()):
            if line.get("dir") == "client" and line["op"] in ("text", "binary"):
                try:
                    id = Conversation.plain(_bytes(line))["id"]
                except (DispatchError, ValueError, KeyError):
                    continue
                recorded |= {f"{path.stem}/{id}", f"{path.parent.name}:{path.stem}/{id}"}
    named = [request for difference in DIFFERENCES for request in difference.requests]
    assert len(named) == len(set(named))
    assert set(named) <= recorded


# ── the functions of that server (tests/vectors/README.md) ──


def _send_email(payload: Any) -> None:
    time.sleep(0.03)


def _slow(ms: int) -> None:
    time.sleep(ms / 1000)


def _always_fails(payload: Any = None) -> None:
    raise RuntimeError('boom: <disk> & "café" failed')


class _FailsOnce:
    def __init__(self) -> None:
        self.failed = False

    def __call__(self) -> Any:
        def fails_once(payload: Any = None) -> None:
            if not self.failed:
                self.failed = True
                raise RuntimeError("temporary glitch")

        return fails_once


# ── the replay ──


class Conversation:
    """One connection of ours."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.heard: list[dict[str, Any]] = []

    @classmethod
    async def open(cls, url: str, token: str) -> Conversation:
        conversation = cls(await connect(url, compression=None))
        await conversation.ask("auth", {"token": token})
        return conversation

    async def ask(self, method: str, data: Any) -> dict[str, Any]:
        id = f"own-{method}"
        await self.connection.send(json.dumps({"id": id, "type": "request", "method": method, "data": data}))
        return await self.until(lambda frame: frame.get("correl_id") == id)

    async def until(self, wanted: Any) -> dict[str, Any]:
        """The first frame like that among those that were heard, or the next."""
        seen = 0
        while True:
            while seen < len(self.heard):
                if wanted(self.heard[seen]):
                    return self.heard[seen]
                seen += 1
            self.heard.append(self.plain(await self.connection.recv(decode=False)))

    @staticmethod
    def plain(message: bytes) -> dict[str, Any]:
        """Any frame as plain values."""
        if message.startswith(b"{"):
            frame: dict[str, Any] = json.loads(message)
            frame["ts"] = parse_rfc3339(str(frame.get("ts", "")))
            return frame
        codec = get_codec("msgpack", "portable")
        decoded = codec.decode(message, DEFAULT_LIMITS)
        frame = {
            "id": decoded.id,
            "type": decoded.type,
            "method": decoded.method,
            "ts": codec.timestamp(decoded),
        }
        if decoded.correl_id:
            frame["correl_id"] = decoded.correl_id
        if decoded.error is not None:
            frame["error"] = {"code": decoded.error.code, "message": decoded.error.message}
        if codec.data(decoded):
            frame["data"] = codec.value(decoded, DEFAULT_LIMITS)
        return frame


@dataclass
class Replay:
    """One recording."""

    name: str
    codec: str
    ids: dict[str, str] = field(default_factory=dict)
    """Ids of the recording, and ours for them."""
    methods: dict[str, str] = field(default_factory=dict)
    """What each request asked for."""
    differences: dict[str, Difference] = field(default_factory=dict)
    events: dict[int, int] = field(default_factory=dict)
    """How many events of each connection were matched."""

    async def run(self, lines: list[dict[str, Any]]) -> None:
        self.differences = {request: each for each in DIFFERENCES for request in each.requests}
        registry = registry_of(
            noop=noop,
            send_email=_send_email,
            slow=_slow,
            always_fails=_always_fails,
            fails_once=_FailsOnce()(),
        )
        conversations: dict[int, Conversation] = {}
        async with serving(keys=Keys(KEYS), registry=registry) as served:
            try:
                for line in _without_late_frames(lines):
                    number = line["conn"]
                    if number not in conversations:
                        conversations[number] = Conversation(await connect(served.url, compression=None))
                    await self.step(line, conversations[number])
                self.check_silence(conversations)
            finally:
                for conversation in conversations.values():
                    await conversation.connection.close()

    def check_silence(self, conversations: dict[int, Conversation]) -> None:
        """What is not to be answered was not."""
        silent = {request for each in DIFFERENCES if each.code == -1 for request in each.requests}
        for conversation in conversations.values():
            for frame in conversation.heard:
                assert f"{self.codec}:{self.name}/{frame.get('correl_id')}" not in silent

    async def step(self, line: dict[str, Any], conversation: Conversation) -> None:
        if line["dir"] == "client":
            await self.say(line, conversation)
        elif line["op"] == "close":
            await conversation.connection.wait_closed()
            assert conversation.connection.close_code == line["code"]
        elif line["op"] == "drop":
            # Go drops TCP; we say goodbye (section 3).
            with pytest.raises(ConnectionClosed):
                await conversation.until(lambda frame: False)
            assert conversation.connection.close_code == 1008
        else:
            await self.expect(conversation, Conversation.plain(_bytes(line)))

    async def say(self, line: dict[str, Any], conversation: Conversation) -> None:
        if line["op"] in ("close", "drop"):
            await conversation.connection.close()
            return
        message = _bytes(line)
        for recorded, ours in self.ids.items():
            message = message.replace(recorded.encode(), ours.encode())
        try:
            frame = conversation.plain(message)
        except (DispatchError, ValueError):
            frame = {}  # it is meant to be no frame
        self.methods[frame.get("id", "")] = frame.get("method", "")
        await conversation.connection.send(message, text=line["op"] == "text")

    async def expect(self, conversation: Conversation, recorded: dict[str, Any]) -> None:
        if recorded["type"] == "event":
            await self.expect_event(conversation, recorded)
            return
        correl_id = recorded.get("correl_id", "")
        request = f"{self.name}/{correl_id}"
        difference = self.differences.get(f"{self.codec}:{request}") or self.differences.get(request)
        if difference is not None and difference.code == -1:
            return
        ours = await conversation.until(lambda frame: frame.get("correl_id", "") == correl_id)
        if difference is not None:
            code = ours["error"]["code"] if ours["type"] == "error" else 0
            assert code == difference.code, f"{difference.why}: {ours}"
            return
        method = self.methods.get(correl_id, "")
        if NOT_SERVED_YET.match(method) and recorded.get("error", {}).get("code") != 403:
            assert ours["type"] == "error"
            assert ours["error"]["code"] == 405
            return
        assert ours["type"] == recorded["type"], (recorded, ours)
        if recorded["type"] == "error":
            assert ours["error"]["code"] == recorded["error"]["code"], (recorded, ours)
            if recorded["error"]["code"] in (401, 403, 405) or not method or method == "auth":
                assert ours["error"]["message"] == recorded["error"]["message"]
        else:
            self.compare(recorded.get("data"), ours.get("data"), method)
        # Go answers a ping without ts with the year 1 (section 4, quirks).
        if recorded["type"] == "pong" and correl_id != "p":
            assert ours["ts"] == recorded["ts"]

    async def expect_event(self, conversation: Conversation, recorded: dict[str, Any]) -> None:
        """Ours is labelled with a subscribed channel, because base clients route by it (section 5)."""
        kind = recorded["data"]["type"]
        if kind.startswith("workflow."):
            return
        inner = recorded["data"]["data"]
        job = self.ids.get(inner["job_id"], inner["job_id"])
        attempt = inner.get("attempt")

        def is_it(frame: dict[str, Any]) -> bool:
            data = frame.get("data") or {}
            return bool(
                frame["type"] == "event"
                and data["type"] == kind
                and data["data"]["job_id"] == job
                and data["data"].get("attempt") == attempt
            )

        ours = await conversation.until(is_it)
        self.compare(recorded["data"], ours["data"], kind)
        assert ours["data"]["topic"] == f"job:{job}"

    def compare(self, recorded: Any, ours: Any, where: str) -> None:
        """Same keys and kinds; fixed values the same; ids by prefix, and the same id each time."""
        if isinstance(recorded, dict):
            assert isinstance(ours, dict), where
            assert not recorded.keys() - ours.keys() - LESS, (
                f"{where}: missing {recorded.keys() - ours.keys()}"
            )
            assert not ours.keys() - recorded.keys() - OURS, f"{where}: more {ours.keys() - recorded.keys()}"
            for key in recorded.keys() & ours.keys():
                if key not in VALUES:
                    self.compare(recorded[key], ours[key], f"{where}.{key}")
                else:
                    assert type(recorded[key]) is type(ours[key]), f"{where}.{key}"
        elif isinstance(recorded, list):
            assert len(recorded) == len(ours), where
            for one, other in zip(recorded, ours, strict=True):
                self.compare(one, other, where)
        elif isinstance(recorded, str) and (found := _IDS.findall(recorded)):
            for one, other in zip(found, _IDS.findall(ours), strict=True):
                assert one.split("_")[0] == other.split("_")[0], where
                assert self.ids.setdefault(one, other) == other, where
        elif isinstance(recorded, str) and _TIME.fullmatch(recorded):
            assert _TIME.fullmatch(ours), where
        else:
            assert recorded == ours, where


_IDS = re.compile(r"\b(?:job|wfrun|evt|dlq)_[0-9a-hjkmnp-tv-z]{26}\b")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def _bytes(line: dict[str, Any]) -> bytes:
    return line["text"].encode() if "text" in line else base64.b64decode(line["base64"])


def _without_late_frames(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what the server sent after the client had closed (tests/vectors/README.md)."""
    closed: set[int] = set()
    kept = []
    for line in lines:
        if line["conn"] in closed and line["dir"] == "server" and line["op"] != "close":
            continue
        if line["dir"] == "client" and line["op"] in ("close", "drop"):
            closed.add(line["conn"])
        kept.append(line)
    return kept
