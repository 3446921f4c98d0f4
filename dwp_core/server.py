"""ServerSession: the server's side of one WebSocket connection (PROTOCOL.md sections 3 to 7 and 9).

It decides what a client may do and what it is told: the login, then frames in both directions, with many requests in
flight answered in any order. What it shares with the sessions of HTTP is `dwp_core.served_peer`. It reads no socket and
no store: a driver feeds it messages and time, carries out its events and effects, and answers its requests.
"""

from __future__ import annotations

from typing import Any

from dwp_core import server_states as states
from dwp_core.admission import Login, decode_login, read_login, welcome
from dwp_core.errors import TOO_MANY, DispatchError, FrameError, InvalidRequest
from dwp_core.frames import PING, PONG, REQUEST, Frame
from dwp_core.hub import OK, Hub
from dwp_core.liveness import Liveness
from dwp_core.served_peer import MESSAGE_TOO_BIG, POLICY_VIOLATION, ServedPeer
from dwp_core.server_events import Identity, LoginReceived, ServerConfig

_NO_LOGIN = Login("", "json", frozenset())


class ServerSession(ServedPeer):
    """One WebSocket connection, from its first message to its end. Arguments and use: `ServedPeer`."""

    __slots__ = ("_held", "_login", "_login_id")

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
        super().__init__(
            config=config, hub=hub, session_id=session_id, now=now, epoch_ns=epoch_ns, owner=owner
        )
        self._login = _NO_LOGIN
        self._login_id = ""
        self._held: list[bytes] | None = None

    # Inputs.

    def receive_message(self, message: bytes, *, now: float) -> None:
        """A WebSocket message came in, text or binary."""
        self._now = now
        if len(message) > self._config.limits.message:
            self._close(
                MESSAGE_TOO_BIG, f"a message may have {self._config.limits.message} bytes, not {len(message)}"
            )
            return
        state = self.state
        if state is states.OPEN or state is states.DRAINING:
            self._receive_frame(message)
        elif state is states.WAITING:
            self._receive_login(message)
        elif state is states.JUDGING:
            self._hold(message)

    def accept(self, identity: Identity, *, now: float) -> None:
        """The token is good; what the peer has sent since is taken up."""
        self._now = now
        if self.state is not states.JUDGING:
            return
        self.state = states.SERVER_STATES.step(self.state, states.ACCEPT)
        self.identity = identity
        self._until = None
        self._hub.answered("auth", OK)
        login = self._login
        self.features = login.features
        self._out.codec = self._hub.codec(login.format)
        if login.features:
            self._liveness = Liveness(interval=self._config.heartbeat, now=now)
        answer = welcome(self._config, login, session_id=self.session_id, log=self._hub.log)
        self._out.response(now, self._login_id, answer)
        held, self._held = self._held, None
        for message in held or ():
            self.receive_message(message, now=now)

    # The handshake (PROTOCOL.md section 3).

    def _receive_login(self, message: bytes) -> None:
        config = self._config
        try:
            frame = decode_login(self._out.codec, message, config)
            self._login_id = frame.id
            self._login = login = read_login(self._out.codec, frame, config)
        except DispatchError as error:
            self._refuse_login(error.code, error.message, error.details)
            return
        self.state = states.SERVER_STATES.step(self.state, states.AUTH_FRAME)
        self._events.append(LoginReceived(login.token))

    def _hold(self, message: bytes) -> None:
        """Clients need not wait for the answer to their login before they go on; but what they send is not endless."""
        self._held = held = self._held or []
        held.append(message)
        config = self._config
        if len(held) > config.in_flight or sum(map(len, held)) > config.limits.message:
            self._refuse_login(TOO_MANY, "too much was sent before the login was answered")

    def _refuse_login(self, code: int, message: str, details: str = "") -> None:
        self._out.error(self._now, self._login_id, code, message, details)
        self._close(POLICY_VIOLATION, message)

    # Frames.

    def _receive_frame(self, message: bytes) -> None:
        if self._liveness is not None:
            self._liveness.last_heard = self._now
        try:
            frame = self._out.codec.decode(message, self._config.limits)
        except FrameError as error:
            self._send_error(error.frame_id, error)
            return
        kind = frame.type
        if kind == REQUEST:
            if frame.credits:
                self._receive_credits(frame)
            else:
                self._receive_request(frame)
        elif kind == PING:
            asked_at = self._out.codec.timestamp(frame)
            self._out.frame(PONG, self._now, correl_id=frame.id, ts=asked_at)
        elif kind != PONG:
            sent = f'a client sends frames of type request, ping or pong, not "{kind[:32]}"'
            self._send_error(frame.id, InvalidRequest(sent))

    def _receive_credits(self, frame: Frame) -> None:
        """Credits ride on a frame of their own, or on a request, which is then carried out; none are taken back."""
        if frame.credits > 0:
            self._events_of_connection().credit.grant(frame.credits)
        if frame.method:
            self._receive_request(frame)

    def _end(self, trigger: str, reason: str) -> None:
        self._held = None
        super()._end(trigger, reason)
