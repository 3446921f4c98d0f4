"""What the application on a client's side holds: its calls with their outcomes, its subscriptions with their events.

They are the tags of a `ClientSession`'s requests and subscriptions: each is told what the session says about it, and
keeps all of it, so that a test can ask afterwards.
"""

from __future__ import annotations

from typing import Any

from dwp_core.client_events import RequestFailed, RequestOutcomeUnknown, RequestSucceeded
from dwp_core.codec.payload import decode_payload
from dwp_core.errors import DispatchError, OutcomeUnknown
from dwp_core.frames import DEFAULT_LIMITS, EventHead
from dwp_core.requests import Request
from dwp_core.subscriptions import Gap, Since, Subscription

Outcome = RequestSucceeded | RequestFailed | RequestOutcomeUnknown


def shorten(text: str, most: int = 120) -> str:
    """A text for reading: its beginning, when it is long."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


class Call:
    """One request of the application.

    Attributes:
        method: e.g. "job.enqueue"; "" for a ping.
        key: its idempotency key; "" for none.
        value: its `data`.
        asked_at: when it was asked, in monotonic seconds.
        expires: when its caller stops waiting; None for never.
        outcomes: what the session said; exactly one in the end, none for a call that was cancelled.
        settled_at: when it came; None while it has not.
        cancelled: nobody waits for it any more.
    """

    __slots__ = (
        "asked_at",
        "cancelled",
        "expires",
        "key",
        "method",
        "outcomes",
        "request",
        "settled_at",
        "value",
    )

    def __init__(
        self, method: str, value: Any, *, key: str = "", asked_at: float = 0.0, expires: float | None = None
    ) -> None:
        self.method = method
        self.value = value
        self.key = key
        self.asked_at = asked_at
        self.expires = expires
        self.outcomes: list[Outcome] = []
        self.settled_at: float | None = None
        self.cancelled = False
        self.request: Request | None = None
        """The session's own record of it."""

    def __repr__(self) -> str:
        outcomes = [type(outcome).__name__ for outcome in self.outcomes]
        asked = f"{self.method or 'ping'}, {shorten(repr(self.value))}, key={self.key!r}"
        return f"Call({asked}, {outcomes}, {self.error!r})"

    def told(self, outcome: Outcome, now: float) -> None:
        """The session says how it went."""
        self.outcomes.append(outcome)
        self.settled_at = now

    @property
    def done(self) -> bool:
        """Whether there is an outcome."""
        return bool(self.outcomes)

    @property
    def error(self) -> DispatchError | None:
        """What went wrong; None while nothing has."""
        outcome = self.outcomes[0] if self.outcomes else None
        return None if outcome is None or isinstance(outcome, RequestSucceeded) else outcome.error

    @property
    def unknown(self) -> bool:
        """Whether nobody knows if it was carried out."""
        return isinstance(self.error, OutcomeUnknown)

    @property
    def answer(self) -> Any:
        """The value of the answer.

        Raises:
            DispatchError: the call failed, or its outcome is unknown.
            LookupError: there is no outcome yet.
        """
        if not self.outcomes:
            raise LookupError(f"{self.method or 'ping'}: there is no answer yet; let time pass first")
        outcome = self.outcomes[0]
        if isinstance(outcome, RequestSucceeded):
            return outcome.codec.value(outcome.frame, DEFAULT_LIMITS)
        raise outcome.error


class Listener:
    """One subscription of the application.

    Attributes:
        channel: what it listens to.
        since: where it was to begin.
        entries: its events and gaps, in order, each with the id of the log that it comes from.
        unread: events that were not consumed yet.
        reading: whether the application consumes events as they come.
        started: the server has confirmed it.
        started_at: the seq after which it began; None where the server numbers nothing.
        started_in: the id of the log in which it began.
        ended: no more events come.
        error: why it ended; None when the application left.
        subscription: the session's own record of it.
    """

    __slots__ = (
        "channel",
        "ended",
        "entries",
        "error",
        "reading",
        "since",
        "started",
        "started_at",
        "started_in",
        "subscription",
        "unread",
    )

    def __init__(self, channel: str, since: Since = None) -> None:
        self.channel = channel
        self.since = since
        self.entries: list[tuple[str, EventHead | Gap]] = []
        self.unread = 0
        self.reading = True
        self.started = False
        self.started_at: int | None = None
        self.started_in = ""
        self.ended = False
        self.error: DispatchError | None = None
        self.subscription: Subscription

    @property
    def events(self) -> list[EventHead]:
        """Its events, in order."""
        return [entry for _, entry in self.entries if not isinstance(entry, Gap)]

    @property
    def gaps(self) -> list[Gap]:
        """What it was told is missing."""
        return [entry for _, entry in self.entries if isinstance(entry, Gap)]

    @property
    def kinds(self) -> list[str]:
        """The types of its events, e.g. "job.completed"."""
        return [event.type for event in self.events]

    def values(self) -> list[Any]:
        """The inner data of its events."""
        return [decode_payload(event.data) for event in self.events]
