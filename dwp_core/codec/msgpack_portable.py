"""The MessagePack codec on the msgpack package, whose pure-Python half will do.

A plain frame is a flat map; msgpack is told to build nothing deeper, so that no message can make it allocate much.
Whatever it does not accept goes to `dwp_core.codec.judge` (PROTOCOL.md section 2).
"""

from __future__ import annotations

from typing import Any, cast

import msgpack

from dwp_core.codec import payload, payload_portable
from dwp_core.codec.events import judge_event
from dwp_core.codec.judge import Fields, judge_msgpack, plain_fields, unwritable
from dwp_core.codec.timestamps import SECOND, parse_timestamp, split
from dwp_core.frames import ErrorDetail, EventHead, Limits

_FIELDS = frozenset(
    (
        "id",
        "type",
        "method",
        "correl_id",
        "token",
        "app_id",
        "org_id",
        "data",
        "error",
        "channel",
        "credits",
        "ts",
    )
)


class PortableMsgpackFrame:
    """A `Frame` made by the portable MessagePack codec. It is data: nobody changes it once it is made."""

    __slots__ = (
        "app_id",
        "channel",
        "correl_id",
        "credits",
        "error",
        "id",
        "method",
        "org_id",
        "raw_data",
        "raw_ts",
        "token",
        "type",
    )

    def __init__(self, fields: Fields, data: bytes, ts: object) -> None:
        (
            self.id,
            self.type,
            self.method,
            self.correl_id,
            self.token,
            self.app_id,
            self.org_id,
            self.error,
            self.channel,
            self.credits,
        ) = fields
        self.raw_data = data
        self.raw_ts = ts

    def __repr__(self) -> str:
        # Without the token: frames are printed where things go wrong.
        return f"PortableMsgpackFrame(id={self.id!r}, type={self.type!r}, method={self.method!r})"


class PortableMsgpackCodec:
    """`Codec` for MessagePack on the msgpack package; see `dwp_core.codec.Codec`."""

    name = "msgpack"
    form = "portable"
    binary = True

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
        fields: dict[str, object] = {"id": id, "type": type}
        if method:
            fields["method"] = method
        if correl_id:
            fields["correl_id"] = correl_id
        if token:
            fields["token"] = token
        if data:
            fields["data"] = data
        if error is not None:
            fields["error"] = {"code": error.code, "message": error.message}
            if error.details:
                fields["error"] = {"code": error.code, "message": error.message, "details": error.details}
        if channel:
            fields["channel"] = channel
        if credits:
            fields["credits"] = credits
        fields["ts"] = msgpack.Timestamp(*split(ts))
        try:
            return cast("bytes", msgpack.packb(fields))
        except UnicodeEncodeError as cause:
            raise unwritable(cause) from None

    def decode(self, message: bytes | bytearray | memoryview, limits: Limits) -> PortableMsgpackFrame:
        """See `dwp_core.codec.Codec.decode`."""
        message = bytes(message)
        if len(message) <= limits.message:
            try:
                root = msgpack.unpackb(message, max_array_len=0, max_map_len=len(_FIELDS))
            except (ValueError, TypeError, RecursionError):
                root = None
            frame = _plain(root, limits)
            if frame is not None:
                return frame
        return PortableMsgpackFrame(*judge_msgpack(message, limits))

    def data(self, frame: Any) -> bytes:
        """See `dwp_core.codec.Codec.data`."""
        return bytes(frame.raw_data)

    def value(self, frame: Any, limits: Limits) -> Any:
        """See `dwp_core.codec.Codec.value`."""
        raw = frame.raw_data
        return payload.decode_with(payload_portable.parse, raw, limits, "data") if raw else None

    def timestamp(self, frame: Any) -> int | None:
        """See `dwp_core.codec.Codec.timestamp`."""
        ts = frame.raw_ts
        if isinstance(ts, msgpack.Timestamp):
            return int(ts.seconds) * SECOND + int(ts.nanoseconds)
        return parse_timestamp(ts) if isinstance(ts, bytes) else None

    def event(self, frame: Any) -> EventHead | None:
        """See `dwp_core.codec.Codec.event`."""
        return judge_event(frame.raw_data)


def _plain(root: object, limits: Limits) -> PortableMsgpackFrame | None:
    if type(root) is not dict or not root.keys() <= _FIELDS:
        return None
    data = root.get("data", b"")
    ts = root.get("ts")
    fields = plain_fields(root, limits)
    if fields is None or type(data) is not bytes or type(ts) not in _TIMES:
        return None
    return PortableMsgpackFrame(fields, data, ts)


_TIMES = (msgpack.Timestamp, type(None))
