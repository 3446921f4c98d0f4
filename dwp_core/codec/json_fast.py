"""The JSON codec on msgspec: the envelope is decoded in one typed C call, payload and time stay slices of the message.

What msgspec does not accept goes to `dwp_core.codec.judge` (PROTOCOL.md section 2).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta, Raw

from dwp_core.codec import payload
from dwp_core.codec.events import judge_event
from dwp_core.codec.judge import judge_json, locate, unwritable
from dwp_core.codec.payload_fast import SHALLOW, decode_shallow, parse, parse_deep
from dwp_core.codec.timestamps import Stamper, json_time
from dwp_core.frames import DEFAULT_LIMITS, ErrorDetail, EventHead, Limits

Int64 = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
ABSENT = Raw()


class WireError(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The `error` field as it is read."""

    code: Int64 = 0
    message: str = ""
    details: str = ""


class FastJsonFrame(msgspec.Struct, frozen=True, gc=False):
    """A `Frame` whose payload and time are slices of the message it came in."""

    id: str = ""
    type: str = ""
    method: str = ""
    correl_id: str = ""
    token: str = ""
    app_id: str = ""
    org_id: str = ""
    raw_data: Raw = msgspec.field(default=ABSENT, name="data")
    raw_error: WireError | None = msgspec.field(default=None, name="error")
    channel: str = ""
    credits: Int64 = 0
    raw_ts: Raw = msgspec.field(default=ABSENT, name="ts")

    @property
    def error(self) -> ErrorDetail | None:
        """The `error` field of an error frame."""
        error = self.raw_error
        return None if error is None else ErrorDetail(error.code, error.message, error.details)

    def __repr__(self) -> str:
        # Without the token: frames are printed where things go wrong.
        return f"FastJsonFrame(id={self.id!r}, type={self.type!r}, method={self.method!r})"


class FastEvent(msgspec.Struct, frozen=True, gc=False):
    """An `EventHead` whose inner data is a slice of the frame it came in."""

    type: Annotated[str, Meta(min_length=1)]
    topic: str = ""
    seq: Int64 | None = None
    ts: str = ""
    raw_data: Raw = msgspec.field(default=ABSENT, name="data")

    @property
    def data(self) -> bytes:
        """The JSON text of the event's own data, b"" when it is absent."""
        return bytes(self.raw_data)


class OutgoingError(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The `error` field as it is written: `code` and `message` always, `details` when there are some."""

    code: int
    message: str
    details: str = ""


class _Outgoing(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    id: str
    type: str
    method: str = ""
    correl_id: str = ""
    token: str = ""
    data: Raw = ABSENT
    error: OutgoingError | None = None
    channel: str = ""
    credits: int = 0
    ts: str = ""


class _Slices(msgspec.Struct, gc=False):
    data: Raw = ABSENT
    ts: Raw = ABSENT


_slices = msgspec.json.Decoder(_Slices).decode
_SECOND = 1_000_000_000
_NINE_DIGITS = 100_000_000
_DEFAULT_SIZE = DEFAULT_LIMITS.message
_encode = msgspec.json.Encoder().encode
decode_event = msgspec.json.Decoder(FastEvent).decode
_Decode = Callable[[bytes], FastJsonFrame]


@lru_cache(maxsize=64)
def _decoder(id_limit: int, method_limit: int, channel_limit: int) -> _Decode:
    """A decoder that counts characters itself, in C, so that nobody has to look again."""
    bounded: list[tuple[str, Any, Any]] = [
        ("id", Annotated[str, Meta(max_length=id_limit)], ""),
        ("method", Annotated[str, Meta(max_length=method_limit)], ""),
        ("correl_id", Annotated[str, Meta(max_length=id_limit)], ""),
        ("channel", Annotated[str, Meta(max_length=channel_limit)], ""),
    ]
    kind = msgspec.defstruct("FastJsonFrame", bounded, bases=(FastJsonFrame,), frozen=True, gc=False)
    return cast("_Decode", msgspec.json.Decoder(kind).decode)


_decode_default = _decoder(DEFAULT_LIMITS.id, DEFAULT_LIMITS.method, DEFAULT_LIMITS.channel)


class FastJsonCodec:
    """`Codec` for JSON on msgspec; see `dwp_core.codec.Codec`."""

    name = "json"
    form = "fast"
    binary = False

    def __init__(self) -> None:
        self._stamper = Stamper()
        self._decoder = (DEFAULT_LIMITS, _decode_default)

    def encode(
        self,
        type: str,
        id: str,
        *,
        method: str = "",
        correl_id: str = "",
        token: str = "",
        data: bytes = b"",
        error: ErrorDetail | None = None,
        channel: str = "",
        credits: int = 0,
        ts: int,
    ) -> bytes:
        """See `dwp_core.codec.Codec.encode`."""
        second, text = self._stamper.known
        fraction = ts - second
        if 0 <= fraction < _SECOND:
            # Nine of ten nanoseconds have nine digits, and padding is half of what a stamp costs.
            stamp = f"{text}{fraction}Z" if fraction >= _NINE_DIGITS else f"{text}{fraction:09d}Z"
        else:
            stamp = self._stamper.text(ts)
        try:
            return _encode(
                _Outgoing(
                    id,
                    type,
                    method,
                    correl_id,
                    token,
                    Raw(data) if data else ABSENT,
                    None if error is None else OutgoingError(error.code, error.message, error.details),
                    channel,
                    credits,
                    stamp,
                )
            )
        except UnicodeEncodeError as cause:
            raise unwritable(cause) from None

    def decode(self, message: bytes | bytearray | memoryview, limits: Limits) -> FastJsonFrame:
        """See `dwp_core.codec.Codec.decode`."""
        if limits is DEFAULT_LIMITS and type(message) is bytes and len(message) <= _DEFAULT_SIZE:
            try:
                return _decode_default(message)
            except (ValueError, RecursionError):
                return _judged(message, limits)
        message = bytes(message)  # slices of a buffer that changes would change with it
        if len(message) <= limits.message:
            known, decode = self._decoder
            if known is not limits:
                decode = _decoder(limits.id, limits.method, limits.channel)
                # One tuple, replaced as a whole: threads that share the codec see what belongs together.
                self._decoder = (limits, decode)
            try:
                return decode(message)
            except (ValueError, RecursionError):
                pass
        return _judged(message, limits)

    def data(self, frame: Any) -> bytes:
        """See `dwp_core.codec.Codec.data`."""
        return bytes(frame.raw_data)

    def value(self, frame: Any, limits: Limits) -> Any:
        """See `dwp_core.codec.Codec.value`."""
        raw = frame.raw_data
        if raw is ABSENT:
            return None
        if limits.depth >= SHALLOW and memoryview(raw).nbytes <= limits.payload:
            try:
                return decode_shallow(raw)
            except ValueError:
                return payload.decode_with(parse_deep, bytes(raw), limits, "data", well_formed=True)
        return payload.decode_with(parse, bytes(raw), limits, "data", well_formed=True)

    def timestamp(self, frame: Any) -> int | None:
        """See `dwp_core.codec.Codec.timestamp`."""
        return json_time(bytes(frame.raw_ts))

    def event(self, frame: Any) -> EventHead | None:
        """See `dwp_core.codec.Codec.event`."""
        try:
            return decode_event(frame.raw_data)
        except (ValueError, RecursionError):
            return judge_event(bytes(frame.raw_data))


def _judged(message: bytes, limits: Limits) -> FastJsonFrame:
    fields, data, ts = judge_json(message, limits)
    id, type, method, correl_id, token, app_id, org_id, error, channel, credits = fields
    if data is None or ts is None:
        try:
            slices = _slices(message)
            data, ts = bytes(slices.data), bytes(slices.ts)
        except (ValueError, RecursionError):  # a lone surrogate in what is skipped
            data, ts = locate(message)
    wire_error = None if error is None else WireError(error.code, error.message, error.details)
    raw = Raw(data) if data else ABSENT
    return FastJsonFrame(
        id, type, method, correl_id, token, app_id, org_id, raw, wire_error, channel, credits, Raw(ts)
    )
