"""Every odd frame that was tried on the existing server: what our codecs make of it, the same in all forms."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from dwp_core.codec import get_codec
from dwp_core.errors import FrameError, PayloadError
from dwp_core.frames import DEFAULT_LIMITS
from tests.portable.forms import HERE as FORMS_HERE

HERE = Path(__file__).parent
FIELDS = ("id", "type", "method", "correl_id", "token", "app_id", "org_id", "error", "channel", "credits")
INPUTS: list[dict[str, Any]] = [
    json.loads(line)
    for name in ("json", "msgpack")
    for line in (HERE / "inputs" / f"{name}.jsonl").read_text().splitlines()
]


def outcome(line: dict[str, Any], form: str) -> tuple[str, Any]:
    """What a codec says of an input: `accept` with all that it reads, or `reject` with the error."""
    codec = get_codec(line["codec"], form)
    message = line["text"].encode() if "text" in line else base64.b64decode(line["base64"])
    try:
        frame = codec.decode(message, DEFAULT_LIMITS)
        fields = [getattr(frame, name) for name in FIELDS]
        # `stats` takes no data and nobody reads it; every other request here is judged with its payload.
        value = codec.value(frame, DEFAULT_LIMITS) if frame.method == "job.enqueue" else codec.data(frame)
    except FrameError as error:
        return "reject", (error.code, error.message, error.frame_id)
    except PayloadError as error:
        return "reject", (error.code, error.message)
    return "accept", (fields, value, codec.timestamp(frame))


@pytest.mark.parametrize("line", INPUTS, ids=[f"{line['codec']}: {line['title']}" for line in INPUTS])
def test_an_odd_input_comes_out_as_agreed_in_every_form(line: dict[str, Any]) -> None:
    verdict, said = outcome(line, "portable")
    for form in FORMS_HERE:
        assert outcome(line, form) == (verdict, said)
    if line["ours"] == "lenient":
        assert verdict == "accept"
        assert said[2] is None, "a time that the existing server refuses counts as absent"
    elif line["ours"] != "either":
        assert verdict == line["ours"]
    if verdict == "reject":
        assert said[0] == 400


def test_every_kind_of_verdict_is_among_the_inputs() -> None:
    assert {line["ours"] for line in INPUTS} == {
        "accept",
        "reject",
        "lenient",
        "either",
    }
