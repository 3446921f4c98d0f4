"""Is the peer still there? (PROTOCOL.md sections 7 and 9, `heartbeat_ms`.)

Any inbound message counts as life. Silence for one interval asks for a ping, silence for one more means dead. A timer
that comes much too late says that this side was asleep (a blocked event loop, a suspended laptop), not the peer: it
buys one more round.
"""

from __future__ import annotations

from enum import Enum
from math import inf


class Verdict(Enum):
    """What `Liveness.check` says about the peer."""

    ALIVE = "alive"
    PING = "ping"
    DEAD = "dead"


class Liveness:
    """Watches one connection; the driver's timer calls `check` at `deadline`.

    Args:
        interval: seconds of silence after which the peer is asked.
        now: monotonic seconds at which the connection was made.

    Example:
        >>> liveness = Liveness(interval=10.0, now=0.0)
        >>> liveness.check(10.0), liveness.check(20.0)
        (<Verdict.PING: 'ping'>, <Verdict.DEAD: 'dead'>)
    """

    __slots__ = ("_asked_at", "deadline", "interval", "last_heard")

    def __init__(self, *, interval: float, now: float) -> None:
        self.interval = interval
        self.last_heard = now
        self.deadline = now + interval
        self._asked_at = -inf

    def check(self, now: float) -> Verdict:
        """Judge the silence up to `now` and set the next `deadline`, which is always later than `now`."""
        overslept = now - self.deadline > self.interval / 2
        quiet_since = self.last_heard
        if quiet_since + self.interval > now:
            self.deadline = quiet_since + self.interval
            return Verdict.ALIVE
        self.deadline = now + self.interval
        if quiet_since < self._asked_at and not overslept:
            return Verdict.DEAD
        self._asked_at = now
        return Verdict.PING

    def suspend(self, now: float) -> None:
        """Take this moment for a sign of life: the peer is known to be busy and silent."""
        self.last_heard = now
