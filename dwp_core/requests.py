"""The requests that one peer has sent and still wants an answer to, each with exactly one outcome (DESIGN.md).

A request is `waiting` until it is handed to a transport and `in flight` from then on; it leaves the table when its
answer comes, its time is over, its caller loses interest, or its connection is lost and it may not be repeated. Both
sessions use this table: the client for its calls, a server for the work it sends to workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from dwp_core.deadlines import Deadlines


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
    SUBSCRIBE = "subscribe"
    """The session: the subscriptions of a channel are confirmed."""
    UNSUBSCRIBE = "unsubscribe"
    """The session: nobody listens to the channel any more."""
    PING = "ping"
    """The application, as a round-trip."""


class Request:
    """One request. `tag` is the caller's own and comes back with the outcome."""

    __slots__ = ("data", "expires", "id", "key", "method", "purpose", "retry", "tag")

    def __init__(
        self,
        id: str,
        method: str,
        data: bytes,
        tag: object,
        retry: Retry = Retry.NEVER,
        key: str = "",
        purpose: Purpose = Purpose.CALL,
        expires: float | None = None,
    ) -> None:
        self.id = id
        self.method = method
        self.data = data
        self.tag = tag
        self.retry = retry
        self.key = key
        self.purpose = purpose
        self.expires = expires

    def may_be_repeated(self, *, keys_honoured: bool) -> bool:
        """Whether sending it twice does no harm."""
        if self.retry is Retry.IDEMPOTENT:
            return keys_honoured and bool(self.key)
        return self.retry is Retry.READ


class RequestTable:
    """Every open request of one peer, in the order in which they were asked.

    Example:
        >>> table = RequestTable()
        >>> table.wait(Request("c1", "stats", b"", tag="me", retry=Retry.READ, expires=30.0))
        >>> table.sent(table.next_waiting())
        >>> table.answered("c1").tag, len(table)
        ('me', 0)
    """

    __slots__ = ("_deadlines", "_flying", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[str, Request] = {}
        self._flying: dict[str, Request] = {}
        self._deadlines: Deadlines[str] = Deadlines()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._flying)

    def __iter__(self) -> Iterator[Request]:
        yield from self._flying.values()
        yield from self._waiting.values()

    @property
    def in_flight(self) -> int:
        """How many were handed to the transport and are not answered."""
        return len(self._flying)

    @property
    def waiting(self) -> int:
        """How many have not been handed to the transport."""
        return len(self._waiting)

    @property
    def next_deadline(self) -> float | None:
        """When the first of them runs out of time."""
        return self._deadlines.next

    def wait(self, request: Request) -> None:
        """Take up a request that is to be sent later."""
        self._waiting[request.id] = request
        if request.expires is not None:
            self._deadlines.set(request.id, request.expires)

    def fly(self, request: Request) -> None:
        """Take up a request that is sent this moment."""
        self._flying[request.id] = request
        if request.expires is not None:
            self._deadlines.set(request.id, request.expires)

    def next_waiting(self) -> Request | None:
        """The request that has waited longest."""
        for request in self._waiting.values():
            return request
        return None

    def sent(self, request: Request) -> None:
        """A waiting request was handed to the transport."""
        self._flying[request.id] = self._waiting.pop(request.id)

    def answered(self, correl_id: str) -> Request | None:
        """Take out the request in flight that this answers; None when there is none (answered, expired, never sent)."""
        request = self._flying.pop(correl_id, None)
        if request is not None:
            self._deadlines.cancel(correl_id)
        return request

    def drop(self, request_id: str) -> Request | None:
        """Take out a request, wherever it is; None when it is no longer here."""
        request = self._flying.pop(request_id, None) or self._waiting.pop(request_id, None)
        if request is not None:
            self._deadlines.cancel(request_id)
        return request

    def hold(self, request: Request) -> None:
        """Put a request in flight back, as if it had never been sent, before all that wait."""
        del self._flying[request.id]
        self._waiting = {request.id: request, **self._waiting}

    def pop_expired(self, now: float) -> tuple[Request, bool] | None:
        """Take out one request whose time is over, and whether it had been sent; None when there is none."""
        request_id = self._deadlines.pop_due(now)
        if request_id is None:
            return None
        request = self._flying.pop(request_id, None)
        if request is not None:
            return request, True
        return self._waiting.pop(request_id), False

    def land(self, unsent: frozenset[str], *, keys_honoured: bool) -> list[Request]:
        """The connection was lost: keep what may be sent (again), in order, and take out the rest.

        Args:
            unsent: ids of requests in flight that the transport never got.
            keys_honoured: whether the lost peer honoured idempotency keys.

        Returns:
            The requests whose outcome nobody knows.
        """
        kept: dict[str, Request] = {}
        unknown: list[Request] = []
        for request in self._flying.values():
            if request.id in unsent or request.may_be_repeated(keys_honoured=keys_honoured):
                kept[request.id] = request
            else:
                self._deadlines.cancel(request.id)
                unknown.append(request)
        self._flying = {}
        self._waiting = {**kept, **self._waiting}
        return unknown

    def clear(self) -> list[Request]:
        """Take out everything, oldest first."""
        everything = list(self)
        self._flying.clear()
        self._waiting.clear()
        self._deadlines.clear()
        return everything
