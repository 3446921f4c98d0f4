"""The JSON grammar: judged the same by the C scanner and by the loop that takes over where it cannot follow."""

from __future__ import annotations

import json
import json.scanner

import pytest

from dwp_core.codec import json_syntax
from dwp_core.codec.json_syntax import LongInteger, Malformed, Unbuilt

GOOD = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-12.50e+10",
    "1E5",
    '""',
    '"a\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9é\\ud800"',
    "[]",
    "[ ]",
    "{}",
    "{ }",
    "[1]",
    "[1,2]",
    "[[],[],{}]",
    "[[1],[2]]",
    '{"a":1}',
    '{"a":{},"b":[]}',
    '{"a":{"b":{"c":[1,{"d":2}]}},"e":"]"}',
    '[ 1 , { "a" : [ ] } , "}" ]',
    "[" * 50_000 + "]" * 50_000,
    '{"a":' * 50_000 + "[]" + "}" * 50_000,
    '[{"[":' * 3000 + "1" + "}]" * 3000,
    "[1,[2,[3,[4]]]]",
    "[[[[[4],3],2],1],0]",
]
BAD = [
    "",
    " ",
    "nul",
    "True",
    "+1",
    "01",
    "1.",
    ".5",
    "1e",
    "-",
    "NaN",
    "-Infinity",
    '"',
    '"\\x"',
    '"\\u12"',
    '"\x01"',
    "'a'",
    "[",
    "]",
    "[1",
    "[1,]",
    "[,1]",
    "[1 2]",
    "[1,,2]",
    "[}",
    "{",
    "{]",
    '{"a"}',
    '{"a":}',
    '{"a":1,}',
    '{"a":1 "b":2}',
    "{1:2}",
    '{"a":[}',
    '{"a":[}]',
    "[[]",
    "[[1]}",
    '{"a":1',
    '{"a":1]',
    '{"a" 1}',
    '{"a":1,2}',
    "\ufeff1",
    "\u0661",
    "1\u0661",
    '"\\u 12 "',
    "[" * 50_000 + "]" * 49_999 + "}",
    '{"a":' * 50_000 + "}" * 50_000,
    "[" * 50_000 + "1,]" + "]" * 49_999,
]


@pytest.mark.parametrize("text", GOOD, ids=range(len(GOOD)))
def test_what_is_json_is_passed_to_its_end(text: str) -> None:
    assert json_syntax.skip(text, 0) == len(text)
    assert json_syntax.skip(f"x{text},", 1) == len(text) + 1
    assert json_syntax.scan(f"x{text},", 1)[1] == len(text) + 1
    json_syntax.whole(f" \t{text}\r\n")


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_what_is_no_json_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Malformed):
        json_syntax.whole(text)
    try:
        assert json_syntax.skip(text, 0) < len(text)
    except Malformed:
        pass
    monkeypatch.setattr(json_syntax, "HAS_C_SCANNER", False)
    monkeypatch.setattr(json_syntax, "_scan_once", json.scanner.py_make_scanner(json.JSONDecoder()))  # type: ignore[attr-defined]
    with pytest.raises(Malformed):
        json_syntax.whole(text)


@pytest.mark.parametrize("text", ["1x", "[]]", "1 2", "{}{}", "[" * 50_000 + "]" * 50_001])
def test_a_second_root_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        json_syntax.whole(text)


def test_brackets_of_the_surroundings_are_left_to_them() -> None:
    assert json_syntax.skip("[[1] ] ] }", 0) == 6
    assert json_syntax.skip("[[1]]]]", 0) == 5
    assert json_syntax.skip("[1]}", 0) == 3


def test_what_is_too_deep_to_be_built_is_known_by_its_kind() -> None:
    value, end = json_syntax.scan("[" * 100_000 + "]" * 100_000, 0)
    assert type(value) is Unbuilt
    assert (value.opener, end) == ("[", 200_000)
    assert json_syntax.whole('{"a":' * 100_000 + "1" + "}" * 100_000).opener == "{"


def test_an_integer_too_long_for_this_python_is_known_as_such() -> None:
    text = "[" + "9" * 5000 + ",1]"
    (long, short), _ = json_syntax.scan(text, 0)
    assert type(long) is LongInteger
    assert short == 1
    with pytest.raises(Malformed):
        json_syntax.scan("[" + "9" * 5000 + ",x]", 0)


@pytest.mark.parametrize("space", ["", " ", "\n\t "])
def test_the_members_of_an_object_are_found(space: str) -> None:
    pairs = [("a", 1), ("a\\u0062", "[]"), ("a", '"x"')]
    text = "{" + ",".join([f'{space}"{name}"{space}:{space}{value}{space}' for name, value in pairs]) + "}"
    found, end = json_syntax.members(text, 0)
    assert end == len(text)
    assert {name: (value, text[start:stop]) for name, (value, start, stop) in found.items()} == {
        "a": ("x", '"x"'),
        "ab": ([], "[]"),
    }
    assert json_syntax.members(f"{{{space}}}", 0) == ({}, len(space) + 2)


@pytest.mark.parametrize(
    "text", ["{", '{"a"', '{"a":', '{"a":1', '{"a":1,', "{,}", '{"a" 1}', '{"a":1;}', '{"a":1 ;}', "{1:1}"]
)  # fmt: skip
def test_what_is_no_object_has_no_members(text: str) -> None:
    with pytest.raises(Malformed):
        json_syntax.members(text, 0)


@pytest.mark.parametrize(
    ("raw", "depth"),
    [
        (b"1", 0),
        (b"[]", 1),
        (b"[[],[[]]]", 3),
        (b"[" * 6 + b"[]," * 9 + b"[[]]" + b"]" * 6, 8),
        (b"[[],[[],[[],[[],[[],[[],[[],[[],[[],[]]]]]]]]]]", 10),
        (b'["[[[[[[[["]', 1),
        (b'["\\"[[[[[\\\\"]', 1),
        (b'[["]"],{"}":{}}]', 3),
        (b"[" + b"[1]," * 50_000 + b"[]]", 2),
        (b"[" + b'{"a":"[["},' * 50_000 + b"[]]", 2),
        (b"[" * 40 + b"]" * 40, 40),
        (b"[" * 500 + b"]" * 500, 500),
        (b'{"a":' * 300 + b"[" * 9 + b"]" * 9 + b',"b":[[[[[[[[[[[[]]]]]]]]]]]]}' + b"}" * 299, 312),
        (b"[" * 30 + (b"[" * 12 + b"]" * 12 + b",") * 100 + b"1" + b"]" * 30, 42),
    ],
    ids=range(14),
)  # fmt: skip
def test_depth_is_counted_outside_of_strings(raw: bytes, depth: int) -> None:
    assert not json_syntax.is_deeper(raw, depth)
    for limit in {*range(min(depth, 12)), depth // 2, max(depth - 1, 0)} - {depth}:
        assert json_syntax.is_deeper(raw, limit)
