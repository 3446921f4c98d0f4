"""The client's side of DWP as a state machine: no I/O, no clock, no callbacks (DESIGN.md, "ClientSession").

The driver passes in what happened on its transport and what the application wants, each with the time; it takes out
effects to carry out, events to hand on, and the moment at which it must call `handle_timer`. Every decision is made
here, in `client_calls` and in `client_streams`: when to reconnect, what to send again, whose outcome is unknown, which
event goes to whom, when a peer is dead.

What the server sends never raises. What the application asks wrongly raises before anything has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from itertools import count
from math import inf

from dwp_core import client_states as states
from dwp_core.client_calls import Calls, check_texts, check_wait
from dwp_core.client_events import ClientConfig, ClientEvent, Closed, Connected, Discarded, Disconnected
from dwp_core.client_events import RequestSucceeded as _Succeeded
from dwp_core.client_streams import Question, Streams
from dwp_core.codec import get_codec
from dwp_core.codec.payload import encode_payload
from dwp_core.deadlines import Deadlines
from dwp_core.effects import AbortTransport, CloseTransport, Connect, Delegate, Effect
from dwp_core.errors import (
    BAD_REQUEST,
    FORBIDDEN,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNKNOWN_METHOD,
    AuthError,
    ClosedError,
    ConnectionError,
    DispatchError,
    FrameError,
    PayloadError,
    error_for,
)
from dwp_core.frames import ERROR, EVENT, PING, PONG, REQUEST, RESPONSE, ErrorDetail, EventHead, Frame
from dwp_core.liveness import Liveness, Verdict
from dwp_core.methods import METHODS
from dwp_core.outbox import Outbox
from dwp_core.peer import DRAIN, Peer, auth_data, read_drain, read_login_answer
from dwp_core.reconnect import Reconnection
from dwp_core.requests import CALL, Purpose, Request, Retry
from dwp_core.subscriptions import Since, Subscription

_WORKFLOW_START = "workflow.start"
_DRAIN_EVENT = "drain"
_FATAL = frozenset((BAD_REQUEST, UNAUTHENTICATED, FORBIDDEN))
_NORMAL, _PROTOCOL_ERROR = 1000, 1002
_TAKES_NO_REQUESTS = ErrorDetail(UNKNOWN_METHOD, "this client takes no requests")


class _Timer(StrEnum):
    ATTEMPT = "attempt"
    RETRY = "retry"
    LIVENESS = "liveness"
    STALL = "stall"
    DRAIN = "drain"
    CLOSE = "close"


def frame_ids(prefix: str = "c") -> Iterator[str]:
    """Frame ids for one session: the prefix and a number.

    Example:
        >>> ids = frame_ids("c")
        >>> next(ids), next(ids)
        ('c1', 'c2')
    """
    return map((prefix + "%d").__mod__, count(1))


class ClientSession:
    """One client, over as many connections as it takes.

    Args:
        config: how it behaves.
        epoch_ns: the wall clock, in nanoseconds since 1970, at monotonic time 0.
        jitter: gives random numbers from [0, 1), e.g. `random.random`.
        ids: gives frame ids, unique in this session.

    Example:
        >>> session = ClientSession(ClientConfig(), epoch_ns=0, jitter=lambda: 0.5, ids=frame_ids())
        >>> session.start(now=0.0)
        >>> session.take_effects()
        [Connect(generation=1, attempt=1)]
    """

    def __init__(
        self, config: ClientConfig, *, epoch_ns: int, jitter: Callable[[], float], ids: Iterator[str]
    ) -> None:
        self.config = config
        self.state = states.IDLE
        self.generation = 0
        self.peer: Peer | None = None
        """The server of the present connection; None while there is none."""
        self._jitter = jitter
        self._events: list[ClientEvent] = []
        self._timers: Deadlines[_Timer] = Deadlines()
        self._outbox = Outbox(get_codec("json", config.form), ids, epoch_ns)
        self._calls = Calls(config, self._outbox, self._events)
        self._streams = Streams(config, self._events)
        self._reconnection = Reconnection(config)
        self._liveness = Liveness(interval=config.heartbeat, now=0.0)
        self._login_id = ""
        self._single_use = False
        self._delegates: dict[Request, ClientSession] = {}
        self._log = ""
        self._last_error: DispatchError | None = None

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

    def start(self, *, now: float) -> None:
        """Begin to connect. The outcome is `Connected` or `Closed`.

        Raises:
            ClosedError: it was started before.
        """
        if self.state != states.IDLE:
            raise ClosedError("this client was started before; make a new one to connect again")
        self._reconnection.started(now)
        self._step(states.START)
        self._connect(now)

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
            and not calls.blocked
            and len(table.flying) < calls.limit
            and method != _WORKFLOW_START
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

    def cancel_request(self, request: Request, *, now: float) -> None:
        """Nobody waits for this request any more: no event follows, and a late answer is left out."""
        delegate = self._delegates.pop(request, None)
        if delegate is not None:
            delegate.cancel_request(request, now=now)
        if self._calls.drop(request):
            self._after_answer(now)

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
        if self._streams.remove(subscription) and self.state in _TALKS:
            data = encode_payload({"channel": subscription.channel})
            self._ask("unsubscribe", data, Purpose.UNSUBSCRIBE, None, now)
        self._stream(now)

    def consumed(self, subscription: Subscription, count: int, *, now: float) -> None:
        """The application has taken this many events of the subscription."""
        if self._streams.consumed(subscription, count):
            self._stream(now)

    def close(self, *, now: float, drain: float = 0.0) -> None:
        """End the session; `Closed` follows in bounded time. Closing again does not wait for answers any more.

        Args:
            drain: seconds to wait for the answers to what is in flight.
        """
        for delegate in self._delegates.values():
            delegate.close(now=now, drain=drain)
        if self.state in (states.READY, states.DRAINING) and drain > 0 and len(self._calls.table):
            self._step(states.FINISH)
            self._timers.set(_Timer.CLOSE, now + drain)
        elif self.state in (states.READY, states.DRAINING, states.FINISHING):
            self._start_closing(now)
        elif self.state not in states.OVER:
            self._abort("closed by the application")
            self._give_up(None)

    # What happens on the transport.

    def transport_opened(self, generation: int, *, token: str, now: float) -> None:
        """The WebSocket is open: log in with this token (PROTOCOL.md section 3; always JSON)."""
        if generation != self.generation or self.state != states.CONNECTING:
            return
        self._step(states.OPENED)
        config = self.config
        self._outbox.codec = get_codec("json", config.form)
        self._login_id = next(self._outbox.ids)
        try:
            data = auth_data(token=token, format=config.format, name=config.name, version=config.version)
            self._outbox.frame(REQUEST, now, id=self._login_id, method="auth", token=token, data=data)
        except PayloadError as error:
            self._abort("unusable token")
            self._lost(AuthError(f"cannot log in to {config.where}: {error}"), now, fatal=True)

    def transport_failed(
        self, generation: int, reason: str, *, now: float, status: int = 0, fatal: bool = False
    ) -> None:
        """The transport could not be opened.

        Args:
            reason: what went wrong, in words.
            status: the HTTP status, if the server answered with one instead of opening a WebSocket.
            fatal: nothing that time can mend: a certificate, an address that is none, no token.
        """
        if generation != self.generation or self.state != states.CONNECTING:
            return
        kind = AuthError if status in (UNAUTHENTICATED, FORBIDDEN) else ConnectionError
        error = kind(f"cannot connect to {self.config.where}: {reason}", code=status or None)
        self._lost(error, now, fatal=fatal or status in _FATAL)

    def transport_closed(self, generation: int, *, now: float, code: int = 1006, reason: str = "") -> None:
        """The connection is gone, by a closing handshake or without."""
        if generation != self.generation or self.state in (states.IDLE, states.BACKING_OFF, states.CLOSED):
            return
        when = " before it answered the login" if self.state == states.AUTHENTICATING else ""
        why = f"code {code}, {reason}" if reason else f"code {code}"
        self._lost(ConnectionError(f"{self.config.where} closed the connection{when} ({why})"), now)

    def write_blocked(self, generation: int, *, now: float) -> None:
        """The transport takes no more for now: requests wait here, and a write that stalls is noticed."""
        if generation == self.generation and self.peer is not None and not self._calls.blocked:
            self._calls.blocked = True
            self._timers.set(_Timer.STALL, now + self.config.stall_timeout)

    def write_progress(self, generation: int, *, now: float) -> None:
        """A blocked transport has written something."""
        if generation == self.generation and self._calls.blocked:
            self._timers.set(_Timer.STALL, now + self.config.stall_timeout)

    def write_resumed(self, generation: int, *, now: float) -> None:
        """The transport takes messages again."""
        if generation == self.generation and self._calls.blocked:
            self._calls.blocked = False
            self._timers.cancel(_Timer.STALL)
            self._send_waiting(now)

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

    def handle_timer(self, *, now: float) -> None:
        """Do what has come due. Calling it too early does nothing."""
        while (at := self._timers.next) is not None and (timer := self._timers.pop_due(now)) is not None:
            patience = self._patience(timer)
            if now - at > patience / 2:  # this side was asleep, not the server: one more round
                self._timers.set(timer, now + patience)
            else:
                self._timed(timer, now)
        self._calls.look_again(now)
        for request, error in self._calls.take_expired(now, self._last_error):
            self._fail(request, error, now)
        self._after_answer(now)

    # Connecting and logging in.

    def _connect(self, now: float) -> None:
        self.generation += 1
        self._reconnection.attempts += 1
        self._timers.set(_Timer.ATTEMPT, now + self.config.connect_timeout)
        self._outbox.effects.append(Connect(self.generation, self._reconnection.attempts))

    def _receive_login_answer(self, message: bytes | bytearray, now: float) -> None:
        try:
            answer = read_login_answer(message, self._login_id, self.config.form, self.config.limits)
        except ValueError as error:
            self._violated(f"does not speak DWP: {error}", now)
            return
        if isinstance(answer, Peer):
            self._accepted(answer, now)
        else:
            self._refused(answer, now)

    def _refused(self, detail: ErrorDetail, now: float) -> None:
        message = f"{self.config.where} refused the login: {detail.message or f'error {detail.code}'}"
        self._abort("login refused")
        self._lost(error_for(detail.code, message, detail.details), now, fatal=detail.code in _FATAL)

    def _accepted(self, peer: Peer, now: float) -> None:
        self._step(states.ACCEPTED)
        self.peer = peer
        self._outbox.codec = get_codec(peer.format, self.config.form)
        self._calls.connected(peer)
        self._liveness = Liveness(interval=peer.heartbeat or self.config.heartbeat, now=now)
        self._timers.set(_Timer.LIVENESS, self._liveness.deadline)
        self._streams.connected(peer, another_log=bool(self._log) and peer.log != self._log)
        self._log = peer.log
        self._stream(now)
        self._restored_if_done(now)

    def _restored_if_done(self, now: float) -> None:
        if self.state != states.RESTORING or self._streams.restoring:
            return
        assert self.peer is not None
        self._step(states.RESTORED)
        self._timers.cancel(_Timer.ATTEMPT)
        connected = Connected(self.peer, resumed=self._reconnection.connected_before)
        self._reconnection.ready(now)
        self._last_error = None
        self._send_waiting(now)
        self._events.append(connected)
        self._after_answer(now)

    # Losing the connection, and giving up.

    def _violated(self, what: str, now: float) -> None:
        self._outbox.effects.append(CloseTransport(self.generation, _PROTOCOL_ERROR, "protocol error"))
        self._abort("protocol error")
        self._lost(ConnectionError(f"{self.config.where} {what}"), now)

    def _abort(self, reason: str) -> None:
        self._outbox.effects.append(AbortTransport(self.generation, reason))

    def _lost(self, cause: DispatchError, now: float, *, fatal: bool = False) -> None:
        """This connection or attempt is over: settle what was under way, then try again or give up."""
        if self.state in states.OVER:
            self._give_up(None)
            return
        self._last_error = cause
        retry_at = self._reconnection.next_attempt_at(now, self._jitter())
        self._leave_connection(cause)
        if fatal or retry_at is None:
            self._give_up(cause)
            return
        if self._single_use and not len(self._calls.table):
            self._give_up(None)
            return
        self._step(states.LOST)
        self._timers.set(_Timer.RETRY, retry_at)
        self._events.append(Disconnected(cause, retry_at))

    def _leave_connection(self, cause: DispatchError) -> None:
        self.generation += 1
        self.peer = None
        self._calls.disconnected(cause)
        self._streams.disconnected()
        self._timers.clear()

    def _give_up(self, cause: DispatchError | None) -> None:
        """Closed, for good: everyone who still waits hears why."""
        self.generation += 1
        self.peer = None
        self._last_error = cause
        self._timers.clear()
        self._step(states.GIVE_UP)
        self._outbox.drop_messages()
        self._calls.end_all(cause)
        self._streams.end_all(cause)
        self._events.append(Closed(cause))

    def _start_closing(self, now: float) -> None:
        self._step(states.CLOSE)
        self._timers.clear()
        self._timers.set(_Timer.CLOSE, now + self.config.close_timeout)
        self._outbox.effects.append(CloseTransport(self.generation, _NORMAL))

    def _drain(self, event: EventHead | None, now: float) -> None:
        """The server goes away: what is in flight is answered, then the next connection is made."""
        if self.state not in (states.RESTORING, states.READY):
            return
        deadline, retry_after = read_drain(event)
        self._reconnection.come_back_after(retry_after)
        if self.state == states.RESTORING:
            self._leave_drained(now)
            return
        self._step(states.DRAIN)
        self._timers.set(_Timer.DRAIN, now + deadline)
        self._after_answer(now)

    def _patience(self, timer: _Timer) -> float:
        """How long the server is given; liveness keeps its own account of late timers."""
        config = self.config
        return {_Timer.ATTEMPT: config.connect_timeout, _Timer.STALL: config.stall_timeout}.get(timer, inf)

    def _timed(self, timer: _Timer, now: float) -> None:
        where = self.config.where
        if timer is _Timer.RETRY:
            self._step(states.RETRY)
            self._connect(now)
        elif timer is _Timer.LIVENESS:
            self._check_liveness(now)
        elif timer is _Timer.ATTEMPT:
            step = "answer the login" if self.state == states.AUTHENTICATING else "let us in"
            self._abort("too slow")
            self._lost(
                ConnectionError(f"{where} did not {step} within {self.config.connect_timeout:g} s"), now
            )
        elif timer is _Timer.STALL:
            self._abort("write stalled")
            self._lost(ConnectionError(f"{where} took no data for {self.config.stall_timeout:g} s"), now)
        elif timer is _Timer.DRAIN:
            self._leave_drained(now)
        elif self.state == states.FINISHING:
            self._start_closing(now)
        else:
            self._abort("no answer to the close")
            self._give_up(None)

    def _check_liveness(self, now: float) -> None:
        if self._single_use and self.peer is not None and self.peer.is_base and self._calls.table.flying:
            self._liveness.suspend(now)  # it runs a whole workflow before it answers anything
        verdict = self._liveness.check(now)
        if verdict is Verdict.DEAD:
            self._abort("silent")
            silence = now - self._liveness.last_heard
            self._lost(ConnectionError(f"{self.config.where} has been silent for {silence:.1f} s"), now)
            return
        if verdict is Verdict.PING:
            self._outbox.frame(PING, now)
        self._timers.set(_Timer.LIVENESS, self._liveness.deadline)

    # Frames in and out.

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

    def _fail(self, request: Request, error: DispatchError, now: float) -> None:
        if request.purpose is Purpose.SUBSCRIBE:
            question = request.tag
            assert isinstance(question, Question)
            self._streams.refused(question, error)
            self._stream(now)
            self._restored_if_done(now)
        elif request.purpose is not Purpose.UNSUBSCRIBE:
            self._calls.fail(request, error)

    def _send_waiting(self, now: float) -> None:
        if self.state not in (states.READY, states.FINISHING):
            return
        assert self.peer is not None
        if self.peer.is_base and not self._single_use:
            for request in [r for r in self._calls.table.waiting.values() if r.method == _WORKFLOW_START]:
                self._delegate(request, now)
        self._calls.send_waiting(now)

    def _delegate(self, request: Request, now: float) -> None:
        """A base server reads nothing while it runs a workflow: that call gets a connection of its own."""
        self._calls.drop(request)
        outbox = self._outbox
        delegate = ClientSession(self.config, epoch_ns=outbox.epoch_ns, jitter=self._jitter, ids=outbox.ids)
        delegate._single_use = delegate._reconnection.connected_before = True
        self._delegates[request] = delegate
        delegate.start(now=now)
        delegate._calls.table.wait(request)
        self._outbox.effects.append(Delegate(delegate))

    def _open_delegates(self) -> int:
        self._delegates = {r: s for r, s in self._delegates.items() if s.state != states.CLOSED}
        return len(self._delegates)

    def _after_answer(self, now: float) -> None:
        """A request has left the table: room for another one, or the last thing to wait for."""
        self._send_waiting(now)
        table = self._calls.table
        if self.state == states.DRAINING and not table.flying:
            self._leave_drained(now)
        elif self.state == states.FINISHING and not len(table):
            self._start_closing(now)
        elif self._single_use and not len(table):
            self.close(now=now)

    def _leave_drained(self, now: float) -> None:
        self._outbox.effects.append(CloseTransport(self.generation, _NORMAL))
        self._abort("drained")
        self._lost(ConnectionError(f"{self.config.where} is going away"), now)

    def _stream(self, now: float) -> None:
        """Send what the subscriptions want: questions and credit."""
        if self.state not in _TALKS:
            return
        credits = self._streams.due_credit()
        if credits:
            self._outbox.frame(REQUEST, now, credits=credits)
        for question in self._streams.take_questions():
            self._ask("subscribe", question.data, Purpose.SUBSCRIBE, question, now)

    def _ask(self, method: str, data: bytes, purpose: Purpose, tag: object, now: float) -> None:
        expires = now + self.config.ask_timeout
        request = Request(
            next(self._outbox.ids), method, data, tag, retry=Retry.NEVER, purpose=purpose, expires=expires
        )
        self._calls.table.fly(request)
        self._calls.send(request, now)

    def _step(self, trigger: str) -> None:
        self.state = states.CLIENT_STATES.step(self.state, trigger)

    def _refusal(self) -> ClosedError:
        if self.state == states.IDLE:
            return ClosedError("the client is not connected: call connect() first, or use it with `with`")
        cause = f", because {self._last_error}" if self._last_error is not None else ""
        return ClosedError(f"the client is closed{cause}; make a new one")


_REFUSES = frozenset((states.IDLE, *states.OVER))
_TALKS = states.ONLINE
