from __future__ import annotations

import json

from dwp_core.client import frame_ids
from dwp_core.codec import get_codec
from dwp_core.effects import Connect, Effect, SendMessage
from dwp_core.frames import ErrorDetail
from dwp_core.outbox import Outbox

EPOCH_NS = 1_767_323_045_000_000_000


def taken(out: Outbox) -> list[Effect]:
    effects, out.effects = out.effects, []
    return effects


def outbox(format: str = "json") -> Outbox:
    return Outbox(get_codec(format), frame_ids("c"), EPOCH_NS)


def take(out: Outbox) -> list[Effect]:
    """What is queued; it is gone then."""
    effects, out.effects = out.effects, []
    return effects


def only_frame(out: Outbox) -> dict[str, object]:
    [effect] = taken(out)
    assert isinstance(effect, SendMessage)
    assert not effect.binary
    frame: dict[str, object] = json.loads(effect.data)
    return frame


def test_a_frame_gets_an_id_and_the_time_of_its_making() -> None:
    out = outbox()
    out.frame("request", 1.5, credits=7)
    assert only_frame(out) == {
        "id": "c1",
        "type": "request",
        "credits": 7,
        "ts": "2026-01-02T03:04:06.500000000Z",
    }


def test_an_id_or_a_time_that_is_given_is_kept() -> None:
    out = outbox()
    out.frame("pong", 9.0, id="mine", correl_id="theirs", ts=0, error=ErrorDetail(400, "no"))
    frame = only_frame(out)
    assert (frame["id"], frame["correl_id"], frame["ts"]) == (
        "mine",
        "theirs",
        "1970-01-01T00:00:00.000000000Z",
    )


def test_the_opcode_follows_the_codec() -> None:
    out = outbox("msgpack")
    out.frame("ping", 0.0)
    [effect] = taken(out)
    assert isinstance(effect, SendMessage)
    assert effect.binary


def test_messages_that_were_not_taken_can_be_left_out_and_tell_whose_they_were() -> None:
    out = outbox()
    out.frame("ping", 0.0, request_id="c9")
    out.effects.append(Connect(1, 1))
    out.frame("request", 0.0, credits=5)
    assert out.drop_messages() == {"c9"}
    assert taken(out) == [Connect(1, 1)]
