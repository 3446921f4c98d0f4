"""The four codecs against each other, and the judges against parsers that were written by others.

Where msgspec is missing, what is left is held against the judges: the portable codecs, and other people's parsers.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dwp_core.codec import Codec, get_codec, json_syntax, msgpack_syntax, payload
from dwp_core.codec.events import judge_event
from dwp_core.codec.judge import judge_json, judge_msgpack
from dwp_core.errors import FrameError, PayloadError
from dwp_core.frames import DEFAULT_LIMITS, ErrorDetail, Limits
from tests.portable.forms import FORMS
from tests.portable.forms import HERE as FORMS_HERE

VECTORS = Path(__file__).parents[1] / "vectors"
TIGHT = Limits(message=400, payload=60, depth=3, id=6, method=6, channel=6)
FIELDS = ("id", "type", "method", "correl_id", "token", "app_id", "org_id", "error", "channel", "credits")
CODECS = {name: [get_codec(name, form) for form in FORMS_HERE] for name in ("json", "msgpack")}
PAYLOADS = [import_module(f"dwp_core.codec.payload_{form}") for form in FORMS_HERE]


def recorded(name: str) -> list[bytes]:
    """Every frame and every odd input of the recordings, of moderate size."""
    lines = [
        json.loads(line)
        for part in ("frames", "inputs")
        for line in (VECTORS / part / f"{name}.jsonl").read_text().splitlines()
    ]
    messages = {
        line["text"].encode() if "text" in line else base64.b64decode(line["base64"]) for line in lines
    }
    return sorted(message for message in messages if len(message) < 3000)


SEEDS = {name: recorded(name) for name in CODECS}

PIECES = {
    "json": [
        *(
            b'{ } [ ] , : " \\ null true false NaN Infinity -Infinity -0 1e999 1e5 1.5 01 1. - 0 {} [] "" '.split()
        ),
        b"1" * 30,
        b"1" * 5000,
        b"[" * 2000,
        b"]" * 2000,
        b'{"a":' * 1500,
        b"}" * 1500,
        b"[" * 2000 + b"]" * 2000,
        b'"\\ud800"',
        b'"\\udc00\\ud83d"',
        b'"\\ud83d\\ude00"',
        b'"\\\\ud800"',
        b'"\\u00"',
        b'"\\x"',
        b"\xff",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        "é😀".encode(),
        b"\x00",
        b"\x1f",
        b"\x7f",
        b" ",
        b"\t\r\n",
        b"\x0b",
        b'"id"',
        b'"i\\u0064"',
        b'"data":',
        b'"data":[1,{"a":"]"}],',
        b'"ts":',
        b'"error":{"code":1,"message":"m","more":[[]]},',
        b'"error":{"code":null,"details":"d"},',
        b'"error":{"code":1,"deep":' + b"[" * 3000 + b"]" * 3000 + b"},",
        b'"credits":9223372036854775808,',
        b'"credits":-9223372036854775808,',
        b'"credits":' + b"9" * 5000 + b",",
        b'"zzz":"\\ud800",',
        b'"channel":"jobs",',
        b'"app_id":null,',
        b'"seq":',
    ],
    "msgpack": [
        *[bytes([code]) for code in range(0x80, 0x100)],
        b"\x91" * 2000,
        b"\x81\xa1a" * 1500,
        b"\xa2id\xc0",
        b"\xc4\x02id\xa1x",
        b"\xd9\x02id\xc4\x01x",
        b"\xa2id\xa2\xff\xfe",
        b"\xa4data\xc4\x02{}",
        b"\xa4data\xa2{}",
        b"\xa4data\xc4\x01\xff",
        b"\xa5error\x82\xa4code\x01\xa7message\xa1m",
        b"\xa5error\x81\x01\x02",
        b"\xa5error\x82\xa4code\xc0\xa4deep" + b"\x91" * 1500 + b"\xc0",
        b"\xa7credits\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xa7credits\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
        b"\xa2ts\xd6\xff\x00\x00\x00\x00",
        b"\xa2ts\xc4\x06\xd6\xff\x00\x00\x00\x00",
        b"\xa2ts\xd7\xff\xff\xff\xff\xff\x00\x00\x00\x00",
        b"\xa2ts\xc7\x0c\xff" + b"\x00" * 12,
        b"\xa3zzz\xdc\x00\x20" + b"\xc0" * 32,
        b"\xa3zzz\xdc\x00\x20" + b"\x91\x01" * 32,
        b"\xdb\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\x7f\xff\xff\xff",
        b"\x01\x02",
    ],
}


@st.composite
def mutated(draw: st.DrawFn, name: str) -> bytes:
    """A recorded message with some pieces put in, cut out, or changed."""
    message = bytearray(draw(st.sampled_from(SEEDS[name])))
    if name == "msgpack" and message and draw(st.booleans()):
        message[0] = (message[0] + draw(st.integers(-1, 2))) & 0xFF
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(message)))
        to = min(len(message), at + draw(st.sampled_from([0, 0, 1, 2, 5, 20])))
        message[at:to] = draw(st.one_of(st.sampled_from(PIECES[name]), st.binary(max_size=4)))
    return bytes(message)


keys = st.sampled_from([*FIELDS, "data", "ts", "zzz", "é", "type"])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [2**63, -(2**63), 2**64, 10**30, "i" * 257, "m" * 129, "c" * 513, "2026-01-02T03:04:05.5Z"]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
errors = st.dictionaries(st.sampled_from(["code", "message", "details", "more"]), scalars, max_size=4)
objects = st.dictionaries(keys, values, max_size=8) | st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(FIELDS, st.text(max_size=7)),
        "error": errors,
        "credits": st.integers(),
        "data": values,
    },
)


def verdict(codec: Codec, message: bytes | bytearray | memoryview, limits: Limits) -> Any:
    """Everything that a codec says of a message, in a form that can be compared."""
    try:
        frame = codec.decode(message, limits)
    except FrameError as error:
        return error.code, error.message, error.frame_id
    said: dict[str, Any] = {name: getattr(frame, name) for name in FIELDS}
    said["data"] = codec.data(frame)
    said["ts"] = codec.timestamp(frame)
    event = codec.event(frame)
    said["event"] = event and (event.type, event.topic, event.seq, event.ts, event.data)
    for attempt in ("value", "again"):
        try:
            said[attempt] = repr(codec.value(frame, limits))  # 1 is not 1.0 and not True
        except PayloadError as error:
            said[attempt] = (error.code, error.message)
    return said


def judged(judge: Callable[..., Any], message: bytes, limits: Limits) -> Any:
    try:
        return dict(zip(FIELDS, judge(message, limits)[0], strict=True))
    except FrameError as error:
        return error.code, error.message, error.frame_id


def agree(name: str, message: bytes) -> None:
    judge = judge_json if name == "json" else judge_msgpack
    for limits in (DEFAULT_LIMITS, TIGHT):
        expected = verdict(CODECS[name][-1], message, limits)
        for codec in CODECS[name]:
            assert verdict(codec, message, limits) == expected
            assert verdict(codec, bytearray(message), limits) == expected
        alone = judged(judge, message, limits)
        assert alone == ({key: expected[key] for key in FIELDS} if type(expected) is dict else expected)


@given(mutated("json"))
def test_both_forms_and_the_judge_agree_on_mutated_json(message: bytes) -> None:
    agree("json", message)


@given(mutated("msgpack"))
def test_both_forms_and_the_judge_agree_on_mutated_messagepack(message: bytes) -> None:
    agree("msgpack", message)


@given(st.binary(max_size=60))
def test_both_forms_agree_on_any_bytes(message: bytes) -> None:
    agree("json", message)
    agree("msgpack", message)


@given(objects, st.booleans())
def test_both_forms_agree_on_any_object_as_json(root: dict[str, Any], ascii_only: bool) -> None:
    agree("json", json.dumps(root, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))


@given(objects)
def test_both_forms_agree_on_any_object_as_messagepack(root: dict[str, Any]) -> None:
    small = {key: value for key, value in root.items() if not _has_long_integer(value)}
    agree("msgpack", msgpack.packb(small, unicode_errors="surrogatepass"))


def _has_long_integer(value: Any) -> bool:
    if isinstance(value, (list, dict)):
        return any(map(_has_long_integer, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int) and not -(2**63) <= value < 2**64


texts = st.text(max_size=20)


@given(
    type=texts,
    id=texts,
    method=texts,
    correl_id=texts,
    token=texts,
    data=values.filter(lambda value: value == value),
    error=st.none() | st.builds(ErrorDetail, st.integers(-(2**63), 2**63 - 1), texts, texts),
    channel=texts,
    credits=st.integers(-(2**63), 2**63 - 1),
    ts=st.integers(-62_135_596_800 * 10**9, 253_402_300_800 * 10**9 - 1),
)
@pytest.mark.parametrize("name", CODECS)
def test_what_is_encoded_is_the_same_in_both_forms_and_decodes_to_itself(name: str, **fields: Any) -> None:
    ts = fields["ts"]
    try:
        raw = payload.encode_payload(fields["data"])
    except PayloadError:
        raw = b""
    [message] = {codec.encode(**{**fields, "data": raw}) for codec in CODECS[name]}
    for codec in CODECS[name]:
        frame = codec.decode(message, DEFAULT_LIMITS)
        assert {name: getattr(frame, name) for name in fields if name not in ("data", "ts")} == {
            name: value for name, value in fields.items() if name not in ("data", "ts")
        }
        assert codec.data(frame) == raw
        assert codec.timestamp(frame) == ts
    agree(name, message)


payloads = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)


@given(payloads)
@example(1e-5)
@example([-1.5e-05, 1e16, 1e-7, "1e-05"])
def test_both_forms_write_a_payload_in_the_same_bytes_and_read_it_back(value: Any) -> None:
    written: set[bytes | str] = set()
    for form in PAYLOADS:
        try:
            written.add(payload.encode_payload(value, render=form.render))
        except PayloadError as error:
            written.add(error.message)
    [raw] = written
    if isinstance(raw, str):
        assert "lone surrogate" in raw
        return
    for form in PAYLOADS:
        assert repr(payload.decode_with(form.parse, raw, DEFAULT_LIMITS, "payload")) == repr(value)


json_texts = st.one_of(
    st.lists(st.sampled_from(PIECES["json"]), max_size=8).map(b"".join),
    payloads.map(lambda value: json.dumps(value).encode()),
    st.builds(
        lambda value, at, piece: (text := json.dumps(value).encode())[:at] + piece + text[at:],
        payloads,
        st.integers(0, 40),
        st.sampled_from(PIECES["json"]),
    ),
)


@given(json_texts, st.sampled_from([DEFAULT_LIMITS, TIGHT, Limits(depth=3000)]))
def test_both_forms_and_the_judge_agree_on_any_payload(raw: bytes, limits: Limits) -> None:
    said = set()
    ways: list[Callable[[], Any]] = [
        partial(payload.judge, raw, limits, "p"),
        *(partial(payload.decode_with, form.parse, raw, limits, "p") for form in PAYLOADS),
    ]
    for way in ways:
        try:
            said.add(repr(way()))
        except PayloadError as error:
            said.add(f"{error.code} {error.message}")
    assert len(said) == 1


def is_json(raw: bytes) -> bool:
    text = raw.decode("utf-8", "surrogateescape")
    try:
        end = json_syntax.skip(text, json_syntax.space(text, 0))
    except json_syntax.Malformed:
        return False
    return json_syntax.space(text, end) == len(text)


@given(json_texts)
def test_the_judge_of_the_json_grammar_agrees_with_the_standard_library(raw: bytes) -> None:
    text = raw.decode("utf-8", "surrogateescape")
    accepted = is_json(raw)
    try:
        json.loads(text, parse_constant=_refuse, parse_int=len)
        assert accepted
    except RecursionError:
        pass
    except ValueError:
        assert not accepted


@pytest.mark.fast_form
@given(json_texts)
def test_the_judge_of_the_json_grammar_agrees_with_msgspec(raw: bytes) -> None:
    import msgspec

    accepted = is_json(raw)
    try:
        msgspec.json.decode(raw, type=msgspec.Raw)
        assert accepted
    except RecursionError:
        pass
    except msgspec.DecodeError:
        if accepted:  # msgspec refuses lone surrogates, which are grammar
            assert b"\\ud" in raw.lower()


def _refuse(name: str) -> Any:
    raise ValueError(name)


def is_messagepack(message: bytes) -> bool:
    try:
        return msgpack_syntax.skip(message, 0) == len(message)
    except msgpack_syntax.Malformed:
        return False


@given(mutated("msgpack") | st.binary(max_size=40))
def test_the_judge_of_messagepack_agrees_with_the_unpacker_that_sees_large_messages(message: bytes) -> None:
    padded = b"\xdc\x01\x2d" + b"\xc0" * 300 + message  # large enough for the C unpacker
    assert msgpack_syntax.is_whole(padded) == is_messagepack(message)


@pytest.mark.fast_form
@given(mutated("msgpack") | st.binary(max_size=40))
def test_the_judge_of_messagepack_agrees_with_msgspec(message: bytes) -> None:
    import msgspec

    accepted = is_messagepack(message)
    try:
        msgspec.msgpack.decode(message, type=msgspec.Raw)
        assert accepted
    except RecursionError:
        pass
    except msgspec.DecodeError:
        assert not accepted


@given(st.integers(0, 40), payloads)
def test_the_depth_that_is_judged_is_the_depth_there_is(around: int, value: Any) -> None:
    for _ in range(around):
        value = [value, "]"] if around % 2 else {"{[": value}
    depth = _depth(value)
    raw = json.dumps(value).encode()
    assert not json_syntax.is_deeper(raw, depth)
    if depth:
        assert json_syntax.is_deeper(raw, depth - 1)


def _depth(value: Any) -> int:
    if isinstance(value, (list, dict)):
        return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)
    return 0


@pytest.mark.parametrize("form", FORMS)
@given(message=mutated("json"))
def test_an_event_is_read_alike_by_every_codec_and_by_the_judge(form: str, message: bytes) -> None:
    codec = get_codec("msgpack", form)
    frame = codec.decode(codec.encode("event", "e", data=message, ts=0), DEFAULT_LIMITS)
    head = codec.event(frame)
    judged_head = judge_event(message)
    assert (head is None) == (judged_head is None)
    if head is not None and judged_head is not None:
        assert (head.type, head.topic, head.seq, head.ts, head.data) == (
            judged_head.type,
            judged_head.topic,
            judged_head.seq,
            judged_head.ts,
            judged_head.data,
        )


def test_the_verdict_does_not_depend_on_how_deep_the_caller_stands() -> None:
    message = b'{"id":"x","type":"ping","data":' + b"[" * 120 + b"]" * 120 + b"}"

    def stand(levels: int, codec: Codec) -> str:
        return codec.decode(message, DEFAULT_LIMITS).id if levels == 0 else stand(levels - 1, codec)

    for codec in CODECS["json"]:
        assert stand(sys.getrecursionlimit() // 2, codec) == "x"
