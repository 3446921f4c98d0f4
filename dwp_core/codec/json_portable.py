"""The JSON codec on the standard library: one parse for envelope and payload, whose text is cut out when asked for.

Whatever is not plainly right goes to `dwp_core.codec.judge` (PROTOCOL.md section 2).
"""

from __future__ import annotations

from json.encoder import encode_basestring
from typing import Any, Final

from dwp_core.codec import json_syntax, payload, payload_portable
from dwp_core.codec.events import judge_event
from dwp_core.codec.judge import Fields, judge_json, locate, plain_fields, unwritable
from dwp_core.codec.timestamps import Stamper, json_time
from dwp_core.frames import ErrorDetail, EventHead, Limits


class PortableJsonFrame:
    """A `Frame` made by the portable JSON codec. It is data: its fields do not change once it is made."""

    __slots__ = (
        "app_id",
        "channel",
        "correl_id",
        "credits",
        "error",
        "id",
        "message",
        "method",
        "org_id",
        "parsed",
        "token",
        "type",
    )

    def __init__(self, fields: Fields, message: bytes, parsed: Any) -> None:
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
        self.message = message
        self.parsed = parsed

    def __repr__(self) -> str:
        # Without the token: frames are printed where things go wrong.
        return f"PortableJsonFrame(id={self.id!r}, type={self.type!r}, method={self.method!r})"


_UNREAD: Final = object()
"""Stands for a payload that was not kept when its frame was parsed."""


class PortableJsonCodec:
    """`Codec` for JSON on the standard library; see `dwp_core.codec.Codec`."""

    name = "json"
    form = "portable"
    binary = False

    def __init__(self) -> None:
        self._stamp = Stamper().text

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
        quoted = encode_basestring
        head = f'{{"id":{quoted(id)},"type":{quoted(type)}'
        if method:
            head += f',"method":{quoted(method)}'
        if correl_id:
            head += f',"correl_id":{quoted(correl_id)}'
        if token:
            head += f',"token":{quoted(token)}'
        tail = ""
        if error is not None:
            details = f',"details":{quoted(error.details)}' if error.details else ""
            tail = f',"error":{{"code":{error.code},"message":{quoted(error.message)}{details}}}'
        if channel:
            tail += f',"channel":{quoted(channel)}'
        if credits:
            tail += f',"credits":{credits}'
        tail += f',"ts":"{self._stamp(ts)}"}}'
        try:
            if data:
                return b'%b,"data":%b%b' % (head.encode(), data, tail.encode())
            return (head + tail).encode()
        except UnicodeEncodeError as cause:
            raise unwritable(cause) from None

    def decode(self, message: bytes | bytearray | memoryview, limits: Limits) -> PortableJsonFrame:
        """See `dwp_core.codec.Codec.decode`."""
        message = bytes(message)
        if len(message) <= limits.message:
            try:
                text = str(message, "utf-8")
                if "\\u" not in text or not ("\\ud" in text or "\\uD" in text):  # no surrogates
                    root = payload_portable.decode(text)
                    if type(root) is dict:
                        fields = plain_fields(root, limits)
                        if fields is not None:
                            return PortableJsonFrame(fields, message, root.get("data"))
            except (ValueError, RecursionError):
                pass
        return PortableJsonFrame(judge_json(message, limits)[0], message, _UNREAD)

    def data(self, frame: Any) -> bytes:
        """See `dwp_core.codec.Codec.data`."""
        return locate(frame.message)[0]

    def value(self, frame: Any, limits: Limits) -> Any:
        """See `dwp_core.codec.Codec.value`."""
        # What was parsed with the frame is handed out once: the next caller gets a value of its own.
        value, frame.parsed = frame.parsed, _UNREAD
        message = frame.message
        if (
            value is not _UNREAD
            and len(message) <= limits.payload
            and not json_syntax.is_deeper(message, limits.depth)
        ):
            return value
        raw = locate(frame.message)[0]
        return (
            payload.decode_with(payload_portable.parse, raw, limits, "data", well_formed=True)
            if raw
            else None
        )

    def timestamp(self, frame: Any) -> int | None:
        """See `dwp_core.codec.Codec.timestamp`."""
        return json_time(locate(frame.message)[1])

    def event(self, frame: Any) -> EventHead | None:
        """See `dwp_core.codec.Codec.event`."""
        return judge_event(locate(frame.message)[0])
