"""Seeds that found a bug once, each with what it was.

A seed stands for a history only as long as the simulation draws the same things in the same order; after a change of
the simulation it is one more seed among many. So what can be said as a promise has a test of its own as well.
"""

from __future__ import annotations

FOUND: dict[int, str] = {
    34: "with a window of one event, subscriptions were taken for full and not asked for again after a reconnect",
    36: "a server with little credit and without resume was believed to have given 1000",
    54: "a wait with less than a millisecond left was asked again and again with a timeout of 0",
    # A second subscription to a channel, from later on, made the server skip what the first had not been sent yet.
    27: "two subscriptions to one channel, the second from a later seq",
    60: "a subscription was refused, and ended, because the client's own requests filled the connection",
    96: "a running subscription ended because its question was not answered in time",
    1043: "a request that one server had carried out was called refused by the next, which has no batches",
    1368: "a running subscription ended with 503 from a server that cannot say that it goes away",
    1116: "a gap of another log after a gap without an end (it was the check that was wrong)",
}

EVERY_TIME = range(30)
"""What the test suite runs beside them."""
