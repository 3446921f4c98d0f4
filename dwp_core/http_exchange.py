"""One HTTP exchange of a client: what to send, and what the answer means (PROTOCOL.md section 8).

The existing server takes plain JSON only, wants the token in the frame or, for events, in the query, and says nothing
of itself. Ours names its extensions in a header of every answer; that is how a client tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from dwp_core.codec import MSGPACK, Codec, get_codec
from dwp_core.errors import (
    FORBIDDEN,
    TOO_LARGE,
    TOO_MANY,
    UNAUTHENTICATED,
    ConnectionError,
    DispatchError,
    FrameError,
    InvalidRequest,
    error_for,
)
from dwp_core.frames import DEFAULT_LIMITS, Frame, Limits
from dwp_core.peer import FEATURES

FEATURES_HEADER = "dwp-features"
"""The extensions that the server honours in such a request (PROTOCOL.md section 9)."""
LOG_HEADER = "dwp-log"
"""The id of the event log that every seq belongs to."""
STREAM_TYPE = "text/event-stream"

_TYPES = {"json": "application/json", "msgpack": "application/msgpack"}
_QUERY = re.compile(r"\?[^\s\"'<>]+")
_LONGEST_REST = 60.0
_PROXY_WANTS_LOGIN = 407
_AS_THEY_ARE = frozenset((UNAUTHENTICATED, FORBIDDEN, TOO_LARGE, TOO_MANY))
"""Statuses that mean the same from whoever stands between us and the server."""


class Credentials(Enum):
    """Where the token goes."""

    FRAME = "frame"
    HEADER = "header"
    QUERY = "query"


@dataclass(frozen=True, slots=True)
class Request:
    """What goes out: a POST where there is a body, else a GET.

    Attributes:
        query: names and values to put behind the address.
        headers: names, in lower case, and values.
        body: bytes; empty for a GET.
    """

    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class BeginExchange:
    """Ask the server: then `exchange_head`, `exchange_data` and `exchange_end` follow, or `exchange_failed`.

    The driver asks for the token anew for each, and gets from `sealed` what to send.

    Attributes:
        id: names the exchange.
        codec: of the frame.
        message: the frame, without a token; b"" for a stream of events.
        query, headers: what else to send.
        credentials: where the token goes.
    """

    id: str
    codec: Codec
    message: bytes = b""
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    credentials: Credentials = Credentials.FRAME

    @property
    def is_stream(self) -> bool:
        """Whether this asks for events."""
        return not self.message

    def sealed(self, token: str) -> Request:
        """The request, with the token in it.

        Raises:
            InvalidRequest: the token cannot be sent.
        """
        query, headers = list(self.query), dict(self.headers)
        if self.message:
            headers.update({"content-type": _TYPES[self.codec.name], "accept": _TYPES[self.codec.name]})
            return Request(query, headers, _with_token(self.codec, self.message, token))
        headers.update({"accept": STREAM_TYPE, "cache-control": "no-cache"})
        if not token:
            pass
        elif self.credentials is Credentials.HEADER and token.isascii() and token.isprintable():
            headers["authorization"] = f"Bearer {token}"
        else:
            query.append(("token", token))
        return Request(query, headers, b"")


@dataclass(frozen=True, slots=True)
class AbortExchange:
    """Nobody wants to hear of it any more: drop it at once."""

    id: str


@dataclass(frozen=True, slots=True)
class ResumeReading:
    """Go on reading where `exchange_data` had said to wait."""

    id: str


HttpEffect = BeginExchange | AbortExchange | ResumeReading


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer.

    Attributes:
        status: the HTTP status.
        features: the extensions that the server names; None where it names none, as the existing server.
        log: the id of its event log; "" where it names none.
        content_type: media type, without parameters.
        location: where it sends us instead; "" for nowhere.
        retry_after: seconds that it wants to be left alone; 0.0 where it does not say.
    """

    status: int
    features: frozenset[str] | None
    log: str
    content_type: str
    location: str
    retry_after: float


def read_head(status: int, headers: Iterable[tuple[str, str]]) -> Head:
    """What the head of an answer says.

    Example:
        >>> read_head(200, [("DWP-Log", "l1"), ("Content-Type", "application/json; charset=utf-8")]).content_type
        'application/json'
    """
    found = {name.lower(): value for name, value in headers}
    named = found.get(FEATURES_HEADER)
    features = (
        None if named is None else frozenset(f for f in map(str.strip, named.split(",")) if f in FEATURES)
    )
    content_type = found.get("content-type", "").partition(";")[0].strip().lower()
    rest = found.get("retry-after", "")  # a date, which is the other way to say it, nobody sends to programs
    retry_after = min(float(rest), _LONGEST_REST) if rest.isascii() and rest.isdigit() else 0.0
    log, location = found.get(LOG_HEADER, ""), found.get("location", "")
    return Head(status, features, log, content_type, location, retry_after)


def read_answer(head: Head, body: bytes | bytearray, form: str | None, limits: Limits) -> tuple[Frame, Codec]:
    """The frame that was answered, and what reads it.

    Raises:
        FrameError: the answer is no frame.
    """
    codec = get_codec(MSGPACK if head.content_type == _TYPES[MSGPACK] else "json", form)
    if not body:
        raise FrameError("an empty answer")
    return codec.decode(body, limits), codec


def no_frame(head: Head, body: bytes | bytearray, reason: str, where: str) -> DispatchError:
    """What an answer means that is no frame: somebody on the way said it, or this is no Dispatch server.

    Queries in what was said are left out: they may be ours, with the token.
    """
    if head.status == _PROXY_WANTS_LOGIN:
        text = "the proxy did not let us through: it wants to know who we are (HTTP 407)"
    elif 300 <= head.status < 400:
        target = f" to {_QUERY.sub('?…', head.location)[:200]}" if head.location else ""
        text = f"it answered HTTP {head.status}, which sends us elsewhere{target}: use that address"
    elif head.status != 200:
        said = _QUERY.sub("?…", bytes(body[:2000]).decode("utf-8", "replace"))[:200].strip()
        text = f"it answered HTTP {head.status}" + (f": {said}" if said else "")
    else:
        text = f"it does not speak DWP: {reason}"
    if head.status in _AS_THEY_ARE:
        return error_for(head.status, f"{where}: {text}")
    return ConnectionError(f"{where}: {text}", code=head.status if head.status >= 400 else None)


def _with_token(codec: Codec, message: bytes, token: str) -> bytes:
    if not token:
        return message
    try:
        frame = codec.decode(message, DEFAULT_LIMITS)
        return codec.encode(
            frame.type,
            frame.id,
            method=frame.method,
            token=token,
            data=codec.data(frame),
            ts=codec.timestamp(frame) or 0,
        )
    except InvalidRequest as error:
        raise InvalidRequest(f"the token cannot be sent: {error}") from None
