"""The JSON grammar, judged and cut into pieces: the ground that the frame judge and the payload judge stand on.

The standard library's C scanner judges what is nested as deeply as it can follow, and `skip` what is deeper, in a loop
with a stack of its own, so that no message can exhaust this process. Where there is no C scanner, or none that knows
its limits, `skip` judges everything, because the pure-Python scanner of the standard library is laxer than RFC 8259.
Depth, lone surrogates and the size of numbers are not grammar; whoever reads a value judges those (PROTOCOL.md
section 2).
"""

from __future__ import annotations

import json
import json.scanner
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn, cast


class Malformed(ValueError):
    """The text is not JSON."""


class Unbuilt:
    """Stands for a value that is well-formed, and nested too deeply for the scanner to build it.

    Attributes:
        opener: its first character, `[` or `{`.
    """

    __slots__ = ("opener",)

    def __init__(self, opener: str) -> None:
        self.opener = opener


class LongInteger(int):
    """Stands for an integer with more digits than Python converts (`sys.get_int_max_str_digits()`)."""


Member = tuple[Any, int, int]
"""The value of one member of an object, and where its text begins and ends."""

# In WebAssembly it knows no end of its stack: where it should say that it cannot follow, Pyodide dies as a whole.
HAS_C_SCANNER = sys.platform != "emscripten" and getattr(json.scanner, "c_make_scanner", None) is not None
_make_scanner = json.scanner.make_scanner if HAS_C_SCANNER else json.scanner.py_make_scanner  # type: ignore[attr-defined]

# A run is what `skip` takes in one step of the regular expression engine: brackets that open, each followed by the
# simple values (scalars and empty containers) before the next bracket that opens or closes something.
_SPACES = r"[ \t\n\r]*+"
_STRING = r'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
_NUMBER = r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?"
_SIMPLE = rf"(?:{_STRING}|{_NUMBER}|true|false|null|\[{_SPACES}\]|\{{{_SPACES}\}})"
_NAME = rf"{_STRING}{_SPACES}:{_SPACES}"
_ITEMS = rf"(?:{_SIMPLE}{_SPACES},{_SPACES})*+"
_PAIRS = rf"{_NAME}(?:{_SIMPLE}{_SPACES},{_SPACES}{_NAME})*+"
_NESTED = r'(?:\{"[^"\\\x00-\x1f]*+":(?=\{"))*+'  # no more than a shortcut
_OPENERS = rf"(?:\[[\[ \t\n\r]*+{_ITEMS}|{_NESTED}\{{{_SPACES}{_PAIRS})*+"

_runs = {
    0: re.compile(_OPENERS).match,
    ord("["): re.compile(_ITEMS + _OPENERS).match,
    ord("{"): re.compile(_PAIRS + _OPENERS).match,
}
_spaces = re.compile(_SPACES).match
_simple = re.compile(_SIMPLE).match
_closers = re.compile(r"[\]} \t\n\r]*+").match
_comma = re.compile(rf",{_SPACES}").match

_SPACE = frozenset(" \t\n\r")
_OPEN_TO_CLOSED = bytes.maketrans(b"[{", b"]}")
_BRACKETS_ALIKE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NO_MARKS = bytes(set(range(256)) - set(b'[]{}"'))
_PASSES = 8
_SMALL = 2048  # up to here it is cheaper to count what opens than to take the strings out


def scan(text: str, start: int) -> tuple[Any, int]:
    """The value that begins exactly at `start`, and where it ends.

    A value that is nested too deeply comes as `Unbuilt`, an integer that has too many digits as `LongInteger`.

    Raises:
        Malformed: it is not JSON.

    Example:
        >>> scan('{"a": [1]} tail', 0)
        ({'a': [1]}, 10)
    """
    try:
        return _scan(text, start)
    except RecursionError:
        return Unbuilt(text[start]), skip(text, start)


def skip(text: str, start: int) -> int:
    """Where the value that begins exactly at `start` ends, however deeply it is nested.

    Raises:
        Malformed: it is not JSON.

    Example:
        >>> skip("[" * 100_000 + "]" * 100_000 + ",", 0)
        200000
    """
    stack = bytearray()  # the brackets that are open
    position = start
    while True:
        run = _runs[stack[-1] if stack else 0](text, position)
        if run is None:
            raise Malformed
        taken = run[0].encode("utf-8", "surrogateescape")
        stack += _brackets(taken).replace(b"[]", b"").replace(b"{}", b"")
        position = run.end()
        if not (text.startswith("]", position) and taken.rstrip().endswith(b"[")):
            value = _simple(text, position)
            if value is None:
                raise Malformed
            position = value.end()
        position = _close(text, position, stack)
        if not stack:
            return position
        comma = _comma(text, position)
        if comma is None:
            raise Malformed
        position = comma.end()


def members(text: str, start: int) -> tuple[dict[str, Member], int]:
    """The members of the object that begins exactly at `start`, by name, the last of duplicates; and where it ends.

    Raises:
        Malformed: it is not JSON.

    Example:
        >>> members('{"a": 1, "b": []}', 0)
        ({'a': (1, 6, 7), 'b': ([], 14, 16)}, 17)
    """
    found: dict[str, Member] = {}
    position = space(text, start + 1)
    if text.startswith("}", position):
        return found, position + 1
    try:
        while True:
            if text[position] != '"':
                position = space(text, position)
                if text[position] != '"':
                    raise Malformed
            name, end = scan(text, position)
            if text[end] != ":":
                end = space(text, end)
                if text[end] != ":":
                    raise Malformed
            begin = end + 1 if text[end + 1] not in _SPACE else space(text, end + 1)
            value, end = scan(text, begin)
            found[name] = (value, begin, end)
            if text[end] != ",":
                end = space(text, end)
                if text[end] == "}":
                    return found, end + 1
                if text[end] != ",":
                    raise Malformed
            position = end + 1
    except IndexError:  # the text ends in the middle of it
        raise Malformed from None


def whole(text: str) -> Any:
    """The value of a text that is exactly one JSON value with white space around it; see `scan`.

    Raises:
        Malformed: it is not.

    Example:
        >>> whole(" [1] ")
        [1]
    """
    try:
        return build(text)
    except RecursionError:
        start = space(text, 0)
        if space(text, skip(text, start)) != len(text):
            raise Malformed from None
        return Unbuilt(text[start])


def build(text: str) -> Any:
    """`whole`, but for what is nested too deeply to be built.

    Raises:
        Malformed: it is not one JSON value.
        RecursionError: it is nested deeper than this process can follow.

    Example:
        >>> build(" [1] ")
        [1]
    """
    value, end = _scan(text, space(text, 0))
    if end != len(text) and space(text, end) != len(text):
        raise Malformed
    return value


def space(text: str, start: int) -> int:
    """Where the white space that begins at `start` ends.

    Example:
        >>> space("[ 1]", 1)
        2
    """
    if text[start : start + 1] not in _SPACE:
        return start
    match = _spaces(text, start)
    assert match is not None  # it matches the empty text
    return match.end()


def is_deeper(raw: bytes, limit: int) -> bool:
    """Whether well-formed JSON text nests arrays and objects deeper than `limit`.

    Example:
        >>> is_deeper(b"[[1]]", 1), is_deeper(b'["[["]', 1)
        (True, False)
    """
    if len(raw) <= 2 * limit or (len(raw) < _SMALL and _openers(raw, limit) <= limit):
        return False
    brackets = _brackets(raw).translate(_BRACKETS_ALIKE)
    if b"[" * (limit + 1) in brackets:
        return True
    # Taking out the innermost pairs lowers the depth by exactly one: flat data is decided in a pass or two.
    for taken in range(_PASSES):
        if len(brackets) <= 2 * (limit - taken):
            return False
        if not brackets:
            return True
        brackets = brackets.replace(b"[]", b"")
    if limit < _PASSES:
        return True
    depth = _PASSES
    for peak in brackets.replace(b"][", b"] [").split():
        opened = peak.count(b"[")
        depth += opened
        if depth > limit:
            return True
        depth -= len(peak) - opened
    return False


def _scan(text: str, start: int) -> tuple[Any, int]:
    judged = None if HAS_C_SCANNER else skip(text, start)
    try:
        value, end = _scan_once(text, start)
    except (StopIteration, Malformed, json.JSONDecodeError):
        raise Malformed from None
    except ValueError:  # an integer beyond sys.get_int_max_str_digits(); the scanner that minds is slower
        value, end = _scan_long_integers(text, start)
    if judged is not None and end != judged:  # it has read on: other digits than 0 to 9 were numbers to it
        raise Malformed
    return value, end


def _scan_long_integers(text: str, start: int) -> tuple[Any, int]:
    try:
        return _scan_once_bounded(text, start)
    except (StopIteration, ValueError):
        raise Malformed from None


def _close(text: str, position: int, stack: bytearray) -> int:
    """Past the brackets that close here, as many as are open; a whole run of them is one step."""
    run = _closers(text, position)
    assert run is not None  # it matches the empty text
    brackets = run[0].encode()
    closed = brackets.translate(None, b" \t\n\r")[: len(stack)]
    rest = len(stack) - len(closed)
    if stack[rest:].translate(_OPEN_TO_CLOSED)[::-1] != closed:
        raise Malformed
    del stack[rest:]
    if stack:
        return run.end()
    if brackets.startswith(closed):
        return position + len(closed)
    for bracket in closed.decode():
        position = text.index(bracket, position) + 1
    return position


def _openers(raw: bytes, limit: int) -> int:
    """How many brackets open, those in strings included; counted to somewhat above the limit, no further."""
    # split() hops from one to the next, count() looks at every byte.
    return len(raw.split(b"[", limit + 1)) + len(raw.split(b"{", limit + 1)) - 2


def _brackets(raw: bytes) -> bytes:
    """The brackets of well-formed JSON text, without those in strings."""
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = raw.translate(None, _NO_MARKS).replace(b'""', b"")
    if b'"' in marks:  # there are brackets in strings: take the strings out one by one
        marks = b"".join(raw.split(b'"')[::2]).translate(None, _NO_BRACKETS)
    return marks


def _refuse_constant(name: str) -> NoReturn:
    raise Malformed(name)


def _bounded_int(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:
        return LongInteger()


def scanner(
    *, parse_float: Callable[[str], Any] | None = None, parse_int: Callable[[str], Any] | None = None
) -> Callable[[str, int], tuple[Any, int]]:
    """The standard library's scanner with these hooks; it refuses NaN and Infinity.

    It raises StopIteration where no value begins, ValueError for other faults, and RecursionError.

    Example:
        >>> scanner(parse_float=str)("[1.50]", 0)
        (['1.50'], 6)
    """
    decoder = json.JSONDecoder(parse_float=parse_float, parse_int=parse_int, parse_constant=_refuse_constant)
    scan_once: Callable[[str, int], tuple[Any, int]] = _make_scanner(cast("Any", decoder))
    return scan_once


_scan_once = scanner()
_scan_once_bounded = scanner(parse_int=_bounded_int)
