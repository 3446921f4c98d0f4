"""The events of one connection: what it is subscribed to, what it has seen, what it may be sent next.

PROTOCOL.md sections 5, 6 and 9 (`resume`). A connection that has seen everything is live: the hub serves it together
with others. One that has no credit, does not read, or has asked for older events has a cursor into the log and is
served from there, page by page, until it is live again. Nothing is queued for it in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Literal

from dwp_core.codec import Codec
from dwp_core.credit import SendCredit
from dwp_core.errors import InvalidRequest
from dwp_core.events import LoggedEvent
from dwp_core.hub import Audience, Entry, Hub
from dwp_core.sse import EventStream

PAGE = 256
"""Events that are looked at in one go, so that one connection that catches up does not hold up the others."""


class Position(Enum):
    """Where a connection is in the log."""

    LIVE = "live"
    """It has seen everything; the hub sends it what is published."""
    BEHIND = "behind"
    """It has a cursor, and goes on from there as soon as it has credit and its socket takes more."""
    READING = "reading"
    """As before, and its driver is reading the log for it."""


class Overrun(Exception):
    """Retention has removed events that this connection was still to get."""


class Delivery:
    """The events of one connection.

    Args:
        hub: where events come from.
        owner: whatever the driver knows the connection by.
        codec: what the connection speaks.
        tenant: app and org of its identity; it gets events of exactly those.
        labelled: a base connection: one frame for each matching subscription, labelled with the subscribed channel.
        numbered: the peer knows of `seq`.
        credit: what it may be sent.
    """

    __slots__ = (
        "_half_sent",
        "audience",
        "blocked",
        "codec",
        "credit",
        "cursor",
        "floors",
        "hub",
        "labelled",
        "numbered",
        "owner",
        "position",
        "tenant",
    )

    def __init__(
        self,
        hub: Hub,
        *,
        owner: Any,
        codec: Codec | EventStream,
        tenant: tuple[str, str],
        labelled: bool,
        numbered: bool,
        credit: SendCredit,
    ) -> None:
        self.hub = hub
        self.owner = owner
        self.codec = codec
        self.tenant = tenant
        self.labelled = labelled
        self.numbered = numbered
        self.credit = credit
        self.floors: dict[str, int] = {}
        """Subscribed channels, each with the seq up to which it has seen everything or wants nothing."""
        self.position = Position.LIVE
        self.cursor = 0
        """Seen everything up to here; has no meaning while live."""
        self.blocked = False
        """Its socket takes no more at the moment."""
        self.audience: Audience | None = None
        self._half_sent: tuple[int, frozenset[str]] = (0, frozenset())
        """An event of which some labels were sent before credit ran out, and which."""
        hub.subscribers += 1

    # Subscriptions.

    def subscribe(self, channel: str, since: int | Literal["start"] | None) -> tuple[int, int] | None:
        """Add a channel, from now on or from after `since` on.

        Returns:
            The first and last seq that were asked for and that retention has removed; None for nothing.

        Raises:
            InvalidRequest: (400) `since` lies above the head of the log.
        """
        hub = self.hub
        removed = hub.oldest - 1
        if since is None:
            if channel not in self.floors:
                hub.forget(self)
                self.floors[channel] = hub.head
                self._rejoin()
            return None
        if since == "start":
            since = removed
        if since > hub.head:
            raise InvalidRequest(
                f"subscribe: since is {since}, but log {hub.log} ends at {hub.head}; give the seq of one of its events"
            )
        start = max(since, removed)
        seen = hub.head if self.position is Position.LIVE else self.cursor
        # Going back is for this channel only: the others have seen what they have seen.
        for other, floor in self.floors.items():
            self.floors[other] = max(floor, seen)
        if channel not in self.floors:
            hub.forget(self)
        # Asking for less again takes nothing away: a client may have two subscriptions to the channel.
        self.floors[channel] = min(start, self.floors.get(channel, start))
        if start < seen:
            self.fall_behind(start)
        else:
            self._rejoin()
        return (since + 1, removed) if since < removed else None

    def answer(self, channel: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Do what a `subscribe` request asks for, and give the `data` of its answer. Raises as `subscribe` does."""
        gap = self.subscribe(channel, params.get("since") if self.numbered else None)
        if "credits" in params:
            self.credit.grant(params["credits"])
        answer: dict[str, Any] = {"channel": channel, "status": "subscribed"}
        if self.numbered:
            answer["seq"] = self.hub.head
        if gap is not None:
            answer["gap"] = {"from": gap[0], "to": gap[1]}
        return answer

    def unsubscribe(self, channel: str) -> None:
        """Remove a channel; nothing that was not sent yet is sent for it."""
        if channel in self.floors:
            self.hub.forget(self)
            del self.floors[channel]
            self._rejoin()

    def close(self) -> None:
        """The connection is over."""
        self.floors.clear()
        self.hub.forget(self)
        self.hub.subscribers -= 1

    # Pace.

    def block(self) -> None:
        """The socket takes no more."""
        self.blocked = True
        if self.position is Position.LIVE:
            self.fall_behind(self.hub.head)

    def fall_behind(self, cursor: int) -> None:
        """From now on there is a cursor, after this seq; a log page that is being read for another one is void."""
        self.hub.leave(self)
        self.position = Position.BEHIND
        self.cursor = cursor

    @property
    def ready(self) -> bool:
        """Whether `advance` would do something."""
        return self.position is Position.BEHIND and not self.blocked and self.credit.available > 0

    def advance(self) -> list[bytes]:
        """Go on from the cursor as far as credit, one page and the ring allow; then the position tells what is next.

        Returns:
            Messages to send.

        Raises:
            Overrun: what it was to get next is gone.
        """
        self._check_retention()
        entries = self.hub.after(self.cursor, PAGE)
        if entries is None:
            self.position = Position.READING
            return []
        return self._give(entries, entries[-1].event.seq if entries else self.hub.head)

    def log_read(self, events: Sequence[LoggedEvent], *, after: int, through: int) -> list[bytes]:
        """A page of the log for this tenant: everything from `after` up to `through` was looked at.

        Returns:
            Messages to send.

        Raises:
            Overrun: what it was to get next is gone.
        """
        if self.position is not Position.READING or after != self.cursor:
            return []  # it has gone back meanwhile, and asked for another page
        self.position = Position.BEHIND
        if self.blocked:
            return []
        self._check_retention()
        # What the hub has not published yet it will publish later: given out here, it would come twice.
        head = self.hub.head
        return self._give([Entry(event) for event in events if event.seq <= head], min(through, head))

    def skip_removed(self) -> tuple[int, int]:
        """After `Overrun`, for a peer that is told in the stream: go on where the log begins.

        Returns:
            The first and last seq that it does not get.
        """
        first, removed = self.cursor + 1, self.hub.oldest - 1
        self.cursor = removed
        return first, removed

    # Inside.

    def _rejoin(self) -> None:
        """After a change of channels: back among the live, if it was there and still wants anything."""
        if self.position is Position.LIVE and self.floors:
            self.hub.join(self)

    def _check_retention(self) -> None:
        removed = self.hub.oldest - 1
        if self.cursor < removed:
            if self.numbered:
                raise Overrun
            self.cursor = removed

    def _give(self, entries: Sequence[Entry], through: int) -> list[bytes]:
        """Send what is wanted of these entries while there is credit, and move the cursor past what was dealt with."""
        messages: list[bytes] = []
        credit, message = self.credit, self.hub.message
        for entry in entries:
            labels = self._labels(entry)
            affordable = labels[: credit.available]
            credit.available -= len(affordable)
            messages += [message(entry, self.codec, label, numbered=self.numbered) for label in affordable]
            if len(affordable) < len(labels):
                seq, sent = self._half_sent
                already = sent if seq == entry.event.seq else frozenset()
                self._half_sent = (entry.event.seq, already.union(affordable))
                return messages
            self.cursor = entry.event.seq
        self.cursor = through
        if self.cursor >= self.hub.head:
            self.position = Position.LIVE
            self._rejoin()
        return messages

    def _labels(self, entry: Entry) -> list[str]:
        """The labels of the frames that this connection wants of an event; none, one, or for base peers several."""
        event = entry.event
        if (event.app_id, event.org_id) != self.tenant:
            return []
        floors, seq = self.floors, event.seq
        matching = [channel for channel in entry.channels if channel in floors and floors[channel] < seq]
        if not self.labelled:
            return [event.topic] if matching else []
        half_sent, sent = self._half_sent
        return [channel for channel in matching if channel not in sent] if half_sent == seq else matching
