"""The client's subscriptions: who listens to what, up to where each has seen, and which event goes to whom.

Routing is the receiver's job (PROTOCOL.md section 5): an event arrives once and is matched against every
subscription. Several subscriptions to one channel share one subscription on the wire. Each remembers the last `seq`
it was given, so that after a reconnect nothing is lost and nothing comes twice (section 9, `resume`).

A subscription which nobody reads is bounded. Where the server can send again, it stops taking events and later asks
for them again from its position (`lagging`); where it cannot, what does not fit is dropped, counted and told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dwp_core.frames import EventHead
from dwp_core.topics import QUEUE_PREFIX, channels_of

Since = int | Literal["start"] | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that a subscription will not get.

    Attributes:
        first: lowest `seq` that is missing, when the server numbers its events.
        last: highest `seq` that is missing; None when it is not known (the server's log is another one now).
        dropped: how many were dropped here because nobody read them; 0 when it happened at the server.
    """

    first: int | None = None
    last: int | None = None
    dropped: int = 0


class Subscription:
    """One subscriber of one channel. `tag` is the caller's own and comes with each of its events."""

    __slots__ = (
        "awaits",
        "buffered",
        "channel",
        "confirmed",
        "dropped",
        "lagging",
        "position",
        "since",
        "started",
        "tag",
    )

    def __init__(self, channel: str, tag: object, since: Since) -> None:
        self.channel = channel
        self.tag = tag
        self.since: Since = since
        """Where the caller asked it to begin."""
        self.position: int | None = since if isinstance(since, int) else None
        """The last `seq` that it has seen or need not see."""
        self.awaits: object = None
        """The question whose answer it waits for; None when none is on its way."""
        self.confirmed = False
        """On the present connection, the server has confirmed it."""
        self.started = False
        """On some connection, the server has confirmed it."""
        self.buffered = 0
        """Events given out and not yet consumed."""
        self.dropped = 0
        """Events that were dropped because nobody read, and that its reader has not been told of."""
        self.lagging = False
        """It takes no events until what it holds has been read; then the server is asked for the rest."""

    @property
    def start(self) -> Since:
        """What to ask the server for: where it stands, or where it was to begin."""
        return self.position if self.position is not None else self.since


class SubscriptionTable:
    """All subscriptions of one client, in the order in which they were made.

    Args:
        bound: how many unread events one subscription holds at most when the server cannot send them again.
    """

    __slots__ = ("_by_channel", "_queues", "bound", "head")

    def __init__(self, bound: int) -> None:
        self._by_channel: dict[str, list[Subscription]] = {}
        self._queues = 0
        self.bound = bound
        self.head = 0
        """The highest `seq` seen on any of them."""

    def __iter__(self) -> Iterator[Subscription]:
        for subscriptions in self._by_channel.values():
            yield from subscriptions

    def __len__(self) -> int:
        return sum(map(len, self._by_channel.values()))

    @property
    def channels(self) -> list[str]:
        """Every channel that somebody listens to, in order."""
        return list(self._by_channel)

    @property
    def wants_queues(self) -> bool:
        """Whether matching needs to know an event's queue."""
        return self._queues > 0

    def on(self, channel: str) -> list[Subscription]:
        """The subscriptions to this channel."""
        return self._by_channel.get(channel, [])

    def add(self, subscription: Subscription) -> None:
        """Take up a subscription."""
        self._by_channel.setdefault(subscription.channel, []).append(subscription)
        self._queues += subscription.channel.startswith(QUEUE_PREFIX)

    def remove(self, subscription: Subscription) -> bool:
        """Take out a subscription.

        Returns:
            Whether it was the last one of its channel; False also when it was not here.
        """
        here = self._by_channel.get(subscription.channel)
        if here is None or subscription not in here:
            return False
        here.remove(subscription)
        self._queues -= subscription.channel.startswith(QUEUE_PREFIX)
        if here:
            return False
        del self._by_channel[subscription.channel]
        return True

    def clear(self) -> list[Subscription]:
        """Take out everything."""
        everything = list(self)
        self._by_channel.clear()
        self._queues = 0
        return everything

    def match(self, event: EventHead, queue: str) -> list[Subscription]:
        """The subscriptions that get this event; each is told of by exactly one channel, so none comes twice."""
        by_channel = self._by_channel
        found: list[Subscription] = []
        for channel in channels_of(event.type, event.topic, queue):
            if channel in by_channel:
                found = found + by_channel[channel] if found else by_channel[channel]
        return found

    def accept(self, subscription: Subscription, seq: int | None) -> bool:
        """Whether the subscription is given the event with this `seq` now; its position moves on if so.

        It is not when it has seen the event, waits for the answer that says where it begins, or lags behind.
        """
        if seq is None:
            if subscription.buffered >= self.bound:
                subscription.dropped += 1
                return False
        else:
            if seq > self.head:
                self.head = seq
            if not subscription.confirmed or subscription.lagging:
                return False
            position = subscription.position
            if position is not None and seq <= position:
                return False
            subscription.position = seq
        subscription.buffered += 1
        return True

    def confirm(self, subscription: Subscription, head: int | None, gap: Gap | None) -> Gap | None:
        """The server has confirmed the subscription.

        Args:
            head: the `seq` of the answer; None where the server numbers nothing.
            gap: what the answer says retention has removed.

        Returns:
            The part of the gap that concerns this subscription.
        """
        position = subscription.position
        subscription.confirmed = subscription.started = True
        subscription.awaits = None
        subscription.lagging = False
        if head is None:
            return None
        self.head = max(self.head, head)
        if position is None:
            subscription.position = 0 if subscription.since == "start" else head
            return None
        if gap is None or gap.first is None or gap.last is None or gap.last <= position:
            return None
        subscription.position = gap.last
        return Gap(first=max(gap.first, position + 1), last=gap.last)

    def lost_connection(self) -> None:
        """Nothing is confirmed any more; positions stay."""
        for subscription in self:
            subscription.confirmed = False
            subscription.awaits = None
            subscription.lagging = False

    def another_log(self) -> list[tuple[Subscription, Gap]]:
        """The server's log is another one than before: positions mean nothing, what comes next is past a gap."""
        gaps: list[tuple[Subscription, Gap]] = []
        self.head = 0
        for subscription in self:
            if subscription.started and subscription.position is not None:
                gaps.append((subscription, Gap(first=subscription.position + 1)))
                subscription.position = subscription.since = None
        return gaps

    def slowest(self) -> Subscription | None:
        """The subscription with the most unread events among those that take events; None when there is none."""
        taking = (subscription for subscription in self if not subscription.lagging)
        return max(taking, key=lambda subscription: subscription.buffered, default=None)

    def held(self) -> int:
        """How many unread events the slowest subscription holds."""
        slowest = self.slowest()
        return slowest.buffered if slowest is not None else 0
