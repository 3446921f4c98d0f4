"""The states of a `ServerSession` and every way from one to another (DESIGN.md).

One session is one connection. Until it is `open` nothing of the peer is believed and nothing is sent to it but an
error; in `draining` what is in flight is answered and nothing new is taken; `closing` waits for the transport to end.
"""

from __future__ import annotations

from dwp_core.transitions import Table

WAITING = "waiting"
JUDGING = "judging"
OPEN = "open"
DRAINING = "draining"
CLOSING = "closing"
CLOSED = "closed"

AUTH_FRAME = "auth frame"
ACCEPT = "accept"
DRAIN = "drain"
CLOSE = "close"
LOST = "lost"

SERVER_STATES = Table(
    "connection",
    WAITING,
    {
        (WAITING, AUTH_FRAME): JUDGING,
        (WAITING, CLOSE): CLOSING,
        (WAITING, LOST): CLOSED,
        (JUDGING, ACCEPT): OPEN,
        (JUDGING, CLOSE): CLOSING,
        (JUDGING, LOST): CLOSED,
        (OPEN, DRAIN): DRAINING,
        (OPEN, CLOSE): CLOSING,
        (OPEN, LOST): CLOSED,
        (DRAINING, CLOSE): CLOSING,
        (DRAINING, LOST): CLOSED,
        (CLOSING, LOST): CLOSED,
    },
)
