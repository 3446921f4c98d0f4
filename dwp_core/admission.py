"""Who comes in, and what they may ask for: the login and each request, judged before anything is done.

PROTOCOL.md sections 3, 4 and 9. Every refusal is a `DispatchError` with the code and the text that the peer is told;
`ServerSession` sends it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from dwp_core.codec import Codec
from dwp_core.codec.payload import encode_payload
from dwp_core.errors import (
    FORBIDDEN,
    TOO_MANY,
    UNAVAILABLE,
    UNKNOWN_METHOD,
    DispatchError,
    FrameError,
    InvalidRequest,
)
from dwp_core.frames import REQUEST, Frame
from dwp_core.methods import METHODS, Method, has_scope
from dwp_core.server_events import Identity, ServerConfig

_ANSWERED_AT_ONCE = frozenset(("subscribe", "unsubscribe"))
"""Never in flight, so there is always room for them: a client must not lose its events to its own requests."""


class Login(NamedTuple):
    """What an auth frame says.

    Attributes:
        token: the credentials; "" for none.
        format: the codec to use from the answer on.
        features: the extensions that both sides have; empty for a base peer.
    """

    token: str
    format: str
    features: frozenset[str]


def decode_login(codec: Codec, message: bytes, config: ServerConfig) -> Frame:
    """The first frame, whatever it is.

    Raises:
        DispatchError: (400) it is no frame.
    """
    try:
        return codec.decode(message, config.limits)
    except FrameError as error:
        raise InvalidRequest("invalid auth frame", details=error.message) from None


def read_login(codec: Codec, frame: Frame, config: ServerConfig) -> Login:
    """What the first frame says.

    Raises:
        DispatchError: (400) it is not an auth frame, or its data cannot be used.
    """
    if frame.type != REQUEST or frame.method != "auth":
        raise InvalidRequest("first frame must be auth")
    try:
        data = codec.value(frame, config.limits)
        if data is None:
            data = {}
        if not isinstance(data, dict):
            raise InvalidRequest(f"auth: data must be an object, got {type(data).__name__}")
        token, wanted = _text(data, "token"), _text(data, "format")
    except InvalidRequest as error:
        raise InvalidRequest("invalid auth data", details=error.message) from None
    offered = data.get("features")
    known = [each for each in offered if isinstance(each, str)] if isinstance(offered, list) else []
    return Login(
        token=token or frame.token,
        format="msgpack" if wanted == "msgpack" else "json",
        features=config.features.intersection(known),
    )


def welcome(config: ServerConfig, login: Login, *, session_id: str, log: str) -> bytes:
    """The `data` of the answer to a login; a base peer is told no more than it knows."""
    answer: dict[str, Any] = {"format": login.format, "session_id": session_id}
    if login.features:
        limits = config.limits
        answer |= {
            "server": {"name": config.name, "version": config.version},
            "features": sorted(login.features),
            "heartbeat_ms": round(config.heartbeat * 1000),
            "limits": {
                "message": limits.message,
                "payload": limits.payload,
                "depth": limits.depth,
                "in_flight": config.in_flight,
                "subscriptions": config.subscriptions,
                "batch": config.batch,
                "wait_ms": round(config.wait * 1000),
                "idempotency_ms": round(config.idempotency * 1000),
            },
            "credits": config.credits,
            "log": log,
        }
    return encode_payload(answer)


def permit(name: str, identity: Identity, config: ServerConfig) -> Method:
    """The method of that name, when it is served and this identity may ask for it.

    Raises:
        DispatchError: 405 or 403.
    """
    method = METHODS.get(name)
    if method is None:
        raise DispatchError(f"unknown method: {name}", code=UNKNOWN_METHOD)
    if not has_scope(identity.scopes, method.scope):
        raise DispatchError(
            "insufficient permissions", code=FORBIDDEN, details=f"{name} needs {method.scope}"
        )
    if name not in config.methods:
        raise DispatchError(f"unknown method: {name} (not served by this server yet)", code=UNKNOWN_METHOD)
    return method


def admit(
    frame: Frame, identity: Identity, config: ServerConfig, *, in_flight: Collection[str], draining: bool
) -> Method:
    """The method that a request asks for, when it may be carried out now.

    Args:
        frame: the request.
        identity: who asks.
        config: what the server serves and takes.
        in_flight: ids of the requests of this connection that are not answered yet.
        draining: whether nothing new is taken any more.

    Raises:
        DispatchError: 405, 403, 503, 400 or 429, judged in this order.
    """
    name, request_id = frame.method, frame.id
    method = permit(name, identity, config)
    if draining:
        raise DispatchError("the server is going away; the request was not carried out", code=UNAVAILABLE)
    if not request_id:
        raise InvalidRequest(f"{name}: a request needs an id, to be answered by")
    if request_id in in_flight:
        raise InvalidRequest(
            f'{name}: a request with id "{request_id}" is not answered yet; each needs its own'
        )
    if len(in_flight) >= config.in_flight and name not in _ANSWERED_AT_ONCE:
        raise DispatchError(
            f"{name}: {config.in_flight} requests are not answered yet; wait for an answer", code=TOO_MANY
        )
    return method


def _text(data: dict[str, Any], name: str) -> str:
    content = data.get(name)
    if content is None:
        return ""
    if not isinstance(content, str):
        raise InvalidRequest(f"auth: {name} must be a string, got {type(content).__name__}")
    return content
