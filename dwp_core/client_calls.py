"""The calls of a client: sent when there is a chance, answered once, repeated only where that does no harm.

The session says when a connection is there and when it is lost; what happens to each request then is decided here
(DESIGN.md, "ClientSession", policies; PROTOCOL.md section 9, `idempotency`, `wait` and `drain`).
"""

from __future__ import annotations

from copy import copy
from typing import Any

from dwp_core.client_events import (
    ClientConfig,
    ClientEvent,
    RequestFailed,
    RequestOutcomeUnknown,
    RequestSucceeded,
)
from dwp_core.codec import Codec
from dwp_core.codec.payload import encode_payload
from dwp_core.deadlines import Deadlines
from dwp_core.effects import SendMessage
from dwp_core.errors import (
    TOO_LARGE,
    ClosedError,
    DispatchError,
    InvalidRequest,
    LimitError,
    OutcomeUnknown,
    PayloadError,
    TimeoutError,
    UnsupportedError,
)
from dwp_core.frames import PING, REQUEST, Frame
from dwp_core.outbox import Outbox
from dwp_core.peer import IDEMPOTENCY, WAIT, Peer
from dwp_core.requests import CALL, Purpose, Request, RequestTable, Retry

_ENDED = ("completed", "failed", "cancelled")  # no set: what the server sends may have no hash
KEY_LIMIT = 255
"""Characters of an idempotency key (PROTOCOL.md section 9)."""

_LOOKS = {"job.wait": "job.get", "workflow.wait": "workflow.get"}


class Calls:
    """The open requests of one client session.

    Args:
        outbox: where messages to send are put.
        events: where outcomes are put; the session empties it.
    """

    __slots__ = (
        "_config",
        "_events",
        "_keys_honoured",
        "_looks",
        "_outbox",
        "_peer",
        "blocked",
        "limit",
        "table",
    )

    def __init__(self, config: ClientConfig, outbox: Outbox, events: list[ClientEvent]) -> None:
        self.table = RequestTable()
        self.blocked = False
        """The transport takes no more for now."""
        self._config = config
        self._outbox = outbox
        self._events = events
        self._looks: Deadlines[str] = Deadlines()
        self._peer: Peer | None = None
        self.limit = 0
        """How many requests may be in flight."""
        self._keys_honoured = False

    @property
    def next_deadline(self) -> float | None:
        """When the next request runs out of time or is to be asked again."""
        look, expiry = self._looks.next, self.table.next_deadline
        if look is None or (expiry is not None and expiry < look):
            return expiry
        return look

    def check_room(self, *, besides: int) -> None:
        """Refuse another request when too many are open, here and `besides`.

        Raises:
            LimitError: that is the case.
        """
        is_open, most = len(self.table) + besides, self._config.max_requests
        if is_open >= most:
            raise LimitError(
                f"{is_open} requests to {self._config.where} are open, the limit is {most}:"
                " wait for some of them first, or raise max_requests"
            )

    # Connections.

    def connected(self, peer: Peer) -> None:
        """Messages can be sent."""
        self._peer = peer
        # One is left for the session's own questions, which a server answers at once.
        self.limit = max(min(peer.limits.in_flight - 1, self._config.max_requests), 1)
        self._keys_honoured = IDEMPOTENCY in peer.features

    def disconnected(self, cause: DispatchError) -> None:
        """The connection is lost: what may be sent again waits, for the rest the outcome is unknown."""
        unsent = self._outbox.drop_messages()
        log = self._peer.log if self._peer is not None else ""
        unknown = self.table.land(unsent, keys_honoured=self._keys_honoured, log=log)
        self.blocked = False
        self._looks.clear()
        self._peer = None
        for request in unknown:
            self._outcome_unknown(request, cause)

    def end_all(self, cause: DispatchError | None) -> None:
        """Nothing will be sent or answered any more."""
        flying = set(self.table.flying)
        self._looks.clear()
        self.blocked = False
        for request in self.table.clear():
            if request.is_own:
                continue
            error: DispatchError
            if cause is not None:
                if request.doubtful and request.retry is not Retry.READ:
                    self._outcome_unknown(request, cause)  # there is no next connection that could be asked
                    continue
                error = copy(cause)  # raised by many callers, each with a traceback of its own
            elif request.id in flying or request.doubtful:
                error = ClosedError(f"{_name(request)}: the client was closed before the answer came")
            else:
                error = ClosedError(f"{_name(request)}: the client was closed before this could be sent")
            self._events.append(RequestFailed(request.tag, error))

    # Sending.

    def send(self, request: Request, now: float) -> None:
        """Send a request that is already in flight by the table."""
        peer = self._peer
        assert peer is not None
        method, data = request.method, request.data
        if request.purpose is not CALL:
            if request.purpose is Purpose.PING:
                self._outbox.frame(PING, now, id=request.id, request_id=request.id)
                return
            if request.purpose is Purpose.WAIT:
                method, data = self._question(request, peer, now)
        elif request.key and self._keys_honoured:
            data = _with_member(data, b'"idempotency_key":' + encode_payload(request.key))
        if request.feature and request.feature not in peer.features:
            self._refuse(request, self._unsupported(request))
            return
        # Is it longer? A slice is no call, and this is asked for every request.
        if data[peer.limits.payload :]:
            self._refuse(request, self._too_large(request, len(data), peer))
            return
        outbox = self._outbox
        codec = outbox.codec
        ts = outbox.epoch_ns + int(now * 1e9)
        message = codec.encode(REQUEST, request.id, method=method, data=data, ts=ts)
        outbox.effects.append(SendMessage(message, codec.binary, request.id))

    def send_waiting(self, now: float) -> None:
        """Send what waits, oldest first, as long as there is room."""
        table = self.table
        while table.waiting and not self.blocked and len(table.flying) < self.limit:
            request = next(iter(table.waiting.values()))
            if request.doubtful and not request.may_be_repeated(keys_honoured=self._remembers(request)):
                table.drop(request.id)
                self._outcome_unknown(request, None)
                continue
            table.sent(request)
            self.send(request, now)

    def _remembers(self, request: Request) -> bool:
        """Whether this server would know the key of a request again: with another log, it is another store."""
        return self._keys_honoured and self._peer is not None and self._peer.log == request.reached

    # Outcomes.

    def answer(self, request: Request, frame: Frame, codec: Codec, now: float) -> None:
        """A response for the application has come."""
        if request.purpose is Purpose.WAIT and not self._has_ended(request, frame, codec):
            request.id = next(self._outbox.ids)
            assert self._peer is not None
            if WAIT in self._peer.features:
                self.table.wait(request)
            else:
                self.table.park(request)
                self._looks.set(request.id, now + self._config.poll_interval)
            return
        self._events.append(RequestSucceeded(request.tag, frame, codec))

    def fail(self, request: Request, error: DispatchError) -> None:
        """The request did not happen, or nobody will know."""
        self._events.append(RequestFailed(request.tag, error))

    def drop(self, request: Request) -> bool:
        """Forget a request; whether it was still open."""
        self._looks.cancel(request.id)
        return self.table.drop(request.id) is not None

    def look_again(self, now: float) -> None:
        """Let those be asked again whose time for that has come."""
        while (request_id := self._looks.pop_due(now)) is not None:
            self.table.unpark(request_id)

    def take_expired(
        self, now: float, last_error: DispatchError | None
    ) -> list[tuple[Request, TimeoutError]]:
        """Take out every request whose time is over, with what to tell its caller."""
        expired = self.table.take_expired(now)
        for request, _ in expired:
            self._looks.cancel(request.id)
        return [(request, self._too_late(request, asked, last_error)) for request, asked in expired]

    def _too_late(self, request: Request, asked: bool, last_error: DispatchError | None) -> TimeoutError:
        if asked:
            return TimeoutError(f"{_name(request)}: no answer from {self._config.where} in time")
        why = f"; the last error was: {last_error}" if last_error is not None else ""
        error = TimeoutError(f"{_name(request)}: could not be sent to {self._config.where} in time{why}")
        error.__cause__ = last_error
        return error

    def _has_ended(self, request: Request, frame: Frame, codec: Codec) -> bool:
        assert self._peer is not None
        try:
            value: Any = codec.value(frame, self._config.limits)
        except PayloadError:
            return True  # whoever reads the answer says what is wrong with it
        if not isinstance(value, dict):
            return True
        return (
            value.get("timed_out") is not True
            if WAIT in self._peer.features
            else value.get("state") in _ENDED
        )

    def _question(self, request: Request, peer: Peer, now: float) -> tuple[str, bytes]:
        """How this server is asked whether a job or run has ended."""
        if WAIT not in peer.features:
            return _LOOKS[request.method], request.data
        patience = peer.limits.wait_ms
        if request.expires is not None:
            # Never 0: in the last millisecond the answers to that would be asked for again and again.
            patience = min(patience, max(int((request.expires - now) * 1000), 1))
        return request.method, _with_member(request.data, b'"timeout_ms":%d' % patience)

    def _refuse(self, request: Request, error: DispatchError) -> None:
        """It was taken up before it was known whether the server takes it; it is not sent."""
        self.table.drop(request.id)
        if request.doubtful:
            self._outcome_unknown(request, error)  # another server may have taken it before
        else:
            self._events.append(RequestFailed(request.tag, error))

    def _too_large(self, request: Request, size: int, peer: Peer) -> DispatchError:
        message = f"{_name(request)}: its data are {size} bytes of JSON"
        return LimitError(f"{message}, {self._config.where} takes {peer.limits.payload}", code=TOO_LARGE)

    def _unsupported(self, request: Request) -> DispatchError:
        return UnsupportedError(
            f'{_name(request)}: {self._config.where} does not have "{request.feature}", which this call needs'
        )

    def _outcome_unknown(self, request: Request, cause: DispatchError | None) -> None:
        if request.is_own:
            return  # the subscriptions themselves say what the next connection is asked for
        error = OutcomeUnknown(
            f"{_name(request)}: the connection to {self._config.where} was lost before the answer came;"
            " it may have been carried out or not"
        )
        error.__cause__ = cause
        self._events.append(RequestOutcomeUnknown(request.tag, error))


def check_texts(method: str, key: str) -> None:
    """Refuse what cannot be sent, before it is taken up.

    Raises:
        InvalidRequest: that is the case; the message says what would be right.
    """
    encode_payload(method, what="method")
    encode_payload(key, what="idempotency key")
    if len(key) > KEY_LIMIT:
        raise InvalidRequest(
            f"{method}: an idempotency key has 1 to {KEY_LIMIT} characters, this one has {len(key)}"
        )


def check_wait(method: str) -> None:
    """Refuse to wait by a method that does not.

    Raises:
        InvalidRequest: it is neither `job.wait` nor `workflow.wait`.
    """
    if method not in _LOOKS:
        raise InvalidRequest(f'wait: expected one of {", ".join(_LOOKS)}, got "{method}"')


def _with_member(data: bytes, member: bytes) -> bytes:
    """The JSON object `data` with one member more."""
    return b"{%b}" % member if data in (b"", b"{}") else b"%b,%b}" % (data[:-1], member)


def _name(request: Request) -> str:
    return request.method or "ping"
