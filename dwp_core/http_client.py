"""The client's side of DWP over HTTP as a state machine: calls are exchanges, subscriptions are streams.

It is driven as a `ClientSession` is, by the same commands and with the same events, but for what goes on at the
transport: instead of one connection there are exchanges, which begin, are answered or are lost each by itself. There
is no login; a ping tells whether the server is there and takes the token. When an exchange is lost, the server is
asked again until it answers, and what waits is sent then.

What the server sends never raises. What the application asks wrongly raises before anything has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from dwp_core import client_states as states
from dwp_core.client_calls import check_texts
from dwp_core.client_events import (
    ClientConfig,
    ClientEvent,
    Closed,
    Connected,
    Disconnected,
    RequestSucceeded,
)
from dwp_core.codec import get_codec
from dwp_core.deadlines import Deadlines
from dwp_core.effects import SendMessage
from dwp_core.errors import (
    BAD_REQUEST,
    FORBIDDEN,
    INTERNAL,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNKNOWN_METHOD,
    ClosedError,
    ConnectionError,
    DispatchError,
    FrameError,
    error_for,
)
from dwp_core.frames import ERROR, PING, PONG, RESPONSE, ErrorDetail, Frame
from dwp_core.http_calls import MOST_EXCHANGES, HttpCalls
from dwp_core.http_exchange import (
    AbortExchange,
    BeginExchange,
    Head,
    HttpEffect,
    no_frame,
    read_answer,
    read_head,
)
from dwp_core.http_streams import HttpStreams
from dwp_core.outbox import Outbox
from dwp_core.peer import Peer, PeerLimits
from dwp_core.reconnect import Reconnection
from dwp_core.requests import CALL, Purpose, Request, Retry
from dwp_core.subscriptions import Since, Subscription

_FATAL = frozenset((BAD_REQUEST, UNAUTHENTICATED, FORBIDDEN))
_REFUSES = frozenset((states.IDLE, *states.OVER))
_LIMITS = PeerLimits(in_flight=MOST_EXCHANGES + 1, wait_ms=20_000)
"""What is on the way may close connections on which nothing is said for half a minute."""


class Timer(StrEnum):
    ATTEMPT = "attempt"
    RETRY = "retry"
    CLOSE = "close"


@dataclass(slots=True)
class _Exchange:
    """One that is under way, but for streams."""

    generation: int
    request: Request | None
    """None where the session itself asks whether the server is there."""
    head: Head | None = None
    body: bytearray = field(default_factory=bytearray)


class HttpClientSession:
    """One client of an HTTP address. Arguments, commands and events: `ClientSession`.

    Example:
        >>> from dwp_core.client import frame_ids
        >>> session = HttpClientSession(ClientConfig(), epoch_ns=0, jitter=lambda: 0.5, ids=frame_ids())
        >>> session.start(now=0.0)
        >>> [ping] = session.take_effects()
        >>> ping.sealed("dk_1").body
        b'{"id":"c1","type":"ping","token":"dk_1","ts":"1970-01-01T00:00:00.000000000Z"}'
    """

    def __init__(
        self, config: ClientConfig, *, epoch_ns: int, jitter: Callable[[], float], ids: Iterator[str]
    ) -> None:
        self.config = config
        self.state = states.IDLE
        self.generation = 0
        self.peer: Peer | None = None
        """The server, while it answers. Its `session_id` is "": over HTTP there are no sessions."""
        self._jitter = jitter
        self._json = get_codec("json", config.form)
        self._events: list[ClientEvent] = []
        self._effects: list[HttpEffect] = []
        self._timers: Deadlines[Timer] = Deadlines()
        self._outbox = Outbox(self._json, ids, epoch_ns)
        self._calls = HttpCalls(config, self._outbox, self._events)
        self._streams = HttpStreams(config, self._events, self._effects, ids, jitter)
        self._reconnection = Reconnection(config)
        self._exchanges: dict[str, _Exchange] = {}
        self._last_error: DispatchError | None = None

    @property
    def open_calls(self) -> int:
        """Requests that wait or are under way."""
        return len(self._calls.table)

    @property
    def subscriptions(self) -> list[Subscription]:
        """Those that have not ended."""
        return list(self._streams)

    # What the driver pulls.

    def take_effects(self) -> list[HttpEffect]:
        """What to do now, in order."""
        effects = self._effects[:]
        self._effects.clear()
        return effects

    def take_events(self) -> list[ClientEvent]:
        """What has happened since the last call, in order."""
        events = self._events[:]
        self._events.clear()
        return events

    @property
    def next_deadline(self) -> float | None:
        """When to call `handle_timer` at the latest, in monotonic seconds; None when there is nothing to wait for."""
        deadlines = (self._timers.next, self._calls.next_deadline, self._streams.next_deadline)
        return min((at for at in deadlines if at is not None), default=None)

    # Beginning and ending.

    def start(self, *, now: float) -> None:
        """Ask whether the server is there. The outcome is `Connected` or `Closed`.

        Raises:
            ClosedError: it was started before.
        """
        if self.state != states.IDLE:
            raise ClosedError("this client was started before; make a new one to connect again")
        self._reconnection.started(now)
        self._step(states.START)
        self._look_for_server(now)

    def close(self, *, now: float, drain: float = 0.0) -> None:
        """End the session; `Closed` follows in bounded time. Closing again does not wait for answers any more.

        Args:
            drain: seconds to wait for the answers to what is in flight.
        """
        if self.state == states.READY and drain > 0 and len(self._calls.table):
            self._step(states.FINISH)
            self._timers.set(Timer.CLOSE, now + drain)
        elif self.state not in (states.IDLE, states.CLOSED):
            self._give_up(None)

    def leave(self, *, now: float) -> None:
        """End the session at once. `Closed` follows."""
        self.close(now=now)

    # What the application wants.

    def request(
        self,
        method: str,
        data: bytes,
        *,
        tag: object,
        now: float,
        timeout: float | None = None,
        retry: Retry = Retry.NEVER,
        key: str = "",
        purpose: Purpose = CALL,
        feature: str = "",
    ) -> Request:
        """Ask the server. Arguments, outcomes and errors: `ClientSession.request`."""
        if self.state in _REFUSES:
            raise self._refusal()
        self._calls.check_room(besides=0)
        check_texts(method, key)
        request = Request(
            next(self._outbox.ids),
            method,
            data,
            tag,
            retry=retry,
            key=key,
            purpose=purpose,
            expires=None if timeout is None else now + timeout,
            feature=feature,
        )
        self._calls.table.wait(request)
        self._send_waiting(now)
        return request

    def cancel_request(self, request: Request, *, now: float) -> None:
        """Nobody waits for this request any more: no event follows."""
        if self._calls.drop(request):
            self._abort(request.id)
            self._after_answer(now)

    def subscribe(self, channel: str, *, tag: object, now: float, since: Since = None) -> Subscription:
        """Listen to a channel. Arguments, outcomes and errors: `ClientSession.subscribe`."""
        if self.state in _REFUSES:
            raise self._refusal()
        return self._streams.add(channel, tag, since, now)

    def unsubscribe(self, subscription: Subscription, *, now: float) -> None:
        """Stop listening. `SubscriptionEnded` follows at once."""
        self._streams.remove(subscription)

    def consumed(self, subscription: Subscription, count: int, *, now: float) -> None:
        """The application has taken this many events of the subscription."""
        self._streams.consumed(subscription, count, now)

    # What happens to exchanges. What nobody wants any more is passed over.

    def exchange_head(self, id: str, status: int, headers: Iterable[tuple[str, str]], *, now: float) -> None:
        """The head of an answer has come."""
        if id in self._streams:
            self._streams.head(id, read_head(status, headers), now)
        elif id in self._exchanges:
            self._exchanges[id].head = read_head(status, headers)

    def exchange_data(self, id: str, data: bytes, *, now: float) -> bool:
        """Some of its body; whether to go on reading at once, else when `ResumeReading` says so."""
        if id in self._streams:
            go_on = self._streams.data(id, data, now)
            self._end_if_refused()
            return go_on
        exchange = self._exchanges.get(id)
        if exchange is not None:
            exchange.body += data[: self.config.limits.message + 1 - len(exchange.body)]
            if len(exchange.body) > self.config.limits.message:  # it may never end
                self.exchange_end(id, now=now)
                self._effects.append(AbortExchange(id))
        return True

    def exchange_end(self, id: str, *, now: float) -> None:
        """It is complete."""
        if id in self._streams:
            self._streams.end(id, now)
            self._end_if_refused()
            return
        exchange = self._exchanges.pop(id, None)
        if exchange is None:
            return
        assert exchange.head is not None
        self._heed_rest(exchange, exchange.head)
        try:
            frame, codec = read_answer(exchange.head, exchange.body, self.config.form, self.config.limits)
            if frame.type not in (RESPONSE, PONG, ERROR):
                raise FrameError(f'a frame of type "{frame.type[:40]}"')
        except FrameError as problem:
            error = no_frame(exchange.head, exchange.body, str(problem), self.config.where)
            self._not_answered(exchange, error, exchange.head, now)
            return
        request = exchange.request
        if request is None:
            self._found(exchange.head, frame, now)
        elif frame.type == ERROR:
            self._refused(exchange, request, frame.error or ErrorDetail(), frame, now)
        else:
            self._calls.table.answered(request.id)
            self._calls.answer(request, frame, codec, now)
        self._after_answer(now)

    def exchange_failed(
        self, id: str, reason: str, *, now: float, sent: bool = True, fatal: bool = False
    ) -> None:
        """No answer will come.

        Args:
            reason: what went wrong, in words.
            sent: whether the server may have got the request.
            fatal: nothing that time can mend: a certificate, no token.
        """
        if id in self._streams:
            self._streams.failed(id, reason, now, fatal=fatal)
            return
        exchange = self._exchanges.pop(id, None)
        if exchange is None:
            return
        error: DispatchError
        if exchange.request is None:
            error = ConnectionError(f"cannot connect to {self.config.where}: {reason}")
            self._lost(error, now, fatal=fatal)
        else:
            error = ConnectionError(f"the connection to {self.config.where} was lost: {reason}")
            self._exchange_lost(exchange, exchange.request, error, now, sent=sent)
        self._after_answer(now)

    def handle_timer(self, *, now: float) -> None:
        """Do what has come due. Calling it too early does nothing."""
        while (timer := self._timers.pop_due(now)) is not None:
            if timer is Timer.RETRY:
                self._step(states.RETRY)
                self._look_for_server(now)
            elif timer is Timer.ATTEMPT:
                patience = self.config.connect_timeout
                for id in [id for id, each in self._exchanges.items() if each.request is None]:
                    self._abort(id)
                why = f"cannot connect to {self.config.where}: no answer within {patience:g} s"
                self._lost(ConnectionError(why), now)
            else:
                self._give_up(None)
        self._calls.look_again(now)
        for request, error in self._calls.take_expired(now, self._last_error):
            self._abort(request.id)
            self._calls.fail(request, error)
        self._streams.handle_timer(now)
        self._end_if_refused()
        self._after_answer(now)

    # Looking for the server.

    def _look_for_server(self, now: float) -> None:
        self.generation += 1
        self._reconnection.attempts += 1
        self._timers.set(Timer.ATTEMPT, now + self.config.connect_timeout)
        id = next(self._outbox.ids)
        ts = self._outbox.epoch_ns + int(now * 1e9)
        self._exchanges[id] = _Exchange(self.generation, None)
        self._effects.append(BeginExchange(id, self._json, self._json.encode(PING, id, ts=ts)))

    def _found(self, head: Head, frame: Frame, now: float) -> None:
        """Something has answered the ping: is it a server, and does it let us in?"""
        detail = frame.error
        # The existing server does not know pings here, and says so to whom it lets in.
        knows_us = head.features is None and detail is not None and detail.code in (UNKNOWN_METHOD, FORBIDDEN)
        if frame.type == ERROR and not knows_us:
            detail = detail or ErrorDetail()
            said = detail.message or f"error {detail.code}"
            error = error_for(detail.code, f"{self.config.where} refused the login: {said}", detail.details)
            self._lost(error, now, fatal=detail.code in _FATAL)
            return
        for state in (states.OPENED, states.ACCEPTED, states.RESTORED):
            self._step(state)
        self._timers.cancel(Timer.ATTEMPT)
        format = "json" if head.features is None else self.config.format
        features = head.features or frozenset()
        self.peer = peer = Peer("", format, features, log=head.log, limits=_LIMITS)
        self._outbox.codec = get_codec(format, self.config.form)
        self._calls.connected(peer)
        resumed = self._reconnection.connected_before
        self._reconnection.ready(now)
        self._last_error = None
        self._events.append(Connected(peer, resumed=resumed))
        self._streams.connected(base=head.features is None, now=now)

    def _lost(self, cause: DispatchError, now: float, *, fatal: bool = False) -> None:
        """The server, or the way to it, does not seem to be there: look for it again, or give up."""
        self._last_error = cause
        retry_at = self._reconnection.next_attempt_at(now, self._jitter())
        if fatal or retry_at is None:
            self._give_up(cause)
            return
        self.generation += 1
        self.peer = None
        self._timers.clear()
        self._streams.disconnected()
        self._step(states.LOST)
        self._timers.set(Timer.RETRY, retry_at)
        self._events.append(Disconnected(cause, retry_at))

    def _give_up(self, cause: DispatchError | None) -> None:
        """Closed, for good: everyone who still waits hears why."""
        self.generation += 1
        self.peer = None
        self._last_error = cause
        self._timers.clear()
        self._step(states.GIVE_UP)
        for id in list(self._exchanges):
            self._abort(id)
        self._calls.end_all(cause)
        self._streams.end_all(cause)
        self._events.append(Closed(cause))

    # Calls.

    def _send_waiting(self, now: float) -> None:
        if self.state not in (states.READY, states.FINISHING):
            return
        self._calls.send_waiting(now)
        outbox = self._outbox
        effects, outbox.effects = outbox.effects, []
        for effect in effects:
            assert isinstance(effect, SendMessage)
            request = self._calls.table.flying[effect.request_id]
            self._exchanges[effect.request_id] = _Exchange(self.generation, request)
            self._effects.append(BeginExchange(effect.request_id, outbox.codec, effect.data))

    def _refused(
        self, exchange: _Exchange, request: Request, detail: ErrorDetail, frame: Frame, now: float
    ) -> None:
        assert exchange.head is not None
        is_base = exchange.head.features is None
        error = error_for(detail.code, detail.message, detail.details)
        if detail.code == UNAVAILABLE and not is_base:  # not carried out: it is going away
            self._exchange_lost(exchange, request, error, now, sent=False)
            return
        self._calls.drop(request)
        if is_base and request.purpose is Purpose.PING and detail.code in (UNKNOWN_METHOD, FORBIDDEN):
            self._events.append(RequestSucceeded(request.tag, frame, self._json))
        else:
            self._calls.fail(request, error)

    def _not_answered(self, exchange: _Exchange, error: DispatchError, head: Head, now: float) -> None:
        """Somebody has answered something that is no frame."""
        request = exchange.request
        if request is None:
            self._lost(error, now, fatal=head.status in _FATAL or 300 <= head.status < 400)
        elif head.status >= INTERNAL:
            self._exchange_lost(exchange, request, error, now, sent=True)
        elif head.status >= 300:  # whoever says so has passed nothing on
            self._calls.drop(request)
            self._calls.fail(request, error)
        else:
            self._calls.unreadable(request, error)
        self._after_answer(now)

    def _heed_rest(self, exchange: _Exchange, head: Head) -> None:
        """An answer that means that the server is lost may say when to look for it again."""
        means_loss = exchange.request is None or head.status >= INTERNAL
        if head.retry_after and means_loss and exchange.generation == self.generation:
            self._reconnection.come_back_after(head.retry_after, excused=False)

    def _exchange_lost(
        self, exchange: _Exchange, request: Request, error: DispatchError, now: float, *, sent: bool
    ) -> None:
        again = self.config.reconnect and self.state not in states.OVER
        self._calls.lost(request, error, sent=sent, again=again)
        if again and exchange.generation == self.generation:
            self._lost(error, now)

    def _after_answer(self, now: float) -> None:
        """A request has left the table: room for another one, or the last thing to wait for."""
        self._send_waiting(now)
        if self.state == states.FINISHING and not len(self._calls.table):
            self._give_up(None)

    def _end_if_refused(self) -> None:
        if self._streams.refusal is not None and self.state not in states.OVER:
            self._give_up(self._streams.refusal)

    def _abort(self, id: str) -> None:
        if self._exchanges.pop(id, None) is not None:
            self._effects.append(AbortExchange(id))

    def _step(self, trigger: str) -> None:
        self.state = states.CLIENT_STATES.step(self.state, trigger)

    def _refusal(self) -> ClosedError:
        if self.state == states.IDLE:
            return ClosedError("the client is not connected: call connect() first, or use it with `with`")
        cause = f", because {self._last_error}" if self._last_error is not None else ""
        return ClosedError(f"the client is closed{cause}; make a new one")
