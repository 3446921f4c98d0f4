"""The judge of payloads on arbitrary text, with the standard library's parser as the oracle."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from dwp_core.codec.payload import decode_payload, encode_payload
from dwp_core.errors import PayloadError
from dwp_core.frames import DEFAULT_LIMITS, Limits
from fuzz.seeds import payloads

_TIGHT = Limits(payload=200, depth=4)
_TOO_LONG = re.compile(rb"[0-9]{4300}")


def target(data: bytes) -> None:
    if _TOO_LONG.search(data):
        return  # what an integer of so many digits costs is this process's own limit, and no question of JSON
    for limits in (DEFAULT_LIMITS, _TIGHT):
        try:
            value = decode_payload(data, limits)
        except PayloadError as error:
            if _allowed(data, limits):
                raise AssertionError(f"refused although it may travel: {error.message}") from error
            continue
        assert _allowed(data, limits), "accepted although it may not travel"
        expected = _parse(data)
        assert repr(value) == repr(expected), f"read as {value!r}, is {expected!r}"
        text = encode_payload(value)
        assert repr(decode_payload(text, DEFAULT_LIMITS)) == repr(value), f"changed by encoding: {text!r}"


def seeds() -> Iterable[bytes]:
    return payloads()


def _allowed(data: bytes, limits: Limits) -> bool:
    """PROTOCOL.md section 2: UTF-8, syntax, depth, lone surrogates, numbers that are not finite, size."""
    if len(data) > limits.payload:
        return False
    try:
        value, everything = _parse(data), _parse(data, pairs=True)
    except (ValueError, RecursionError):
        return False
    return _travels(value) and _depth(everything) <= limits.depth


def _parse(data: bytes, *, pairs: bool = False) -> Any:
    """The value; with `pairs`, objects as lists, which also have the members that a later one replaces."""

    def constant(text: str) -> NoReturn:
        raise ValueError(f"{text} is not JSON")

    hook: Any = (lambda members: [member for _, member in members]) if pairs else None
    return json.loads(data.decode("utf-8"), parse_constant=constant, object_pairs_hook=hook)


def _depth(value: Any) -> int:
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _travels(value: Any) -> bool:
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, (list, dict)):
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        return all(map(_travels, inner))
    return True
