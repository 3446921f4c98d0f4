"""The hub: what was committed to the event log goes to every connection that wants it (PROTOCOL.md sections 5, 6, 9).

Connections that have seen everything and want the same bytes (same codec, tenant and channels) form an audience: an
event is matched, encoded and joined once for all of them. A connection that cannot keep up leaves its audience and has
a cursor instead (`dwp_core.delivery`); until it has caught up it costs the others nothing. The newest events are kept
in a bounded ring, from which such a connection is served; where the ring does not reach back, the log is read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dwp_core.codec import Codec, get_codec
from dwp_core.events import LoggedEvent, event_data
from dwp_core.frames import EVENT
from dwp_core.sse import EventStream
from dwp_core.topics import channels_of

if TYPE_CHECKING:
    from dwp_core.delivery import Delivery

OK = 200
"""The code under which an answer that is no error is counted."""


class Entry:
    """An event, the channels it is on, and every message that was made of it."""

    __slots__ = ("_channels", "event", "messages")

    def __init__(self, event: LoggedEvent) -> None:
        self.event = event
        self._channels: tuple[str, ...] | None = None
        self.messages: dict[tuple[str, bool, str], bytes] | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """What it is on; worked out when it is first asked for, because often nobody listens."""
        if self._channels is None:
            event = self.event
            self._channels = channels_of(event.type, event.topic, event.queue)
        return self._channels


@dataclass(slots=True)  # not frozen: made for every audience of every commit
class Fanout:
    """The same messages for several connections. Write them to each of `to`, in order.

    Attributes:
        messages: whole frames, encoded.
        binary: the WebSocket opcode.
        to: the owners of the connections, as they were given to their sessions.
    """

    messages: list[bytes]
    binary: bool
    to: list[Any]


class Audience:
    """Connections that get exactly the same bytes."""

    __slots__ = (
        "belonging",
        "channels",
        "codec",
        "frames",
        "key",
        "labelled",
        "members",
        "numbered",
        "tenant",
    )

    def __init__(self, delivery: Delivery, key: object) -> None:
        self.key = key
        self.codec = delivery.codec
        self.labelled = delivery.labelled
        self.numbered = delivery.numbered
        self.tenant = delivery.tenant
        self.channels = tuple(delivery.floors)
        self.members: dict[Delivery, None] = {}
        """Those of them that have seen everything and can take more."""
        self.belonging = 0
        """All of them, also those that are behind."""
        self.frames: list[tuple[Entry, str]] = []
        """What the commit at hand means for them: events, each with the label that its frame bears."""

    def add(self, entry: Entry, channel: str) -> None:
        """The entry is on one of the channels."""
        if self.labelled:
            self.frames.append((entry, channel))
        elif not self.frames or self.frames[-1][0] is not entry:
            self.frames.append((entry, entry.event.topic))


class Hub:
    """Routes the events of one log.

    Args:
        head: the newest seq of the log.
        oldest: the first seq that the log still has; head + 1 when it has none.
        log: the id of the log.
        epoch_ns: wall time at `now` = 0, in nanoseconds since 1970.
        ring: how many of the newest events are kept, at least.
        ring_bytes: how many bytes of event data are kept, at most about.
        form: which form of the codecs, "fast" or "portable"; None takes the fast one where it is there.

    Attributes:
        head: the newest seq that was published.
        encodings: how often an event was encoded; grows once per event, codec and label.
        published: how many events were published.
        subscribers: how many connections have subscribed to something.
        answers: how many requests were answered, by method and code (200, or the code of the error). The method is ""
            where a client named one that nobody knows.
    """

    def __init__(
        self,
        *,
        head: int = 0,
        oldest: int = 1,
        log: str = "",
        epoch_ns: int = 0,
        ring: int = 4096,
        ring_bytes: int = 16 * 1024 * 1024,
        form: str | None = None,
    ) -> None:
        self.head = head
        self.oldest = oldest
        self.log = log
        self.encodings = 0
        self.published = 0
        self.subscribers = 0
        self.answers: dict[tuple[str, int], int] = {}
        self._form = form
        self._codecs: dict[str, Codec] = {}
        self._epoch_ns = epoch_ns
        self.now = 0.0
        """The time that frames made from now on bear."""
        self._ring_size = ring
        self._ring_limit = ring_bytes
        self._ring: list[Entry] = []
        self._seqs: list[int] = []
        self._ring_bytes = 0
        self._floor = head
        """The ring has every event after this seq."""
        self._audiences: dict[object, Audience] = {}
        self._index: _Index = {}
        self._unplaced: dict[Delivery, None] = {}
        """Up to date, and not yet in an audience: found one when the next event comes, not on every subscribe."""
        self._behind: list[Any] = []

    # What the driver says and asks.

    def publish(self, events: Sequence[LoggedEvent], *, now: float) -> list[Fanout]:
        """Events were committed, in this order; what was published before is passed over.

        Returns:
            What to write. Then ask `take_behind`.
        """
        self.now = now
        before = self.head
        touched = self._match(events)
        fanouts: list[Fanout] = []
        for audience in touched:
            frames, audience.frames = audience.frames, []
            to = self._charge(audience, len(frames), before)
            if to:
                codec, numbered = audience.codec, audience.numbered
                messages = [self.message(entry, codec, label, numbered=numbered) for entry, label in frames]
                fanouts.append(Fanout(messages, codec.binary, to))
        return fanouts

    def take_behind(self) -> list[Any]:
        """The owners of connections that could not take all of what was published: `pump` each of their sessions."""
        behind, self._behind = self._behind, []
        return behind

    def retained(self, oldest: int) -> None:
        """The log now begins at this seq: retention has removed what was before."""
        self.oldest = max(self.oldest, oldest)

    def answered(self, method: str, code: int) -> None:
        """A request was answered: by a session itself, or by the driver for what it was given to do."""
        answers, key = self.answers, (method, code)
        answers[key] = answers.get(key, 0) + 1

    @property
    def channels(self) -> int:
        """Channels with a subscription, counted per tenant."""
        return len(self._index)

    # What sessions and deliveries say and ask.

    def codec(self, name: str) -> Codec:
        """The codec of that name, one for all connections."""
        codec = self._codecs.get(name)
        if codec is None:
            codec = self._codecs[name] = get_codec(name, self._form)
        return codec

    def join(self, delivery: Delivery) -> None:
        """It has seen everything up to `head`: from now on it gets what is published."""
        if delivery.audience is None:
            self._unplaced[delivery] = None
        else:
            delivery.audience.members[delivery] = None

    def leave(self, delivery: Delivery) -> None:
        """It cannot take more, or is to go back: from now on it has a cursor."""
        if delivery.audience is None:
            self._unplaced.pop(delivery, None)
        else:
            delivery.audience.members.pop(delivery, None)

    def forget(self, delivery: Delivery) -> None:
        """Its channels change, or it is over: it belongs to no audience any more."""
        self.leave(delivery)
        audience, delivery.audience = delivery.audience, None
        if audience is None:
            return
        audience.belonging -= 1
        if not audience.belonging:
            del self._audiences[audience.key]
            for channel in audience.channels:
                place = (audience.tenant, channel)
                listeners = self._index[place]
                del listeners[audience]
                if not listeners:
                    del self._index[place]

    def after(self, seq: int, limit: int) -> list[Entry] | None:
        """The events after `seq`, at most `limit`, of every tenant; None when the ring does not reach back so far."""
        if seq < self._floor:
            return None
        start = bisect_right(self._seqs, seq)
        return self._ring[start : start + limit]

    def message(self, entry: Entry, codec: Codec | EventStream, label: str, *, numbered: bool) -> bytes:
        """The event as a frame with this label; encoded once, however often it is asked for."""
        key = (codec.name, numbered, label)
        messages = entry.messages
        if messages is None:
            messages = entry.messages = {}
        message = messages.get(key)
        if message is None:
            self.encodings += 1
            if isinstance(codec, EventStream):
                message = codec.event(entry.event)
            else:
                message = codec.encode(
                    EVENT,
                    f"e{self.encodings}",
                    data=event_data(entry.event, numbered=numbered),
                    channel=label,
                    ts=self._epoch_ns + int(self.now * 1e9),
                )
            messages[key] = message
        return message

    # Inside.

    def _match(self, events: Sequence[LoggedEvent]) -> dict[Audience, None]:
        """Remember the events and note for each audience what it gets of them."""
        for delivery in self._unplaced:
            self._place(delivery)
        self._unplaced.clear()
        touched: dict[Audience, None] = {}
        index = self._index
        for event in events:
            if event.seq > self.head:
                self.head = event.seq
                entry = self._remember(event)
                if index:
                    self._touch(entry, index, touched)
        return touched

    def _touch(self, entry: Entry, index: _Index, touched: dict[Audience, None]) -> None:
        """Note the event for every audience that it concerns and that has members who are up to date."""
        tenant = (entry.event.app_id, entry.event.org_id)
        for channel in entry.channels:
            for audience in index.get((tenant, channel), ()):
                if audience.members:
                    audience.add(entry, channel)
                    touched[audience] = None

    def _charge(self, audience: Audience, cost: int, before: int) -> list[Any]:
        """Take the cost from every member that can pay; the others are behind, from the seq before this commit."""
        to: list[Any] = []
        late: list[Delivery] = []
        for delivery in audience.members:
            credit = delivery.credit
            if credit.available >= cost:
                credit.available -= cost
                to.append(delivery.owner)
            else:
                late.append(delivery)
        for delivery in late:
            delivery.fall_behind(before)
            self._behind.append(delivery.owner)
        return to

    def _place(self, delivery: Delivery) -> None:
        channels = frozenset(delivery.floors)
        key = (delivery.codec.name, delivery.labelled, delivery.numbered, delivery.tenant, channels)
        audience = self._audiences.get(key)
        if audience is None:
            audience = self._audiences[key] = Audience(delivery, key)
            for channel in audience.channels:
                self._index.setdefault((audience.tenant, channel), {})[audience] = None
        audience.belonging += 1
        audience.members[delivery] = None
        delivery.audience = audience

    def _remember(self, event: LoggedEvent) -> Entry:
        entry = Entry(event)
        self._ring.append(entry)
        self._seqs.append(event.seq)
        self._ring_bytes += len(event.data)
        self.published += 1
        # Trimmed in long steps, because cutting a list at its front moves all the rest.
        if len(self._ring) > 2 * self._ring_size or self._ring_bytes > 2 * self._ring_limit:
            self._trim()
        return entry

    def _trim(self) -> None:
        cut = max(len(self._ring) - self._ring_size, 0)
        kept = self._ring_bytes - sum([len(entry.event.data) for entry in self._ring[:cut]])
        while kept > self._ring_limit:
            kept -= len(self._ring[cut].event.data)
            cut += 1
        self._floor = self._seqs[cut - 1]
        del self._ring[:cut]
        del self._seqs[:cut]
        self._ring_bytes = kept


_Index = dict[tuple[tuple[str, str], str], dict[Audience, None]]
"""By tenant and channel."""
