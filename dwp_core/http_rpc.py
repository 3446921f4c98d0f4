"""RpcSession: one HTTP request that carries one frame, and its answer (PROTOCOL.md section 8).

It judges what a `ServerSession` judges, by the same rules, and hands the request to the same handlers; its driver feeds
it the body and writes what it says. Nothing is negotiated: the extensions in `FEATURES` are there for whoever uses
their fields or methods.
"""

from __future__ import annotations

from typing import Any

from dwp_core import server_states as states
from dwp_core.errors import INTERNAL, TOO_LARGE, TOO_MANY, DispatchError, FrameError, InvalidRequest
from dwp_core.frames import PING, PONG, REQUEST, Frame
from dwp_core.http_session import STATUS_OK, HttpSession, bearer_token
from dwp_core.hub import Hub
from dwp_core.methods import Method
from dwp_core.peer import BATCH, IDEMPOTENCY, OPTIONS, WAIT
from dwp_core.server_events import Identity, LoginReceived, ServerConfig

FEATURES = frozenset((IDEMPOTENCY, OPTIONS, BATCH, WAIT))
"""The extensions (PROTOCOL.md section 9) that make sense in a request by itself."""

JSON_TYPE = "application/json"
MSGPACK_TYPE = "application/msgpack"

_FORMATS = {
    # No type at all counts as JSON, as on the existing server.
    "": "json",
    JSON_TYPE: "json",
    MSGPACK_TYPE: "msgpack",
    "application/x-msgpack": "msgpack",
    "application/vnd.msgpack": "msgpack",
}

_SLOWEST = 32 * 1024
"""Bytes a second: each that arrives buys so much time for the rest of the body."""

_EVENTS_ELSEWHERE = frozenset(("subscribe", "unsubscribe"))


class RpcLoad:
    """How many requests of each key are unanswered. One for all sessions of a server; without it a key that opens a
    connection for each request would have no limit.

    Example:
        >>> load, me = RpcLoad(), Identity("me")
        >>> load.add(me); load.of(me)
        1
        >>> load.remove(me); load.of(me)
        0
    """

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[Identity, int] = {}

    def of(self, identity: Identity) -> int:
        """Unanswered requests of this key."""
        return self._counts.get(identity, 0)

    def add(self, identity: Identity) -> None:
        """One more."""
        self._counts[identity] = self.of(identity) + 1

    def remove(self, identity: Identity) -> None:
        """One less."""
        left = self._counts.pop(identity) - 1
        if left:
            self._counts[identity] = left


class RpcSession(HttpSession):
    """One request and its answer. Arguments as `ServedPeer`, and:

    Args:
        load: shared by the sessions of a server.
        content_type: the request's header of that name; "" for none.
        authorization: likewise.
    """

    __slots__ = ("_authorization", "_body", "_content_type", "_counted", "_frame", "_load")

    def __init__(
        self,
        *,
        config: ServerConfig,
        hub: Hub,
        session_id: str,
        now: float,
        epoch_ns: int,
        owner: Any = None,
        load: RpcLoad,
        content_type: str = "",
        authorization: str = "",
    ) -> None:
        super().__init__(
            config=config, hub=hub, session_id=session_id, now=now, epoch_ns=epoch_ns, owner=owner
        )
        self._status = 0
        self._load = load
        self._counted = False
        self._authorization = authorization
        self._content_type = content_type.partition(";")[0].strip().lower()
        self._out.codec = hub.codec(_FORMATS.get(self._content_type, "json"))
        self._body = bytearray()
        self._frame: Frame | None = None

    @property
    def content_type(self) -> str:
        """The media type of the answer: the request's, or JSON where that is unknown."""
        return MSGPACK_TYPE if self.binary else JSON_TYPE

    # Inputs.

    def announce(self, size: int, *, now: float) -> None:
        """The body will have so many bytes; one that is too large need not come."""
        limit = self._config.limits.message
        if self.state is states.WAITING and size > limit:
            self._now = now
            self._refuse_login(TOO_LARGE, f"a frame may have {limit} bytes, not {size}")

    def receive_part(self, data: bytes, *, now: float) -> None:
        """Some bytes of the body."""
        if self.state is not states.WAITING or self._until is None:
            return
        self._now = now
        self._body += data
        self._until += len(data) / _SLOWEST
        limit = self._config.limits.message
        if len(self._body) > limit:
            self._body.clear()
            self._refuse_login(TOO_LARGE, f"a frame may have {limit} bytes, and this one has more")

    def receive_end(self, *, now: float) -> None:
        """The body is whole."""
        body, self._body = bytes(self._body), bytearray()
        self.receive_message(body, now=now)

    def receive_message(self, message: bytes, *, now: float) -> None:
        """The body, whole; anything after it is passed over."""
        if self.state is not states.WAITING:
            return
        self._now = now
        try:
            if self._content_type not in _FORMATS:
                raise InvalidRequest(
                    f'content-type must be {JSON_TYPE} or {MSGPACK_TYPE}, got "{self._content_type[:80]}"'
                )
            self._frame = frame = self._out.codec.decode(message, self._config.limits)
        except FrameError as error:
            self._send_error(error.frame_id, error)
        except InvalidRequest as error:
            self._send_error("", error)
        else:
            self.state = states.SERVER_STATES.step(self.state, states.AUTH_FRAME)
            self._until = now + self._config.auth_timeout
            self._events.append(LoginReceived(self._token(frame)))

    def accept(self, identity: Identity, *, now: float) -> None:
        """The token is good; the request is judged now."""
        self._now = now
        frame = self._frame
        if self.state is not states.JUDGING or frame is None:
            return
        self.state = states.SERVER_STATES.step(self.state, states.ACCEPT)
        self.identity = identity
        self.features = self._config.features & FEATURES
        self._until = None
        self._frame = None
        if frame.type == REQUEST:
            self._receive_request(frame)
        elif frame.type == PING:
            asked_at = self._out.codec.timestamp(frame)
            self._out.frame(PONG, now, correl_id=frame.id, ts=asked_at)
            self._answered(STATUS_OK)
        else:
            sent = f'a frame of type request or ping is answered here, not "{frame.type[:32]}"'
            self._send_error(frame.id, InvalidRequest(sent))

    def respond(self, request_id: str, data: bytes, *, now: float) -> None:
        """The answer, as JSON text. Raises and silences as `ServedPeer.respond`."""
        if self._settle(request_id):
            self._now = now
            self._out.response(now, request_id, data)
            self._answered(STATUS_OK)

    # Inside.

    def _token(self, frame: Frame) -> str:
        """In the frame, in the header, or in the data, where the auth frame of a WebSocket has it."""
        token = frame.token or bearer_token(self._authorization)
        if not token:
            try:
                data = self._out.codec.value(frame, self._config.limits)
            except InvalidRequest:
                return ""  # whose request it is comes first; what is wrong with it, the owner is told
            if isinstance(data, dict) and isinstance(data.get("token"), str):
                token = data["token"]
        return token

    def _take_up(self, request_id: str, method: Method, params: dict[str, Any], data: bytes) -> None:
        assert self.identity is not None
        if method.name in _EVENTS_ELSEWHERE:
            raise InvalidRequest(
                f"{method.name}: events come over a WebSocket, or by GET from …/sse, not here"
            )
        if self._load.of(self.identity) >= self._config.in_flight:
            raise DispatchError(
                f"{method.name}: {self._config.in_flight} requests of this key are not answered yet; wait for one",
                code=TOO_MANY,
            )
        super()._take_up(request_id, method, params, data)
        self._load.add(self.identity)
        self._counted = True

    def _refuse_login(self, code: int, message: str, details: str = "") -> None:
        correl_id = "" if self._frame is None else self._frame.id
        self._send_error(correl_id, DispatchError(message, code=code, details=details))

    def _state_is_over(self) -> None:
        if self.state is states.DRAINING:
            # No 503: that would say that it was not carried out.
            self._send_error(
                "", DispatchError("the server stopped before it knew the outcome", code=INTERNAL)
            )
        elif self.state is states.WAITING:
            self._refuse_login(400, "the request did not arrive in time")
        else:
            super()._state_is_over()

    def _end(self, trigger: str, reason: str) -> None:
        if self._counted:
            self._counted = False
            assert self.identity is not None
            self._load.remove(self.identity)
        super()._end(trigger, reason)
