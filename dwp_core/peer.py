"""Who is at the other end: what the client says of itself when it logs in, and what the answer says of the server.

PROTOCOL.md sections 3 and 9. An answer without `features` comes from a base server, to which nothing of section 9 is
then sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dwp_core.codec import get_codec
from dwp_core.codec.payload import decode_payload, encode_payload
from dwp_core.errors import PayloadError
from dwp_core.frames import DEFAULT_LIMITS, ERROR, RESPONSE, ErrorDetail, EventHead, Limits

RESUME = "resume"
IDEMPOTENCY = "idempotency"
OPTIONS = "options"
BATCH = "batch"
WAIT = "wait"
DRAIN = "drain"

FEATURES = (RESUME, IDEMPOTENCY, OPTIONS, BATCH, WAIT, DRAIN)

BASE_CREDITS = 1000
"""What a base server starts with (PROTOCOL.md section 6)."""

_BASE_IN_FLIGHT = 256
_BASE_WAIT_MS = 30_000
_STAYS, _COMES_BACK = 5.0, 1.0
_HOUR_MS = 3_600_000
_LEAST_HEARTBEAT = 0.1
_MOST = 2**53
"""What comes as a number and is larger is nonsense; up to here it is exact as a float too."""


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """What the server takes. Names and units as in PROTOCOL.md section 9; defaults for servers that do not say."""

    message: int = DEFAULT_LIMITS.message
    payload: int = DEFAULT_LIMITS.payload
    in_flight: int = _BASE_IN_FLIGHT
    subscriptions: int = 1024
    batch: int = 1000
    wait_ms: int = _BASE_WAIT_MS


@dataclass(frozen=True, slots=True)
class Peer:
    """The server of one connection.

    Attributes:
        session_id: its name for this connection.
        format: the codec that it chose.
        features: what both sides can do; empty for a base server.
        heartbeat: seconds of silence after which either side asks; None when it does not say.
        credits: events it sends before it needs more credit.
        log: id of its event log; "" when it has none.
        name: what it calls itself, e.g. "dispatch 0.1.0"; "" when it does not say.
    """

    session_id: str
    format: str
    features: frozenset[str] = frozenset()
    heartbeat: float | None = None
    credits: int = BASE_CREDITS
    log: str = ""
    name: str = ""
    limits: PeerLimits = field(default_factory=PeerLimits)

    @property
    def is_base(self) -> bool:
        """Whether it speaks base DWP only."""
        return not self.features


def auth_data(*, token: str, format: str, name: str, version: str) -> bytes:
    """The `data` of the auth frame."""
    client = {"name": name, "version": version}
    return encode_payload({"token": token, "format": format, "client": client, "features": list(FEATURES)})


def read_auth_answer(value: Any) -> Peer:
    """The server that answered an auth frame with this `data`; what is missing or unusable gets its default.

    Raises:
        ValueError: it is no answer to an auth frame at all.
    """
    answer = _mapping(value)
    if not answer:
        raise ValueError(
            f"its answer to the login must be an object that names the session, got {type(value).__name__}"
        )
    server, limits = _mapping(answer.get("server")), _mapping(answer.get("limits"))
    offered = answer.get("features")
    features = frozenset(f for f in offered if f in FEATURES) if isinstance(offered, list) else frozenset()
    heartbeat_ms = _count(answer.get("heartbeat_ms"), 0)
    usual = PeerLimits()
    return Peer(
        session_id=_text(answer.get("session_id")),
        format="msgpack" if answer.get("format") == "msgpack" else "json",
        features=features,
        heartbeat=max(heartbeat_ms / 1000, _LEAST_HEARTBEAT) if heartbeat_ms else None,
        credits=_count(answer.get("credits"), BASE_CREDITS),
        log=_text(answer.get("log")),
        name=f"{_text(server.get('name'))} {_text(server.get('version'))}".strip(),
        limits=PeerLimits(
            message=_count(limits.get("message"), usual.message),
            payload=_count(limits.get("payload"), usual.payload),
            in_flight=_count(limits.get("in_flight"), usual.in_flight),
            subscriptions=_count(limits.get("subscriptions"), usual.subscriptions),
            batch=_count(limits.get("batch"), usual.batch),
            wait_ms=_count(limits.get("wait_ms"), usual.wait_ms),
        ),
    )


def read_login_answer(
    message: bytes | bytearray, login_id: str, form: str | None, limits: Limits
) -> Peer | ErrorDetail:
    """What the server answered to the auth frame: itself, or why it lets nobody in.

    The answer is already in the codec that the server chose; an error is JSON (PROTOCOL.md section 3).

    Args:
        message: the first message that came from the server.
        login_id: id of the auth frame.
        form: the form of the codecs, as in `get_codec`.

    Raises:
        ValueError: it is no answer to the login; the message says what it is instead.
    """
    codec = get_codec("msgpack" if message[:1] >= b"\x80" else "json", form)
    frame = codec.decode(message, limits)  # FrameError and PayloadError are ValueErrors
    if frame.type == ERROR:
        return frame.error or ErrorDetail()
    if frame.type != RESPONSE or frame.correl_id != login_id:
        raise ValueError(f'a frame of type "{frame.type[:40]}" came instead of the answer to the login')
    return read_auth_answer(codec.value(frame, limits))


def read_drain(event: EventHead | None) -> tuple[float, float]:
    """Seconds that the server stays, and seconds after which to come back (PROTOCOL.md section 9, `drain`).

    Args:
        event: its drain event; None where it said so in another way.
    """
    try:
        inner = decode_payload(event.data) if event is not None else None
    except PayloadError:
        inner = None
    times = _mapping(inner)
    stays = _seconds(times.get("deadline_ms"), _STAYS)
    return stays, _seconds(times.get("retry_after_ms"), _COMES_BACK)


def _seconds(ms: object, default: float) -> float:
    usable = isinstance(ms, int | float) and not isinstance(ms, bool) and 0 <= ms <= _HOUR_MS
    return ms / 1000 if usable and isinstance(ms, int | float) else default


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(value: Any, default: int) -> int:
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST
    return value if usable else default
