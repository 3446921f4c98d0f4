"""The sending side of flow control: how many more events this connection may be sent (PROTOCOL.md section 6).

The receiving side, which grants, is `dwp_core.window`.
"""

from __future__ import annotations

INITIAL = 1000
"""What a connection starts with, as on the existing server."""

UNLIMITED = 2**62
"""What a connection has that nobody limits."""

_MOST = 2**31 - 1


class SendCredit:
    """The credit of one connection.

    A base client that has never granted any does not know of credit, or trusts its socket to pace it: it is not
    limited. With its first grant it is, as if it had been counted from the start. Negotiated peers always are.

    Args:
        initial: what the connection starts with.
        limited: whether it counts from the start.

    Example:
        >>> credit = SendCredit(initial=3, limited=False)
        >>> credit.available -= 2
        >>> credit.grant(5)
        >>> credit.available
        6
    """

    __slots__ = ("_initial", "available", "limited")

    def __init__(self, *, initial: int = INITIAL, limited: bool) -> None:
        self._initial = initial
        self.limited = limited
        self.available = initial if limited else UNLIMITED
        """How many events may be sent now; who sends takes them off, and never below zero."""

    def grant(self, credits: int) -> None:
        """The peer will take that many more; what exceeds an int32 is cut."""
        if not self.limited:
            self.limited = True
            spent = UNLIMITED - self.available
            self.available = max(self._initial - spent, 0)
        self.available = min(self.available + credits, _MOST)
