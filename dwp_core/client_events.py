"""What a `ClientSession` tells its driver, and the settings that it takes.

Events are pulled in batches with `take_events()`, in the order in which they happened. `tag` is what the caller gave
with its command; the session never looks at it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dwp_core.backoff import Backoff
from dwp_core.codec import Codec
from dwp_core.errors import DispatchError
from dwp_core.frames import DEFAULT_LIMITS, EventHead, Frame, Limits
from dwp_core.peer import Peer
from dwp_core.subscriptions import Gap

_TIMES = ("connect_timeout", "heartbeat", "stall_timeout", "close_timeout", "ask_timeout", "poll_interval")
_COUNTS = ("max_requests", "most_owed", "event_window", "event_buffer")


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """How a client behaves. Times are seconds.

    Attributes:
        format: the codec to ask for, "json" or "msgpack"; the server has the last word.
        form: which form of the codec, "fast" or "portable"; None takes the fast one where it is there.
        reconnect: whether a lost connection is made again.
        max_retries: attempts in a row before giving up; 0 means no limit.
        wait_for_server: how long the first connection is tried again; 0 makes one attempt.
        connect_timeout: for one attempt, from the first packet to the last confirmed subscription.
        heartbeat: silence after which a server is asked that does not say how long.
        stall_timeout: how long a write may make no progress before the connection is dropped.
        close_timeout: how long the closing handshake may take.
        ask_timeout: how long the session waits for answers to its own questions (subscribe, unsubscribe).
        poll_interval: between two looks at a job, while waiting for it at a server without `wait`.
        max_requests: requests waiting or in flight, in all.
        most_owed: bytes of answers to the server's own questions (pongs and the like) that wait while it reads nothing.
        event_window: events on their way or unread, towards a server that keeps events for us.
        event_buffer: unread events of one subscription, towards a server that does not.
        where: the server's address, for messages.
    """

    format: str = "json"
    form: str | None = None
    reconnect: bool = True
    max_retries: int = 10
    wait_for_server: float = 0.0
    connect_timeout: float = 10.0
    heartbeat: float = 20.0
    stall_timeout: float = 30.0
    close_timeout: float = 5.0
    ask_timeout: float = 30.0
    poll_interval: float = 0.25
    max_requests: int = 65_536
    most_owed: int = 4 * 1024 * 1024
    event_window: int = 4_096
    event_buffer: int = 262_144
    backoff: Backoff = field(default_factory=Backoff)
    limits: Limits = DEFAULT_LIMITS
    name: str = "dispatch-python"
    version: str = "0"
    where: str = "the server"

    def __post_init__(self) -> None:
        for name in _TIMES:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0 seconds, got {getattr(self, name)!r}")
        for name in _COUNTS:
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True)
class Connected:
    """Logged in, every subscription restored, everything that waited sent.

    Attributes:
        peer: the server.
        resumed: whether this client had been connected before.
    """

    peer: Peer
    resumed: bool


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection, or an attempt to make it, is lost; another attempt follows at `retry_at` (monotonic seconds)."""

    cause: DispatchError
    retry_at: float


@dataclass(frozen=True, slots=True)
class Closed:
    """The last event of a session. `cause` is None when its application closed it."""

    cause: DispatchError | None


@dataclass(slots=True)  # not frozen: made once per request, and freezing doubles the cost of making it
class RequestSucceeded:
    """The answer to a request. `codec` reads `frame`."""

    tag: object
    frame: Frame
    codec: Codec


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """The request did not happen, or the server answered an error, or no answer came in time."""

    tag: object
    error: DispatchError


@dataclass(frozen=True, slots=True)
class RequestOutcomeUnknown:
    """The connection was lost while the request was under way, and sending it again could do it twice."""

    tag: object
    error: DispatchError


@dataclass(slots=True)  # not frozen: made once per event, as above
class SubscriptionItem:
    """An event for a subscription. Say `consumed` when the application has taken it."""

    tag: object
    event: EventHead


@dataclass(frozen=True, slots=True)
class SubscriptionStarted:
    """The server has confirmed a subscription for the first time."""

    tag: object


@dataclass(frozen=True, slots=True)
class SubscriptionGap:
    """Events that this subscription does not get, at their place among those that it does."""

    tag: object
    gap: Gap


@dataclass(frozen=True, slots=True)
class SubscriptionEnded:
    """No more events come. `error` is None when the application left."""

    tag: object
    error: DispatchError | None


@dataclass(frozen=True, slots=True)
class Discarded:
    """The server sent something that makes no sense here; it was left out. Worth a line in a log."""

    reason: str


ClientEvent = (
    Connected
    | Disconnected
    | Closed
    | RequestSucceeded
    | RequestFailed
    | RequestOutcomeUnknown
    | SubscriptionItem
    | SubscriptionStarted
    | SubscriptionGap
    | SubscriptionEnded
    | Discarded
)
