"""Whether a lost connection is made again, and when (DESIGN.md, "ClientSession", policies).

The first connection is one attempt, or as many as fit into `wait_for_server`, the last one at its end. Once connected,
attempts follow with full jitter until `max_retries` in a row have failed; only a connection that stayed up for a while
makes the count start again.
"""

from __future__ import annotations

from dwp_core.client_events import ClientConfig


class Reconnection:
    """The attempts of one session.

    Attributes:
        attempts: how many were made in all.
        connected_before: whether one of them was ever let in.
    """

    __slots__ = (
        "_config",
        "_excused",
        "_failures",
        "_give_up_at",
        "_ready_since",
        "_retry_after",
        "attempts",
        "connected_before",
    )

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._failures = 0
        self._give_up_at = 0.0
        self._ready_since: float | None = None
        self._retry_after: float | None = None
        self._excused = False
        self.attempts = 0
        self.connected_before = False

    def started(self, now: float) -> None:
        """The application wants to connect."""
        self._give_up_at = now + self._config.wait_for_server

    def ready(self, now: float) -> None:
        """The server has let us in and everything is restored."""
        if not self.connected_before:
            self._failures = 0  # looking for a server that is not up yet is no sign of an unstable one
        self.connected_before = True
        self._ready_since = now

    def come_back_after(self, seconds: float, *, excused: bool = True) -> None:
        """The server goes away and said when to come back; unless it is not `excused`, that is no failure."""
        self._retry_after = seconds
        self._excused = excused

    def next_attempt_at(self, now: float, jitter: float) -> float | None:
        """The connection or attempt was lost at `now`: when to make the next one; None to give up.

        Args:
            jitter: a random number from [0, 1).
        """
        config = self._config
        stable = self._ready_since is not None and now - self._ready_since >= config.backoff.stable_after
        invited = self._retry_after
        self._failures = 1 if stable else self._failures + 1
        self._ready_since = self._retry_after = None
        delay = config.backoff.delay(attempt=self._failures, jitter=jitter)
        if invited is not None:  # never sooner than the backoff: it may go away again and again
            delay = max(delay, invited * (1 + jitter))
        if not self.connected_before:
            return min(now + delay, self._give_up_at) if now < self._give_up_at else None
        excused = invited is not None and self._excused
        exhausted = config.max_retries and self._failures > config.max_retries and not excused
        return now + delay if config.reconnect and not exhausted else None
