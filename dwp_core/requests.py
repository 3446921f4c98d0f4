"""The requests that one peer has sent and still wants an answer to, each with exactly one outcome (DESIGN.md).

A request is `waiting` until it is handed to a transport and `in flight` from then on; it leaves the table when its
answer comes, its time is over, its caller loses interest, or its connection is lost and it may not be repeated. Both
sessions use this table: the client for its calls, a server for the work it sends to workers.
"""

from __future__ import annotations

from enum import Enum


class Retry(Enum):
    """What may be done with a request that perhaps reached the peer before the connection was lost."""

    READ = "read"
    """It changes nothing: send it again."""
    IDEMPOTENT = "idempotent"
    """Send it again if it carries an idempotency key and the peer honours those (PROTOCOL.md section 9)."""
    NEVER = "never"
    """Its outcome is unknown."""


class Purpose(Enum):
    """Whom the answer is for."""

    CALL = "call"
    """The application."""
    WAIT = "wait"
    """The application, once the job or run has ended; asked again until then."""
    PING = "ping"
    """The application, as a round trip."""
    SUBSCRIBE = "subscribe"
    """The session: the subscriptions of a channel are confirmed."""
    UNSUBSCRIBE = "unsubscribe"
    """The session: nobody listens to the channel any more."""


CALL = Purpose.CALL
"""By a name of its own where every frame is asked for it: looking up a member of an enum takes as long as a call."""


class Request:
    """One request. `tag` is the caller's own and comes back with the outcome.

    Attributes:
        id: the id of its frame; another one each time it is asked anew.
        expires: monotonic seconds at which its caller stops waiting; None for never.
        reached: the log id of the server that may have got it before, "" if that has none; None when none has got it.
        feature: the extension that the peer must have for it; "" for none.
    """

    __slots__ = ("data", "expires", "feature", "id", "key", "method", "purpose", "reached", "retry", "tag")

    def __init__(
        self,
        id: str,
        method: str,
        data: bytes,
        tag: object,
        *,
        retry: Retry = Retry.NEVER,
        key: str = "",
        purpose: Purpose = CALL,
        expires: float | None = None,
        feature: str = "",
    ) -> None:
        self.id = id
        self.method = method
        self.data = data
        self.tag = tag
        self.retry = retry
        self.key = key
        self.purpose = purpose
        self.expires = expires
        self.feature = feature
        self.reached: str | None = None

    @property
    def doubtful(self) -> bool:
        """Whether it may have been carried out by a server that is lost."""
        return self.reached is not None

    @property
    def is_own(self) -> bool:
        """Whether the session asks it for itself; the next connection is asked anew then."""
        return self.purpose is Purpose.SUBSCRIBE or self.purpose is Purpose.UNSUBSCRIBE

    def may_be_repeated(self, *, keys_honoured: bool) -> bool:
        """Whether sending it twice does no harm."""
        if self.retry is Retry.IDEMPOTENT:
            return keys_honoured and bool(self.key)
        return self.retry is Retry.READ


class RequestTable:
    """Every open request of one peer, in the order in which they were asked.

    Attributes:
        waiting: requests that no transport has got, by id. Read it; the methods change it.
        flying: requests in flight, by id. Likewise.
        parked: requests that are not to be sent for now, by id. Likewise.

    Example:
        >>> table = RequestTable()
        >>> table.wait(Request("c1", "stats", b"", tag="me", retry=Retry.READ, expires=30.0))
        >>> table.sent(table.waiting["c1"])
        >>> table.answered("c1").tag, len(table), table.next_deadline
        ('me', 0, None)
    """

    __slots__ = ("flying", "next_deadline", "parked", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[str, Request] = {}
        self.flying: dict[str, Request] = {}
        self.parked: dict[str, Request] = {}
        self.next_deadline: float | None = None
        """When to call `take_expired`: when the first of them runs out of time, or earlier, because answers leave it as
        it is and so cost nothing; None when none can."""

    def __len__(self) -> int:
        return len(self.waiting) + len(self.flying) + len(self.parked)

    def wait(self, request: Request) -> None:
        """Take up a request that is to be sent when there is a chance."""
        self.waiting[request.id] = request
        self._arm(request)

    def fly(self, request: Request) -> None:
        """Take up a request that is sent this moment."""
        self.flying[request.id] = request
        expires = request.expires
        if expires is not None and (self.next_deadline is None or expires < self.next_deadline):
            self.next_deadline = expires

    def park(self, request: Request) -> None:
        """Take up a request that is not to be sent before `unpark`, or on the next connection."""
        self.parked[request.id] = request
        self._arm(request)

    def unpark(self, request_id: str) -> None:
        """A parked request may be sent; nothing happens when it is no longer here."""
        request = self.parked.pop(request_id, None)
        if request is not None:
            self.waiting[request_id] = request

    def sent(self, request: Request) -> None:
        """A waiting request was handed to the transport."""
        self.flying[request.id] = self.waiting.pop(request.id)

    def answered(self, correl_id: str) -> Request | None:
        """Take out the request in flight that this answers; None when there is none (expired, never sent)."""
        request = self.flying.pop(correl_id, None)
        if not self.flying:
            self.calm()
        return request

    def drop(self, request_id: str) -> Request | None:
        """Take out a request, wherever it is; None when it is no longer here."""
        for place in (self.flying, self.waiting, self.parked):
            request = place.pop(request_id, None)
            if request is not None:
                self.calm()
                return request
        return None

    def take_expired(self, now: float) -> list[tuple[Request, bool]]:
        """Take out every request whose time is over, and whether it was asked, oldest first."""
        if self.next_deadline is None or now < self.next_deadline:
            return []
        expired: list[tuple[Request, bool]] = []
        earliest: float | None = None
        for place in (self.flying, self.parked, self.waiting):
            for request in place.values():
                if request.expires is None:
                    continue
                if request.expires <= now:
                    expired.append((request, request.doubtful or place is not self.waiting))
                elif earliest is None or request.expires < earliest:
                    earliest = request.expires
        for request, _ in expired:
            self.drop(request.id)
        self.next_deadline = earliest
        return expired

    def land(self, unsent: frozenset[str], *, keys_honoured: bool, log: str = "") -> list[Request]:
        """The connection was lost: keep what may be sent (again), in order, and take out the rest.

        Args:
            unsent: ids of requests in flight that the transport never got.
            keys_honoured: whether the lost peer honoured idempotency keys.
            log: its log id.

        Returns:
            The requests whose outcome nobody knows.
        """
        kept: dict[str, Request] = {}
        unknown: list[Request] = []
        for request in self.flying.values():
            if request.id in unsent:
                kept[request.id] = request
            elif request.may_be_repeated(keys_honoured=keys_honoured):
                request.reached = log
                kept[request.id] = request
            else:
                unknown.append(request)
        self.flying = {}
        self.waiting = {**kept, **self.parked, **self.waiting}
        self.parked = {}
        self.next_deadline = min(
            (r.expires for r in self.waiting.values() if r.expires is not None), default=None
        )
        return unknown

    def clear(self) -> list[Request]:
        """Take out everything, oldest first."""
        everything = [*self.flying.values(), *self.parked.values(), *self.waiting.values()]
        self.flying.clear()
        self.parked.clear()
        self.waiting.clear()
        self.next_deadline = None
        return everything

    def calm(self) -> None:
        """With nothing open, there is nothing to look at."""
        if not (self.flying or self.waiting or self.parked):
            self.next_deadline = None

    def _arm(self, request: Request) -> None:
        expires = request.expires
        if expires is not None and (self.next_deadline is None or expires < self.next_deadline):
            self.next_deadline = expires
