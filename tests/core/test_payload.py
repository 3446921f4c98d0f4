"""Payloads: what JSON cannot carry is refused with its path, and what was sent is what is read."""

from __future__ import annotations

import sys
from collections import OrderedDict
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from importlib import import_module
from typing import Any, NamedTuple
from uuid import UUID

import pytest

import dwp_core.codec
from dwp_core.codec import decode_payload, encode_payload, payload, payload_portable
from dwp_core.errors import PayloadError
from dwp_core.frames import DEFAULT_LIMITS, Limits
from tests.portable.forms import FORMS


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    y: float


class Half(float):
    pass


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Any:
    return import_module(f"dwp_core.codec.payload_{request.param}")


def encoded(form: Any, value: Any, limits: Limits = DEFAULT_LIMITS) -> bytes:
    return payload.encode_payload(value, limits=limits, render=form.render)


def decoded(form: Any, raw: bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
    return payload.decode_with(form.parse, raw, limits, "payload")


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        (None, b"null"),
        (True, b"true"),
        (0, b"0"),
        (10**30, b"1" + b"0" * 30),
        (-(2**63) - 1, b"-9223372036854775809"),
        (1.5, b"1.5"),
        (1.0, b"1.0"),
        (-0.0, b"-0.0"),
        (1e16, b"1e16"),
        (1e-5, b"0.00001"),
        (-1.25e-5, b"-0.0000125"),
        (1e-7, b"1e-7"),
        (1.5e300, b"1.5e300"),
        ("é\u2028</\x00\x1f\x7f\"\\\b\f\n\r\t", '"é\u2028</\\u0000\\u001f\x7f\\"\\\\\\b\\f\\n\\r\\t"'.encode()),
        ([1, (2, [])], b"[1,[2,[]]]"),
        ({"a": {"b": None}, "": 1e-6, "é": [1e22, True]}, '{"a":{"b":null},"":1e-6,"é":[1e22,true]}'.encode()),
        (["e+1", 1e22], b'["e+1",1e22]'),
        ({"b": 1.5, "a": [1e-7, -0.5]}, b'{"b":1.5,"a":[1e-7,-0.5]}'),
        (Colour.RED, b'"red"'),
        ([Level.LOW, Half(0.5)], b"[1,0.5]"),
        (Point(1, 1e-5), b"[1,0.00001]"),
        (OrderedDict({Colour.RED: [Point(1, 2.0), None]}), b'{"red":[[1,2.0],null]}'),
    ],
    ids=range(22),
)  # fmt: skip
def test_a_value_is_written_as_json_and_nothing_is_converted(form: Any, value: Any, raw: bytes) -> None:
    assert encoded(form, value) == raw


class Cheat(dict[str, int]):
    """Shows something else each time that it is looked at."""

    def items(self) -> Any:
        self["looked"] = self.get("looked", 0) + 1
        return [("a", set() if self["looked"] == 2 else 1)]


NOW = datetime(2026, 1, 2, tzinfo=UTC)


def cycle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


DEEP = "nested too deeply; at most 128 levels of arrays and objects are accepted"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"items": [0, {"when": NOW}]}, "payload.items[1].when: datetime is not JSON; send text or a number"),
        (date(2026, 1, 2), "payload: date is not JSON; send text"),
        ([Decimal("1.5")], "payload[0]: Decimal is not JSON; send text or a number"),
        ({"id": UUID(int=5)}, "payload.id: UUID is not JSON; send text"),
        ({"a b": b"x"}, 'payload["a b"]: bytes is not JSON; send text, for instance base64'),
        ({"x": {1, 2}}, "payload.x: set is not JSON; send a list"),
        (object(), "payload: object is not JSON; send JSON values"),
        (1j, "payload: complex is not JSON; send a list of two numbers"),
        (float("nan"), "payload: nan is not JSON; send a finite number, null or text"),
        ([1.5, -float("inf")], "payload[1]: -inf is not JSON; send a finite number, null or text"),
        ({"a": {1: 2}}, "payload.a: key 1 (int) is not JSON; keys must be text"),
        ({None: 2}, "payload: key None (NoneType) is not JSON; keys must be text"),
        ({("x" * 100,): 2}, "payload: key ('" + "x" * 58 + "... (tuple) is not JSON; keys must be text"),
        (["\ud800"], "payload[0]: text with a lone surrogate is not JSON; surrogates must come in pairs"),
        ({"\ud800": 1}, "payload: a key with a lone surrogate is not JSON; surrogates must come in pairs"),
        ({"k" * 70 + " ": b""}, 'payload["' + "k" * 60 + '..."]: bytes is not JSON; send text, for instance base64'),
        ({"n": 10**5000}, "payload.n: an integer has too many digits to be written here; send text"),
        (cycle(), "payload" + "[0]" * 17 + "[0..." + ": " + DEEP),
    ],
    ids=range(18),
)  # fmt: skip
def test_what_json_cannot_carry_is_refused_with_its_path(form: Any, value: Any, text: str) -> None:
    with pytest.raises(PayloadError) as caught:
        encoded(form, value)
    assert (caught.value.code, caught.value.message) == (400, text)


def test_a_value_that_changes_while_it_is_looked_at_is_refused_as_well(form: Any) -> None:
    with pytest.raises(PayloadError, match="payload: Cheat cannot be written as JSON"):
        encoded(form, Cheat())


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_a_value_may_be_as_deep_as_the_limit_and_no_deeper(form: Any) -> None:
    assert encoded(form, nested(128)) == b"[" * 128 + b"1" + b"]" * 128
    with pytest.raises(PayloadError, match=DEEP):
        encoded(form, nested(129))
    with pytest.raises(PayloadError, match=r"payload\[0\]: nested too deeply; at most 1 levels"):
        encoded(form, [{}], Limits(depth=1))
    with pytest.raises(PayloadError, match="payload: nested too deeply; at most 100000 levels"):
        encoded(form, nested(20_000), Limits(depth=100_000))


def test_a_value_may_be_as_large_as_the_limit_and_no_larger(form: Any) -> None:
    assert encoded(form, "xx", Limits(payload=4)) == b'"xx"'
    with pytest.raises(PayloadError, match="payload: 5 bytes of JSON; at most 4 are accepted") as caught:
        encoded(form, "xxx", Limits(payload=4))
    assert caught.value.code == 413


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b" [1, 2.0, null]\n", [1, 2.0, None]),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (b"-18446744073709551616", -18446744073709551616),
        (b"1" * 4300, int("1" * 4300)),
        (b"1e5", 1e5),
        (b"-0", 0),
        (b"1e-999", 0.0),
        (b'{"a":1,"b":2,"a":3}', {"a": 3, "b": 2}),
        (b'"\\ud83d\\ude00"', "😀"),
        (b'"\\\\ud800"', "\\ud800"),
        (b'{"":[{"":[{"":[{"":[{"":[1]}]}]}]}]}', {"": [{"": [{"": [{"": [{"": [1]}]}]}]}]}),
        (b"[" * 128 + b"]" * 128, None),
    ],
    ids=range(12),
)  # fmt: skip
def test_what_is_right_is_read(form: Any, raw: bytes, value: Any) -> None:
    found = decoded(form, raw)
    if value is not None:
        assert repr(found) == repr(value)
        assert repr(payload.judge(raw, DEFAULT_LIMITS, "payload")) == repr(value)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "not JSON"),
        (b"{bad", "not JSON"),
        (b"[1] []", "not JSON"),
        (b"NaN", "not JSON"),
        (b"[-Infinity]", "not JSON"),
        (b"\xef\xbb\xbf1", "not JSON"),
        (b'"\x00"', "not JSON"),
        (b"[" * 5000, "not JSON"),
        (b'"\xff"', "not UTF-8"),
        (b"\xff{bad", "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        (b"[" * 129 + b"]" * 129, DEEP),
        (b'{"a":' * 129 + b"1e999" + b"}" * 129, DEEP),
        (b"[" * 50_000 + b"]" * 50_000, DEEP),
        (b'[1e999,"\\ud800",' + b"9" * 5000 + b"]", "text with a lone surrogate; surrogates must come in pairs"),
        (b'{"\\udc00":1}', "text with a lone surrogate; surrogates must come in pairs"),
        (b'"\\udc00\\ud800"', "text with a lone surrogate; surrogates must come in pairs"),
        (b"[" + b"9" * 5000 + b",{\"a\":-1e999}]", "a number is not finite; numbers must fit a 64-bit float"),
        (b"1" * 400 + b".0", "a number is not finite; numbers must fit a 64-bit float"),
        (b'["\\ud83d\\ude00",' + b"9" * 4301 + b"]", "an integer has too many digits to be read here"),
    ],
    ids=range(20),
)  # fmt: skip
def test_what_may_not_travel_is_refused_with_one_text(form: Any, raw: bytes, text: str) -> None:
    with pytest.raises(PayloadError) as caught:
        decoded(form, raw)
    assert (caught.value.code, caught.value.message) == (400, f"payload: {text}")


def test_a_payload_beyond_the_limit_is_refused_unread(form: Any) -> None:
    limits = Limits(payload=3)
    with pytest.raises(PayloadError, match="payload: 4 bytes of JSON; at most 3 are accepted") as caught:
        decoded(form, b"{bad", limits)
    assert caught.value.code == 413
    with pytest.raises(PayloadError, match="at most 3 are accepted"):
        payload.judge(b"{bad", limits, "payload")


@pytest.mark.parametrize("depth", [0, 1, 2, 6, 7, 8, 9, 20])
def test_the_depth_that_is_accepted_is_exactly_the_limit(form: Any, depth: int) -> None:
    for wide in (b"1", b"[],{},[]", b'"[[[[[[[[[[[["'):
        raw = b"[" * depth + wide + b"]" * depth if depth else b"1"
        deeper = depth + (b"{}" in wide and depth > 0)
        assert decoded(form, raw, Limits(depth=deeper)) is not None
        with pytest.raises(PayloadError, match=f"at most {deeper} levels"):
            decoded(form, b"[" + raw + b"]", Limits(depth=deeper))


def test_more_depth_than_this_process_can_follow_is_refused_even_where_it_is_allowed(form: Any) -> None:
    with pytest.raises(PayloadError, match="at most 1000000 levels"):
        decoded(form, b"[" * 200_000 + b"]" * 200_000, Limits(depth=1_000_000))


def test_the_public_functions_name_what_they_read() -> None:
    assert decode_payload(encode_payload({"a": 1})) == {"a": 1}
    with pytest.raises(PayloadError, match=r"^input\.a: set is not JSON"):
        encode_payload({"a": set()}, what="input")
    with pytest.raises(PayloadError, match=r"^output: not JSON"):
        decode_payload(b"x", what="output")


@pytest.mark.fast_form
def test_the_portable_half_is_taken_where_msgspec_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from dwp_core.codec import payload_fast

    assert payload._quickest() == (payload_fast.parse, payload_fast.render)
    monkeypatch.setitem(sys.modules, "dwp_core.codec.payload_fast", None)
    monkeypatch.delattr(dwp_core.codec, "payload_fast")
    assert payload._quickest() == (payload_portable.parse, payload_portable.render)
