"""The client's side of DWP as a state machine: no I/O, no clock, no callbacks (DESIGN.md, "ClientSession").

The driver passes in what happened on its transport and what the application wants, each with the time; it takes out
effects to carry out, events to hand on, and the moment at which it must call `handle_timer`. Every decision is made
here, in `client_lifecycle`, `client_calls` and `client_streams`: when to reconnect, what to send again, whose outcome
is unknown, which event goes to whom, when a peer is dead.

What the server sends never raises. What the application asks wrongly raises before anything has changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from dwp_core import client_states as states
from dwp_core.client_calls import check_texts, check_wait
from dwp_core.client_events import ClientEvent, Discarded
from dwp_core.client_events import RequestSucceeded as _Succeeded
from dwp_core.client_lifecycle import TALKS, WORKFLOW_START, Lifecycle
from dwp_core.client_streams import Question
from dwp_core.codec.payload import encode_payload
from dwp_core.effects import Effect
from dwp_core.errors import (
    UNAVAILABLE,
    UNKNOWN_METHOD,
    ClosedError,
    FrameError,
    PayloadError,
    error_for,
)
from dwp_core.frames import ERROR, EVENT, PING, PONG, REQUEST, RESPONSE, ErrorDetail, Frame
from dwp_core.methods import METHODS
from dwp_core.peer import DRAIN
from dwp_core.requests import CALL, Purpose, Request, Retry
from dwp_core.subscriptions import Since, Subscription

_DRAIN_EVENT = "drain"
_TAKES_NO_REQUESTS = ErrorDetail(UNKNOWN_METHOD, "this client takes no requests")


_REFUSES = frozenset((states.IDLE, *states.OVER))


def frame_ids(prefix: str = "c") -> Iterator[str]:
    """Frame ids for one session: the prefix and a number.

    Example:
        >>> ids = frame_ids("c")
        >>> next(ids), next(ids)
        ('c1', 'c2')
    """
    return map((prefix + "%d").__mod__, count(1))


class ClientSession(Lifecycle):
    """One client, over as many connections as it takes.

    Args:
        config: how it behaves.
        epoch_ns: the wall clock, in nanoseconds since 1970, at monotonic time 0.
        jitter: gives random numbers from [0, 1), e.g. `random.random`.
        ids: gives frame ids, unique in this session.

    Example:
        >>> from dwp_core.client_events import ClientConfig
        >>> session = ClientSession(ClientConfig(), epoch_ns=0, jitter=lambda: 0.5, ids=frame_ids())
        >>> session.start(now=0.0)
        >>> session.take_effects()
        [Connect(generation=1, attempt=1)]
    """

    # What the driver pulls.

    def take_effects(self) -> list[Effect]:
        """What to do now, in order. Taking a `SendMessage` counts as handing it to the transport."""
        outbox = self._outbox
        effects = outbox.effects
        if effects:
            outbox.effects = []
        return effects

    def take_events(self) -> list[ClientEvent]:
        """What has happened since the last call, in order."""
        events = self._events[:]
        if events:
            self._events.clear()
        return events

    @property
    def next_deadline(self) -> float | None:
        """When to call `handle_timer` at the latest, in monotonic seconds; None when there is nothing to wait for."""
        timer, call = self._timers.next, self._calls.next_deadline
        if timer is None or (call is not None and call < timer):
            return call
        return timer

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
        """Ask the server. Exactly one of `RequestSucceeded`, `RequestFailed`, `RequestOutcomeUnknown` follows.

        Args:
            method: e.g. "job.enqueue".
            data: the JSON text of the payload, an object where `key` is given; b"" for none.
            timeout: seconds until `RequestFailed` with `TimeoutError`; None waits as long as the client lives.
            retry: what may be done when the connection is lost under way.
            key: idempotency key (1 to 255 characters), put in for a peer that honours them.
            purpose: for the session's own use; leave it.
            feature: the extension that the server must have for it (PROTOCOL.md section 9); "" for none.

        Returns:
            The request, for `cancel_request`.

        Raises:
            ClosedError: the client is closed, or was never started.
            InvalidRequest: a text that cannot be sent, or a key that is too long.
            LimitError: too many requests are open already.
        """
        if self.state in _REFUSES:
            raise self._refusal()
        calls = self._calls
        table = calls.table
        at_once = (
            self.state == states.READY
            and not table.waiting
            and not table.parked
            and not calls.blocked
            and len(table.flying) < calls.limit
            and method != WORKFLOW_START
        )
        if not at_once:
            calls.check_room(besides=self._open_delegates())
        if key or method not in METHODS:
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
        if at_once:
            table.fly(request)
            calls.send(request, now)
        else:
            table.wait(request)
            self._send_waiting(now)
        return request

    def wait(
        self, method: str, data: bytes, *, tag: object, now: float, timeout: float | None = None
    ) -> Request:
        """Ask until the job or run has ended: `job.wait` or `workflow.wait` (PROTOCOL.md section 9).

        Servers without `wait` are asked by `job.get` or `workflow.get` again and again. Else as `request`.

        Raises:
            InvalidRequest: another method.
        """
        check_wait(method)
        purpose, retry = Purpose.WAIT, Retry.READ
        return self.request(method, data, tag=tag, now=now, timeout=timeout, retry=retry, purpose=purpose)

    def ping(self, *, tag: object, now: float, timeout: float | None = None) -> Request:
        """Ask for a sign of life. Outcome as of `request`."""
        purpose, retry = Purpose.PING, Retry.READ
        return self.request("", b"", tag=tag, now=now, timeout=timeout, retry=retry, purpose=purpose)

    def subscribe(self, channel: str, *, tag: object, now: float, since: Since = None) -> Subscription:
        """Listen to a channel. `SubscriptionStarted` or `SubscriptionEnded` follows, then items.

        Args:
            channel: one of PROTOCOL.md section 5.
            since: events after this `seq`, or from the "start"; None means from now on. Needs a server with `resume`.

        Raises:
            InvalidRequest: no such channel, or an unusable `since`.
            ClosedError: the client is closed, or was never started.
        """
        if self.state in _REFUSES:
            raise self._refusal()
        subscription = self._streams.add(channel, tag, since)
        if self.state in (states.RESTORING, states.READY):
            self._streams.begin(subscription)
            self._stream(now)
        return subscription

    def unsubscribe(self, subscription: Subscription, *, now: float) -> None:
        """Stop listening. `SubscriptionEnded` follows at once; the server is told when nobody else listens."""
        if self._streams.remove(subscription) and self.state in TALKS:
            data = encode_payload({"channel": subscription.channel})
            self._ask("unsubscribe", data, Purpose.UNSUBSCRIBE, None, now)
        self._stream(now)

    def consumed(self, subscription: Subscription, count: int, *, now: float) -> None:
        """The application has taken this many events of the subscription."""
        if self._streams.consumed(subscription, count):
            self._stream(now)

    # What the server sends.

    def receive_message(self, generation: int, message: bytes | bytearray, *, now: float) -> None:
        """A WebSocket message has come, of either opcode (PROTOCOL.md section 2)."""
        if generation != self.generation:
            return
        if self.peer is None:
            if self.state == states.AUTHENTICATING:
                self._receive_login_answer(message, now)
            return
        self._liveness.last_heard = now
        codec = self._outbox.codec
        try:
            frame = codec.decode(message, self.config.limits)
        except FrameError as error:
            self._violated(f"sent a message that is no frame: {error}", now)
            return
        kind = frame.type
        if kind == RESPONSE or kind == PONG:  # noqa: SIM109  # a tuple of globals is made anew each time
            table = self._calls.table
            request = table.flying.pop(frame.correl_id, None)  # as table.answered(), without the call
            if not table.flying:
                table.calm()
            if request is None:
                return  # its caller has left, or its time was over
            if request.purpose is CALL:
                self._events.append(_Succeeded(request.tag, frame, codec))
            else:
                self._settle(request, frame, now)
            if table.waiting or self.state != states.READY or self._single_use:
                self._after_answer(now)
        elif kind == EVENT:
            event = codec.event(frame)
            if event is None:
                self._events.append(Discarded("an event whose data cannot be read"))
            elif event.type == _DRAIN_EVENT and not frame.channel:
                self._drain(event, now)
            elif self._streams.receive(event):
                self._stream(now)
        else:
            self._receive_other(frame, now)

    def _receive_other(self, frame: Frame, now: float) -> None:
        kind = frame.type
        if kind == ERROR:
            self._receive_error(frame, now)
        elif self.state == states.CLOSING:
            return  # nothing may be sent after the farewell (RFC 6455 section 5.5.1)
        elif kind == PING:
            self._outbox.frame(PONG, now, correl_id=frame.id, ts=self._outbox.codec.timestamp(frame))
        elif kind == REQUEST:
            self._outbox.frame(ERROR, now, correl_id=frame.id, error=_TAKES_NO_REQUESTS)
        else:
            self._events.append(Discarded(f'a frame of unknown type "{kind[:40]}"'))

    def _receive_error(self, frame: Frame, now: float) -> None:
        detail = frame.error or ErrorDetail()
        request = self._calls.table.answered(frame.correl_id)
        if request is None:
            self._events.append(Discarded(f"error {detail.code} that answers nothing here: {detail.message}"))
            return
        assert self.peer is not None
        if detail.code == UNAVAILABLE and DRAIN in self.peer.features and self.state not in states.OVER:
            if not request.is_own:  # not carried out: it goes to the next connection
                self._calls.table.park(request)
            self._drain(None, now)
        elif detail.code == UNAVAILABLE and self._streams.asks_for_running(request.tag):
            # It goes away without being able to say so: the next connection has the subscriptions again.
            self._leave_drained(now)
            return
        else:
            self._fail(request, error_for(detail.code, detail.message, detail.details), now)
        self._after_answer(now)

    def _settle(self, request: Request, frame: Frame, now: float) -> None:
        if request.purpose is not Purpose.SUBSCRIBE:
            if request.purpose is not Purpose.UNSUBSCRIBE:
                self._calls.answer(request, frame, self._outbox.codec, now)
            return
        question = request.tag
        assert isinstance(question, Question)
        try:
            answer = self._outbox.codec.value(frame, self.config.limits)
        except PayloadError as error:
            self._violated(f"answered subscribe with data that cannot be read: {error}", now)
            return
        self._streams.answered(question, answer)
        self._restored_if_done(now)

    def _refusal(self) -> ClosedError:
        if self.state == states.IDLE:
            return ClosedError("the client is not connected: call connect() first, or use it with `with`")
        cause = f", because {self._last_error}" if self._last_error is not None else ""
        return ClosedError(f"the client is closed{cause}; make a new one")
