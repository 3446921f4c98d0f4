"""The frame: the one unit of the Dispatch Wire Protocol, its types and its limits (PROTOCOL.md section 2).

A frame that was received is a `Frame`, whatever codec and form made it. Its payload and its time stay raw until
someone asks the codec for them. Building and reading bytes is the work of `dwp_core.codec`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

REQUEST = "request"
RESPONSE = "response"
EVENT = "event"
ERROR = "error"
PING = "ping"
PONG = "pong"

FRAME_TYPES = frozenset((REQUEST, RESPONSE, EVENT, ERROR, PING, PONG))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer accepts; the defaults of PROTOCOL.md section 2.

    Attributes:
        message: bytes of one message; a larger one closes the connection with 1009.
        payload: bytes of the JSON text in `data`; a larger one is answered 413.
        depth: nesting of arrays and objects, counted from `data`.
        id: characters of `id` and `correl_id`.
        method: characters of `method`.
        channel: characters of `channel`.
    """

    message: int = 16 * 1024 * 1024
    payload: int = 8 * 1024 * 1024
    depth: int = 128
    id: int = 256
    method: int = 128
    channel: int = 512


DEFAULT_LIMITS = Limits()

ANSWER_LIMITS = Limits(payload=DEFAULT_LIMITS.message - 4096)
"""Of answers, which hold payloads of the largest size in base64, and more than that. The rest is for the envelope."""


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """The `error` field of an error frame."""

    code: int = 0
    message: str = ""
    details: str = ""


class Frame(Protocol):
    """A frame that was received. Text fields are "" and `credits` is 0 when absent (PROTOCOL.md section 2)."""

    @property
    def id(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def correl_id(self) -> str: ...
    @property
    def token(self) -> str: ...
    @property
    def app_id(self) -> str: ...
    @property
    def org_id(self) -> str: ...
    @property
    def error(self) -> ErrorDetail | None: ...
    @property
    def channel(self) -> str: ...
    @property
    def credits(self) -> int: ...


class EventHead(Protocol):
    """What routing needs of an event's `data` (PROTOCOL.md section 5); the inner data stays raw JSON text.

    `seq` is None where the server numbers nothing (base DWP); `topic` is "" for cron events.
    """

    @property
    def type(self) -> str: ...
    @property
    def topic(self) -> str: ...
    @property
    def seq(self) -> int | None: ...
    @property
    def ts(self) -> str: ...
    @property
    def data(self) -> bytes: ...
