"""The requests of one connection that a server has taken up and not answered: which, how much, and until when.

Each leaves the table once. What the client of the other side keeps about them is `dwp_core.requests`.
"""

from __future__ import annotations

from dwp_core.deadlines import Deadlines


class InFlight:
    """Requests by id.

    Example:
        >>> table = InFlight()
        >>> table.add("c1", size=20)
        >>> table.sizes, table.load
        ({'c1': 20}, 20)
        >>> table.settle("c1"), table.settle("c1"), table.load
        (True, False, 0)
    """

    __slots__ = ("_expiries", "load", "sizes")

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        """The bytes of data that each of them carries, by id."""
        self._expiries: Deadlines[str] | None = None
        self.load = 0
        """The bytes that they carry together."""

    def add(self, request_id: str, *, size: int) -> None:
        """Take up a request whose data has that many bytes."""
        self.sizes[request_id] = size
        self.load += size

    def expire(self, request_id: str, at: float) -> None:
        """It is to be answered then at the latest."""
        if self._expiries is None:
            self._expiries = Deadlines()
        self._expiries.set(request_id, at)

    @property
    def next_expiry(self) -> float | None:
        """When the first of them is to be answered; None where none is."""
        return None if self._expiries is None else self._expiries.next

    def pop_expired(self, now: float) -> str | None:
        """One whose time is over, told once; it is still to be answered."""
        return None if self._expiries is None else self._expiries.pop_due(now)

    def settle(self, request_id: str) -> bool:
        """It is answered; False when there is no such request (any more)."""
        size = self.sizes.pop(request_id, None)
        if size is None:
            return False
        self.load -= size
        if self._expiries is not None:
            self._expiries.cancel(request_id)
        return True

    def clear(self) -> None:
        """Nobody wants an answer any more."""
        self.sizes.clear()
        self._expiries = None
        self.load = 0
