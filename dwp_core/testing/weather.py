"""What a simulated network is like, and where chance comes from.

The core draws no random numbers of its own: whoever simulates passes a source in. `random.Random(seed)` is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")


class Rng(Protocol):
    """A source of random numbers; `random.Random` is one."""

    def random(self) -> float:
        """A number from [0, 1)."""
        ...

    def randrange(self, start: int, stop: int, /) -> int:
        """An integer from `start`, less than `stop`."""
        ...

    def choice(self, seq: Sequence[T], /) -> T:
        """One of these."""
        ...


@dataclass(frozen=True, slots=True)
class Weather:
    """How a link behaves while nothing is broken. Each direction has a weather of its own.

    Attributes:
        latency: seconds that bytes travel at least.
        jitter: seconds that they may travel longer, drawn anew each time; order is kept.
        chunk: bytes that arrive together at most, the size drawn anew each time; 0 keeps what was written together.
        buffer: unsent bytes at which a writer is told to wait.
        window: bytes on their way or not yet read by the receiver, at most.
    """

    latency: float = 0.001
    jitter: float = 0.0
    chunk: int = 0
    buffer: int = 65_536
    window: int = 65_536

    def __post_init__(self) -> None:
        if self.latency < 0 or self.jitter < 0 or self.chunk < 0 or self.buffer < 1 or self.window < 1:
            raise ValueError(
                f"weather needs latency, jitter and chunk >= 0, buffer and window >= 1: {self!r}"
            )


FAIR = Weather()
"""A local network."""
