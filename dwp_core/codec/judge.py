"""The one judge of frames: what the quick decoders do not accept at sight comes here, and what this module says counts.

Checks come in the order of PROTOCOL.md section 2: size, UTF-8, syntax, root, then the fields in table order; the texts
are a closed list. `null` is absent, of duplicate keys the last counts, unknown keys are skipped, `ts` is never a
reason to reject. The payload is not judged here but by whoever reads it: in values that are skipped neither depth nor
lone surrogates nor bytes that are not UTF-8 are looked for, as the quick decoders do not look either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from dwp_core.codec import json_syntax, msgpack_syntax
from dwp_core.codec.json_syntax import LongInteger, Malformed, Unbuilt
from dwp_core.errors import TOO_LARGE, FrameError, InvalidRequest
from dwp_core.frames import ErrorDetail, Limits

_INT64 = range(-(1 << 63), 1 << 63)


Fields = tuple[str, str, str, str, str, str, str, ErrorDetail | None, str, int]
"""The fields of a frame in table order, without `data` and `ts`."""


class Refused(ValueError):
    """Why a field is no field of a frame."""


def judge_json(message: bytes, limits: Limits) -> tuple[Fields, bytes | None, bytes | None]:
    """The fields of a JSON frame, and the JSON texts of `data` and `ts`, None where they are left to `locate`.

    Raises:
        FrameError: (400, or 413 for the size) it is no frame.

    Example:
        >>> from dwp_core.frames import DEFAULT_LIMITS
        >>> judge_json(b'{"id":"c-1","type":"ping","data":[[1]]}', DEFAULT_LIMITS)[0][:2]
        ('c-1', 'ping')
    """
    if len(message) > limits.message:
        raise _too_large(limits)
    text = str(message, "utf-8", "surrogateescape")
    root: Any = None
    data = ts = None
    try:
        if text.startswith("{") and not text.endswith("}") and not text.rstrip(" \t\n\r").endswith("}"):
            raise Malformed  # seen without looking further, and what a message that was cut off looks like
        try:
            root = json_syntax.build(text)
        except RecursionError:
            root, data, ts = _outline(text)
        if type(root) is not dict:
            _refuse(f"must be an object, got {_kind_of(root)}")
        return _read(root, limits), data, ts
    except Malformed:
        reason = "not JSON"
    except Refused as refusal:
        reason = str(refusal)
    if not _is_unicode(text):
        root, reason = None, "not UTF-8"
    raise FrameError(f"invalid frame: {reason}", frame_id=_echoed(root, limits))


def locate(message: bytes) -> tuple[bytes, bytes]:
    """The exact JSON texts of `data` and `ts` of a JSON frame that was accepted, b"" where absent.

    Example:
        >>> locate(b'{"id":"c-1","data": [1, 2] ,"ts":null}')
        (b'[1, 2]', b'null')
    """
    text = str(message, "utf-8", "surrogateescape")
    members, _ = json_syntax.members(text, json_syntax.space(text, 0))
    return _text_of(text, members, "data"), _text_of(text, members, "ts")


def judge_msgpack(message: bytes, limits: Limits) -> tuple[Fields, bytes, bytes]:
    """The fields of a MessagePack frame, the JSON text of its payload, and its `ts` as a MessagePack value.

    Raises:
        FrameError: (400, or 413 for the size) it is no frame.

    Example:
        >>> from dwp_core.frames import DEFAULT_LIMITS
        >>> judge_msgpack(bytes.fromhex("81a464617461c4025b5d"), DEFAULT_LIMITS)[1]
        b'[]'
    """
    if len(message) > limits.message:
        raise _too_large(limits)
    fields: dict[str, Any] = {}
    try:
        if not msgpack_syntax.is_whole(message):
            raise msgpack_syntax.Malformed
        if not msgpack_syntax.is_map(message, 0):
            _refuse(f"must be a map, got {_kind_of(msgpack_syntax.read(message, 0))}")
        members, texts = msgpack_syntax.members(message, 0, len(message), msgpack_syntax.FIELD_NAMES)
        fields = {name.decode(): msgpack_syntax.read(message, start) for name, start in members.items()}
        if not texts:
            _refuse("must have keys that are strings")
        if type(fields.get("error")) is dict:
            start = members[b"error"]
            inner, texts = msgpack_syntax.members(
                message, start, msgpack_syntax.skip(message, start), msgpack_syntax.ERROR_NAMES
            )
            fields["error"] = {
                name.decode(): msgpack_syntax.read(message, start) for name, start in inner.items()
            }
            if not texts:
                _refuse("error must have keys that are strings")
        data = fields.get("data")
        misplaced = "" if data is None or type(data) is str else _kind_of(data)
        raw = b"" if data is None or misplaced else msgpack_syntax.content(message, members[b"data"])
        ts = members.get(b"ts")
        time = b"" if ts is None else message[ts : msgpack_syntax.skip(message, ts)]
        return _read(fields, limits, misplaced), raw, time
    except msgpack_syntax.Malformed:
        reason = "not MessagePack"
    except Refused as refusal:
        reason = str(refusal)
    raise FrameError(f"invalid frame: {reason}", frame_id=_echoed(fields, limits))


def plain_fields(root: dict[str, Any], limits: Limits) -> Fields | None:
    """The fields of a decoded root when they are plainly right, else None, and the judge decides.

    What is plain is what the portable codecs meet all day: text without lone surrogates, no null, no `error`.
    """
    get = root.get
    id = get("id", "")
    kind = get("type", "")
    method = get("method", "")
    correl_id = get("correl_id", "")
    token = get("token", "")
    app_id = get("app_id", "")
    org_id = get("org_id", "")
    channel = get("channel", "")
    credits = get("credits", 0)
    if (
        type(id) is str
        and type(kind) is str
        and type(method) is str
        and type(correl_id) is str
        and type(token) is str
        and type(app_id) is str
        and type(org_id) is str
        and type(channel) is str
        and type(credits) is int
        and len(id) <= limits.id
        and len(method) <= limits.method
        and len(correl_id) <= limits.id
        and len(channel) <= limits.channel
        and -(1 << 63) <= credits < 1 << 63
        and "error" not in root
    ):
        return id, kind, method, correl_id, token, app_id, org_id, None, channel, credits
    return None


def unwritable(cause: UnicodeEncodeError) -> InvalidRequest:
    """The error for a text of our own that no frame can carry: UTF-8 has no lone surrogates."""
    return InvalidRequest(
        f"a text of the frame has a lone surrogate at character {cause.start}; send valid Unicode"
    )


def _outline(text: str) -> tuple[Any, bytes, bytes]:
    """The root of a frame that is nested too deeply to be built, but for its members; and the texts of two of them."""
    start = json_syntax.space(text, 0)
    if text[start] == "[":
        return json_syntax.whole(text), b"", b""
    members, end = json_syntax.members(text, start)
    if json_syntax.space(text, end) != len(text):
        raise Malformed
    root = {name: value for name, (value, _, _) in members.items()}
    error = root.get("error")
    if type(error) is Unbuilt and error.opener == "{":
        inner, _ = json_syntax.members(text, members["error"][1])
        root["error"] = {name: value for name, (value, _, _) in inner.items()}
    return root, _text_of(text, members, "data"), _text_of(text, members, "ts")


def _text_of(text: str, members: Mapping[str, json_syntax.Member], name: str) -> bytes:
    _, start, end = members.get(name, _ABSENT)
    return text[start:end].encode("utf-8", "surrogateescape")


def _read(root: dict[str, Any], limits: Limits, misplaced: str = "") -> Fields:
    """The fields out of the decoded root; `misplaced` says what stands in `data` where that cannot be."""
    plain = plain_fields(root, limits)
    if plain is not None and not misplaced and _is_unicode("".join(plain[:7]) + plain[8]):
        return plain
    get = root.get
    id = _text("id", get("id"), limits.id)
    type = _text("type", get("type"))
    method = _text("method", get("method"), limits.method)
    correl_id = _text("correl_id", get("correl_id"), limits.id)
    token = _text("token", get("token"))
    app_id = _text("app_id", get("app_id"))
    org_id = _text("org_id", get("org_id"))
    if misplaced:
        _refuse(f"data must be JSON text as bin or str, got {misplaced}")
    error = _error(get("error"))
    channel = _text("channel", get("channel"), limits.channel)
    credits = _integer("credits", get("credits"))
    return id, type, method, correl_id, token, app_id, org_id, error, channel, credits


def _text(name: str, value: object, limit: int | None = None) -> str:
    if value is None:
        return ""
    if type(value) is not str:
        _refuse(f"{name} must be a string, got {_kind_of(value)}")
    if limit is not None and len(value) > limit:
        _refuse(f"{name} must be at most {limit} characters")
    if not _is_unicode(value):
        _refuse(f"{name} is not valid Unicode")
    return value


def _integer(name: str, value: object) -> int:
    if value is None:
        return 0
    if type(value) is not int and type(value) is not LongInteger:
        _refuse(f"{name} must be an integer, got {_kind_of(value)}")
    if type(value) is LongInteger or value not in _INT64:
        _refuse(f"{name} must be an integer of 64 bits")
    return value


def _error(value: object) -> ErrorDetail | None:
    if value is None:
        return None
    if type(value) is not dict:
        _refuse(f"error must be an object, got {_kind_of(value)}")
    get = value.get
    return ErrorDetail(
        _integer("error.code", get("code")),
        _text("error.message", get("message")),
        _text("error.details", get("details")),
    )


def _echoed(root: Any, limits: Limits) -> str:
    """The id that a 400 for this frame echoes, "" when it has none that is usable."""
    id = root.get("id") if type(root) is dict else None
    return id if type(id) is str and len(id) <= limits.id and _is_unicode(id) else ""


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    if len(text) < _SHORT:
        return _surrogate(text) is None
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _too_large(limits: Limits) -> FrameError:
    return FrameError(f"invalid frame: larger than {limits.message} bytes", code=TOO_LARGE)


def _refuse(reason: str) -> NoReturn:
    raise Refused(reason)


def _kind_of(value: object) -> str:
    if type(value) is Unbuilt:
        return "an array" if value.opener == "[" else "an object"
    return _KINDS.get(type(value), "an extension")


_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    LongInteger: "an integer",
    float: "a float",
    str: "a string",
    list: "an array",
    dict: "an object",
}
_surrogate = re.compile("[\ud800-\udfff]").search
_SHORT = 1024  # up to here a search costs less than the exception that encoding would raise
_ABSENT: json_syntax.Member = (None, 0, 0)
