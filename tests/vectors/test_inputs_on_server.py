"""Every odd frame of the recordings, sent to a logged-in session in both forms of its codec.

`accept` and `lenient`: the request reaches its handler. `reject`: a clear 400 (or 413), and the connection lives on.
`either`: our choice, but the same in both forms.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from dwp_core.codec import get_codec
from dwp_core.frames import DEFAULT_LIMITS
from dwp_core.hub import Hub
from dwp_core.server import ServerSession
from dwp_core.server_events import Identity, RequestReceived, ServerConfig
from tests.portable.forms import HERE as FORMS_HERE

INPUTS = [
    json.loads(line)
    for name in ("json", "msgpack")
    for line in (Path(__file__).parent / "inputs" / f"{name}.jsonl").read_text().splitlines()
]


def verdict(recorded: dict[str, Any], form: str) -> tuple[str, int]:
    """What a session makes of the frame: "handled", or the code of its refusal."""
    name = recorded["codec"]
    hub = Hub(form=form)
    session = ServerSession(config=ServerConfig(), hub=hub, session_id="ws", now=0.0, epoch_ns=0)
    login = b'{"id":"a","type":"request","method":"auth","data":{"format":"%b"}}' % name.encode()
    session.receive_message(login, now=0.0)
    session.accept(Identity("me", scopes=frozenset("*")), now=0.0)
    session.take_events()
    session.take_messages()
    message = recorded["text"].encode() if "text" in recorded else base64.b64decode(recorded["base64"])
    session.receive_message(message, now=0.0)
    codec = get_codec(name, form)
    frames = [codec.decode(each, DEFAULT_LIMITS) for each in session.take_messages()]
    requests = [event for event in session.take_events() if isinstance(event, RequestReceived)]
    # The connection lives on.
    session.receive_message(codec.encode("ping", "alive", ts=0), now=0.0)
    [pong] = [codec.decode(each, DEFAULT_LIMITS) for each in session.take_messages()]
    assert pong.correl_id == "alive"
    assert session.take_effects() == []
    if requests:
        assert not frames
        return "handled", 0
    if not frames:
        return "swallowed", 0
    [frame] = frames
    assert frame.error is not None
    assert frame.error.message
    return "refused", frame.error.code


@pytest.mark.parametrize("recorded", INPUTS, ids=lambda recorded: f"{recorded['codec']}: {recorded['title']}")
def test_an_odd_frame_gets_what_the_recording_says(recorded: dict[str, Any]) -> None:
    what, code = verdict(recorded, "portable")
    for form in FORMS_HERE:
        assert verdict(recorded, form) == (what, code)
    if recorded["ours"] in ("accept", "lenient"):
        assert what == "handled"
    elif recorded["ours"] == "reject":
        assert what == "refused"
        assert code in (400, 413)
