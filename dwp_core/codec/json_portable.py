"""The JSON codec on the standard library: the judge itself is the decoder; payload and time are cut out when asked for.

PROTOCOL.md section 2.
"""

from __future__ import annotations

from json.encoder import encode_basestring
from typing import Any

from dwp_core.codec import payload, payload_portable
from dwp_core.codec.events import judge_event
from dwp_core.codec.judge import Envelope, judge_json, locate, unwritable
from dwp_core.codec.timestamps import Stamper, json_time
from dwp_core.frames import ErrorDetail, EventHead, Limits


class PortableJsonFrame:
    """A `Frame` made by the portable JSON codec. It is data: nobody changes it once it is made."""

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
        "token",
        "type",
    )

    def __init__(self, envelope: Envelope, message: bytes) -> None:
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
        ) = envelope
        self.message = message


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
        message = bytes(message)
        return PortableJsonFrame(judge_json(message, limits), message)

    def data(self, frame: Any) -> bytes:
        return locate(frame.message)[0]

    def value(self, frame: Any, limits: Limits) -> Any:
        raw = locate(frame.message)[0]
        return payload.decode_with(payload_portable, raw, limits, "data") if raw else None

    def timestamp(self, frame: Any) -> int | None:
        return json_time(locate(frame.message)[1])

    def event(self, frame: Any) -> EventHead | None:
        return judge_event(locate(frame.message)[0])
