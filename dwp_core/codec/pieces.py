"""Pieces of a payload as the sender wrote them, byte for byte: what is stored is not parsed and written anew.

Only for payloads that were judged before (`Codec.value`): here nothing is checked. A piece has no white space around.
"""

from __future__ import annotations

from collections.abc import Callable

from dwp_core.codec import json_syntax


def portable_member_text(raw: bytes, name: str) -> bytes:
    """`member_text` with the standard library."""
    text = raw.decode()
    members, _ = json_syntax.members(text, json_syntax.space(text, 0))
    if name not in members:
        return b""
    _, start, end = members[name]
    return text[start:end].encode()


def portable_element_texts(raw: bytes) -> list[bytes]:
    """`element_texts` with the standard library."""
    text = raw.decode()
    found: list[bytes] = []
    position = json_syntax.space(text, json_syntax.space(text, 0) + 1)
    while text[position] != "]":
        _, end = json_syntax.scan(text, position)
        found.append(text[position:end].encode())
        position = json_syntax.space(text, end)
        if text[position] == ",":
            position = json_syntax.space(text, position + 1)
    return found


def _quickest() -> tuple[Callable[[bytes, str], bytes], Callable[[bytes], list[bytes]]]:
    try:
        from dwp_core.codec import pieces_fast
    except ImportError:  # no msgspec: PyPy without wheels, Pyodide
        return portable_member_text, portable_element_texts
    return pieces_fast.member_text, pieces_fast.element_texts


_member_text, _element_texts = _quickest()


def member_text(raw: bytes, name: str) -> bytes:
    """The JSON text of a member of an object, of the last one where there are several; b"" where there is none.

    Example:
        >>> member_text(b'{"name":"x", "payload": {"a": 1.0} }', "payload")
        b'{"a": 1.0}'
    """
    return _member_text(raw, name)


def element_texts(raw: bytes) -> list[bytes]:
    """The JSON texts of the elements of an array.

    Example:
        >>> element_texts(b'[1.0, {"a": []}]')
        [b'1.0', b'{"a": []}']
    """
    return _element_texts(raw)
