"""Codecs: frames to and from the bytes of one message, JSON or MessagePack, each in a fast and a portable form.

`get_codec` gives the codec; the forms differ in speed only: same values, same rejections, same texts, same envelope
bytes. A codec keeps no state that matters between calls and may be shared by threads. Payload and time of a frame
stay raw until they are asked for (PROTOCOL.md section 2).
"""

from __future__ import annotations

from typing import Any, Protocol

from dwp_core.codec.payload import decode_payload, encode_payload
from dwp_core.errors import InvalidRequest
from dwp_core.frames import ErrorDetail, EventHead, Frame, Limits

__all__ = ["FAST", "JSON", "MSGPACK", "PORTABLE", "Codec", "decode_payload", "encode_payload", "get_codec"]

JSON = "json"
MSGPACK = "msgpack"
FAST = "fast"
PORTABLE = "portable"


class Codec(Protocol):
    """What every codec does. Frames that a codec decoded are read by a codec of the same name and form.

    Attributes:
        name: "json" or "msgpack", as negotiated (PROTOCOL.md section 3).
        form: "fast" (msgspec) or "portable" (standard library and msgpack).
        binary: whether its messages are sent as binary WebSocket messages; either opcode is received.
    """

    @property
    def name(self) -> str: ...
    @property
    def form(self) -> str: ...
    @property
    def binary(self) -> bool: ...

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
        """One message.

        Args:
            type: one of `dwp_core.frames.FRAME_TYPES`.
            id: the sender's, unique per connection and direction.
            data: JSON text of the payload, as `encode_payload` makes it; b"" for none. It is not looked at.
            ts: nanoseconds since 1970.

        Raises:
            InvalidRequest: (400) a text that cannot be written as UTF-8.

        Example:
            >>> get_codec("json").encode("request", "c-1", method="stats", ts=1_767_323_045_000_000_000)
            b'{"id":"c-1","type":"request","method":"stats","ts":"2026-01-02T03:04:05.000000000Z"}'

        PROTOCOL.md section 2.
        """
        ...

    def decode(self, message: bytes | bytearray | memoryview, limits: Limits) -> Frame:
        """The frame in a message; its payload is not judged.

        Raises:
            FrameError: (400) the message is no frame; (413) it is larger than `limits.message`.

        Example:
            >>> from dwp_core.frames import DEFAULT_LIMITS
            >>> get_codec("json").decode(b'{"id":"c-1","type":"ping"}', DEFAULT_LIMITS).id
            'c-1'

        PROTOCOL.md section 2.
        """
        ...

    def data(self, frame: Frame) -> bytes:
        """The exact JSON text of the payload, not judged; b"" when it is absent."""
        ...

    def value(self, frame: Frame, limits: Limits) -> Any:
        """The payload, judged and parsed as by `decode_payload`; None when it is absent or null.

        Raises:
            PayloadError: (400) it is no JSON that may travel; (413) it is larger than `limits.payload`.
        """
        ...

    def timestamp(self, frame: Frame) -> int | None:
        """Nanoseconds since 1970, or None when `ts` is absent or unreadable."""
        ...

    def event(self, frame: Frame) -> EventHead | None:
        """What routing needs of an event frame's payload, or None when it is no event (PROTOCOL.md section 5).

        It is one when it is an object with a text `type`, whose `topic` is text or absent and whose `seq` is a 64-bit
        integer or absent. An unreadable `ts` counts as absent; the inner data is not judged.
        """
        ...


def get_codec(name: str, form: str | None = None) -> Codec:
    """The codec of that name.

    Args:
        name: "json" or "msgpack".
        form: "fast", "portable", or None: fast where msgspec is installed, else portable.

    Raises:
        InvalidRequest: (400) there is no such codec, or msgspec is missing and the fast form was asked for by name.

    Example:
        >>> get_codec("msgpack").binary
        True

    PROTOCOL.md section 2.
    """
    if name not in (JSON, MSGPACK):
        raise InvalidRequest(f'unknown format "{name}": expected "json" or "msgpack"')
    if form not in (None, FAST, PORTABLE):
        raise InvalidRequest(f'unknown codec form "{form}": expected "fast", "portable" or None')
    if form != PORTABLE:
        try:
            return _fast(name)
        except ImportError as error:
            if form == FAST:
                raise InvalidRequest('codec form "fast" needs msgspec, which is not installed') from error
    return _portable(name)


def _fast(name: str) -> Codec:
    if name == JSON:
        from dwp_core.codec.json_fast import FastJsonCodec

        return FastJsonCodec()
    from dwp_core.codec.msgpack_fast import FastMsgpackCodec

    return FastMsgpackCodec()


def _portable(name: str) -> Codec:
    if name == JSON:
        from dwp_core.codec.json_portable import PortableJsonCodec

        return PortableJsonCodec()
    from dwp_core.codec.msgpack_portable import PortableMsgpackCodec

    return PortableMsgpackCodec()
