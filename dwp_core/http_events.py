"""EventStreamSession: one HTTP request whose answer is a stream of server-sent events (PROTOCOL.md section 8).

Everything that can be refused is refused before the stream begins. From then on the reader gets what a WebSocket with
the same subscriptions would, with the same `seq`, and paced by its socket; what retention has removed is told in the
stream, as an event `gap`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from dwp_core import server_states as states
from dwp_core.admission import permit
from dwp_core.codec.payload import encode_payload
from dwp_core.credit import SendCredit
from dwp_core.delivery import Delivery
from dwp_core.errors import TOO_MANY, DispatchError, InvalidRequest
from dwp_core.http_session import STATUS_OK, HttpSession
from dwp_core.hub import Hub
from dwp_core.peer import DRAIN, RESUME
from dwp_core.served_peer import PACE
from dwp_core.server_events import Identity, LoginReceived, ServerConfig
from dwp_core.sse import COMMENT, EventStream, beginning, block
from dwp_core.topics import check_channel

FEATURES = frozenset((RESUME, DRAIN))
"""The extensions (PROTOCOL.md section 9) that every stream has."""

STREAM_TYPE = "text/event-stream"

_STREAM = EventStream()
_MOST_DIGITS = 19


class EventStreamSession(HttpSession):
    """One stream of events. Arguments as `ServedPeer`, and:

    Args:
        token: the credentials; "" for none.
        channels: what to subscribe to.
        since: the seq after which to begin, or "start", as a text; "" for from now on.
        last_event_id: the header `Last-Event-ID`, which counts before `since`: a reader that was cut off repeats its
            address as it was. "" for none.
    """

    __slots__ = ("_channels", "_comment_at", "_since")

    def __init__(
        self,
        *,
        config: ServerConfig,
        hub: Hub,
        session_id: str,
        now: float,
        epoch_ns: int,
        owner: Any = None,
        token: str = "",
        channels: Sequence[str] = (),
        since: str = "",
        last_event_id: str = "",
    ) -> None:
        super().__init__(
            config=config, hub=hub, session_id=session_id, now=now, epoch_ns=epoch_ns, owner=owner
        )
        self._status = 0
        self._channels = channels
        self._since = ("Last-Event-ID", last_event_id) if last_event_id else ("since", since)
        self._comment_at: float | None = None
        self.state = states.SERVER_STATES.step(self.state, states.AUTH_FRAME)
        self._events.append(LoginReceived(token))

    @property
    def next_deadline(self) -> float | None:
        """When `handle_timer` wants to be called; None while nothing is pending."""
        at = super().next_deadline
        comment_at = self._comment_at
        return comment_at if at is None or (comment_at is not None and comment_at < at) else at

    # Inputs.

    def receive_message(self, message: bytes, *, now: float) -> None:
        """A reader has nothing to say."""

    def accept(self, identity: Identity, *, now: float) -> None:
        """The token is good; the stream begins, or the answer says why not."""
        self._now = now
        if self.state is not states.JUDGING:
            return
        self.state = states.SERVER_STATES.step(self.state, states.ACCEPT)
        self.identity = identity
        self._until = None
        try:
            permit("subscribe", identity, self._config)
            channels = self._checked_channels()
            self._begin(channels, _parse_since(*self._since), identity)
        except DispatchError as error:
            self._send_error("", error)

    def handle_timer(self, *, now: float) -> None:
        """The time of `next_deadline` has come, or is past."""
        super().handle_timer(now=now)
        if self._comment_at is not None and now >= self._comment_at:
            self._comment_at = now + self._config.comment_every
            if self._stalled_at is None:
                self._out.messages.append(COMMENT)

    # Inside.

    def _checked_channels(self) -> list[str]:
        limits = self._config
        channels = [check_channel(channel, limit=limits.limits.channel) for channel in self._channels]
        if not channels:
            raise InvalidRequest("channel is missing: name at least one, as in ?channel=jobs")
        if len(set(channels)) > limits.subscriptions:
            raise DispatchError(f"at most {limits.subscriptions} channels at a time", code=TOO_MANY)
        return channels

    def _begin(
        self, channels: Sequence[str], since: int | Literal["start"] | None, identity: Identity
    ) -> None:
        hub = self._hub
        self._delivery = delivery = Delivery(
            hub,
            owner=self.owner,
            codec=_STREAM,
            tenant=(identity.app_id, identity.org_id),
            labelled=False,
            numbered=True,
            # The socket paces it; there is nobody to grant anything.
            credit=SendCredit(limited=False),
        )
        gap = None
        for channel in channels:
            gap = delivery.subscribe(channel, since)  # the same for each of them
        self.features = FEATURES
        self._status = STATUS_OK
        self._comment_at = self._now + self._config.comment_every
        oldest = hub.oldest - 1
        start = hub.head if since is None else oldest if since == "start" else since
        self._out.messages.append(beginning(start))
        if gap is not None:
            self._tell_of_gap(*gap)

    def _tell_of_gap(self, first: int, last: int) -> None:
        data = encode_payload({"type": "gap", "data": {"from": first, "to": last}})
        self._out.messages.append(block("gap", data, last))

    def _tell_of_drain(self, data: bytes) -> None:
        self._out.messages.append(block("drain", data))

    def _lost_its_place(self) -> None:
        """So slow that the log has removed what comes next: it is told, and goes on behind that."""
        assert self._delivery is not None
        self._tell_of_gap(*self._delivery.skip_removed())
        self._pace = self._now + PACE

    def _end(self, trigger: str, reason: str) -> None:
        self._comment_at = None
        super()._end(trigger, reason)


def _parse_since(name: str, text: str) -> int | Literal["start"] | None:
    if text == "start":
        return "start"
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS:
        return int(text)
    raise InvalidRequest(f'{name} must be the seq of an event or "start", got "{text[:40]}"')
