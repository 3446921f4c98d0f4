"""The stand-in for the existing server does what was recorded of it: whole conversations, frame by frame, by shape."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from itertools import groupby
from pathlib import Path
from typing import Any

import msgpack
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.contract.go_server import GoServer
from tests.contract.threads import PATIENCE

CONVERSATIONS = Path(__file__).parent.parent / "vectors" / "conversations"
REPLAYED = [
    "handshake",
    "handshake_wrong_token",
    "job_lifecycle",
    "job_list_and_others_405",
    "credits_run_out",
    "pings",
    "scopes",
    "subscribe_queue_is_silent",
    "workflow_lifecycle",
]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
ID = re.compile(r"(job|wfrun|evt)_[0-9a-z]{26}|ws_\d+|\d{14}\.\d+")


def recorded(codec: str) -> list[Any]:
    return [
        pytest.param(path, id=f"{codec}-{name}")
        for name in REPLAYED
        if (path := CONVERSATIONS / codec / f"{name}.jsonl").exists()
    ]


@pytest.mark.parametrize("path", [*recorded("json"), *recorded("msgpack")])
def test_it_answers_as_the_recorded_server_did(path: Path) -> None:
    """What every scenario at "the existing server" rests on."""
    head, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    credits = 6 if head["name"] == "credits_run_out" else 1000
    with GoServer(credits=credits) as server, connect(server.url, compression=None) as client:
        Replay(client, head["codec"]).play(lines)


class Replay:
    """Says what the recorded client said, and compares what comes back."""

    def __init__(self, client: ClientConnection, codec: str) -> None:
        self._client = client
        self._codec = codec
        self._ids: dict[str, str] = {}

    def play(self, lines: list[dict[str, Any]]) -> None:
        for (side, op), group in groupby(
            lines, lambda line: (line["dir"], line["op"] if line["op"] in _ENDS else "")
        ):
            turn = list(group)
            if op == "drop":
                with pytest.raises(ConnectionClosed) as ended:
                    self._client.recv(PATIENCE)
                assert ended.value.rcvd is None
            elif side == "client" and not op:
                for line in turn:
                    self._client.send(self._with_our_ids(_content(line)), text=line["op"] == "text")
            elif not op:
                self._compare(
                    [self._read(_content(line)) for line in turn],
                    [self._read(self._client.recv(PATIENCE, decode=False)) for _ in turn],
                )

    def _compare(self, expected: list[Any], got: list[Any]) -> None:
        """No order holds between answers and events, but among each of them it does."""
        for are_events in (False, True):
            for one, other in zip(
                [frame for frame in expected if (frame["type"] == "event") is are_events],
                [frame for frame in got if (frame["type"] == "event") is are_events],
                strict=True,
            ):
                self._same(one, other, "frame")

    def _with_our_ids(self, content: bytes) -> bytes:
        for old, new in self._ids.items():
            content = content.replace(old.encode(), new.encode())
        return content

    def _read(self, content: bytes) -> Any:
        if content[:1] == b"{":
            return json.loads(content)
        frame = msgpack.unpackb(content)
        if "data" in frame:
            frame["data"] = json.loads(frame["data"])
        return frame

    def _same(self, expected: Any, got: Any, where: str) -> None:
        """The same keys, types and fixed values; an id is the same one each time."""
        assert type(got) is type(expected), where
        if isinstance(expected, dict):
            assert {name for name in got if name not in _VARIES} == {
                n for n in expected if n not in _VARIES
            }, where
            for name in expected.keys() & got.keys():
                self._same(expected[name], got[name], f"{where}.{name}")
        elif isinstance(expected, list):
            assert len(got) == len(expected), where
            for position, each in enumerate(expected):
                self._same(each, got[position], f"{where}[{position}]")
        elif isinstance(expected, str) and ID.fullmatch(
            expected.removeprefix("job:").removeprefix("workflow:")
        ):
            assert ID.fullmatch(got.removeprefix("job:").removeprefix("workflow:")), where
            assert self._ids.setdefault(expected, got) == got, where
        elif isinstance(expected, str) and TIME.fullmatch(expected):
            assert TIME.fullmatch(got), where
        elif isinstance(expected, str):
            assert got == expected, where


def _content(line: dict[str, Any]) -> bytes:
    return line["text"].encode() if "text" in line else b64decode(line["base64"])


_ENDS = ("close", "drop")
_VARIES = {"elapsed_ms", "scope_app_id", "scope_org_id", "started_at", "completed_at"}
