"""Many deadlines, one timer: the earliest of them is what a driver has to wake up for.

A deadline belongs to a key; setting it again replaces it. Replaced and cancelled entries stay in the heap until they
come up or outnumber the live ones, so that setting and cancelling cost next to nothing.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

K = TypeVar("K", bound=str)

_SLACK = 64


class Deadlines(Generic[K]):
    """A set of deadlines by key, in monotonic seconds.

    Example:
        >>> deadlines = Deadlines[str]()
        >>> deadlines.set("ping", 5.0)
        >>> deadlines.next
        5.0
        >>> deadlines.pop_due(4.9), deadlines.pop_due(5.0), deadlines.next
        (None, 'ping', None)
    """

    __slots__ = ("_full", "_heap", "_when", "next")

    def __init__(self) -> None:
        self._when: dict[K, float] = {}
        self._heap: list[tuple[float, K]] = []
        self._full = _SLACK
        """How long the heap may get before it is looked through for entries that are no longer wanted."""
        self.next: float | None = None
        """The earliest deadline; None when there is none. Drivers ask for it more often than it moves."""

    def __len__(self) -> int:
        return len(self._when)

    def set(self, key: K, when: float) -> None:
        """Set or move the deadline of `key`."""
        self._when[key] = when
        heap = self._heap
        heappush(heap, (when, key))
        if len(heap) > self._full:
            self._heap = [(at, k) for k, at in self._when.items()]
            heapify(self._heap)
            self._full = 2 * len(self._heap) + _SLACK
        self._look()

    def cancel(self, key: K) -> None:
        """Forget the deadline of `key`, if it has one."""
        if self._when.pop(key, None) == self.next:
            self._look()

    def clear(self) -> None:
        """Forget every deadline."""
        self._when.clear()
        self._heap.clear()
        self.next = None

    def pop_due(self, now: float) -> K | None:
        """Take out one key whose deadline has come, earliest first; None when none has."""
        if self.next is None or self.next > now:
            return None
        key = heappop(self._heap)[1]
        del self._when[key]
        self._look()
        return key

    def _look(self) -> None:
        heap, when = self._heap, self._when
        while heap and when.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        self.next = heap[0][0] if heap else None
