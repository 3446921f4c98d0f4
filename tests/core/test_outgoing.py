"""What a server's session says (`dwp_core.outgoing`)."""

from __future__ import annotations

import json

from dwp_core.codec import get_codec
from dwp_core.frames import EVENT, PONG
from dwp_core.outgoing import Outgoing


def test_every_frame_has_an_id_of_its_own_and_its_time_and_is_taken_once() -> None:
    out = Outgoing(get_codec("json"), 10**18)
    out.response(1.5, "c1", b"{}")
    out.error(2.0, "", 400, "no", "because")
    out.frame(EVENT, 2.5, data=b'{"type":"drain"}')
    out.frame(PONG, 3.0, correl_id="p", ts=0)
    frames = [json.loads(message) for message in out.take()]
    assert out.take() == []
    assert [frame["id"] for frame in frames] == ["r1", "r2", "r3", "r4"]
    assert [frame["type"] for frame in frames] == ["response", "error", "event", "pong"]
    assert frames[0]["ts"] == "2001-09-09T01:46:41.500000000Z"
    assert frames[1]["error"] == {"code": 400, "message": "no", "details": "because"}
    assert "correl_id" not in frames[1]
    assert frames[3]["ts"] == "1970-01-01T00:00:00.000000000Z"
