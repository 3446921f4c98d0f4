"""ServedPeer: one peer of a server, whatever carries it (PROTOCOL.md sections 4 to 9).

What every session of a server keeps and decides: who is at the other end, which of its requests are unanswered and
until when, which events it is sent and how fast, stalled writes, and the orderly end. How it comes in is the business
of the sessions: over WebSocket (`dwp_core.server`), with an HTTP request for each frame (`dwp_core.http_rpc`), or to
read events only (`dwp_core.http_events`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from dwp_core import server_states as states
from dwp_core.admission import admit
from dwp_core.codec.payload import encode_payload
from dwp_core.credit import SendCredit
from dwp_core.delivery import PAGE, Delivery, Overrun, Position
from dwp_core.effects import AbortTransport, CloseTransport
from dwp_core.errors import TOO_MANY, UNAUTHENTICATED, DispatchError, NotFoundError
from dwp_core.events import LoggedEvent
from dwp_core.frames import EVENT, PING, Frame
from dwp_core.hub import OK, Hub
from dwp_core.in_flight import InFlight
from dwp_core.liveness import Liveness, Verdict
from dwp_core.methods import METHODS, Method, check_request
from dwp_core.outgoing import Outgoing
from dwp_core.peer import DRAIN, RESUME
from dwp_core.server_events import (
    Identity,
    ReadLog,
    RequestReceived,
    ServerConfig,
    ServerEffect,
    ServerEvent,
    SessionClosed,
    WaitExpired,
)
from dwp_core.topics import check_channel

NORMAL = 1000
GOING_AWAY = 1001
POLICY_VIOLATION = 1008
MESSAGE_TOO_BIG = 1009
TRY_AGAIN_LATER = 1013

PACE = 0.001
"""Seconds between two pages of events to a connection that catches up."""


class ServedPeer(ABC):
    """One peer, from the opening of its transport to the end.

    Args:
        config: how this server behaves.
        hub: where events come from.
        session_id: a name for the connection; the client may be told.
        now: monotonic seconds at which the transport was opened.
        epoch_ns: wall time at `now` = 0, in nanoseconds since 1970.
        owner: whatever the driver knows the connection by; comes back in `Fanout.to`.

    After each input: `take_events`, carry them out; `take_messages`, write them; `take_effects`, carry them out; wake
    up at `next_deadline` and call `handle_timer`.
    """

    __slots__ = (
        "_config",
        "_delivery",
        "_effects",
        "_events",
        "_hub",
        "_in_flight",
        "_liveness",
        "_now",
        "_out",
        "_pace",
        "_stalled_at",
        "_until",
        "features",
        "identity",
        "owner",
        "session_id",
        "state",
    )

    def __init__(
        self,
        *,
        config: ServerConfig,
        hub: Hub,
        session_id: str,
        now: float,
        epoch_ns: int,
        owner: Any = None,
    ) -> None:
        self.owner = owner
        self.session_id = session_id
        self.state = states.WAITING
        self.identity: Identity | None = None
        """Who is at the other end; None until the login was accepted."""
        self.features: frozenset[str] = frozenset()
        """The extensions that both sides have; empty for a base peer."""
        self._config = config
        self._hub = hub
        self._now = now
        self._out = Outgoing(hub.codec("json"), epoch_ns)
        self._events: list[ServerEvent] = []
        self._effects: list[ServerEffect] = []
        self._in_flight = InFlight()
        self._delivery: Delivery | None = None
        self._liveness: Liveness | None = None
        self._until: float | None = now + config.auth_timeout
        """When the state is over: no login, end of draining, no end of closing."""
        self._stalled_at: float | None = None
        self._pace: float | None = None

    # Outputs.

    def take_messages(self) -> list[bytes]:
        """What is to be written now, in order; each is one WebSocket message with the opcode that `binary` says."""
        delivery = self._delivery
        if delivery is not None and delivery.ready and self._pace is None:
            self._advance(delivery)
        return self._out.take()

    def take_events(self) -> list[ServerEvent]:
        """What happened since this was last asked, in order."""
        events = self._events
        if events:
            self._events = []
        return events

    def take_effects(self) -> list[ServerEffect]:
        """What is to be done, in order, after the messages were written."""
        effects = self._effects
        if effects:
            self._effects = []
        return effects

    @property
    def binary(self) -> bool:
        """The opcode of the messages: binary for MessagePack, text for JSON and for everything before the login."""
        return self._out.codec.binary

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet."""
        return len(self._in_flight.sizes)

    @property
    def room(self) -> int:
        """How many more requests it takes at the moment. A base peer knows of no limit: do not read on without room."""
        return self._config.in_flight - len(self._in_flight.sizes)

    @property
    def overloaded(self) -> bool:
        """Whether the requests in flight carry so much data that nothing more is to be read."""
        return self._in_flight.load > self._config.limits.message

    @property
    def next_deadline(self) -> float | None:
        """When `handle_timer` wants to be called; None while nothing is pending."""
        at = self._until
        if self._liveness is not None and (at is None or self._liveness.deadline < at):
            at = self._liveness.deadline
        if self._stalled_at is not None and (at is None or self._stalled_at < at):
            at = self._stalled_at
        if self._pace is not None and (at is None or self._pace < at):
            at = self._pace
        expiry = self._in_flight.next_expiry
        if expiry is not None and (at is None or expiry < at):
            at = expiry
        return at

    # What comes in, and who it is.

    @abstractmethod
    def receive_message(self, message: bytes, *, now: float) -> None:
        """A message came in, whole."""

    @abstractmethod
    def accept(self, identity: Identity, *, now: float) -> None:
        """The token of `LoginReceived` is good, and this is whose it is."""

    def reject(
        self, code: int = UNAUTHENTICATED, message: str = "authentication failed", *, now: float
    ) -> None:
        """The token is not good: the peer is told in an error frame, and that is the end."""
        self._now = now
        if self.state is states.JUDGING:
            self._hub.answered("auth", code)
            self._refuse_login(code, message)

    @abstractmethod
    def _refuse_login(self, code: int, message: str, details: str = "") -> None:
        """Nobody was let in: tell the peer why, and end."""

    # Inputs: the transport.

    def write_blocked(self, *, now: float) -> None:
        """The transport takes no more at the moment: events wait, and it must make progress before long."""
        self._now = now
        if self.state is not states.CLOSED:
            self._stalled_at = now + self._config.stall_timeout
            if self._delivery is not None:
                self._delivery.block()

    def write_progress(self, *, now: float) -> None:
        """The transport, though blocked, has got rid of some bytes."""
        if self._stalled_at is not None:
            self._stalled_at = now + self._config.stall_timeout

    def write_resumed(self, *, now: float) -> None:
        """The transport takes more again."""
        self._now = now
        self._stalled_at = None
        if self._delivery is not None:
            self._delivery.blocked = False

    def transport_closed(self, *, now: float, reason: str = "the connection was closed") -> None:
        """The transport is over, whoever ended it."""
        self._now = now
        if self.state is not states.CLOSED:
            self._end(states.LOST, reason)
            self._until = None
            self._stalled_at = None

    def handle_timer(self, *, now: float) -> None:
        """The time of `next_deadline` has come, or is past."""
        self._now = now
        if self._pace is not None and now >= self._pace:
            self._pace = None
        if self._until is not None and now >= self._until:
            self._state_is_over()
        if self._stalled_at is not None and now >= self._stalled_at:
            self._abort(f"the peer took nothing for {self._config.stall_timeout:g} s")
        while (request_id := self._in_flight.pop_expired(now)) is not None:
            self._events.append(WaitExpired(request_id))
        if self._liveness is not None and now >= self._liveness.deadline:
            self._check_life(self._liveness)

    # Inputs: answers and commands of the driver.

    def respond(self, request_id: str, data: bytes, *, now: float) -> None:
        """The answer to a request, as JSON text. After the end of the session it goes nowhere, silently.

        Raises:
            NotFoundError: no such request is unanswered.
        """
        if self._settle(request_id):
            self._now = now
            self._out.response(now, request_id, data)
            if self.state is states.DRAINING:
                self._close_if_drained()

    def fail(self, request_id: str, error: DispatchError, *, now: float) -> None:
        """A request did not happen; its caller is told code, message and details. Otherwise as `respond`."""
        if self._settle(request_id):
            self._now = now
            self._send_error(request_id, error)
            if self.state is states.DRAINING:
                self._close_if_drained()

    def log_read(self, events: Sequence[LoggedEvent], *, after: int, through: int, now: float) -> None:
        """The page that `ReadLog` asked for: everything from `after` up to `through` was looked at."""
        self._now = self._hub.now = now
        delivery = self._delivery
        if delivery is not None:
            try:
                self._out.messages += delivery.log_read(events, after=after, through=through)
            except Overrun:
                self._lost_its_place()

    def pump(self, *, now: float) -> None:
        """The hub has named this connection in `take_behind`: what it can take is among the messages now."""
        self._now = now

    def drain(self, *, deadline: float, retry_after: float, now: float) -> None:
        """Take no new requests, and close when the last is answered, or at `deadline` (PROTOCOL.md section 9, `drain`).

        Args:
            deadline: monotonic seconds.
            retry_after: seconds after which a client may come back.
            now: monotonic seconds.
        """
        self._now = now
        if self.state is states.WAITING or self.state is states.JUDGING:
            self._close(GOING_AWAY, "the server is going away")
        elif self.state is states.OPEN:
            self.state = states.SERVER_STATES.step(self.state, states.DRAIN)
            self._until = deadline
            if DRAIN in self.features:
                times = {
                    "deadline_ms": max(round((deadline - now) * 1000), 0),
                    "retry_after_ms": round(retry_after * 1000),
                }
                self._tell_of_drain(encode_payload({"type": "drain", "data": times}))
            self._close_if_drained()

    def close(self, code: int = NORMAL, reason: str = "", *, now: float) -> None:
        """End the connection in good order, without waiting for requests in flight."""
        self._now = now
        self._close(code, reason)

    # Requests.

    def _receive_request(self, frame: Frame) -> None:
        assert self.identity is not None
        try:
            method = admit(
                frame,
                self.identity,
                self._config,
                in_flight=self._in_flight.sizes,
                draining=self.state is states.DRAINING,
            )
            params: dict[str, Any] = {}
            data = b""
            if method.fields:
                params = check_request(method, self._out.codec.value(frame, self._config.limits))
                data = self._out.codec.data(frame)
            self._take_up(frame.id, method, params, data)
        except DispatchError as error:
            self._hub.answered(frame.method if frame.method in METHODS else "", error.code)
            self._send_error(frame.id, error)

    def _take_up(self, request_id: str, method: Method, params: dict[str, Any], data: bytes) -> None:
        name = method.name
        if name == "subscribe":
            self._subscribe(request_id, params)
            self._hub.answered(name, OK)
            return
        if name == "unsubscribe":
            if self._delivery is not None:
                self._delivery.unsubscribe(params["channel"])
            self._answer(request_id, {"channel": params["channel"], "status": "unsubscribed"})
            self._hub.answered(name, OK)
            return
        if name == "job.enqueue_many" and len(params["jobs"]) > self._config.batch:
            raise DispatchError(
                f"{name}: at most {self._config.batch} jobs at once, got {len(params['jobs'])}", code=TOO_MANY
            )
        if method.feature == "wait":
            wait = min(params.get("timeout_ms", 2**31) / 1000, self._config.wait)
            self._in_flight.expire(request_id, self._now + wait)
        self._in_flight.add(request_id, size=len(data))
        self._events.append(RequestReceived(request_id, name, params, data))

    def _settle(self, request_id: str) -> bool:
        """Take a request off the list; False when nobody is there to be answered."""
        if self._in_flight.settle(request_id):
            return True
        if self.state is states.CLOSING or self.state is states.CLOSED:
            return False
        raise NotFoundError(f'no request with id "{request_id}" waits for an answer')

    # Events.

    def _events_of_connection(self) -> Delivery:
        """Made when it is first needed: most connections never subscribe."""
        if self._delivery is None:
            assert self.identity is not None
            self._delivery = Delivery(
                self._hub,
                owner=self.owner,
                codec=self._out.codec,
                tenant=(self.identity.app_id, self.identity.org_id),
                labelled=not self.features,
                numbered=RESUME in self.features,
                credit=SendCredit(initial=self._config.credits, limited=bool(self.features)),
            )
            if self._stalled_at is not None:
                self._delivery.block()
        return self._delivery

    def _subscribe(self, request_id: str, params: dict[str, Any]) -> None:
        channel = check_channel(params["channel"], limit=self._config.limits.channel)
        delivery = self._events_of_connection()
        if channel not in delivery.floors and len(delivery.floors) >= self._config.subscriptions:
            raise DispatchError(
                f"subscribe: at most {self._config.subscriptions} channels at a time", code=TOO_MANY
            )
        self._answer(request_id, delivery.answer(channel, params))

    def _advance(self, delivery: Delivery) -> None:
        self._hub.now = self._now
        try:
            self._out.messages += delivery.advance()
        except Overrun:
            self._lost_its_place()
            return
        if delivery.position is Position.READING:
            app_id, org_id = delivery.tenant
            self._effects.append(ReadLog(delivery.cursor, PAGE, app_id, org_id))
        elif delivery.ready:
            self._pace = self._now + PACE

    def _lost_its_place(self) -> None:
        """So slow that the log has removed what comes next; it is told of the gap when it comes back and asks."""
        self._close(TRY_AGAIN_LATER, "too slow: events were removed from the log before they could be sent")

    # Time.

    def _state_is_over(self) -> None:
        if self.state is states.DRAINING:
            self._close(GOING_AWAY, "the server is going away")
        elif self.state is states.CLOSING:
            self._abort("the peer did not answer the closing handshake")
        else:
            self._refuse_login(UNAUTHENTICATED, "authentication timed out")

    def _check_life(self, liveness: Liveness) -> None:
        verdict = liveness.check(self._now)
        if verdict is Verdict.PING:
            self._out.frame(PING, self._now)
        elif verdict is Verdict.DEAD:
            self._abort(f"nothing was heard for {2 * self._config.heartbeat:g} s")

    # Sending and ending.

    def _answer(self, request_id: str, value: dict[str, Any]) -> None:
        self._out.response(self._now, request_id, encode_payload(value))

    def _send_error(self, correl_id: str, error: DispatchError) -> None:
        self._out.error(self._now, correl_id, error.code, error.message, error.details)

    def _tell_of_drain(self, data: bytes) -> None:
        self._out.frame(EVENT, self._now, data=data)

    def _close_if_drained(self) -> None:
        if not self._in_flight.sizes:
            self._close(GOING_AWAY, "the server is going away")

    def _close(self, code: int, reason: str) -> None:
        """Say goodbye after what was written, once; the transport ends before long or is dropped."""
        if states.SERVER_STATES.allows(self.state, states.CLOSE):
            self._end(states.CLOSE, reason)
            self._until = self._now + self._config.close_timeout
            # RFC 6455 section 5.5.1: what is left of a control frame for the reason is 123 bytes.
            short = reason.encode()[:123].decode(errors="ignore")
            self._effects.append(CloseTransport(0, code, short))

    def _abort(self, reason: str) -> None:
        self._end(states.LOST, reason)
        self._until = None
        self._stalled_at = None
        self._out.messages.clear()
        self._effects.append(AbortTransport(0, reason))

    def _end(self, trigger: str, reason: str) -> None:
        """Nothing more is taken in or given out; whoever worked for this connection is told, once."""
        told = self.state is states.CLOSING
        self.state = states.SERVER_STATES.step(self.state, trigger)
        self._in_flight.clear()
        self._liveness = None
        self._pace = None
        if self._delivery is not None:
            self._delivery.close()
            self._delivery = None
        if not told:
            self._events.append(SessionClosed(reason))
