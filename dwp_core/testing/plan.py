"""What a simulated run is made of: how many clients, what the server can do, which troubles there are.

Each run has only some of the troubles, so that rare combinations are not always buried under the common ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from dwp_core.backoff import Backoff
from dwp_core.client_events import ClientConfig
from dwp_core.peer import BATCH, FEATURES, IDEMPOTENCY, RESUME
from dwp_core.server_events import ServerConfig
from dwp_core.testing.application import Pace
from dwp_core.testing.weather import Rng, Weather

CUT = "cut"
CUT_AT_BYTE = "cut at a byte"
HALF_OPEN = "half open"
STALL = "stall"
SLOW = "slow"
CRASH = "crash"
DRAIN = "drain"
BUSY = "busy client"
UNREACHABLE = "unreachable"
RETENTION = "retention"
ANOTHER_LOG = "another log"
REVOKED = "revoked token"

TROUBLES = (
    CUT,
    CUT_AT_BYTE,
    HALF_OPEN,
    STALL,
    SLOW,
    CRASH,
    DRAIN,
    BUSY,
    UNREACHABLE,
    RETENTION,
    ANOTHER_LOG,
    REVOKED,
)


@dataclass(frozen=True, slots=True)
class Plan:
    """One run.

    Attributes:
        clients: how many there are.
        troubled: seconds with troubles.
        calm: seconds afterwards within which everything must be well again.
        between: seconds between two troubles, on average.
        acting: seconds between two actions of one client, on average.
        troubles: which of `TROUBLES` there are.
        servers: how the server is configured; each of its lives draws one.
        client_configs: how clients are configured; each draws one.
        weather: of the links, while there are troubles.
        pace: how slow the server is.
        lateness: seconds by which timers of clients are late at most.
        ring: how many events the hub keeps.
        server_form: form of the server's codecs.
    """

    clients: int = 3
    troubled: float = 40.0
    calm: float = 900.0
    between: float = 2.0
    acting: float = 0.5
    troubles: tuple[str, ...] = TROUBLES
    servers: tuple[ServerConfig, ...] = (ServerConfig(),)
    client_configs: tuple[ClientConfig, ...] = (ClientConfig(),)
    weather: Weather = field(default_factory=lambda: Weather(latency=0.01, jitter=0.05))
    pace: Pace = field(default_factory=Pace)
    lateness: float = 0.0
    ring: int = 4096
    server_form: str | None = None

    @property
    def always_resumes(self) -> bool:
        """Whether every life of the server numbers its events."""
        return all(RESUME in server.features for server in self.servers)

    @property
    def always_honours_keys(self) -> bool:
        """Whether every life of the server honours the keys of all others, those of batches too."""
        return ANOTHER_LOG not in self.troubles and all(
            server.features.issuperset((IDEMPOTENCY, BATCH)) for server in self.servers
        )


def draw_plan(rng: Rng) -> Plan:
    """A plan as chance will have it."""
    share = rng.choice((0.25, 0.5, 1.0))
    return Plan(
        clients=rng.randrange(1, 5),
        between=rng.choice((0.5, 2.0, 5.0)),
        acting=rng.choice((0.1, 0.3, 1.0)),
        troubles=tuple(trouble for trouble in TROUBLES if rng.random() < share),
        servers=_draw_servers(rng),
        client_configs=tuple(_draw_client(rng) for _ in range(3)),
        weather=Weather(
            latency=rng.choice((0.0, 0.001, 0.05)),
            jitter=rng.choice((0.0, 0.02, 0.3)),
            chunk=rng.choice((0, 0, 0, 60, 400)),
            buffer=rng.choice((500, 4_000, 65_536)),
            window=rng.choice((300, 4_000, 65_536)),
        ),
        pace=Pace(
            login=rng.choice((0.0, 0.1)),
            work=rng.choice((0.0, 0.2)),
            answer=rng.choice((0.0, 0.2)),
            publish=rng.choice((0.0, 0.05)),
            read=rng.choice((0.0, 0.2)),
            run=rng.choice((0.1, 3.0)),
        ),
        lateness=rng.choice((0.0, 0.02, 1.0)),
        ring=rng.choice((2, 16, 4096)),
        server_form=rng.choice(("fast", "portable")),
    )


def _draw_servers(rng: Rng) -> tuple[ServerConfig, ...]:
    """Mostly one server with everything; else a base server, one with some extensions, or one that changes."""
    usual = ServerConfig(
        in_flight=rng.choice((2, 8, 1024)),
        subscriptions=rng.choice((3, 1024)),
        batch=3,
        wait=rng.choice((0.5, 10.0)),
        credits=rng.choice((1, 5, 1000)),
        heartbeat=rng.choice((2.0, 5.0)),
        auth_timeout=5.0,
        stall_timeout=rng.choice((3.0, 8.0)),
        close_timeout=2.0,
    )
    base = replace(usual, features=frozenset())
    some = replace(usual, features=frozenset(each for each in FEATURES if rng.random() < 0.5))
    return rng.choice(((usual,), (usual,), (usual,), (base,), (some,), (usual, base), (usual, some)))


def _draw_client(rng: Rng) -> ClientConfig:
    return ClientConfig(
        format=rng.choice(("json", "msgpack")),
        form=rng.choice(("fast", "portable")),
        max_retries=rng.choice((0, 0, 0, 4)),
        wait_for_server=1_000.0,
        connect_timeout=rng.choice((3.0, 6.0)),
        heartbeat=rng.choice((2.0, 5.0)),
        stall_timeout=rng.choice((3.0, 8.0)),
        close_timeout=2.0,
        ask_timeout=rng.choice((4.0, 30.0)),
        poll_interval=0.25,
        max_requests=rng.choice((6, 64)),
        event_window=rng.choice((1, 8, 64, 4_096)),
        event_buffer=rng.choice((4, 64)),
        backoff=Backoff(base=0.1, cap=rng.choice((1.0, 4.0)), stable_after=rng.choice((0.0, 3.0))),
    )
