"""The receiving side of flow control: how many events the server may still send, and when to let it send more.

The application opens the window by consuming, not the reader by reading; the window is reopened in steps, well before
it runs dry (PROTOCOL.md section 6). Towards a base server, which drops what has no credit, it is kept wide open and the
local buffer is the bound.
"""

from __future__ import annotations


class ReceiveWindow:
    """Credit given to one server on one connection.

    Args:
        size: how many events may be on their way or unread at a time.
        granted: what the server starts with, without being told.

    Example:
        >>> window = ReceiveWindow(size=8, granted=8)
        >>> [window.received() for _ in range(6)]
        [False, True, True, True, True, True]
        >>> window.due(held=6), window.due(held=0)
        (0, 6)
    """

    __slots__ = ("_look_at", "_low", "_pause", "_step", "remaining", "size")

    def __init__(self, *, size: int, granted: int) -> None:
        self.size = max(size, 1)
        self.remaining = granted
        self._step = max(self.size // 4, 1)
        self._low = self.size - self._step
        self._pause = max(self._step // 16, 1)
        self._look_at = self._low

    def received(self) -> bool:
        """An event that costs credit has come; whether it is time to ask what is due, which is not every time."""
        if self.remaining:
            self.remaining -= 1
        if self.remaining > self._look_at:
            return False
        self._look_at = max(self.remaining - self._pause, 0)
        return True

    @property
    def low(self) -> bool:
        """Whether it is worth asking what is due."""
        return self.remaining <= self._low

    @property
    def starving(self) -> bool:
        """Whether the server is about to run out of credit."""
        return self.remaining <= self.size // 8

    def due(self, held: int) -> int:
        """The credit to grant now; 0 until a step's worth has been consumed. Granting is assumed.

        Args:
            held: events that have come and were not consumed.
        """
        grant = self.size - held - self.remaining
        if grant < self._step:
            return 0
        self.remaining += grant
        self._look_at = self._low
        return grant
