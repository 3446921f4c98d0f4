"""Pieces of a payload, byte for byte, in both forms (`dwp_core.codec.pieces`)."""

from __future__ import annotations

import builtins
import importlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwp_core.codec import pieces
from tests.portable.forms import FORMS

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def functions(form: str) -> tuple[Any, Any]:
    if form == "fast":
        from dwp_core.codec import pieces_fast

        return pieces_fast.member_text, pieces_fast.element_texts
    if form == "portable":
        return pieces.portable_member_text, pieces.portable_element_texts
    return pieces.member_text, pieces.element_texts


@pytest.mark.parametrize("form", [*FORMS, "quickest"])
def test_what_was_written_comes_back_byte_for_byte(form: str) -> None:
    member_text, element_texts = functions(form)
    raw = ' {"a": 1 , "p" : {"x": 1.50, "é":[ ]} ,"a":2}\n'.encode()
    assert member_text(raw, "p") == '{"x": 1.50, "é":[ ]}'.encode()
    assert member_text(raw, "a") == b"2"
    assert member_text(raw, "zzz") == b""
    assert member_text(b"{}", "p") == b""
    assert member_text(b'{"p":null}', "p") == b"null"
    assert element_texts(b' [ 1.0 ,{"a": [1, 2]},"x,]" ] ') == [b"1.0", b'{"a": [1, 2]}', b'"x,]"']
    assert element_texts(b"[ ]") == []


@pytest.mark.parametrize("form", FORMS)
@given(value=st.dictionaries(st.text(max_size=3), values, max_size=4), spaced=st.booleans())
def test_every_form_cuts_at_the_same_places(form: str, value: dict[str, Any], spaced: bool) -> None:
    member_text, element_texts = functions(form)
    raw = json.dumps(value, indent=1 if spaced else None, ensure_ascii=False).encode()
    for name in value:
        piece = member_text(raw, name)
        assert piece == pieces.portable_member_text(raw, name)
        assert json.loads(piece) == value[name]
    array = json.dumps(list(value.values()), indent=1 if spaced else None).encode()
    assert element_texts(array) == pieces.portable_element_texts(array)
    assert list(map(json.loads, element_texts(array))) == list(value.values())


def test_without_msgspec_the_portable_form_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        if name == "msgspec" or "pieces_fast" in (fromlist or ()):
            raise ImportError(name)
        return original(name, globals, locals, fromlist, level)

    monkeypatch.setattr(builtins, "__import__", without)
    try:
        importlib.reload(pieces)
        assert pieces.member_text(b'{"p": 1}', "p") == b"1"
        assert pieces._member_text is pieces.portable_member_text
    finally:
        monkeypatch.undo()
        importlib.reload(pieces)
