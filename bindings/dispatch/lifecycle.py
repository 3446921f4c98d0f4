"""What happens to a client's connection, as its program sees it: changes to follow, and figures to look at."""

from __future__ import annotations

from dataclasses import dataclass

from dwp_core.errors import DispatchError

KEPT = 256
"""Changes that are kept for one who does not take them; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened to the connection.

    Attributes:
        state: "ready" when it was made, "backing_off" when it was lost and is to be made again, "closed" at the end.
        session_id: the server's name for the connection; None where there is none.
        resumed: whether there had been a connection before.
        cause: why it was lost; None where nothing went wrong.
        retry_in: seconds until the next attempt; None where none is due.
    """

    state: str
    session_id: str | None = None
    resumed: bool = False
    cause: DispatchError | None = None
    retry_in: float | None = None


@dataclass(frozen=True, slots=True)
class Counters:
    """What a client itself counts.

    Attributes:
        connects: connections made.
        losses: connections and attempts lost.
        calls: calls that wait or are under way.
        subscriptions: those that have not ended.
        unread: events that came in and were not taken yet.
        last_error: the last thing that went wrong with the connection; None if nothing has.
    """

    connects: int = 0
    losses: int = 0
    calls: int = 0
    subscriptions: int = 0
    unread: int = 0
    last_error: DispatchError | None = None
