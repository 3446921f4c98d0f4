"""The MessagePack codec on msgspec: the envelope is decoded in one typed C call, the time stays a slice.

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
from dwp_core.codec.json_fast import ABSENT, Int64, OutgoingError, WireError, decode_event
from dwp_core.codec.judge import judge_msgpack, unwritable
from dwp_core.codec.payload_fast import SHALLOW, decode_shallow, parse, parse_deep
from dwp_core.codec.timestamps import pack_timestamp, parse_timestamp
from dwp_core.frames import DEFAULT_LIMITS, ErrorDetail, EventHead, Limits


class FastMsgpackFrame(msgspec.Struct, frozen=True, gc=False):
    """A `Frame` whose time is a slice of the message it came in."""

    id: str = ""
    type: str = ""
    method: str = ""
    correl_id: str = ""
    token: str = ""
    app_id: str = ""
    org_id: str = ""
    raw_data: bytes = msgspec.field(default=b"", name="data")
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
        return f"FastMsgpackFrame(id={self.id!r}, type={self.type!r}, method={self.method!r})"


class _Outgoing(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    id: str
    type: str
    method: str = ""
    correl_id: str = ""
    token: str = ""
    data: bytes = b""
    error: OutgoingError | None = None
    channel: str = ""
    credits: int = 0
    ts: Raw = ABSENT


_DEFAULT_SIZE = DEFAULT_LIMITS.message
_encode = msgspec.msgpack.Encoder().encode
_Decode = Callable[[bytes], FastMsgpackFrame]


@lru_cache(maxsize=64)
def _decoder(id_limit: int, method_limit: int, channel_limit: int) -> _Decode:
    """A decoder that counts characters itself, in C, so that nobody has to look again."""
    bounded: list[tuple[str, Any, Any]] = [
        ("id", Annotated[str, Meta(max_length=id_limit)], ""),
        ("method", Annotated[str, Meta(max_length=method_limit)], ""),
        ("correl_id", Annotated[str, Meta(max_length=id_limit)], ""),
        ("channel", Annotated[str, Meta(max_length=channel_limit)], ""),
    ]
    kind = msgspec.defstruct("FastMsgpackFrame", bounded, bases=(FastMsgpackFrame,), frozen=True, gc=False)
    return cast("_Decode", msgspec.msgpack.Decoder(kind).decode)


_decode_default = _decoder(DEFAULT_LIMITS.id, DEFAULT_LIMITS.method, DEFAULT_LIMITS.channel)


class FastMsgpackCodec:
    """`Codec` for MessagePack on msgspec; see `dwp_core.codec.Codec`."""

    name = "msgpack"
    form = "fast"
    binary = True

    def __init__(self) -> None:
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
        try:
            return _encode(
                _Outgoing(
                    id,
                    type,
                    method,
                    correl_id,
                    token,
                    data,
                    None if error is None else OutgoingError(error.code, error.message, error.details),
                    channel,
                    credits,
                    Raw(pack_timestamp(ts)),
                )
            )
        except UnicodeEncodeError as cause:
            raise unwritable(cause) from None

    def decode(self, message: bytes | bytearray | memoryview, limits: Limits) -> FastMsgpackFrame:
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
        raw: bytes = frame.raw_data
        return raw

    def value(self, frame: Any, limits: Limits) -> Any:
        """See `dwp_core.codec.Codec.value`."""
        raw = frame.raw_data
        if not raw:
            return None
        if limits.depth >= SHALLOW and len(raw) <= limits.payload:
            try:
                return decode_shallow(raw)
            except ValueError:
                return payload.decode_with(parse_deep, raw, limits, "data")
        return payload.decode_with(parse, raw, limits, "data")

    def timestamp(self, frame: Any) -> int | None:
        """See `dwp_core.codec.Codec.timestamp`."""
        return parse_timestamp(bytes(frame.raw_ts))

    def event(self, frame: Any) -> EventHead | None:
        """See `dwp_core.codec.Codec.event`."""
        try:
            return decode_event(frame.raw_data)
        except (ValueError, RecursionError):
            return judge_event(frame.raw_data)


def _judged(message: bytes, limits: Limits) -> FastMsgpackFrame:
    fields, data, ts = judge_msgpack(message, limits)
    id, type, method, correl_id, token, app_id, org_id, error, channel, credits = fields
    wire_error = None if error is None else WireError(error.code, error.message, error.details)
    return FastMsgpackFrame(
        id, type, method, correl_id, token, app_id, org_id, data, wire_error, channel, credits, Raw(ts)
    )
