"""Every recorded frame, in every form: what it says, byte for byte."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from dwp_core.codec import get_codec
from dwp_core.frames import DEFAULT_LIMITS, ErrorDetail
from tests.portable.forms import FORMS

HERE = Path(__file__).parent
TEXTS = ("id", "type", "method", "correl_id", "token", "app_id", "org_id", "channel")


def recordings(
    name: str, *, by: tuple[str, ...] = ("client", "server")
) -> list[tuple[bytes, dict[str, Any]]]:
    lines = map(json.loads, (HERE / "frames" / f"{name}.jsonl").read_text().splitlines())
    return [
        (line["text"].encode() if "text" in line else base64.b64decode(line["base64"]), line["frame"])
        for line in lines
        if line["dir"] in by
    ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["json", "msgpack"])
def test_every_recorded_frame_is_read_as_it_was_meant(name: str, form: str) -> None:
    codec = get_codec(name, form)
    for message, expected in recordings(name):
        frame = codec.decode(message, DEFAULT_LIMITS)
        assert {text: getattr(frame, text) for text in TEXTS} == {
            text: expected.get(text, "") for text in TEXTS
        }
        assert frame.credits == expected.get("credits", 0)
        assert frame.error == (ErrorDetail(**expected["error"]) if "error" in expected else None)
        data = expected.get("data_text", "")
        assert codec.data(frame) == data.encode()
        assert codec.value(frame, DEFAULT_LIMITS) == (json.loads(data) if data else None)
        ts = expected.get("ts")
        assert codec.timestamp(frame) == (ts and ts["seconds"] * 10**9 + ts["nanoseconds"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["json", "msgpack"])
def test_every_recorded_event_is_routed_as_it_was_meant(name: str, form: str) -> None:
    codec = get_codec(name, form)
    events = 0
    for message, expected in recordings(name):
        if expected["type"] != "event" or "data_text" not in expected:
            continue
        events += 1
        data = json.loads(expected["data_text"])
        head = codec.event(codec.decode(message, DEFAULT_LIMITS))
        assert head is not None
        assert (head.type, head.ts, head.seq) == (data["type"], data["ts"], None)
        assert head.topic == data.get("topic", "") == expected.get("channel", "")
        assert json.loads(head.data) == data["data"]
    assert events > 20


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["json", "msgpack"])
def test_what_the_existing_server_said_is_said_again_in_the_same_bytes(name: str, form: str) -> None:
    codec = get_codec(name, form)
    for message, expected in recordings(name, by=("server",)):
        fields = {key: value for key, value in expected.items() if key not in ("data_text", "ts", "error")}
        again = codec.encode(
            **fields,
            data=expected.get("data_text", "").encode(),
            error=ErrorDetail(**expected["error"]) if "error" in expected else None,
            ts=expected["ts"]["seconds"] * 10**9 + expected["ts"]["nanoseconds"],
        )
        if name == "msgpack":
            assert again == message
        else:
            # There, times have no trailing zeros, and some characters are escaped that need not be.
            assert list(json.loads(again)) == list(json.loads(message))
            assert again.split(b'"ts":"2')[0] == message.split(b'"ts":"2')[0] or b"\\u00" in message
