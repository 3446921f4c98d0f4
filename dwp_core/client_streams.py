"""The live events of a client: what the server is asked for, what is given to whom, and how much credit it gets.

Between connections the subscriptions stay, with their positions; when the next one is there, each channel is asked for
from the lowest position among its subscriptions (PROTOCOL.md section 9, `resume`). A subscription begins with the
answer to its question: towards a server with `resume`, what comes before belongs to the time before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dwp_core.client_events import (
    ClientConfig,
    ClientEvent,
    SubscriptionEnded,
    SubscriptionGap,
    SubscriptionItem,
    SubscriptionStarted,
)
from dwp_core.codec.payload import decode_payload, encode_payload
from dwp_core.errors import (
    BAD_REQUEST,
    DispatchError,
    InvalidRequest,
    PayloadError,
    TimeoutError,
    UnsupportedError,
)
from dwp_core.frames import EventHead
from dwp_core.peer import RESUME, Peer
from dwp_core.subscriptions import Gap, Since, Subscription, SubscriptionTable
from dwp_core.topics import check_channel
from dwp_core.window import ReceiveWindow

_LAST_SEQ = 2**63 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A `subscribe` request to send, and the subscriptions that its answer starts."""

    channel: str
    since: Since
    subscriptions: list[Subscription]

    @property
    def data(self) -> bytes:
        """The `data` of the request."""
        since = {} if self.since is None else {"since": self.since}
        return encode_payload({"channel": self.channel, **since})


class Streams:
    """The subscriptions of one client session and the credit of its present connection.

    Args:
        events: where items, gaps and ends are put; the session empties it.
    """

    __slots__ = ("_config", "_events", "_resumes", "_table", "_to_ask", "_unanswered", "_window")

    def __init__(self, config: ClientConfig, events: list[ClientEvent]) -> None:
        self._config = config
        self._events = events
        self._table = SubscriptionTable(config.event_buffer)
        self._window: ReceiveWindow | None = None
        self._resumes = False
        self._to_ask: list[Question] = []
        self._unanswered: set[Question] = set()

    def __iter__(self) -> Iterator[Subscription]:
        """Those that have not ended."""
        return iter(self._table)

    # What the application wants.

    def add(self, channel: str, tag: object, since: Since) -> Subscription:
        """Take up a subscription; it exists before the server is asked.

        Raises:
            InvalidRequest: no such channel, or an unusable `since`.
        """
        subscription = new_subscription(channel, tag, since, self._config)
        self._table.add(subscription)
        return subscription

    def begin(self, subscription: Subscription) -> None:
        """Ask for a new subscription, or let it join one that the server has."""
        if subscription.since is None:
            for other in self._table.on(subscription.channel):
                if other.confirmed:
                    self._start(subscription, self._table.head if self._resumes else None, None)
                    return
                if isinstance(other.awaits, Question) and other.awaits.since is None:
                    subscription.awaits = other.awaits
                    other.awaits.subscriptions.append(subscription)
                    return
        elif not self._resumes:
            self._end(subscription, cannot_resume(self._config.where))
            return
        self._ask(subscription.channel, subscription.since, [subscription])

    def remove(self, subscription: Subscription) -> bool:
        """Leave. Whether nobody listens to its channel any more; False also when it had ended before."""
        if subscription not in self._table.on(subscription.channel):
            return False
        last = self._table.remove(subscription)
        self._say_goodbye(subscription, None)
        return last

    def consumed(self, subscription: Subscription, count: int) -> bool:
        """The application has taken events; whether there may be credit to grant or something to ask."""
        subscription.buffered = max(subscription.buffered - count, 0)
        if not subscription.buffered:
            if subscription.dropped:
                self._tell_dropped(subscription)
            if subscription.lagging and subscription.awaits is None and self._resumes:
                self._ask(subscription.channel, subscription.start, [subscription])
                return True
        return self._window is not None and self._window.low

    def end_all(self, cause: DispatchError | None) -> None:
        """No more events will come for anybody."""
        for subscription in self._table.clear():
            self._say_goodbye(subscription, cause)

    # Connections.

    def connected(self, peer: Peer, *, another_log: bool) -> None:
        """Ask a new connection for everything; positions in another log than before mean nothing."""
        self._resumes = RESUME in peer.features
        if another_log:
            for subscription, gap in self._table.another_log():
                self._events.append(SubscriptionGap(subscription.tag, gap))
        size = self._config.event_window if self._resumes else self._config.event_buffer
        self._window = ReceiveWindow(size=size, granted=peer.credits)
        for channel in self._table.channels:
            self._ask_again(channel)
        self._unanswered = set(self._to_ask)

    def disconnected(self) -> None:
        """Nothing is confirmed, nothing is on its way."""
        self._table.lost_connection()
        self._to_ask.clear()
        self._unanswered.clear()
        self._window = None

    @property
    def restoring(self) -> bool:
        """Whether subscriptions of before this connection still wait for the server."""
        return bool(self._unanswered)

    def take_questions(self) -> list[Question]:
        """What to ask the server now."""
        questions, self._to_ask = self._to_ask, []
        return questions

    def due_credit(self) -> int:
        """The credit to grant now; granting is assumed."""
        window = self._window
        if window is None or not len(self._table):
            return 0
        if not self._resumes:
            return window.due(0)
        if window.starving:
            self._let_slow_ones_lag(window)
        return window.due(self._table.held())

    # What the server says.

    def receive(self, event: EventHead) -> bool:
        """Give an event to whom it concerns; whether there may be credit to grant."""
        window, table = self._window, self._table
        assert window is not None
        low = window.received()
        seq = event.seq if self._resumes else None
        queue = _queue_of(event) if table.wants_queues else ""
        for subscription in table.match(event, queue):
            if table.accept(subscription, seq):
                if subscription.dropped:
                    self._tell_dropped(subscription)
                self._events.append(SubscriptionItem(subscription.tag, event))
        return low

    def answered(self, question: Question, value: Any) -> None:
        """The server has confirmed a question."""
        self._unanswered.discard(question)
        answer = value if isinstance(value, dict) else {}
        head = _seq(answer.get("seq")) if self._resumes else None
        gap = read_gap(answer.get("gap"))
        for subscription in question.subscriptions:
            if subscription.awaits is question:
                self._start(subscription, head, gap)

    def refused(self, question: Question, error: DispatchError) -> None:
        """The server has refused a question: a position that it does not know is a gap, all else the end.

        One that it has not answered in time is asked again for who had begun before: a network that stands still for
        a while must not end what reconnecting would bring back.
        """
        restoring = question in self._unanswered
        self._unanswered.discard(question)
        unknown_position = error.code == BAD_REQUEST and question.since is not None
        unanswered = isinstance(error, TimeoutError)
        again: list[Subscription] = []
        for subscription in [s for s in question.subscriptions if s.awaits is question]:
            subscription.awaits = None
            if unanswered and subscription.started:
                again.append(subscription)
            elif unknown_position and subscription.started:
                if subscription.position is not None:
                    self._events.append(
                        SubscriptionGap(subscription.tag, Gap(first=subscription.position + 1))
                    )
                subscription.position = subscription.since = None
                again.append(subscription)
            else:
                self._end(subscription, error)
        if again:
            self._ask(question.channel, question.since if unanswered else None, again)
            if restoring:
                self._unanswered.add(self._to_ask[-1])

    def asks_for_running(self, tag: object) -> bool:
        """Whether this is the tag of a question that brings back a subscription which had begun before."""
        return isinstance(tag, Question) and any(
            subscription.started and subscription.awaits is tag for subscription in tag.subscriptions
        )

    # Steps.

    def _start(self, subscription: Subscription, head: int | None, gap: Gap | None) -> None:
        first_time = not subscription.started
        missing = self._table.confirm(subscription, head, gap)
        if first_time:
            self._events.append(SubscriptionStarted(subscription.tag))
        if missing is not None:
            self._events.append(SubscriptionGap(subscription.tag, missing))

    def _end(self, subscription: Subscription, error: DispatchError) -> None:
        self._table.remove(subscription)
        self._say_goodbye(subscription, error)

    def _say_goodbye(self, subscription: Subscription, error: DispatchError | None) -> None:
        """Nothing that is still on its way concerns it any more."""
        if subscription.dropped:
            self._tell_dropped(subscription)
        subscription.awaits, subscription.lagging = None, False
        self._events.append(SubscriptionEnded(subscription.tag, error))

    def _ask(self, channel: str, since: Since, subscriptions: list[Subscription]) -> None:
        question = Question(channel, since, subscriptions)
        for subscription in subscriptions:
            subscription.awaits = question
        self._to_ask.append(question)

    def _ask_again(self, channel: str) -> None:
        """One question brings back those that stand somewhere, another one those that want everything there is."""
        here = list(self._table.on(channel))
        if not self._resumes:
            for subscription in [s for s in here if s.since is not None and not s.started]:
                self._end(subscription, cannot_resume(self._config.where))
                here.remove(subscription)
            if here:
                self._ask(channel, None, here)
            return
        for subscription in here:  # what it holds already is bounded over any number of connections
            subscription.lagging = subscription.buffered >= max(self._config.event_window // 2, 1)
        everything = [s for s in here if s.start == "start" and not s.lagging]
        onwards = [s for s in here if s.start != "start" and not s.lagging]
        if onwards:
            positions = [s.position for s in onwards if s.position is not None]
            self._ask(channel, min(positions, default=None), onwards)
        if everything:
            self._ask(channel, "start", everything)

    def _let_slow_ones_lag(self, window: ReceiveWindow) -> None:
        """Subscribers that do not read must not use up the credit of one that does."""
        enough = max(window.size // 2, 1)
        while (slowest := self._table.slowest()) is not None and slowest.buffered >= enough:
            others = (other for other in self._table if not other.lagging)
            if not any(2 * other.buffered <= slowest.buffered for other in others):
                return  # nobody reads: nothing is to come
            slowest.lagging = True

    def _tell_dropped(self, subscription: Subscription) -> None:
        self._events.append(SubscriptionGap(subscription.tag, Gap(dropped=subscription.dropped)))
        subscription.dropped = 0


def new_subscription(channel: str, tag: object, since: Since, config: ClientConfig) -> Subscription:
    """A subscription, if there can be one.

    Raises:
        InvalidRequest: no such channel, or an unusable `since`.
    """
    check_channel(channel, limit=config.limits.channel)
    if since is not None and since != "start" and _seq(since) is None:
        raise InvalidRequest(f'subscribe: since must be a seq (an integer from 0) or "start", got {since!r}')
    encode_payload(channel, what="subscribe: channel")
    return Subscription(channel, tag, since)


def _queue_of(event: EventHead) -> str:
    try:
        inner = decode_payload(event.data)
    except PayloadError:
        return ""
    queue = inner.get("queue") if isinstance(inner, dict) else None
    return queue if isinstance(queue, str) else ""


def _seq(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _LAST_SEQ else None


def read_gap(value: Any) -> Gap | None:
    """What retention has removed, as the server tells it; None where that makes no sense."""
    if not isinstance(value, dict):
        return None
    first, last = _seq(value.get("from")), _seq(value.get("to"))
    return Gap(first=first, last=last) if first is not None and last is not None else None


def cannot_resume(where: str) -> DispatchError:
    """What a subscription ends with that wants events of before, at a server that has none."""
    return UnsupportedError(
        f"subscribe: {where} keeps no events, so since cannot be used with it; leave since out"
    )
