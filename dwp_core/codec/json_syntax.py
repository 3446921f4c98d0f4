"""The JSON grammar, judged and cut into pieces without recursion: the ground that both the frame judge and the payload
judge stand on (PROTOCOL.md section 2; RFC 8259).

The standard library's C scanner judges what is nested as deeply as it can follow, and `skip` what is deeper, in a loop
with a stack of its own, so that no message can exhaust this process. Where there is no C scanner, `skip` judges
everything, because the pure-Python one of the standard library is laxer than RFC 8259. Depth, lone surrogates and
the size of numbers are not grammar; whoever reads a value judges those.
"""

from __future__ import annotations

import json
import json.scanner
import re
from itertools import accumulate
from typing import Any, NamedTuple, NoReturn


class Malformed(ValueError):
    """The text is not JSON."""


class Member(NamedTuple):
    """One member of an object: its name, and where its value begins and ends in the text."""

    name: str
    start: int
    end: int


HAS_C_SCANNER = getattr(json.scanner, "c_make_scanner", None) is not None

INT64 = range(-(1 << 63), 1 << 63)

_SPACE = re.compile(r"[ \t\n\r]*")
_STRING = r'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
_KEY = re.compile(rf"[ \t\n\r]*+({_STRING})[ \t\n\r]*+:[ \t\n\r]*+")
_SCALAR = re.compile(rf"{_STRING}|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?|true|false|null")
_OPENERS = re.compile(r"[\[ \t\n\r]*+")
_CLOSERS = re.compile(r"[\] \t\n\r]*+")
_AFTER = re.compile(r"[ \t\n\r]*+([,}\]])[ \t\n\r]*+")
_LONE_SURROGATE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)


def _refuse_constant(name: str) -> NoReturn:
    raise Malformed(name)


def _bounded_int(digits: str) -> int:
    # Envelope integers are 64-bit; a longer one only has to stay out of range, not to be computed.
    return int(digits) if len(digits) <= 20 else 1 << 64


_scan = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode
_scan_long_integers = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_bounded_int).raw_decode


def scan(text: str, start: int) -> tuple[Any, int]:
    """The value that begins exactly at `start`, and where it ends; integers too long for this Python come out as 2**64.

    Raises:
        Malformed: it is not JSON.
        RecursionError: it is nested deeper than this process can follow; `skip` still can.

    Example:
        >>> scan('{"a": [1]} tail', 0)
        ({'a': [1]}, 10)
    """
    if not HAS_C_SCANNER:
        skip(text, start)
    try:
        return _scan(text, start)
    except json.JSONDecodeError as error:
        raise Malformed from error
    except Malformed:
        raise
    except ValueError:  # an integer beyond sys.get_int_max_str_digits()
        return _scan_long_integers(text, start)


def skip(text: str, start: int) -> int:
    """Where the value that begins at `start` (spaces may come first) ends, however deeply it is nested.

    Raises:
        Malformed: it is not JSON.

    Example:
        >>> skip("[" * 100_000 + "]" * 100_000 + ",", 0)
        200000
    """
    stack = bytearray()  # the arrays `[` and objects `{` that are open
    position = start
    while True:
        match = _OPENERS.match(text, position)
        assert match is not None  # it matches the empty text
        opened = text.count("[", position, match.end())
        position = match.end()
        stack += b"[" * opened
        head = text[position : position + 1]
        if head == "{":
            position, inside = _enter_object(text, position)
            if inside:
                stack += b"{"
                continue
        elif not (head == "]" and opened):
            position = _end_of_scalar(text, position)
        position = _leave(text, position, stack)
        if not stack:
            return position
        position = _next_value(text, position, stack)


def require(text: str) -> None:
    """Nothing, when the text is exactly one JSON value with white space around it.

    Raises:
        Malformed: it is not.

    Example:
        >>> require(" [1] ")
    """
    start = space(text, 0)
    if space(text, _end_of_value(text, start)) != len(text):
        raise Malformed


def members(text: str, start: int) -> tuple[list[Member], int]:
    """The members of the object that begins exactly at `start`, in their order, and where it ends.

    Raises:
        Malformed: it is not JSON.

    Example:
        >>> members('{"a": 1, "b": []}', 0)
        ([Member(name='a', start=6, end=7), Member(name='b', start=14, end=16)], 17)
    """
    found: list[Member] = []
    position, inside = _enter_object(text, start)
    if not inside:
        return found, position
    key = start + 1
    while True:
        match = _KEY.match(text, key)
        if match is None:
            raise Malformed
        name = match[1]
        end = _end_of_value(text, match.end())
        found.append(Member(_scan(name)[0] if "\\" in name else name[1:-1], match.end(), end))
        match = _AFTER.match(text, end)
        if match is None or match[1] == "]":
            raise Malformed
        if match[1] == "}":
            return found, match.start(1) + 1
        key = match.end()


def space(text: str, start: int) -> int:
    """Where the white space that begins at `start` ends."""
    match = _SPACE.match(text, start)
    assert match is not None  # it matches the empty text
    return match.end()


def has_lone_surrogate(text: str) -> bool:
    """Whether well-formed JSON text spells a surrogate that is not one of a pair.

    Example:
        >>> has_lone_surrogate(r'"\\ud800"'), has_lone_surrogate(r'"\\ud83d\\ude00"')
        (True, False)
    """
    if "\\ud" not in text and "\\uD" not in text:
        return False
    return _LONE_SURROGATE.search(text.replace("\\\\", "__")) is not None


def is_deeper(raw: bytes, limit: int) -> bool:
    """Whether well-formed JSON text nests arrays and objects deeper than `limit`.

    Example:
        >>> is_deeper(b"[[1]]", 1), is_deeper(b'["[["]', 1)
        (True, False)
    """
    if raw.count(b"[") + raw.count(b"{") <= limit:
        return False
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = b"".join(raw.split(b'"')[::2]).translate(_BRACKETS_ALIKE, _NO_BRACKETS)
    # Taking out the innermost pairs lowers the depth by exactly one: flat data is decided in a pass or two.
    for taken in range(_PASSES):
        if len(brackets) <= 2 * (limit - taken):
            return False
        if not brackets:
            return True
        brackets = brackets.replace(b"[]", b"")
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0) + _PASSES > limit


_PASSES = 8
_BRACKETS_ALIKE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = {ord("["): 1, ord("]"): -1}


def _enter_object(text: str, start: int) -> tuple[int, bool]:
    """Past an empty object, or at the first value of another; and whether there is one."""
    if text[start : start + 1] != "{":
        raise Malformed
    position = space(text, start + 1)
    if text[position : position + 1] == "}":
        return position + 1, False
    return _past_key(text, position), True


def _past_key(text: str, start: int) -> int:
    match = _KEY.match(text, start)
    if match is None:
        raise Malformed
    return match.end()


def _end_of_scalar(text: str, start: int) -> int:
    match = _SCALAR.match(text, start)
    if match is None:
        raise Malformed
    return match.end()


def _end_of_value(text: str, start: int) -> int:
    try:
        return scan(text, start)[1]
    except RecursionError:
        return skip(text, start)


def _leave(text: str, position: int, stack: bytearray) -> int:
    """Past every bracket that closes here; a whole run of `]` is one step."""
    while stack:
        match = _CLOSERS.match(text, position)
        assert match is not None  # it matches the empty text
        closed = text.count("]", position, match.end())
        if closed:
            ours = min(closed, len(stack))
            if not stack.endswith(b"[" * ours):
                raise Malformed
            del stack[-ours:]
            position = match.end() if ours == closed else _past_brackets(text, position, ours)
            continue
        if text[match.end() : match.end() + 1] != "}":
            return match.end()
        if stack[-1:] != b"{":
            raise Malformed
        del stack[-1:]
        position = match.end() + 1
    return position


def _past_brackets(text: str, position: int, count: int) -> int:
    for _ in range(count):
        position = text.index("]", position) + 1
    return position


def _next_value(text: str, position: int, stack: bytearray) -> int:
    if text[position : position + 1] != ",":
        raise Malformed
    return _past_key(text, position + 1) if stack[-1:] == b"{" else position + 1
