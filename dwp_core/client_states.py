"""The states of a `ClientSession` and every way from one to another (DESIGN.md, "ClientSession").

A session makes one connection attempt after the other until it is closed. `authenticating` and `restoring` are not yet
connected as far as the application can see: it never meets a connection whose subscriptions are not back. In
`draining` the server has said that it is going away: what is in flight is answered, the rest waits for the next
connection. In `finishing` the application has said so: what is in flight is answered, then the connection is closed.
"""

from __future__ import annotations

from dwp_core.transitions import Table

IDLE = "idle"
CONNECTING = "connecting"
AUTHENTICATING = "authenticating"
RESTORING = "restoring"
READY = "ready"
DRAINING = "draining"
BACKING_OFF = "backing_off"
FINISHING = "finishing"
CLOSING = "closing"
CLOSED = "closed"

START = "start"
OPENED = "opened"
ACCEPTED = "accepted"
RESTORED = "restored"
DRAIN = "drain"
LOST = "lost"
RETRY = "retry"
GIVE_UP = "give_up"
FINISH = "finish"
CLOSE = "close"

CLIENT_STATES = Table(
    "connection",
    IDLE,
    {
        (IDLE, START): CONNECTING,
        (IDLE, GIVE_UP): CLOSED,
        (CONNECTING, OPENED): AUTHENTICATING,
        (CONNECTING, LOST): BACKING_OFF,
        (CONNECTING, GIVE_UP): CLOSED,
        (AUTHENTICATING, ACCEPTED): RESTORING,
        (AUTHENTICATING, LOST): BACKING_OFF,
        (AUTHENTICATING, GIVE_UP): CLOSED,
        (RESTORING, RESTORED): READY,
        (RESTORING, LOST): BACKING_OFF,
        (RESTORING, GIVE_UP): CLOSED,
        (READY, DRAIN): DRAINING,
        (READY, LOST): BACKING_OFF,
        (READY, GIVE_UP): CLOSED,
        (READY, FINISH): FINISHING,
        (READY, CLOSE): CLOSING,
        (DRAINING, LOST): BACKING_OFF,
        (DRAINING, GIVE_UP): CLOSED,
        (DRAINING, FINISH): FINISHING,
        (DRAINING, CLOSE): CLOSING,
        (BACKING_OFF, RETRY): CONNECTING,
        (BACKING_OFF, GIVE_UP): CLOSED,
        (FINISHING, CLOSE): CLOSING,
        (FINISHING, GIVE_UP): CLOSED,
        (CLOSING, GIVE_UP): CLOSED,
    },
)

ONLINE = frozenset((RESTORING, READY, DRAINING, FINISHING))
"""Logged in: frames of any kind go in both directions."""
OVER = frozenset((FINISHING, CLOSING, CLOSED))
"""The application has closed the session, or nothing more can come of it: new commands are refused."""
