"""What happened in a simulated run, in order: to be read when it failed, and to be compared with another run."""

from __future__ import annotations

from collections import deque
from hashlib import blake2b

from dwp_core.codec import get_codec
from dwp_core.errors import FrameError
from dwp_core.frames import DEFAULT_LIMITS


class InvariantBroken(AssertionError):
    """A promise of the sessions did not hold in a simulated run."""


class History:
    """Everything that was noted, as a digest, and the last of it as text.

    Args:
        keep: how many entries can be read.

    Two runs with the same digest are the same run: every message, byte for byte, at the same moment.

    Example:
        >>> history = History(keep=100)
        >>> history.note(0.5, "client 1", "is cut off")
        >>> print(history)
          0.500000  client 1     is cut off
    """

    __slots__ = ("_digest", "_entries")

    def __init__(self, *, keep: int = 2_000) -> None:
        self._digest = blake2b(digest_size=16)
        self._entries: deque[tuple[float, str, str, bytes]] = deque(maxlen=keep)

    def note(self, now: float, who: str, what: str, message: bytes = b"") -> None:
        """Something has happened; `message` is the frame that it is about, if any."""
        self._entries.append((now, who, what, message))
        self._digest.update(b"%r %b %b %b\n" % (now, who.encode(), what.encode(), message))

    @property
    def digest(self) -> str:
        """Stands for everything that was noted."""
        return self._digest.hexdigest()

    def __str__(self) -> str:
        return "\n".join(
            f"{now:10.6f}  {who:<12} {what}{_described(message)}" for now, who, what, message in self._entries
        )


def _described(message: bytes) -> str:
    """A frame in words, for reading."""
    if not message:
        return ""
    codec = get_codec("msgpack" if message[:1] >= b"\x80" else "json", "portable")
    try:
        frame = codec.decode(message, DEFAULT_LIMITS)
    except FrameError:
        return f" {message[:80]!r}"
    words = [frame.type, frame.method, frame.id, frame.channel]
    if frame.correl_id:
        words.append(f"to {frame.correl_id}")
    if frame.credits:
        words.append(f"credits {frame.credits}")
    if frame.error is not None:
        words.append(f"{frame.error.code} {frame.error.message}")
    words.append(codec.data(frame)[:160].decode(errors="replace"))
    return " " + " ".join(word for word in words if word)
