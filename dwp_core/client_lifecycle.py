"""How a client session lives: connections made, lost and made again, and the end (DESIGN.md, "ClientSession").

What the driver tells of its transport and of time comes in here, except for messages: those are for
`dwp_core.client`, which adds what the application wants. The states are in `client_states`, the policies of
reconnection in `reconnect`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, cast

from dwp_core import client_states as states
from dwp_core.client_calls import Calls
from dwp_core.client_events import ClientConfig, ClientEvent, Closed, Connected, Disconnected
from dwp_core.client_streams import Question, Streams
from dwp_core.codec import get_codec
from dwp_core.deadlines import Deadlines
from dwp_core.effects import AbortTransport, CloseTransport, Connect, Delegate
from dwp_core.errors import (
    BAD_REQUEST,
    FORBIDDEN,
    UNAUTHENTICATED,
    AuthError,
    ClosedError,
    ConnectionError,
    DispatchError,
    PayloadError,
    error_for,
)
from dwp_core.frames import PING, REQUEST, ErrorDetail, EventHead
from dwp_core.liveness import Liveness, Verdict
from dwp_core.outbox import Outbox
from dwp_core.peer import Peer, auth_data, read_drain, read_login_answer
from dwp_core.reconnect import Reconnection
from dwp_core.requests import Purpose, Request, Retry
from dwp_core.subscriptions import Subscription

if TYPE_CHECKING:
    from dwp_core.client import ClientSession

WORKFLOW_START = "workflow.start"
_FATAL = frozenset((BAD_REQUEST, UNAUTHENTICATED, FORBIDDEN))
_NORMAL, _PROTOCOL_ERROR = 1000, 1002


class Timer(StrEnum):
    ATTEMPT = "attempt"
    RETRY = "retry"
    LIVENESS = "liveness"
    STALL = "stall"
    DRAIN = "drain"
    CLOSE = "close"


TALKS = states.ONLINE
"""The states in which the session sends on its own account."""


class Lifecycle:
    """The one connection that a session has at a time, from the first attempt to the last word.

    `ClientSession` is the whole of it; this class is not made by itself. With `single_use` a session ends by itself
    when its requests have.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        epoch_ns: int,
        jitter: Callable[[], float],
        ids: Iterator[str],
        single_use: bool = False,
    ) -> None:
        self.config = config
        self.state = states.IDLE
        self.generation = 0
        self.peer: Peer | None = None
        """The server of the present connection; None while there is none."""
        self._jitter = jitter
        self._events: list[ClientEvent] = []
        self._timers: Deadlines[Timer] = Deadlines()
        self._outbox = Outbox(get_codec("json", config.form), ids, epoch_ns)
        self._calls = Calls(config, self._outbox, self._events)
        self._streams = Streams(config, self._events)
        self._reconnection = Reconnection(config)
        self._liveness = Liveness(interval=config.heartbeat, now=0.0)
        self._login_id = ""
        self._single_use = single_use
        self._reconnection.connected_before = single_use  # its parent was: it tries as one that reconnects
        self._delegates: dict[Request, Lifecycle] = {}
        self._log = ""
        self._last_error: DispatchError | None = None

    @property
    def open_calls(self) -> int:
        """Requests that wait or are in flight, here and over connections of their own."""
        return len(self._calls.table) + sum(delegate.open_calls for delegate in self._delegates.values())

    @property
    def subscriptions(self) -> list[Subscription]:
        """Those that have not ended."""
        return list(self._streams)

    # Beginning and ending.

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

    def close(self, *, now: float, drain: float = 0.0) -> None:
        """End the session; `Closed` follows in bounded time. Closing again does not wait for answers any more.

        Args:
            drain: seconds to wait for the answers to what is in flight.
        """
        for delegate in self._delegates.values():
            delegate.close(now=now, drain=drain)
        if self.state in (states.READY, states.DRAINING) and drain > 0 and len(self._calls.table):
            self._step(states.FINISH)
            self._timers.set(Timer.CLOSE, now + drain)
        elif self.state in (states.READY, states.DRAINING, states.FINISHING):
            self._start_closing(now)
        elif self.state not in states.OVER:
            self._abort("closed by the application")
            self._give_up(None)

    def leave(self, *, now: float) -> None:
        """End the session at once: the server is told, and its answer to that is not waited for. `Closed` follows."""
        for delegate in self._delegates.values():
            delegate.leave(now=now)
        if self.state in (states.IDLE, states.CLOSED):
            return
        if self.peer is not None and self.state != states.CLOSING:
            self._outbox.effects.append(CloseTransport(self.generation, _NORMAL))
        self._abort("left by the application")
        self._give_up(None)

    def cancel_request(self, request: Request, *, now: float) -> None:
        """Nobody waits for this request any more: no event follows, and a late answer is left out."""
        delegate = self._delegates.pop(request, None)
        if delegate is not None:
            delegate.cancel_request(request, now=now)
        if self._calls.drop(request):
            self._after_answer(now)

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
            self._timers.set(Timer.STALL, now + self.config.stall_timeout)

    def write_progress(self, generation: int, *, now: float) -> None:
        """A blocked transport has written something."""
        if generation == self.generation and self._calls.blocked:
            self._timers.set(Timer.STALL, now + self.config.stall_timeout)

    def write_owed(self, generation: int, size: int, *, now: float) -> None:
        """So many bytes of answers to the peer (pongs and the like) have come to wait since the transport blocked."""
        if generation == self.generation and self._calls.blocked and size > self.config.most_owed:
            self._abort("it reads nothing")
            self._lost(ConnectionError(f"{self.config.where} keeps asking and reads no answers"), now)

    def write_resumed(self, generation: int, *, now: float) -> None:
        """The transport takes messages again."""
        if generation == self.generation and self._calls.blocked:
            self._calls.blocked = False
            self._timers.cancel(Timer.STALL)
            self._send_waiting(now)

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
        self._timers.set(Timer.ATTEMPT, now + self.config.connect_timeout)
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
        self._timers.set(Timer.LIVENESS, self._liveness.deadline)
        self._streams.connected(peer, another_log=bool(self._log) and peer.log != self._log)
        self._log = peer.log
        self._stream(now)
        self._restored_if_done(now)

    def _restored_if_done(self, now: float) -> None:
        if self.state != states.RESTORING or self._streams.restoring:
            return
        assert self.peer is not None
        self._step(states.RESTORED)
        self._timers.cancel(Timer.ATTEMPT)
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
        self._timers.set(Timer.RETRY, retry_at)
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
        self._timers.set(Timer.CLOSE, now + self.config.close_timeout)
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
        self._timers.set(Timer.DRAIN, now + deadline)
        self._after_answer(now)

    def _leave_drained(self, now: float) -> None:
        self._outbox.effects.append(CloseTransport(self.generation, _NORMAL))
        self._abort("drained")
        self._lost(ConnectionError(f"{self.config.where} is going away"), now)

    def _patience(self, timer: Timer) -> float:
        """How long the server is given; liveness keeps its own account of late timers."""
        config = self.config
        return {Timer.ATTEMPT: config.connect_timeout, Timer.STALL: config.stall_timeout}.get(timer, inf)

    def _timed(self, timer: Timer, now: float) -> None:
        where = self.config.where
        if timer is Timer.RETRY:
            self._step(states.RETRY)
            self._connect(now)
        elif timer is Timer.LIVENESS:
            self._check_liveness(now)
        elif timer is Timer.ATTEMPT:
            step = "answer the login" if self.state == states.AUTHENTICATING else "let us in"
            self._abort("too slow")
            self._lost(
                ConnectionError(f"{where} did not {step} within {self.config.connect_timeout:g} s"), now
            )
        elif timer is Timer.STALL:
            self._abort("write stalled")
            self._lost(ConnectionError(f"{where} took no data for {self.config.stall_timeout:g} s"), now)
        elif timer is Timer.DRAIN:
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
        self._timers.set(Timer.LIVENESS, self._liveness.deadline)

    # What waits for a connection.

    def _send_waiting(self, now: float) -> None:
        if self.state not in (states.READY, states.FINISHING):
            return
        assert self.peer is not None
        if self.peer.is_base and not self._single_use:
            for request in [r for r in self._calls.table.waiting.values() if r.method == WORKFLOW_START]:
                self._delegate(request, now)
        self._calls.send_waiting(now)

    def _delegate(self, request: Request, now: float) -> None:
        """A base server reads nothing while it runs a workflow: that call gets a connection of its own."""
        self._calls.drop(request)
        outbox = self._outbox
        delegate = type(self)(
            self.config, epoch_ns=outbox.epoch_ns, jitter=self._jitter, ids=outbox.ids, single_use=True
        )
        self._delegates[request] = delegate
        delegate.start(now=now)
        delegate.adopt(request)
        self._outbox.effects.append(
            Delegate(cast("ClientSession", delegate))
        )  # whatever has this class is one

    def adopt(self, request: Request) -> None:
        """Take up a request that was made by another session."""
        self._calls.table.wait(request)

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

    def _stream(self, now: float) -> None:
        """Send what the subscriptions want: questions and credit."""
        if self.state not in TALKS:
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

    def _fail(self, request: Request, error: DispatchError, now: float) -> None:
        if request.purpose is Purpose.SUBSCRIBE:
            question = request.tag
            assert isinstance(question, Question)
            self._streams.refused(question, error)
            self._stream(now)
            self._restored_if_done(now)
        elif request.purpose is not Purpose.UNSUBSCRIBE:
            self._calls.fail(request, error)

    def _step(self, trigger: str) -> None:
        self.state = states.CLIENT_STATES.step(self.state, trigger)
