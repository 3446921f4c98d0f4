"""The MessagePack codec on msgspec: the envelope is decoded in one typed C call, the time stays a slice.

What msgspec does not accept goes to `dwp_core.codec.judge` (PROTOCOL.md section 2).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from dwp_core.codec import payload, payload_fast
from dwp_core.codec.events import judge_event
from dwp_core.codec.json_fast import ABSENT, Int64, OutgoingError, WireError, decode_event
from dwp_core.codec.judge import judge_msgpack, unwritable
from dwp_core.codec.timestamps import Stamper, parse_timestamp
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
    decode: _Decode = msgspec.msgpack.Decoder(kind).decode
    return decode


class FastMsgpackCodec:
    """`Codec` for MessagePack on msgspec; see `dwp_core.codec.Codec`."""

    name = "msgpack"
    form = "fast"
    binary = True

    def __init__(self) -> None:
        self._stamp = Stamper().packed
        self._ready = self._prepare(DEFAULT_LIMITS)

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
                    Raw(self._stamp(ts)),
                )
            )
        except UnicodeEncodeError as cause:
            raise unwritable(cause) from None

    def decode(self, message: bytes | bytearray | memoryview, limits: Limits) -> FastMsgpackFrame:
        known, size, decode = self._ready
        if known is not limits:
            _, size, decode = self._prepare(limits)
        if message.__class__ is not bytes:
            message = bytes(message)  # slices of a buffer that changes would change with it
        if len(message) <= size:
            try:
                return decode(message)  # type: ignore[arg-type]
            except (ValueError, RecursionError):
                pass
        return _judged(message, limits)  # type: ignore[arg-type]

    def data(self, frame: Any) -> bytes:
        raw: bytes = frame.raw_data
        return raw

    def value(self, frame: Any, limits: Limits) -> Any:
        raw = frame.raw_data
        return payload.decode_with(payload_fast, raw, limits, "data") if raw else None

    def timestamp(self, frame: Any) -> int | None:
        return parse_timestamp(bytes(frame.raw_ts))

    def event(self, frame: Any) -> EventHead | None:
        try:
            return decode_event(frame.raw_data)
        except (ValueError, RecursionError):
            return judge_event(frame.raw_data)

    def _prepare(self, limits: Limits) -> tuple[Limits, int, _Decode]:
        # One tuple, replaced as a whole: threads that share the codec see limits and decoder that belong together.
        self._ready = (limits, limits.message, _decoder(limits.id, limits.method, limits.channel))
        return self._ready


def _judged(message: bytes, limits: Limits) -> FastMsgpackFrame:
    envelope, data, ts = judge_msgpack(message, limits)
    error = envelope.error
    return FastMsgpackFrame(
        envelope.id,
        envelope.type,
        envelope.method,
        envelope.correl_id,
        envelope.token,
        envelope.app_id,
        envelope.org_id,
        data,
        None if error is None else WireError(error.code, error.message, error.details),
        envelope.channel,
        envelope.credits,
        Raw(ts),
    )
