"""Every odd frame of the recordings as the body of an RPC: the verdict is that of a WebSocket, in both forms."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from dwp_core.codec import get_codec
from dwp_core.frames import DEFAULT_LIMITS
from dwp_core.http_rpc import RpcLoad, RpcSession
from dwp_core.hub import Hub
from dwp_core.server_events import Identity, RequestReceived, ServerConfig
from tests.portable.forms import HERE

INPUTS = [
    json.loads(line)
    for name in ("json", "msgpack")
    for line in (Path(__file__).parent / "inputs" / f"{name}.jsonl").read_text().splitlines()
]


def verdict(recorded: dict[str, Any], form: str) -> tuple[str, int]:
    """What becomes of the frame: "handled", or "answered" with that status."""
    name = recorded["codec"]
    session = RpcSession(
        config=ServerConfig(),
        hub=Hub(form=form),
        session_id="rpc",
        now=0.0,
        epoch_ns=0,
        load=RpcLoad(),
        content_type=f"application/{name}",
    )
    body = recorded["text"].encode() if "text" in recorded else base64.b64decode(recorded["base64"])
    session.receive_part(body, now=0.0)
    session.receive_end(now=0.0)
    session.take_events()
    session.accept(Identity("me", scopes=frozenset("*")), now=0.0)
    requests = [event for event in session.take_events() if isinstance(event, RequestReceived)]
    messages = session.take_messages()
    assert len(requests) + len(messages) == 1
    if requests:
        assert session.status == 0
        return "handled", 0
    codec = get_codec(name, form)
    frame = codec.decode(messages[0], DEFAULT_LIMITS)
    assert session.status == (200 if frame.error is None else frame.error.code)
    return "answered", session.status


@pytest.mark.parametrize("recorded", INPUTS, ids=lambda recorded: f"{recorded['codec']}: {recorded['title']}")
def test_an_odd_frame_gets_what_the_recording_says(recorded: dict[str, Any]) -> None:
    verdicts = {verdict(recorded, form) for form in HERE}
    assert len(verdicts) == 1
    what, status = verdicts.pop()
    if recorded["ours"] in ("accept", "lenient"):
        assert what == "handled" or status == 200
    elif recorded["ours"] == "reject":
        assert status in (400, 413)
