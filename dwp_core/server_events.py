"""What a `ServerSession` tells its driver and asks of it, and the settings that it takes.

Events and effects are pulled in batches, each in the order in which it happened. `CloseTransport` and `AbortTransport`
are those of `dwp_core.effects`; a session is one connection, so their generation is always 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dwp_core.credit import INITIAL
from dwp_core.effects import AbortTransport, CloseTransport
from dwp_core.frames import Limits
from dwp_core.methods import METHODS
from dwp_core.peer import FEATURES


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How a server behaves. Times are seconds.

    Attributes:
        name: what it calls itself to negotiated peers.
        version: and which version it is.
        methods: those that it serves; the others are answered 405.
        features: the extensions that it offers (PROTOCOL.md section 9).
        limits: of frames and payloads.
        in_flight: requests of one connection that may be unanswered at a time.
        subscriptions: channels of one connection.
        batch: jobs in one `job.enqueue_many`.
        wait: how long one `job.wait` may wait.
        idempotency: how long the answer to a request with an idempotency key is kept.
        credits: events that a connection is sent before it has to grant more.
        heartbeat: silence after which a negotiated peer is asked; as long again, and it is dead.
        auth_timeout: from the open transport to the judged login.
        stall_timeout: how long a write may make no progress before the connection is dropped.
        close_timeout: how long the closing handshake may take.
        comment_every: how often an event stream over HTTP is sent a comment, which keeps proxies from closing it.
    """

    name: str = "dispatch-python"
    version: str = "0"
    methods: frozenset[str] = frozenset(METHODS)
    features: frozenset[str] = frozenset(FEATURES)
    limits: Limits = field(default_factory=Limits)
    in_flight: int = 1024
    subscriptions: int = 1024
    batch: int = 1000
    wait: float = 30.0
    idempotency: float = 86_400.0
    credits: int = INITIAL
    heartbeat: float = 20.0
    auth_timeout: float = 10.0
    stall_timeout: float = 30.0
    close_timeout: float = 5.0
    comment_every: float = 15.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is at the other end, as the driver found out from the token.

    Attributes:
        subject: a name for people, e.g. of the key; never the key.
        app_id: the tenant it belongs to; "" for none.
        org_id: the tenant it belongs to; "" for none.
        scopes: what it may do (PROTOCOL.md section 4).
    """

    subject: str
    app_id: str = ""
    org_id: str = ""
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class LoginReceived:
    """The peer gave a token; answer with `accept` or `reject`. Its repr, which may reach a log, does not show it."""

    token: str = field(repr=False)


@dataclass(slots=True)  # not frozen: made once per request, and freezing doubles the cost of making it
class RequestReceived:
    """A request that is allowed and well formed; answer with `respond` or `fail`, once, whenever the answer is there.

    Attributes:
        id: what the answer is for.
        method: a name out of `METHODS`.
        params: the fields as `check_request` gives them.
        data: the whole `data` as JSON text, byte for byte.
    """

    id: str
    method: str
    params: dict[str, Any]
    data: bytes


@dataclass(frozen=True, slots=True)
class WaitExpired:
    """A `job.wait` has waited long enough; it is still to be answered."""

    request_id: str


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The last event of a session: no answer is wanted any more. `reason` is a sentence for a log."""

    reason: str


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Read events of this tenant after this seq, at most `limit`, and say `log_read` with the same `after`."""

    after: int
    limit: int
    app_id: str
    org_id: str


ServerEvent = LoginReceived | RequestReceived | WaitExpired | SessionClosed
ServerEffect = ReadLog | CloseTransport | AbortTransport
