"""How long to wait before the next connection attempt: exponential, full jitter, bounded (DESIGN.md, policies).

The count of attempts goes back to zero only after a connection was authenticated *and* stayed up for a while, so a
server that accepts and closes is not hammered.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter: a random time between nothing and min(cap, base · 2^(attempt − 1)).

    Attributes:
        base: seconds at most before the first retry.
        cap: seconds at most before any retry.
        stable_after: seconds that a connection must have been up for the next loss to count as the first.

    Example:
        >>> Backoff(base=0.5, cap=30.0).delay(attempt=3, jitter=0.5)
        1.0
    """

    base: float = 0.25
    cap: float = 30.0
    stable_after: float = 10.0

    def __post_init__(self) -> None:
        if not (0 < self.base <= self.cap) or self.stable_after < 0:
            raise ValueError(f"backoff needs 0 < base <= cap and stable_after >= 0, got {self!r}")

    def delay(self, *, attempt: int, jitter: float) -> float:
        """Seconds to wait before this retry.

        Args:
            attempt: 1 for the first retry.
            jitter: a random number from [0, 1).
        """
        return jitter * min(self.cap, self.base * 2.0 ** min(attempt - 1, 62))
