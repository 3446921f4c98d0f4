"""Two forms of one codec beside each other: same verdict and text, same values and bytes (PROTOCOL.md section 2)."""

from __future__ import annotations

from typing import Any

from dwp_core.codec import Codec, get_codec
from dwp_core.errors import FrameError, PayloadError
from dwp_core.frames import DEFAULT_LIMITS, Limits

TIGHT = Limits(message=600, payload=120, depth=4, id=12, method=8, channel=12)


class Differential:
    """The check for one codec.

    Example:
        Differential("json")(b'{"id":"x","type":"ping"}')
    """

    def __init__(self, name: str) -> None:
        self.fast = get_codec(name, "fast")
        self.portable = get_codec(name, "portable")

    def __call__(self, data: bytes) -> None:
        for limits in (DEFAULT_LIMITS, TIGHT):
            expected = judge(self.portable, data, limits)
            for form in (data, bytearray(data), memoryview(data)):
                found = judge(self.fast, form, limits)
                assert found == expected, f"fast and portable differ:\n  {found}\n  {expected}"
            assert judge(self.portable, memoryview(data), limits) == expected, (
                "portable differs with its input's type"
            )
        self._round_trip(data)

    def _round_trip(self, data: bytes) -> None:
        """What one accepted frame says, encoded anew by both: the same bytes, which say the same."""
        try:
            frame = self.fast.decode(data, DEFAULT_LIMITS)
        except FrameError:
            return
        try:
            self.fast.value(frame, DEFAULT_LIMITS)
        except PayloadError:
            return
        fields: dict[str, Any] = {
            "method": frame.method,
            "correl_id": frame.correl_id,
            "token": frame.token,
            "data": self.fast.data(frame),
            "error": frame.error,
            "channel": frame.channel,
            "credits": frame.credits,
            "ts": self.fast.timestamp(frame) or 0,
        }
        fast, portable = (
            codec.encode(frame.type, frame.id, **fields) for codec in (self.fast, self.portable)
        )
        assert fast == portable, f"encoded differently:\n  {fast!r}\n  {portable!r}"
        again = judge(self.fast, fast, DEFAULT_LIMITS)
        first = judge(self.fast, data, DEFAULT_LIMITS)
        assert again[0] == "frame", f"what was encoded is refused: {again}"
        same = {key: value for key, value in first[1].items() if key not in _NOT_SENT}
        assert {key: again[1][key] for key in same} == same, f"changed on the way:\n  {first}\n  {again}"


_NOT_SENT = frozenset(("app_id", "org_id", "timestamp"))


def judge(
    codec: Codec, message: bytes | bytearray | memoryview, limits: Limits
) -> tuple[str, dict[str, Any]]:
    """Everything that a codec says of a message, in a form that can be compared."""
    try:
        frame = codec.decode(message, limits)
    except FrameError as error:
        return "refused", {
            "code": error.code,
            "text": error.message,
            "id": error.frame_id,
            "details": error.details,
        }
    fields: dict[str, Any] = {
        name: getattr(frame, name)
        for name in ("id", "type", "method", "correl_id", "token", "app_id", "org_id", "channel", "credits")
    }
    detail = frame.error
    fields["error"] = None if detail is None else (detail.code, detail.message, detail.details)
    fields["data"] = bytes(codec.data(frame))
    fields["timestamp"] = codec.timestamp(frame)
    try:
        fields["value"] = repr(codec.value(frame, limits))  # repr: 1 is not 1.0 and not True
    except PayloadError as error:
        fields["value"] = (error.code, error.message)
    head = codec.event(frame)
    fields["event"] = None if head is None else (head.type, head.topic, head.seq, head.ts, bytes(head.data))
    return "frame", fields
