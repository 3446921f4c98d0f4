"""The quick half of payloads where msgspec is installed: it reads and writes what is plainly right.

Whatever is refused here is judged by `dwp_core.codec.payload`, whose verdict counts (PROTOCOL.md section 2).
"""

from __future__ import annotations

from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def parse(raw: bytes) -> Any:
    """The value of JSON text; its depth is not judged.

    Raises:
        ValueError: not plainly right.
        RecursionError: nested deeper than this process can follow.

    Example:
        >>> parse(b"[1, null]")
        [1, None]
    """
    return _decode(raw)


def render(value: Any) -> bytes:
    """The JSON text of a value that has only JSON's own types, tuples, text keys and finite numbers.

    Raises:
        ValueError: a lone surrogate, or an integer too long for this Python.
        RecursionError: nested deeper than this process can follow.

    Example:
        >>> render({"a": (1, None)})
        b'{"a":[1,null]}'
    """
    return _encode(value)
