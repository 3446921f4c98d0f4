"""Frames on their way out: encoded in the codec of the present connection, stamped, and queued as effects."""

from __future__ import annotations

from collections.abc import Iterator

from dwp_core.codec import Codec
from dwp_core.effects import Effect, SendMessage
from dwp_core.frames import ErrorDetail


class Outbox:
    """The effects of one session, and the one place where its frames are made.

    Args:
        codec: what to begin with; the session sets another one when it has been agreed on.
        ids: gives frame ids, unique in this session.
        epoch_ns: the wall clock, in nanoseconds since 1970, at monotonic time 0.
    """

    __slots__ = ("codec", "effects", "epoch_ns", "ids")

    def __init__(self, codec: Codec, ids: Iterator[str], epoch_ns: int) -> None:
        self.codec = codec
        self.ids = ids
        self.epoch_ns = epoch_ns
        self.effects: list[Effect] = []

    def frame(
        self,
        type: str,
        now: float,
        *,
        id: str = "",
        method: str = "",
        correl_id: str = "",
        token: str = "",
        data: bytes = b"",
        error: ErrorDetail | None = None,
        credits: int = 0,
        ts: int | None = None,
        request_id: str = "",
    ) -> None:
        """Send a frame of any kind; `ts` is the time of its making unless it echoes another."""
        message = self.codec.encode(
            type,
            id or next(self.ids),
            method=method,
            correl_id=correl_id,
            token=token,
            data=data,
            error=error,
            credits=credits,
            ts=self.epoch_ns + int(now * 1e9) if ts is None else ts,
        )
        self.effects.append(SendMessage(message, self.codec.binary, request_id))

    def drop_messages(self) -> frozenset[str]:
        """Leave out the messages that were not taken; the ids of the requests among them."""
        dropped = [effect for effect in self.effects if isinstance(effect, SendMessage)]
        self.effects = [effect for effect in self.effects if not isinstance(effect, SendMessage)]
        return frozenset(message.request_id for message in dropped if message.request_id)
