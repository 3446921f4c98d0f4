"""The quick half of payloads from the standard library alone; it reads and writes the same values and the same bytes
as `payload_fast`.

Whatever is refused here is judged by `dwp_core.codec.payload`, whose verdict counts (PROTOCOL.md section 2).
"""

from __future__ import annotations

import json
import re
from json.encoder import encode_basestring
from typing import Any

from dwp_core.codec import json_syntax
from dwp_core.codec.json_syntax import Malformed

_EXPONENT = re.compile(r"[0-9]e[+-]")


def parse(raw: bytes, depth: int) -> Any:
    """The value of JSON text, nested no deeper than `depth`.

    Raises:
        ValueError: not plainly right.
        RecursionError: nested deeper than this process can follow.

    Example:
        >>> parse(b"[1, null]", 128)
        [1, None]
    """
    text = str(raw, "utf-8")
    if "\\ud" in text or "\\uD" in text:  # surrogates, perhaps lone ones
        raise Malformed
    value = decode(text)
    if json_syntax.is_deeper(raw, depth):
        raise Malformed
    return value


def decode(text: str) -> Any:
    """The value of a text that is exactly one JSON value whose numbers are all finite.

    Raises:
        ValueError: it is not.
        RecursionError: nested deeper than this process can follow.

    Example:
        >>> decode("[1.5]")
        [1.5]
    """
    start = json_syntax.space(text, 0)
    if not json_syntax.HAS_C_SCANNER:
        json_syntax.whole(text)  # the pure-Python scanner is laxer than RFC 8259
    try:
        value, end = _scan_once(text, start)
    except StopIteration:
        raise Malformed from None
    if end != len(text) and json_syntax.space(text, end) != len(text):
        raise Malformed
    return value


def render(value: Any) -> bytes:
    """The JSON text of a value that has only JSON's own types, tuples, text keys and finite numbers.

    Raises:
        ValueError: a lone surrogate, or an integer too long for this Python.
        RecursionError: nested deeper than this process can follow.

    Example:
        >>> render({"a": (1, 1e-5)})
        b'{"a":[1,0.00001]}'
    """
    text = _encode(value)
    if _EXPONENT.search(text) is not None:
        # Python spells such numbers in another way than msgspec; one value shall have one spelling on the wire.
        text = _spelled(value)
    return text.encode()


def _finite(digits: str) -> float:
    number = float(digits)
    if number - number != 0.0:
        raise Malformed
    return number


def _spelled(value: Any) -> str:
    if isinstance(value, float):
        return _spelled_float(value)
    if isinstance(value, dict):
        return (
            "{"
            + ",".join([f"{encode_basestring(key)}:{_spelled(item)}" for key, item in value.items()])
            + "}"
        )
    if isinstance(value, (list, tuple)):
        return "[" + ",".join([_spelled(item) for item in value]) + "]"
    return _encode(value)


def _spelled_float(value: float) -> str:
    mantissa, _, exponent = float.__repr__(value).partition("e")
    if not exponent:
        return mantissa
    if exponent == "-05":
        sign = "-" if mantissa.startswith("-") else ""
        return f"{sign}0.0000{mantissa.lstrip('-').replace('.', '')}"
    return f"{mantissa}e{int(exponent)}"


_scan_once = json_syntax.scanner(parse_float=_finite)
_encode = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")
).encode
