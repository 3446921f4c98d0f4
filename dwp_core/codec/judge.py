"""The one judge of frames: what the quick decoders do not accept at sight comes here, and what this module says counts.

Checks come in the order of PROTOCOL.md section 2: size, UTF-8, syntax, root, then the fields in table order; the texts
are a closed list. `null` is absent, of duplicate keys the last counts, unknown keys are skipped, `ts` is never a
reason to reject. The payload is not judged here but by whoever reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from dwp_core.codec import json_syntax, msgpack_syntax
from dwp_core.codec.json_syntax import INT64, Malformed
from dwp_core.errors import TOO_LARGE, FrameError, InvalidRequest
from dwp_core.frames import ErrorDetail, Limits


class Envelope(NamedTuple):
    """The fields of a frame that was accepted, in table order, without `data` and `ts`."""

    id: str = ""
    type: str = ""
    method: str = ""
    correl_id: str = ""
    token: str = ""
    app_id: str = ""
    org_id: str = ""
    error: ErrorDetail | None = None
    channel: str = ""
    credits: int = 0


def judge_json(message: bytes, limits: Limits) -> Envelope:
    """The envelope of a JSON frame.

    Bytes that are not UTF-8 are refused in every field that is read here; inside values that are skipped they wait
    for whoever reads those.

    Raises:
        FrameError: (400, or 413 for the size) it is no frame.

    Example:
        >>> from dwp_core.frames import DEFAULT_LIMITS
        >>> judge_json(b'{"id":"c-1","type":"ping","data":[[1]]}', DEFAULT_LIMITS).type
        'ping'
    """
    if len(message) > limits.message:
        raise too_large(limits)
    text = str(message, "utf-8", "surrogateescape")
    frame_id = ""
    try:
        root = _root(text)
        if type(root) is dict:
            frame_id = echoed_id(root, limits)
            return read_fields(root, limits)
        refuse(f"must be an object, got {kind_of(root)}")
    except Malformed:
        reason = "not JSON"
    except Refused as refusal:
        reason = str(refusal)
    if not _is_utf8(text):
        frame_id, reason = "", "not UTF-8"
    raise FrameError(f"invalid frame: {reason}", frame_id=frame_id)


def locate(message: bytes) -> tuple[bytes, bytes]:
    """The exact JSON texts of `data` and `ts` of an accepted JSON frame, b"" where absent.

    Example:
        >>> locate(b'{"id":"c-1","data": [1, 2] ,"ts":null}')
        (b'[1, 2]', b'null')
    """
    text = str(message, "utf-8", "surrogateescape")
    found = {"data": "", "ts": ""}
    for name, start, end in json_syntax.members(text, json_syntax.space(text, 0))[0]:
        if name in found:
            found[name] = text[start:end]
    return found["data"].encode("utf-8", "surrogateescape"), found["ts"].encode("utf-8", "surrogateescape")


def judge_msgpack(message: bytes, limits: Limits) -> tuple[Envelope, bytes, bytes]:
    """The envelope of a MessagePack frame, its payload's JSON text, and the MessagePack value of its `ts`.

    Raises:
        FrameError: (400, or 413 for the size) it is no frame.

    Example:
        >>> from dwp_core.frames import DEFAULT_LIMITS
        >>> judge_msgpack(bytes.fromhex("81a46461746191 01".replace("91 01", "a17b")), DEFAULT_LIMITS)[1]
        b'{'
    """
    if len(message) > limits.message:
        raise too_large(limits)
    frame_id = ""
    try:
        end = msgpack_syntax.skip(message, 0)
        if end != len(message):
            raise msgpack_syntax.Malformed
        if not msgpack_syntax.is_map(message, 0):
            refuse(f"must be a map, got {kind_of(msgpack_syntax.read(message, 0))}")
        found, _, texts = msgpack_syntax.members(message, 0, _NAMES)
        root = {name.decode(): msgpack_syntax.read(message, start) for name, start in found.items()}
        frame_id = echoed_id(root, limits)
        if not texts:
            refuse("must have keys that are strings")
        data = b""
        if isinstance(root.get("data"), str):
            start = found[b"data"]
            data = msgpack_syntax.content(message, start, msgpack_syntax.skip(message, start)) or b""
        if type(root.get("error")) is dict:
            inner = msgpack_syntax.members(message, found[b"error"], _ERROR_NAMES)
            root["error"] = {
                name.decode(): msgpack_syntax.read(message, start) for name, start in inner[0].items()
            }
            if not inner[2]:
                refuse("error must have keys that are strings")
        envelope = read_fields(root, limits, str)
    except msgpack_syntax.Malformed:
        raise FrameError("invalid frame: not MessagePack") from None
    except Refused as refusal:
        raise FrameError(f"invalid frame: {refusal}", frame_id=frame_id) from None
    start = found.get(b"ts", len(message))
    return envelope, data, message[start : msgpack_syntax.skip(message, start)] if b"ts" in found else b""


class Refused(ValueError):
    """Why a field is no field of a frame; `judge_json` and `judge_msgpack` make a FrameError of it."""


def read_fields(root: Mapping[Any, Any], limits: Limits, data: type = object) -> Envelope:
    """The envelope out of the decoded root; keys that are no fields are not looked at.

    Args:
        root: the decoded root.
        limits: how long the fields may be.
        data: the type that `data` must have, unless it is absent; any JSON value will do in JSON.

    Raises:
        Refused: the first field, in table order, that is wrong.
    """
    get = root.get
    id = _text("id", get("id"), limits.id)
    type = _text("type", get("type"))
    method = _text("method", get("method"), limits.method)
    correl_id = _text("correl_id", get("correl_id"), limits.id)
    token = _text("token", get("token"))
    app_id = _text("app_id", get("app_id"))
    org_id = _text("org_id", get("org_id"))
    payload = get("data")
    if payload is not None and not isinstance(payload, data):
        refuse(f"data must be JSON text as bin or str, got {kind_of(payload)}")
    error = _error(get("error"))
    channel = _text("channel", get("channel"), limits.channel)
    return Envelope(
        id,
        type,
        method,
        correl_id,
        token,
        app_id,
        org_id,
        error,
        channel,
        _integer("credits", get("credits")),
    )


def echoed_id(root: Mapping[Any, Any], limits: Limits) -> str:
    """The id that a 400 for this frame echoes, "" when it has none that is usable."""
    try:
        return _text("id", root.get("id"), limits.id)
    except Refused:
        return ""


def refuse(reason: str) -> NoReturn:
    """Raises Refused."""
    raise Refused(reason)


def too_large(limits: Limits) -> FrameError:
    """The error for a message beyond `limits.message`."""
    return FrameError(f"invalid frame: larger than {limits.message} bytes", code=TOO_LARGE)


def unwritable(cause: UnicodeEncodeError) -> InvalidRequest:
    """The error for a text of our own that no frame can carry."""
    return InvalidRequest(
        f"a text of the frame has a lone surrogate at character {cause.start}; send valid Unicode"
    )


def kind_of(value: object) -> str:
    """What a decoded value is called in a message, e.g. "an array"."""
    return _KINDS.get(type(value), "an extension")


def _root(text: str) -> Any:
    start = json_syntax.space(text, 0)
    try:
        root, end = json_syntax.scan(text, start)
    except RecursionError:
        root, end = _shallow(text, start)
    if end != len(text) and json_syntax.space(text, end) != len(text):
        raise Malformed
    return root


def _shallow(text: str, start: int) -> tuple[Any, int]:
    """A value that is nested too deeply to be built, with empty ones where it is: only its members are of interest."""
    if text[start] == "[":
        return [], json_syntax.skip(text, start)
    members, end = json_syntax.members(text, start)
    return {name: _member(text, name, begin) for name, begin, _ in members}, end


def _member(text: str, name: str, start: int) -> Any:
    try:
        return json_syntax.scan(text, start)[0]
    except RecursionError:
        if name == "error":
            return _shallow(text, start)[0]
        return [] if text[start] == "[" else {}


def _text(name: str, value: object, limit: int | None = None) -> str:
    if value is None:
        return ""
    if type(value) is not str:
        refuse(f"{name} must be a string, got {kind_of(value)}")
    if limit is not None and len(value) > limit:
        refuse(f"{name} must be at most {limit} characters")
    if not value.isascii() and not _is_utf8(value):
        refuse(f"{name} is not valid Unicode")
    return value


def _integer(name: str, value: object) -> int:
    if value is None:
        return 0
    if type(value) is not int:
        refuse(f"{name} must be an integer, got {kind_of(value)}")
    if value not in INT64:
        refuse(f"{name} must be an integer of 64 bits")
    return value


def _error(value: object) -> ErrorDetail | None:
    if value is None:
        return None
    if type(value) is not dict:
        refuse(f"error must be an object, got {kind_of(value)}")
    get = value.get
    return ErrorDetail(
        _integer("error.code", get("code")),
        _text("error.message", get("message")),
        _text("error.details", get("details")),
    )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_NAMES = frozenset(
    (
        b"id",
        b"type",
        b"method",
        b"correl_id",
        b"token",
        b"app_id",
        b"org_id",
        b"data",
        b"error",
        b"channel",
        b"credits",
        b"ts",
    )
)
_ERROR_NAMES = frozenset((b"code", b"message", b"details"))

_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    str: "a string",
    bytes: "binary",
    list: "an array",
    dict: "an object",
}
