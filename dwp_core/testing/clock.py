"""Virtual time: it passes only when a test lets it, and everything that is to happen waits in one ordered agenda."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

EPOCH_NS = 1_767_225_600_000_000_000
"""2026-01-01T00:00:00Z, the wall time of a virtual clock at monotonic 0."""


class Appointment:
    """Something that will happen at a moment of a clock, unless it is cancelled."""

    __slots__ = ("action", "when")

    def __init__(self, when: float, action: Callable[[], object]) -> None:
        self.when = when
        self.action: Callable[[], object] | None = action

    def cancel(self) -> None:
        """It does not happen; nothing changes when it has happened already."""
        self.action = None


class VirtualClock:
    """Monotonic seconds that a test moves, with a wall clock that runs along.

    What is due at the same moment happens in the order in which it was asked for, so a run can be repeated exactly.

    Args:
        now: monotonic seconds to begin with.
        epoch_ns: the wall clock at monotonic 0, in nanoseconds since 1970.

    Example:
        >>> clock = VirtualClock()
        >>> seen = []
        >>> _ = clock.call_later(2.0, lambda: seen.append(clock.now))
        >>> clock.run_for(1.0); seen
        []
        >>> clock.run_for(1.0); seen
        [2.0]
    """

    __slots__ = ("_agenda", "_order", "epoch_ns", "now")

    def __init__(self, now: float = 0.0, *, epoch_ns: int = EPOCH_NS) -> None:
        self.now = now
        self.epoch_ns = epoch_ns
        self._agenda: list[tuple[float, int, Appointment]] = []
        self._order = count()

    @property
    def wall_ns(self) -> int:
        """The wall clock, in nanoseconds since 1970."""
        return self.epoch_ns + int(self.now * 1e9)

    @property
    def next(self) -> float | None:
        """When the next thing happens; None when nothing is to happen."""
        agenda = self._agenda
        while agenda:
            when, _, appointment = agenda[0]
            if appointment.action is not None:
                return when
            heappop(agenda)
        return None

    def call_at(self, when: float, action: Callable[[], object]) -> Appointment:
        """Have `action` called at that moment; at the next step when the moment is past."""
        appointment = Appointment(max(when, self.now), action)
        heappush(self._agenda, (appointment.when, next(self._order), appointment))
        return appointment

    def call_later(self, seconds: float, action: Callable[[], object]) -> Appointment:
        """Have `action` called after so many seconds."""
        return self.call_at(self.now + seconds, action)

    def step(self) -> bool:
        """Move to the next thing that happens, and let it happen; False when there is none."""
        when = self.next
        if when is None:
            return False
        action = heappop(self._agenda)[2].action
        assert action is not None  # `next` has thrown away what was cancelled
        self.now = when
        action()
        return True

    def run_for(self, seconds: float) -> None:
        """Let so many seconds pass, with everything that happens in them."""
        self.run_until(self.now + seconds)

    def run_until(self, when: float) -> None:
        """Let time pass up to this moment, with everything that happens until then."""
        while (at := self.next) is not None and at <= when:
            self.step()
        self.now = max(self.now, when)
