"""The subscriptions of a client over HTTP: each is a stream of its own, made again where it was cut off.

A stream goes on after the last event that came (`Last-Event-ID`, PROTOCOL.md section 8), so nothing is lost and nothing
comes twice; what the server does not have any more is told as a gap. A stream whose events nobody takes is not read
until somebody does. The existing server numbers nothing: what happens between two of its streams is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dwp_core.client_events import (
    ClientConfig,
    ClientEvent,
    Discarded,
    SubscriptionEnded,
    SubscriptionGap,
    SubscriptionItem,
    SubscriptionStarted,
)
from dwp_core.client_streams import cannot_resume, new_subscription, read_gap
from dwp_core.codec import get_codec
from dwp_core.codec.payload import decode_payload
from dwp_core.deadlines import Deadlines
from dwp_core.errors import (
    BAD_REQUEST,
    INTERNAL,
    TOO_MANY,
    UNAUTHENTICATED,
    AuthError,
    ConnectionError,
    DispatchError,
    FrameError,
    PayloadError,
    error_for,
)
from dwp_core.frames import ERROR, EventHead
from dwp_core.http_exchange import (
    STREAM_TYPE,
    AbortExchange,
    BeginExchange,
    Credentials,
    Head,
    HttpEffect,
    ResumeReading,
    no_frame,
    read_answer,
)
from dwp_core.peer import RESUME, read_drain
from dwp_core.reconnect import Reconnection
from dwp_core.sse_reading import Block, BlockReader
from dwp_core.subscriptions import Gap, Since, Subscription, SubscriptionTable

_GAP, _DRAIN = "gap", "drain"


@dataclass(slots=True, eq=False)
class _Stream:
    """One subscription and what it is read from."""

    subscription: Subscription
    reconnection: Reconnection
    reader: BlockReader
    id: str = ""
    """Of the exchange; "" while there is none."""
    head: Head | None = None
    body: bytearray = field(default_factory=bytearray)
    """Of an answer that is no stream."""
    log: str = ""
    paused: bool = False
    wanted: bool = True
    """It waits to be made (again), and the time for that has come."""


class HttpStreams:
    """The subscriptions of one client.

    Args:
        config: how it behaves.
        events: where items, gaps and ends are put; the session empties it.
        effects: where exchanges to begin and to drop are put; likewise.
        ids: gives ids of exchanges.
        jitter: gives random numbers from [0, 1).
    """

    def __init__(
        self,
        config: ClientConfig,
        events: list[ClientEvent],
        effects: list[HttpEffect],
        ids: Iterator[str],
        jitter: Callable[[], float],
    ) -> None:
        self._config = config
        self._events = events
        self._effects = effects
        self._ids = ids
        self._jitter = jitter
        self._codec = get_codec("json", config.form)
        self._table = SubscriptionTable(config.event_buffer)
        self._streams: dict[Subscription, _Stream] = {}
        self._by_exchange: dict[str, _Stream] = {}
        self._timers: Deadlines[str] = Deadlines()
        self._due: dict[str, _Stream] = {}
        """Streams that are to be made again when the timer of this name is over."""
        self._online = False
        self._base = False
        self.refusal: DispatchError | None = None
        """A stream that was to be made again found that the token is not taken any more."""

    def __iter__(self) -> Iterator[Subscription]:
        """Those that have not ended."""
        return iter(self._table)

    def __contains__(self, exchange: str) -> bool:
        return exchange in self._by_exchange

    @property
    def next_deadline(self) -> float | None:
        """When to call `handle_timer`."""
        return self._timers.next

    # What the application wants.

    def add(self, channel: str, tag: object, since: Since, now: float) -> Subscription:
        """Take up a subscription.

        Raises:
            InvalidRequest: no such channel, or an unusable `since`.
        """
        subscription = new_subscription(channel, tag, since, self._config)
        self._table.add(subscription)
        reconnection = Reconnection(self._config)
        reconnection.connected_before = (
            True  # the server is there: this is not the first thing that it is asked
        )
        stream = _Stream(subscription, reconnection, BlockReader(self._config.limits.message))
        self._streams[subscription] = stream
        self._open_wanted(now)
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Leave; nothing happens when it has ended before."""
        stream = self._streams.get(subscription)
        if stream is not None:
            self._end(stream, None)

    def consumed(self, subscription: Subscription, count: int, now: float) -> None:
        """The application has taken events."""
        subscription.buffered = max(subscription.buffered - count, 0)
        if not subscription.buffered and subscription.dropped:
            self._tell_dropped(subscription)
        stream = self._streams.get(subscription)
        if stream is not None and stream.paused and subscription.buffered <= self._config.event_window // 2:
            stream.paused = False
            self._effects.append(ResumeReading(stream.id))
            self._heard(stream, now)

    def end_all(self, cause: DispatchError | None) -> None:
        """No more events will come for anybody."""
        for stream in list(self._streams.values()):
            self._end(stream, cause)

    # The server.

    def connected(self, *, base: bool, now: float) -> None:
        """The server is there; streams can be made.

        Args:
            base: whether it is the existing server, which numbers no events and wants the token in the query.
        """
        self._online = True
        self._base = base
        self._open_wanted(now)

    def disconnected(self) -> None:
        """The server seems to be away: streams that are there go on, others wait."""
        self._online = False

    def head(self, id: str, head: Head, now: float) -> None:
        """The head of an answer."""
        stream = self._by_exchange[id]
        stream.head = head
        if head.status != 200:
            return  # the rest of it has the time that the head had
        self._heard(stream, now)
        subscription = stream.subscription
        if head.content_type != STREAM_TYPE:
            self._end(stream, no_frame(head, b"", "no stream of events", self._config.where))
            return
        resumes = head.features is not None and RESUME in head.features
        if not resumes and subscription.start is not None:
            self._end(stream, cannot_resume(self._config.where))
            return
        if stream.log and head.log != stream.log and subscription.position is not None:
            stream.log = head.log
            self._start_afresh(stream, now)
            return
        stream.log = head.log
        if resumes and subscription.position is not None:
            self._begun(
                stream, now
            )  # else where it begins comes first: without that, what follows could be lost

    def data(self, id: str, data: bytes, now: float) -> bool:
        """Some of the body; whether to go on reading at once."""
        stream = self._by_exchange[id]
        assert stream.head is not None
        if stream.head.status != 200:
            stream.body += data
            if len(stream.body) > self._config.limits.message:
                self._refused(stream, stream.head, now)
            return True
        self._heard(stream, now)
        try:
            blocks = stream.reader.feed(data)
        except FrameError as error:
            self._cut_off(stream, str(error), now)
            return True
        for block in blocks:
            self._take(stream, block, now)
        if stream.subscription.buffered >= self._config.event_window and stream.id and not self._base:
            stream.paused = True
            self._timers.cancel(id)
        return not stream.paused

    def end(self, id: str, now: float) -> None:
        """The body is over."""
        stream = self._by_exchange[id]
        assert stream.head is not None
        if stream.head.status != 200:
            self._refused(stream, stream.head, now)
        elif self._base and not stream.subscription.started:
            # It has sent its 200 before it looked at the token.
            reason = "it ended the stream at once, as it does when the token or its scopes are not enough"
            self._end(stream, AuthError(f"subscribe: {self._config.where}: {reason}"))
        else:
            self._cut_off(stream, "the server ended it", now)

    def failed(self, id: str, reason: str, now: float, *, fatal: bool) -> None:
        """The exchange was cut off."""
        stream = self._by_exchange[id]
        if fatal:
            self._end(stream, self._lost(reason))
        else:
            self._cut_off(stream, reason, now)

    def handle_timer(self, now: float) -> None:
        """Do what has come due."""
        while (at := self._timers.next) is not None and (name := self._timers.pop_due(now)) is not None:
            stream = self._due.pop(name, None)
            if stream is not None:
                stream.wanted = True
                continue
            stream = self._by_exchange[name]
            patience = self._patience(stream)
            if stream.head is not None and stream.head.status != 200:
                self._refused(stream, stream.head, now)
            elif stream.head is not None and stream.head.features is None:
                self._begun(stream, now)
            elif now - at > patience / 2:  # this side was asleep, not the server: one more round
                self._timers.set(name, now + patience)
            else:
                self._cut_off(stream, f"it has been silent for {patience:g} s", now)
        self._open_wanted(now)

    # Steps.

    def _open_wanted(self, now: float) -> None:
        if not self._online:
            return
        for stream in [stream for stream in self._streams.values() if stream.wanted]:
            if self._base and stream.subscription.since is not None:
                self._end(stream, cannot_resume(self._config.where))
            else:
                self._open(stream, now)

    def _open(self, stream: _Stream, now: float) -> None:
        stream.id = next(self._ids)
        stream.wanted, stream.paused, stream.head = False, False, None
        stream.body.clear()
        stream.reader = BlockReader(self._config.limits.message)
        self._by_exchange[stream.id] = stream
        subscription = stream.subscription
        query, headers = [("channel", subscription.channel)], []
        if subscription.position is not None:
            headers.append(("last-event-id", str(subscription.position)))
        elif subscription.since is not None:
            query.append(("since", str(subscription.since)))
        place = Credentials.QUERY if self._base else Credentials.HEADER
        begin = BeginExchange(
            stream.id, self._codec, query=tuple(query), headers=tuple(headers), credentials=place
        )
        self._effects.append(begin)
        self._timers.set(stream.id, now + self._config.connect_timeout)

    def _heard(self, stream: _Stream, now: float) -> None:
        """A sign of life. A server that names no extensions sends no comments either: its silence means nothing."""
        assert stream.head is not None
        if stream.head.features is None:
            if not stream.subscription.confirmed:
                self._timers.set(stream.id, now + self._patience(stream))
            else:
                self._timers.cancel(stream.id)
        else:
            self._timers.set(stream.id, now + self._patience(stream))

    def _patience(self, stream: _Stream) -> float:
        if stream.head is None:
            return self._config.connect_timeout
        if stream.head.features is None:
            return self._config.poll_interval
        return 2 * self._config.heartbeat

    def _begun(self, stream: _Stream, now: float) -> None:
        """The server has let us in."""
        subscription = stream.subscription
        subscription.confirmed = True
        stream.reconnection.ready(now)
        if not subscription.started:
            subscription.started = True
            self._events.append(SubscriptionStarted(subscription.tag))

    def _take(self, stream: _Stream, block: Block, now: float) -> None:
        subscription = stream.subscription
        seq = int(block.id) if block.id.isascii() and block.id.isdigit() and len(block.id) < 20 else None
        if not block.type:  # where the stream begins
            if subscription.position is None:
                subscription.position = seq
            if subscription.position is not None and not subscription.confirmed:
                self._begun(stream, now)
            return
        event = self._read(block.data)
        if event is None:
            self._events.append(Discarded("an event whose data cannot be read"))
        elif event.type == _GAP:
            self._tell_gap(subscription, event)
        elif event.type == _DRAIN:
            stream.reconnection.come_back_after(read_drain(event)[1])
        else:
            if not subscription.confirmed:
                self._begun(stream, now)
            if self._table.accept(subscription, event.seq):
                if subscription.dropped:
                    self._tell_dropped(subscription)
                self._events.append(SubscriptionItem(subscription.tag, event))

    def _read(self, data: bytes) -> EventHead | None:
        try:
            frame = self._codec.decode(b'{"id":"","type":"event","data":%b}' % data, self._config.limits)
        except FrameError:
            return None
        return self._codec.event(frame)

    def _tell_gap(self, subscription: Subscription, event: EventHead) -> None:
        try:
            gap = read_gap(decode_payload(event.data))
        except PayloadError:
            gap = None
        if gap is None or gap.first is None or gap.last is None:
            self._events.append(Discarded("a gap that says not of what"))
            return
        position = subscription.position
        if position is None or gap.last > position:
            first = gap.first if position is None else max(gap.first, position + 1)
            subscription.position = gap.last
            self._events.append(SubscriptionGap(subscription.tag, Gap(first=first, last=gap.last)))

    def _tell_dropped(self, subscription: Subscription) -> None:
        self._events.append(SubscriptionGap(subscription.tag, Gap(dropped=subscription.dropped)))
        subscription.dropped = 0

    def _start_afresh(self, stream: _Stream, now: float) -> None:
        """Its position means nothing to this server: go on from now on, and say so."""
        subscription = stream.subscription
        assert subscription.position is not None
        self._events.append(SubscriptionGap(subscription.tag, Gap(first=subscription.position + 1)))
        subscription.position = subscription.since = None
        self._forget_exchange(stream)
        stream.wanted = True
        self._open_wanted(now)

    def _refused(self, stream: _Stream, head: Head, now: float) -> None:
        """The answer is no stream."""
        where, subscription = self._config.where, stream.subscription
        error: DispatchError
        try:
            frame, _ = read_answer(head, stream.body, self._config.form, self._config.limits)
            if frame.type != ERROR or frame.error is None:
                raise FrameError("a frame that is no error")
        except FrameError as problem:
            error = no_frame(head, stream.body, str(problem), where)
        else:
            error = error_for(frame.error.code, frame.error.message, frame.error.details)
        if head.retry_after:
            stream.reconnection.come_back_after(head.retry_after, excused=False)
        if error.code == UNAUTHENTICATED and subscription.started:
            said = f"{where} refused the login: {error}"
            self.refusal = error_for(UNAUTHENTICATED, said, error.details)
            self._end(stream, self.refusal)
        elif error.code >= INTERNAL or (error.code == TOO_MANY and subscription.started):
            self._cut_off(stream, str(error), now)
        elif error.code == BAD_REQUEST and subscription.started and subscription.position is not None:
            self._start_afresh(stream, now)
        else:
            self._end(stream, error)

    def _cut_off(self, stream: _Stream, reason: str, now: float) -> None:
        """Make it again, if it is to be."""
        self._forget_exchange(stream)
        stream.subscription.confirmed = False
        retry_at = stream.reconnection.next_attempt_at(now, self._jitter())
        if retry_at is None:
            self._end(stream, self._lost(reason))
            return
        name = next(self._ids)
        self._due[name] = stream
        self._timers.set(name, retry_at)

    def _lost(self, reason: str) -> DispatchError:
        return ConnectionError(f"subscribe: the stream of {self._config.where} was lost: {reason}")

    def _forget_exchange(self, stream: _Stream) -> None:
        if stream.id:
            self._timers.cancel(stream.id)
            self._by_exchange.pop(stream.id, None)
            self._effects.append(AbortExchange(stream.id))  # it may be over; then this does nothing
            stream.id = ""

    def _end(self, stream: _Stream, error: DispatchError | None) -> None:
        subscription = stream.subscription
        self._forget_exchange(stream)
        for name in [name for name, each in self._due.items() if each is stream]:
            del self._due[name]
            self._timers.cancel(name)
        del self._streams[subscription]
        self._table.remove(subscription)
        stream.wanted = False
        if subscription.dropped:
            self._tell_dropped(subscription)
        self._events.append(SubscriptionEnded(subscription.tag, error))
