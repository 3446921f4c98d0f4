"""MessagePack, walked without recursion and without believing what a header claims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from dwp_core.codec import msgpack_syntax
from dwp_core.codec.msgpack_syntax import Extension, Malformed

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    127,
    128,
    255,
    256,
    65536,
    2**32,
    2**64 - 1,
    -1,
    -32,
    -33,
    -129,
    -32769,
    -(2**31) - 1,
    1.5,
    "",
    "x" * 31,
    "x" * 32,
    "é" * 200,
    "x" * 70_000,
    b"",
    b"x" * 300,
    b"x" * 70_000,
    [],
    [1, [2, [3]]],
    list(range(20)),
    [[]] * 70_000,
    {"a": {"b": 1}},
    {str(n): n for n in range(20)},
    {str(n): n for n in range(70_000)},
    [{"a": [None] * 40}] * 20,
    msgpack.ExtType(5, b"x"),
    msgpack.ExtType(5, b"xx"),
    msgpack.ExtType(5, b"x" * 4),
    msgpack.ExtType(5, b"x" * 8),
    msgpack.ExtType(5, b"x" * 16),
    msgpack.ExtType(5, b"x" * 17),
    msgpack.ExtType(5, b"x" * 300),
    msgpack.ExtType(5, b"x" * 70_000),
]


@pytest.fixture(params=[True, False], ids=["with-c", "without-c"])
def is_whole(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], bool]:
    monkeypatch.setattr(msgpack_syntax, "HAS_C_UNPACKER", request.param)
    return msgpack_syntax.is_whole


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_every_value_is_whole_unless_something_is_missing_or_left_over(
    is_whole: Callable[[bytes], bool], value: Any
) -> None:
    packed = msgpack.packb(value)
    assert is_whole(packed)
    assert not is_whole(packed[:-1])
    assert not is_whole(packed + b"\xc0")
    assert not is_whole(b"")


@pytest.mark.parametrize(
    "level", [b"\x91", b"\x92\xc0", b"\x93\xa1x\x01", b"\x81\xa1k", b"\x82\x01\x02\x03",
              b"\x94\x01\x02\x03", b"\x92\x91\x01"]
)  # fmt: skip
def test_no_depth_is_too_deep(is_whole: Callable[[bytes], bool], level: bytes) -> None:
    assert is_whole(level * 20_000 + b"\xc0")
    assert not is_whole(level * 20_000)
    assert not is_whole(level * 20_000 + b"\xc1")
    assert not is_whole(level * 20_000 + b"\xc0\xc0")


def test_members_are_found_among_strangers() -> None:
    message = msgpack.packb(
        {
            "idx": "id",
            "": 1,
            "id": "x",
            "x" * 40: [{"id": 5}],
            "tsx": None,
            "ts": 7,
            b"data": b"[]",
            "end": -1,
        }
    )
    found, texts = msgpack_syntax.members(message, 0, len(message), msgpack_syntax.FIELD_NAMES)
    assert texts
    assert {name: msgpack_syntax.read(message, start) for name, start in found.items()} == {
        b"id": "x",
        b"ts": 7,
        b"data": "[]",
    }
    message = msgpack.packb({"id": "x", 5: "y", "z": 1})
    assert not msgpack_syntax.members(message, 0, len(message), msgpack_syntax.FIELD_NAMES)[1]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_every_value_is_skipped_to_its_end_and_refused_when_cut(value: Any) -> None:
    packed = msgpack.packb(value)
    assert msgpack_syntax.skip(b"\xc0" + packed + b"\xc0", 1) == len(packed) + 1
    for end in {0, 1, len(packed) // 2, len(packed) - 1}:
        if end < len(packed):
            with pytest.raises(Malformed):
                msgpack_syntax.skip(packed[:end], 0)


@pytest.mark.parametrize(
    "message",
    [
        b"\xc1",
        b"\x91\xc1",
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff\xc0",
        b"\xc6\xff\xff\xff\xff",
        b"\xc7",
    ],
)
def test_what_is_no_messagepack_is_refused_whatever_it_claims(message: bytes) -> None:
    with pytest.raises(Malformed):
        msgpack_syntax.skip(message, 0)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (None, None),
        (True, True),
        (False, False),
        (5, 5),
        (-5, -5),
        (300, 300),
        (-(2**40), -(2**40)),
        (1.5, 1.5),
        ("é", "é"),
        ("x" * 300, "x" * 300),
        (b"x" * 300, "x" * 300),
        (b"\xff", "\udcff"),
        ([1], []),
        ([1] * 20, []),
        ({"a": 1}, {}),
        ({str(n): n for n in range(20)}, {}),
        (msgpack.ExtType(5, b"x"), Extension(0xD4)),
    ],
)  # fmt: skip
def test_values_are_read_as_the_judge_wants_them(value: Any, read: Any) -> None:
    assert msgpack_syntax.read(msgpack.packb(value), 0) == read
