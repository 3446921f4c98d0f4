"""The quick half of payloads where msgspec is installed: it reads and writes what is plainly right.

Whatever is refused here is judged by `dwp_core.codec.payload`, whose verdict counts (PROTOCOL.md section 2).
"""

from __future__ import annotations

from typing import Any

import msgspec

from dwp_core.codec import json_syntax

SHALLOW = 7
"""The depth up to which msgspec itself judges the depth, by a type that goes no deeper; its size doubles with each."""


def _shallow_type() -> Any:
    scalar: Any = None | bool | int | float | str
    kind = scalar
    for _ in range(SHALLOW):
        kind = scalar | list[kind] | dict[str, kind]  # type: ignore[valid-type]
    return kind


decode_shallow = msgspec.json.Decoder(_shallow_type()).decode
"""The value of JSON text that is nested no deeper than `SHALLOW`; raises ValueError for everything else."""

_decode = msgspec.json.Decoder().decode
render = msgspec.json.Encoder().encode
"""The JSON text of a value that has only JSON's own types, tuples, text keys and finite numbers.

Raises ValueError for a lone surrogate or an integer too long for this Python.
"""


def parse(raw: bytes, depth: int) -> Any:
    """The value of JSON text, nested no deeper than `depth`.

    Raises:
        ValueError: not plainly right.
        RecursionError: nested deeper than this process can follow.

    Example:
        >>> parse(b"[1, null]", 128)
        [1, None]
    """
    if depth >= SHALLOW:
        try:
            return decode_shallow(raw)
        except ValueError:
            pass
    return parse_deep(raw, depth)


def parse_deep(raw: bytes, depth: int) -> Any:
    """`parse` for what `decode_shallow` refused; the same raises."""
    if raw.count(b"[") + raw.count(b"{") <= min(SHALLOW, depth):
        raise json_syntax.Malformed  # it was not the depth
    value = _decode(raw)
    if json_syntax.is_deeper(raw, depth):
        raise json_syntax.Malformed
    return value
