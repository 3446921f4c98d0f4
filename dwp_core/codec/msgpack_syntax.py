"""The MessagePack format, walked without recursion and without allocating what a header merely claims.

A value is skipped with one counter of the values still due, because MessagePack says the number of children up front:
neither depth nor a length of 4 GiB costs anything (PROTOCOL.md section 2; the MessagePack specification).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple

import msgpack


class Malformed(ValueError):
    """The bytes are not MessagePack."""


class Extension(NamedTuple):
    """An extension value; only its being one matters here."""

    code: int


FIELD_NAMES = frozenset(b"id type method correl_id token app_id org_id data error channel credits ts".split())
ERROR_NAMES = frozenset(b"code message details".split())

# What follows a variable-length header: how many bytes hold the length, and how many come between it and the content.
_SIZED = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)}
_EXTS = {0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)}
_ARRAYS = {0xDC: 2, 0xDD: 4}
_MAPS = {0xDE: 2, 0xDF: 4}
_FIXED_EXTS = {0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18}
_NUMBERS = dict(
    zip(range(0xCA, 0xD4), (">f", ">d", ">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q"), strict=True)
)


def _steps() -> bytes:
    """For each first byte the length of the whole value, without children; 0 where the length is written behind it."""
    steps = bytearray(256)
    for code in range(256):
        if code < 0xA0 or code >= 0xE0 or code in (0xC0, 0xC2, 0xC3):
            steps[code] = 1
        elif code < 0xC0:
            steps[code] = 1 + (code & 31)
    for code, form in _NUMBERS.items():
        steps[code] = 1 + struct.calcsize(form)
    for code, length in _FIXED_EXTS.items():
        steps[code] = length
    return bytes(steps)


def _children() -> bytes:
    """For each first byte the number of values that follow as its children, where that is in the byte itself."""
    return bytes([(c & 15) * (2 if c < 0x90 else 1) if 0x80 <= c < 0xA0 else 0 for c in range(256)])


_STEP = _steps()
_CHILDREN = _children()
_ONE_BYTE = re.compile(rb"[\x00-\x9f\xc0\xc2\xc3\xe0-\xff]+")
_WORTH_A_RUN = 16
_WORTH_A_COPY = 256

HAS_C_UNPACKER = not msgpack.Unpacker.__module__.endswith("fallback")


def _one_of(texts: Iterable[bytes]) -> bytes:
    return b"|".join([re.escape(bytes([0xA0 + len(text)]) + text) for text in texts])


_SHORT_TEXT = b"|".join([b"%b.{%d}" % (re.escape(bytes([0xA0 + length])), length) for length in range(32)])
_SIMPLE = rb"(?:[\x00-\x80\x90\xc0\xc2\xc3\xe0-\xff]|%b)" % _SHORT_TEXT
# A run of containers of which each has the next as its last value, as deep as it may go.
_nest = re.compile(rb"(?:\x91|\x92%b|\x93%b{2}|\x81%b|\x82%b{3})+" % ((_SIMPLE,) * 4), re.DOTALL).match
_NESTS = frozenset((0x81, 0x82, 0x91, 0x92, 0x93))
# A run of members of a map whose keys are none of ours and whose values are simple.
_strangers = re.compile(
    rb"(?:(?!%b)(?:%b)%b)+" % (_one_of(FIELD_NAMES | ERROR_NAMES), _SHORT_TEXT, _SIMPLE), re.DOTALL
).match


def skip(message: bytes, start: int) -> int:
    """Where the value that begins at `start` ends.

    Raises:
        Malformed: it is cut off, or has the byte 0xC1, which is never used.

    Example:
        >>> skip(bytes.fromhex("9201a178c0"), 0)
        4
    """
    position, due = start, 1
    try:
        while due:
            if due >= _WORTH_A_RUN:
                run = _ONE_BYTE.match(message, position, min(position + due, len(message)))
                if run is not None:
                    # As many values as are due, at most, so the count cannot reach zero before the run ends.
                    length = run.end() - position
                    due += sum(run[0].translate(_CHILDREN)) - length
                    position += length
                    continue
            code = message[position]
            step = _STEP[code]
            run = _nest(message, position) if code in _NESTS else None
            if run is not None:
                position = run.end()
            elif step:
                due += _CHILDREN[code] - 1
                position += step
            else:
                position, children = _long(message, position, code)
                due += children - 1
    except IndexError:
        raise Malformed from None
    if position > len(message):
        raise Malformed
    return position


def is_whole(message: bytes) -> bool:
    """Whether the message is exactly one MessagePack value.

    Large ones are judged by the C unpacker where there is one, which skips without building; what is nested deeper
    than it can follow, and everything else, by `skip`.

    Example:
        >>> is_whole(bytes.fromhex("9201c0")), is_whole(bytes.fromhex("9201c0c0"))
        (True, False)
    """
    if HAS_C_UNPACKER and len(message) >= _WORTH_A_COPY:
        unpacker = msgpack.Unpacker(max_buffer_size=len(message))
        unpacker.feed(message)
        try:
            unpacker.skip()
            return bool(unpacker.tell() == len(message))
        except msgpack.StackError:
            pass
        except (ValueError, msgpack.OutOfData):
            return False
    try:
        return skip(message, 0) == len(message)
    except Malformed:
        return False


def members(message: bytes, start: int, end: int, names: Container[bytes]) -> tuple[dict[bytes, int], bool]:
    """Where the values of a map's members of these names begin, the last of duplicates; and whether all its keys are
    str or bin. The value from `start` to `end` must be a map, and known to be whole.

    Example:
        >>> members(bytes.fromhex("82a27a7a01a2696402"), 0, 9, [b"id"])
        ({b'id': 8}, True)
    """
    code = message[start]
    position = start + 1 if code < 0x90 else start + 1 + _MAPS[code]
    found: dict[bytes, int] = {}
    texts = True
    while position < end:
        code = message[position]
        if 0xA0 <= code < 0xC0:
            begin, position = position + 1, position + 1 + (code & 31)
            key = message[begin:position]
        else:
            key = content(message, position) if code in _SIZED else b""
            texts = texts and code in _SIZED
            position = skip(message, position)
        known = key in names
        if known:
            found[key] = position
        code = message[position]
        step = _STEP[code]
        position = position + step if step and not _CHILDREN[code] else skip(message, position)
        if not known:
            run = _strangers(message, position, end)
            if run is not None:
                position = run.end()
    return found, texts


def is_map(message: bytes, start: int) -> bool:
    """Whether the value at `start` is a map."""
    return 0x80 <= message[start] < 0x90 or message[start] in _MAPS


def content(message: bytes, start: int) -> bytes:
    """The bytes of the str or bin at `start`, which must be one and known to be whole.

    Example:
        >>> content(bytes.fromhex("c40178"), 0)
        b'x'
    """
    code = message[start]
    if code < 0xC0:
        return message[start + 1 : start + 1 + (code & 31)]
    width, _ = _SIZED[code]
    begin = start + 1 + width
    return message[begin : begin + int.from_bytes(message[start + 1 : begin], "big")]


def read(message: bytes, start: int) -> Any:
    """The value at `start`, as the judge wants it: text of str and of bin (bytes that are not UTF-8 as lone
    surrogates), numbers, constants, and for the rest what tells its kind: an empty list or dict, or an `Extension`.

    Example:
        >>> read(bytes.fromhex("a178"), 0), read(bytes.fromhex("cd0100"), 0), read(bytes.fromhex("9101"), 0)
        ('x', 256, [])
    """
    code = message[start]
    if _is_text(code):
        return str(content(message, start), "utf-8", "surrogateescape")
    if code < 0x80:
        return code
    if code >= 0xE0:
        return code - 256
    if code in _NUMBERS:
        return struct.unpack_from(_NUMBERS[code], message, start + 1)[0]
    if code in _CONSTANTS:
        return _CONSTANTS[code]
    if is_map(message, start):
        return {}
    if 0x90 <= code < 0xA0 or code in _ARRAYS:
        return []
    return Extension(code)


_CONSTANTS: Mapping[int, bool | None] = {0xC0: None, 0xC2: False, 0xC3: True}


def _is_text(code: int) -> bool:
    return 0xA0 <= code < 0xC0 or code in _SIZED


def _long(message: bytes, position: int, code: int) -> tuple[int, int]:
    """Past a value whose length is written behind its first byte, and the number of its children."""
    if code in _SIZED or code in _EXTS:
        width, gap = _SIZED.get(code) or _EXTS[code]
        start = position + 1 + width
        return start + gap + _number(message, position + 1, start), 0
    if code in _ARRAYS:
        start = position + 1 + _ARRAYS[code]
        return start, _number(message, position + 1, start)
    if code in _MAPS:
        start = position + 1 + _MAPS[code]
        return start, 2 * _number(message, position + 1, start)
    raise Malformed


def _number(message: bytes, start: int, end: int) -> int:
    if end > len(message):
        raise Malformed
    return int.from_bytes(message[start:end], "big")
