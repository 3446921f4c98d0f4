"""Payloads: JSON text to and from Python values, strict in both directions, the same whatever the codec and its form.

A payload is judged once, by whoever reads it (`decode_payload`), and once by whoever sends it (`encode_payload`). What
is plainly right is recognised by the quick parser at hand (msgspec's, or the standard library's); everything else
comes to the one judge here, whose text counts (PROTOCOL.md section 2).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from dwp_core.codec import json_syntax, payload_portable
from dwp_core.codec.json_syntax import LongInteger, Malformed, Unbuilt
from dwp_core.errors import TOO_LARGE, PayloadError
from dwp_core.frames import DEFAULT_LIMITS, Limits

Parse = Callable[[bytes, int], Any]
"""Reads JSON text within a depth; raises ValueError or RecursionError for what is not plainly right."""

Render = Callable[[Any], bytes]
"""Writes a value that is plainly right."""


def _quickest() -> tuple[Parse, Render]:
    try:
        from dwp_core.codec import payload_fast
    except ImportError:  # no msgspec: PyPy without wheels, Pyodide
        return payload_portable.parse, payload_portable.render
    return payload_fast.parse, payload_fast.render


_parse, _render = _quickest()
_SCALARS = frozenset((str, int, bool, type(None)))


def encode_payload(
    value: Any, *, what: str = "payload", limits: Limits = DEFAULT_LIMITS, render: Render | None = None
) -> bytes:
    """The JSON text of a value, for `Codec.encode(data=...)`.

    JSON's own types are taken, their subclasses as what they extend, and tuples as arrays. Nothing is converted in
    silence: what JSON cannot carry is refused, with its path.

    Args:
        value: None, bool, int (any size), float (finite), str, and list, tuple and dict (text keys) of those.
        what: the name of the value, the start of the path in a message, e.g. "payload" or "input".
        limits: `payload` (bytes) and `depth` bound the result.
        render: how plain values are written; None takes the quickest way that is installed.

    Raises:
        PayloadError: (400) the value is no JSON, or nested too deeply; (413) its text is too large.

    Example:
        >>> encode_payload({"to": "user@example.com", "tries": (1, 2)})
        b'{"to":"user@example.com","tries":[1,2]}'
        >>> encode_payload({"items": [{"when": {1, 2}}]})
        Traceback (most recent call last):
        dwp_core.errors.PayloadError: payload.items[0].when: set is not JSON; send a list

    PROTOCOL.md section 2.
    """
    try:
        if not _is_plain(value, limits.depth):
            _explain(value, what, limits.depth, limits)
            render = payload_portable.render  # JSON, but with subclasses, which msgspec does not all take
        raw = (render or _render)(value)
    except RecursionError:
        raise _too_deep(what, limits) from None
    except (ValueError, TypeError) as error:
        if isinstance(error, PayloadError):
            raise
        _explain(value, what, limits.depth, limits)
        raise PayloadError(f"{what}: {_name(value)} cannot be written as JSON: {error}") from error
    if len(raw) > limits.payload:
        raise _too_large(what, len(raw), limits)
    return raw


def decode_payload(raw: bytes, limits: Limits = DEFAULT_LIMITS, what: str = "payload") -> Any:
    """The value of a payload that was received, judged in full.

    Refused are: too many bytes, what is not UTF-8, what is not one JSON value, nesting beyond `limits.depth`, lone
    surrogates, numbers that are not finite, and integers with more digits than Python converts
    (`sys.get_int_max_str_digits()`, 4300). Every digit of other integers is kept; of duplicate keys the last counts.

    Args:
        raw: JSON text.
        limits: `payload` (bytes) and `depth` that are accepted.
        what: the name of the value, the start of the message.

    Raises:
        PayloadError: (400) it is no JSON that may travel; (413) it is too large.

    Example:
        >>> decode_payload(b'{"big": 123456789012345678901234567890}')
        {'big': 123456789012345678901234567890}
        >>> decode_payload(b"[1e999]")
        Traceback (most recent call last):
        dwp_core.errors.PayloadError: payload: a number is not finite; numbers must fit a 64-bit float

    PROTOCOL.md section 2.
    """
    return decode_with(_parse, raw, limits, what)


def decode_with(parse: Parse, raw: bytes, limits: Limits, what: str, *, well_formed: bool = False) -> Any:
    """`decode_payload` with this way of reading; `well_formed` where the grammar was judged with the frame's."""
    if len(raw) > limits.payload:
        raise _too_large(what, len(raw), limits)
    try:
        return parse(raw, limits.depth)
    except (ValueError, RecursionError):
        return judge(raw, limits, what, well_formed=well_formed)


def judge(raw: bytes, limits: Limits, what: str, *, well_formed: bool = False) -> Any:
    """The one judge of payloads that were received: what it says, every form says. See `decode_payload`."""
    if len(raw) > limits.payload:
        raise _too_large(what, len(raw), limits)
    try:
        text = str(raw, "utf-8")
        if well_formed and json_syntax.is_deeper(raw, limits.depth):
            raise _too_deep(what, limits)
        value = json_syntax.whole(text)
    except UnicodeDecodeError:
        raise PayloadError(f"{what}: not UTF-8") from None
    except Malformed:
        raise PayloadError(f"{what}: not JSON") from None
    if json_syntax.is_deeper(raw, limits.depth) or type(value) is Unbuilt:
        # Unbuilt: within the limit of a caller who allows more than this process can follow.
        raise _too_deep(what, limits)
    fault = _fault(value)
    if fault is not None:
        raise PayloadError(f"{what}: {_FAULTS[fault]}")
    return value


def _fault(value: Any) -> int | None:
    """What is wrong in a value that was built, as the place in `_FAULTS`; the first place there counts."""
    found: set[int] = set()
    due = [value]
    while due:
        value = due.pop()
        kind = type(value)
        if kind is str:
            if not value.isascii() and not _is_text(value):
                found.add(0)
        elif kind is list:
            due += value
        elif kind is dict:
            due += value
            due += value.values()
        elif kind is float:
            if value - value != 0.0:
                found.add(1)
        elif kind is LongInteger:
            found.add(2)
    return min(found, default=None)


_FAULTS = (
    "text with a lone surrogate; surrogates must come in pairs",
    "a number is not finite; numbers must fit a 64-bit float",
    "an integer has too many digits to be read here",
)


def _is_plain(value: Any, depth: int) -> bool:
    """Whether a value has exactly JSON's own types or tuples, text keys and finite numbers, within the depth."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is float:
        return bool(value - value == 0.0)
    if depth == 0:
        return False
    if kind is dict:
        for key in value:
            item = value[key]
            if type(key) is not str or (type(item) not in _SCALARS and not _is_plain(item, depth - 1)):
                return False
    elif kind is list or kind is tuple:
        for item in value:
            if type(item) not in _SCALARS and not _is_plain(item, depth - 1):
                return False
    else:
        return False
    return True


def _explain(value: Any, path: str, depth: int, limits: Limits) -> None:
    """Raises PayloadError for the first thing in a value that is no JSON; subclasses of JSON's own types are JSON."""
    if isinstance(value, str):
        if not _is_text(value):
            raise PayloadError(
                f"{path}: text with a lone surrogate is not JSON; surrogates must come in pairs"
            )
    elif isinstance(value, float):
        if value - value != 0.0:
            raise PayloadError(
                f"{path}: {float.__repr__(value)} is not JSON; send a finite number, null or text"
            )
    elif isinstance(value, int):
        _explain_integer(value, path)
    elif isinstance(value, dict):
        _require_depth(path, depth, limits)
        for key, item in value.items():
            if not isinstance(key, str):
                raise PayloadError(f"{path}: key {_shown(key)} ({_name(key)}) is not JSON; keys must be text")
            if not _is_text(key):
                raise PayloadError(
                    f"{path}: a key with a lone surrogate is not JSON; surrogates must come in pairs"
                )
            _explain(
                item, f"{path}.{key}" if key.isidentifier() else f"{path}[{_quoted(key)}]", depth - 1, limits
            )
    elif isinstance(value, (list, tuple)):
        _require_depth(path, depth, limits)
        for index, item in enumerate(value):
            _explain(item, f"{path}[{index}]", depth - 1, limits)
    elif value is not None:
        name = _name(value)
        raise PayloadError(f"{path}: {name} is not JSON; send {_INSTEAD.get(name, 'JSON values')}")


def _explain_integer(value: int, path: str) -> None:
    try:
        int.__repr__(value)
    except ValueError:
        raise PayloadError(f"{path}: an integer has too many digits to be written here; send text") from None


def _require_depth(path: str, depth: int, limits: Limits) -> None:
    if depth <= 0:
        # The path of what is too deep is as long as it is deep: its start is enough.
        raise _too_deep(path[:_SHOWN_PATH] + ("..." if len(path) > _SHOWN_PATH else ""), limits)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _too_deep(what: str, limits: Limits) -> PayloadError:
    return PayloadError(
        f"{what}: nested too deeply; at most {limits.depth} levels of arrays and objects are accepted"
    )


def _too_large(what: str, size: int, limits: Limits) -> PayloadError:
    return PayloadError(
        f"{what}: {size} bytes of JSON; at most {limits.payload} are accepted", code=TOO_LARGE
    )


def _name(value: object) -> str:
    return type(value).__name__


def _quoted(key: str) -> str:
    return json.dumps(key if len(key) <= _SHOWN_PATH else key[:_SHOWN_PATH] + "...", ensure_ascii=False)


def _shown(key: object) -> str:
    text = repr(key)
    return text if len(text) <= _SHOWN_PATH else text[:_SHOWN_PATH] + "..."


_SHOWN_PATH = 60
_INSTEAD = {
    "datetime": "text or a number",
    "date": "text",
    "time": "text",
    "timedelta": "a number",
    "Decimal": "text or a number",
    "UUID": "text",
    "bytes": "text, for instance base64",
    "bytearray": "text, for instance base64",
    "memoryview": "text, for instance base64",
    "set": "a list",
    "frozenset": "a list",
    "complex": "a list of two numbers",
}
