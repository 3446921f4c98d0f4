"""What a server's session says, frame by frame: each with an id of its own and the time, in the codec of the peer."""

from __future__ import annotations

from dwp_core.codec import Codec
from dwp_core.frames import ERROR, RESPONSE, ErrorDetail


class Outgoing:
    """Frames that wait to be written.

    Args:
        codec: what the peer is written in; may change with the login.
        epoch_ns: wall time at `now` = 0, in nanoseconds since 1970.
    """

    __slots__ = ("_count", "_epoch_ns", "codec", "messages")

    def __init__(self, codec: Codec, epoch_ns: int) -> None:
        self.codec = codec
        self.messages: list[bytes] = []
        self._epoch_ns = epoch_ns
        self._count = 0

    def take(self) -> list[bytes]:
        """Everything that waits, in order."""
        messages = self.messages
        if messages:
            self.messages = []
        return messages

    def frame(
        self, kind: str, now: float, *, correl_id: str = "", data: bytes = b"", ts: int | None = None
    ) -> None:
        """A frame of any type but `error`."""
        self._count += 1
        when = self._epoch_ns + int(now * 1e9) if ts is None else ts
        self.messages.append(
            self.codec.encode(kind, f"r{self._count}", correl_id=correl_id, data=data, ts=when)
        )

    def response(self, now: float, correl_id: str, data: bytes) -> None:
        """The answer to a request; `frame` for what is said most often."""
        self._count += 1
        self.messages.append(
            self.codec.encode(
                RESPONSE,
                f"r{self._count}",
                correl_id=correl_id,
                data=data,
                ts=self._epoch_ns + int(now * 1e9),
            )
        )

    def error(self, now: float, correl_id: str, code: int, message: str, details: str = "") -> None:
        """An error frame; `correl_id` is "" where the peer did not say what it is about."""
        self._count += 1
        self.messages.append(
            self.codec.encode(
                ERROR,
                f"r{self._count}",
                correl_id=correl_id,
                error=ErrorDetail(code, message, details),
                ts=self._epoch_ns + int(now * 1e9),
            )
        )
