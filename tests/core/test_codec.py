"""What every codec promises, in all four forms."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgpack
import pytest

from dwp_core.codec import Codec, get_codec, json_syntax
from dwp_core.errors import FrameError, InvalidRequest, PayloadError
from dwp_core.frames import DEFAULT_LIMITS, ErrorDetail, Limits
from tests.portable.forms import FORMS

TS = 1_795_340_767_397_406_123
NAMES = ("json", "msgpack")


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=NAMES)
def codec(request: pytest.FixtureRequest, form: str) -> Codec:
    return get_codec(request.param, form)


@pytest.fixture
def json_codec(form: str) -> Codec:
    return get_codec("json", form)


@pytest.fixture
def msgpack_codec(form: str) -> Codec:
    return get_codec("msgpack", form)


def refused(codec: Codec, message: bytes, limits: Limits = DEFAULT_LIMITS) -> FrameError:
    with pytest.raises(FrameError) as caught:
        codec.decode(message, limits)
    return caught.value


def event_frame(codec: Codec, data: bytes) -> Any:
    return codec.decode(codec.encode("event", "e-1", data=data, ts=TS), DEFAULT_LIMITS)


# --- choosing


@pytest.mark.parametrize("name", NAMES)
def test_a_codec_is_had_by_name_and_form(name: str, form: str) -> None:
    codec = get_codec(name, form)
    assert (codec.name, codec.form, codec.binary) == (name, form, name == "msgpack")


@pytest.mark.fast_form
def test_the_fast_form_is_taken_where_it_can_be() -> None:
    assert get_codec("json").form == get_codec("json", "fast").form


def test_the_portable_form_is_taken_where_msgspec_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dwp_core.codec.json_fast", None)
    assert get_codec("json").form == "portable"
    with pytest.raises(InvalidRequest, match="needs msgspec, which is not installed"):
        get_codec("json", "fast")


def test_an_unknown_codec_or_form_is_an_error_that_lists_what_there_is() -> None:
    with pytest.raises(InvalidRequest, match='unknown format "xml": expected "json" or "msgpack"'):
        get_codec("xml")
    with pytest.raises(
        InvalidRequest, match='unknown codec form "slow": expected "fast", "portable" or None'
    ):
        get_codec("json", "slow")


_ALONE = """
import sys
sys.platform = "{platform}"
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name in {blocked}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
from dwp_core.codec import decode_payload, encode_payload, get_codec, json_syntax
from dwp_core.errors import FrameError, PayloadError
from dwp_core.frames import DEFAULT_LIMITS
assert json_syntax.HAS_C_SCANNER is {scanner}
for name in "json", "msgpack":
    codec = get_codec(name)
    assert codec.form == "portable"
    data = encode_payload({{"a": [1, 1e-5, "\\u00e9\\U0001f600"], "b": None}})
    message = codec.encode("request", "c-1", method="job.get", data=data, ts={ts})
    frame = codec.decode(message, DEFAULT_LIMITS)
    assert (frame.id, frame.method, codec.timestamp(frame)) == ("c-1", "job.get", {ts})
    assert codec.value(frame, DEFAULT_LIMITS) == {{"a": [1, 1e-5, "\\u00e9\\U0001f600"], "b": None}}
    assert codec.data(frame) == data
    try:
        codec.decode(message[:-1], DEFAULT_LIMITS)
    except FrameError as error:
        assert error.message.startswith("invalid frame: not "), error
    else:
        raise AssertionError
for lax in '"\\\\u 12 "', "1\\u0662", "[" * 3000 + "x" + "]" * 3000:
    try:
        decode_payload(lax.encode())
    except PayloadError as error:
        assert error.message == "payload: not JSON", error
    else:
        raise AssertionError(lax)
assert "msgspec" not in sys.modules
"""


@pytest.mark.parametrize(
    ("blocked", "platform", "scanner"),
    [
        pytest.param({"msgspec"}, sys.platform, True, id="without-msgspec"),
        pytest.param(
            {"msgspec", "_json", "msgpack._cmsgpack"}, sys.platform, False, id="without-any-extension"
        ),
        pytest.param({"msgspec", "msgpack._cmsgpack"}, "emscripten", False, id="in-webassembly"),
    ],
)
def test_the_portable_form_works_alone(blocked: set[str], platform: str, scanner: bool) -> None:
    program = _ALONE.format(blocked=repr(blocked), platform=platform, scanner=scanner, ts=TS)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# --- encoding


def test_fields_are_written_in_the_order_of_the_table_and_omitted_when_empty(json_codec: Codec) -> None:
    everything = json_codec.encode(
        "response",
        "s-1",
        method="m",
        correl_id="c-1",
        token="t",
        data=b'{"a": 1}',
        error=ErrorDetail(404, "job not found", "really"),
        channel="jobs",
        credits=5,
        ts=TS,
    )
    assert everything == (
        b'{"id":"s-1","type":"response","method":"m","correl_id":"c-1","token":"t","data":{"a": 1},'
        b'"error":{"code":404,"message":"job not found","details":"really"},"channel":"jobs","credits":5,'
        b'"ts":"2026-11-22T09:46:07.397406123Z"}'
    )
    assert json_codec.encode("ping", "", ts=TS + 1) == (
        b'{"id":"","type":"ping","ts":"2026-11-22T09:46:07.397406124Z"}'
    )


def test_an_error_always_has_its_code_and_message(json_codec: Codec) -> None:
    message = json_codec.encode("error", "s-1", error=ErrorDetail(), ts=TS)
    assert b'"error":{"code":0,"message":""}' in message


def test_messagepack_is_one_map_with_the_payload_as_bin_and_the_time_as_extension(
    msgpack_codec: Codec,
) -> None:
    message = msgpack_codec.encode(
        "error", "s-1", data=b"[1]", error=ErrorDetail(1, "m", "d"), credits=-1, ts=TS
    )
    assert msgpack.unpackb(message) == {
        "id": "s-1",
        "type": "error",
        "data": b"[1]",
        "error": {"code": 1, "message": "m", "details": "d"},
        "credits": -1,
        "ts": msgpack.Timestamp(TS // 10**9, TS % 10**9),
    }


@pytest.mark.fast_form
@pytest.mark.parametrize("name", NAMES)
def test_both_forms_write_the_same_bytes(name: str) -> None:
    calls: list[dict[str, Any]] = [
        {"type": "request", "id": "c-1", "method": "job.enqueue", "data": b"{}", "ts": TS},
        {
            "type": "error",
            "id": '\x00\x1f\x7f"\\/<é😀\u2028',
            "error": ErrorDetail(400, "\b\f\n\r\t"),
            "ts": 5,
        },
        {"type": "event", "id": "e", "channel": "jobs", "credits": 2**62, "ts": -62_135_596_800 * 10**9},
        {"type": "event", "id": "e", "token": "t", "correl_id": "c", "ts": TS // 10**9 * 10**9 + 7},
    ]
    for call in calls:
        assert get_codec(name, "fast").encode(**call) == get_codec(name, "portable").encode(**call)


def test_a_lone_surrogate_of_our_own_is_a_local_error(codec: Codec) -> None:
    with pytest.raises(InvalidRequest, match="a text of the frame has a lone surrogate at character"):
        codec.encode("request", "a\ud800", method="stats", ts=TS)
    with pytest.raises(InvalidRequest, match="send valid Unicode"):
        codec.encode("request", "a", method="m\ud800", data=b"1", ts=TS)


# --- decoding


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [1, 5000])
def test_a_lone_surrogate_in_a_text_is_refused_however_long_the_text(form: str, length: int) -> None:
    text = "é" * length
    codec = get_codec("json", form)
    with pytest.raises(FrameError):
        codec.decode(f'{{"id":"x","type":"request","token":"{text}\\ud800"}}'.encode(), DEFAULT_LIMITS)
    assert codec.decode(f'{{"id":"x","token":"{text}"}}'.encode(), DEFAULT_LIMITS).token == text


def test_a_frame_says_again_what_was_encoded(codec: Codec) -> None:
    error = ErrorDetail(409, "conflict", "état")
    message = codec.encode(
        "error",
        "s-1",
        method="m",
        correl_id="c-1",
        token="t",
        data=b'{"a":[1]}',
        error=error,
        channel="c",
        credits=7,
        ts=TS,
    )
    frame = codec.decode(message, DEFAULT_LIMITS)
    assert (frame.id, frame.type, frame.method, frame.correl_id) == ("s-1", "error", "m", "c-1")
    assert (frame.token, frame.app_id, frame.org_id, frame.channel, frame.credits) == ("t", "", "", "c", 7)
    assert frame.error == error
    assert codec.data(frame) == b'{"a":[1]}'
    assert codec.value(frame, DEFAULT_LIMITS) == {"a": [1]}
    assert codec.timestamp(frame) == TS


def test_absent_fields_are_empty(codec: Codec) -> None:
    message = b"{}" if codec.name == "json" else b"\x80"
    frame = codec.decode(message, DEFAULT_LIMITS)
    assert (frame.id, frame.type, frame.credits, frame.error) == ("", "", 0, None)
    assert codec.data(frame) == b""
    assert codec.value(frame, DEFAULT_LIMITS) is None
    assert codec.timestamp(frame) is None
    assert codec.event(frame) is None


def test_a_frame_does_not_show_its_token(codec: Codec) -> None:
    frame = codec.decode(codec.encode("request", "c-1", token="dk_secret", ts=TS), DEFAULT_LIMITS)
    assert "dk_secret" not in repr(frame)
    assert "c-1" in repr(frame)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_any_buffer_is_read_and_a_frame_outlives_it(codec: Codec, kind: Any) -> None:
    source = bytearray(codec.encode("request", "c-1", data=b"[1,2]", ts=TS))
    frame = codec.decode(kind(source), DEFAULT_LIMITS)
    source[:] = b"x" * len(source)
    assert codec.value(frame, DEFAULT_LIMITS) == [1, 2]
    assert codec.timestamp(frame) == TS


def test_each_reader_of_a_payload_gets_a_value_of_its_own(codec: Codec) -> None:
    frame = codec.decode(codec.encode("request", "c-1", data=b"[1]", ts=TS), DEFAULT_LIMITS)
    codec.value(frame, DEFAULT_LIMITS).append(2)
    assert codec.value(frame, DEFAULT_LIMITS) == [1]


def test_every_byte_cut_off_and_every_byte_added_is_refused(codec: Codec) -> None:
    message = codec.encode("error", "c-1", data=b'["a"]', error=ErrorDetail(1, "m"), credits=1, ts=TS)
    for end in range(len(message)):
        assert refused(codec, message[:end]).code == 400
    for extra in (b"x", b"\x00", b"{}", message):
        assert refused(codec, message + extra).message in (
            "invalid frame: not JSON",
            "invalid frame: not MessagePack",
        )


def test_a_message_beyond_the_limit_is_refused_before_it_is_read(codec: Codec) -> None:
    message = codec.encode("request", "c-1", ts=TS)
    limits = Limits(message=len(message) - 1)
    error = refused(codec, message, limits)
    assert (error.code, error.message, error.frame_id) == (
        413,
        f"invalid frame: larger than {len(message) - 1} bytes",
        "",
    )
    assert codec.decode(message, Limits(message=len(message))).id == "c-1"


@pytest.mark.parametrize(
    ("field", "limit"), [("id", 256), ("method", 128), ("correl_id", 256), ("channel", 512)]
)
def test_long_texts_are_refused_and_characters_count_not_bytes(codec: Codec, field: str, limit: int) -> None:
    fields: Any = {"id": "c-1", "type": "request", "ts": TS}
    assert (
        getattr(codec.decode(codec.encode(**{**fields, field: "é" * limit}), DEFAULT_LIMITS), field)
        == "é" * limit
    )
    error = refused(codec, codec.encode(**{**fields, field: "é" * (limit + 1)}))
    assert error.message == f"invalid frame: {field} must be at most {limit} characters"
    assert error.frame_id == ("" if field == "id" else "c-1")


def test_limits_may_differ_from_call_to_call_and_from_thread_to_thread(codec: Codec) -> None:
    message = codec.encode("request", "12345678", ts=TS)

    def decode(limit: int) -> bool:
        try:
            codec.decode(message, Limits(id=limit))
        except FrameError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        asked = [6, 7, 8, 9] * 200
        assert list(pool.map(decode, asked)) == [limit >= 8 for limit in asked]


@pytest.mark.parametrize(
    ("message", "text", "frame_id"),
    [
        (b"", "not JSON", ""),
        (b" ", "not JSON", ""),
        (b'{"id":"x"', "not JSON", ""),
        (b'{"id":"x",}', "not JSON", ""),
        (b'{"id":"x"}}', "not JSON", ""),
        (b'{"id":"x\x01"}', "not JSON", ""),
        (b'{"id":"x","data":NaN}', "not JSON", ""),
        (b'{"id":"x\xff","type":5}', "not UTF-8", ""),
        (b'\xff{"id":"x"}', "not UTF-8", ""),
        (b'{"id":"x","type":5,"data":"\xff"}', "not UTF-8", ""),
        (b"[1]", "must be an object, got an array", ""),
        (b"[" * 50_000 + b"]" * 50_000, "must be an object, got an array", ""),
        (b"null", "must be an object, got null", ""),
        (b"1.5", "must be an object, got a float", ""),
        (b"true", "must be an object, got a boolean", ""),
        (b'{"id":1,"type":2}', "id must be a string, got an integer", ""),
        (b'{"id":"x","type":{}}', "type must be a string, got an object", "x"),
        (b'{"id":"x","type":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "type must be a string, got an array", "x"),
        (b'{"id":"x","type":' + b'{"":' * 50_000 + b"1" + b"}" * 50_001, "type must be a string, got an object", "x"),
        (b'{"id":"x","token":[]}', "token must be a string, got an array", "x"),
        (b'{"id":"x","app_id":true}', "app_id must be a string, got a boolean", "x"),
        (b'{"id":"x","org_id":1.5,"error":1}', "org_id must be a string, got a float", "x"),
        (b'{"id":"x","method":"\\ud800"}', "method is not valid Unicode", "x"),
        (b'{"id":"\\udfff"}', "id is not valid Unicode", ""),
        (b'{"id":"x","error":"e"}', "error must be an object, got a string", "x"),
        (b'{"id":"x","error":{"code":"1"}}', "error.code must be an integer, got a string", "x"),
        (b'{"id":"x","error":{"message":1}}', "error.message must be a string, got an integer", "x"),
        (b'{"id":"x","error":{"details":[]}}', "error.details must be a string, got an array", "x"),
        (b'{"id":"x","credits":1.0}', "credits must be an integer, got a float", "x"),
        (b'{"id":"x","credits":true}', "credits must be an integer, got a boolean", "x"),
        (b'{"id":"x","credits":9223372036854775808}', "credits must be an integer of 64 bits", "x"),
        (b'{"id":"x","credits":' + b"9" * 5000 + b"}", "credits must be an integer of 64 bits", "x"),
        (b'{"id":"x","data":' + b"[" * 50_000 + b"]" * 49_999 + b"}", "not JSON", ""),
        (b'{"id":"x","data":' + b"[" * 50_000 + b"]" * 50_000 + b"}x}", "not JSON", ""),
        (b'{"data":' + b"9" * 5000 + b",}", "not JSON", ""),
    ],
    ids=range(35),
)  # fmt: skip
def test_what_is_no_json_frame_is_refused_with_one_text(
    json_codec: Codec, message: bytes, text: str, frame_id: str
) -> None:
    error = refused(json_codec, message)
    assert (error.code, error.message, error.frame_id) == (400, f"invalid frame: {text}", frame_id)


@pytest.mark.parametrize(
    ("message", "text", "frame_id"),
    [
        (b"", "not MessagePack", ""),
        (b"\xc1", "not MessagePack", ""),
        (b"\x81\xa2id", "not MessagePack", ""),
        (b"\x81\xa2id\xdb\xff\xff\xff\xffx", "not MessagePack", ""),
        (b"\x81\xa4data\xc6\xff\xff\xff\xffx", "not MessagePack", ""),
        (b"\xdf\xff\xff\xff\xff\xa2id\xa1x", "not MessagePack", ""),
        (b"\xde\x00", "not MessagePack", ""),
        (b"\x81\xa2id\xa1x\xc0", "not MessagePack", ""),
        (b"\xc0", "must be a map, got null", ""),
        (b"\x91\xc0", "must be a map, got an array", ""),
        (b"\xdc\x00\x00", "must be a map, got an array", ""),
        (b"\xff", "must be a map, got an integer", ""),
        (b"\xcb" + b"\x00" * 8, "must be a map, got a float", ""),
        (b"\xa1x", "must be a map, got a string", ""),
        (b"\xd4\x05\x00", "must be a map, got an extension", ""),
        (b"\x82\xa2id\xa1x\x01\x02", "must have keys that are strings", "x"),
        (b"\x81\xa2id\x01", "id must be a string, got an integer", ""),
        (b"\x81\xa2id\xa2\xff\xfe", "id is not valid Unicode", ""),
        (b"\x82\xa2id\xa1x\xa4type\xc3", "type must be a string, got a boolean", "x"),
        (b"\x82\xa2id\xa1x\xa4type\xc7\x01\x05x", "type must be a string, got an extension", "x"),
        (b"\x82\xa2id\xa1x\xa4data\x80", "data must be JSON text as bin or str, got an object", "x"),
        (b"\x82\xa2id\xa1x\xa4data\x90", "data must be JSON text as bin or str, got an array", "x"),
        (b"\x83\xa2id\xa1x\xa4data\x90\xa6org_id\x01", "org_id must be a string, got an integer", "x"),
        (b"\x83\xa2id\xa1x\xa4data\x90\xa5error\x01", "data must be JSON text as bin or str, got an array", "x"),
        (b"\x82\xa2id\xa1x\xa5error\xa1e", "error must be an object, got a string", "x"),
        (b"\x82\xa2id\xa1x\xa5error\x81\x01\x02", "error must have keys that are strings", "x"),
        (b"\x82\xa2id\xa1x\xa5error\x81\xa4code\x80", "error.code must be an integer, got an object", "x"),
        (b"\x82\xa2id\xa1x\xa7credits\xca\x00\x00\x00\x00", "credits must be an integer, got a float", "x"),
        (b"\x82\xa2id\xa1x\xa7credits\xcf" + b"\xff" * 8, "credits must be an integer of 64 bits", "x"),
    ],
    ids=range(29),
)  # fmt: skip
def test_what_is_no_messagepack_frame_is_refused_with_one_text(
    msgpack_codec: Codec, message: bytes, text: str, frame_id: str
) -> None:
    error = refused(msgpack_codec, message)
    assert (error.code, error.message, error.frame_id) == (400, f"invalid frame: {text}", frame_id)


@pytest.mark.parametrize(
    "message",
    [
        b' \n{"type":"ping","id":"x"}\n ',
        b'{"id":1,"id":"x","type":"pong","type":"ping"}',
        b'{"id":"x","type":"ping","method":null,"token":null,"error":null,"credits":null,"data":null,"ts":null}',
        b'{"i\\u0064":"x","type":"p\\u0069ng"}',
        b'{"id":"x","type":"ping","zzz":{"a":[1e999,"\\ud800","\xff"]},"\xff":1}',
        b'{"id":"x","type":"ping","data":"\xff\\ud800"}',
        b'{"id":"x","type":"ping","zzz":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"id":"x","type":"ping","data":' + b'[{"a":' * 9000 + b"1" + b"}]" * 9000 + b"}",
        b' { "id" : "x" , "type" : "ping" , "data" : ' + b"[" * 50_000 + b" ] " * 50_000 + b" } ",
        b'{"id":"x","type":"ping","error":{"code":1,"message":"m","more":' + b"[" * 50_000 + b"]" * 50_000 + b"}}",
        b'{"id":"x","type":"ping","data":' + b"9" * 5000 + b"}",
    ],
    ids=range(11),
)  # fmt: skip
def test_odd_json_frames_are_accepted(json_codec: Codec, message: bytes) -> None:
    frame = json_codec.decode(message, DEFAULT_LIMITS)
    assert (frame.id, frame.type) == ("x", "ping")
    assert frame.error == (ErrorDetail(1, "m") if b'"code":1' in message else None)
    data = json_codec.data(frame)
    assert data in message
    assert not data or data == data.strip()


@pytest.mark.parametrize(
    "message",
    [
        b"\xde\x00\x02\xc4\x02id\xa1x\xc5\x00\x04type\xa4ping",
        b"\xdf\x00\x00\x00\x02\xa2id\xd9\x01x\xa4type\xda\x00\x04ping",
        b"\x83\xa2id\xa1a\xa2id\xc4\x01x\xa4type\xa4ping",
        b"\x83\xa2id\xa1x\xa4type\xa4ping\xa3zzz" + b"\x91" * 100_000 + b"\xc0",
        b"\x83\xa2id\xa1x\xa4type\xa4ping\xa3zzz\xdc\x00\x40" + b"\x81\xa1\xff\x01" * 64,
        b"\x83\xa2id\xa1x\xa4type\xa4ping\xa3zzz\xdd\x00\x00\x03\xe8" + b"\x92\x01\xc0" * 1000,
        b"\x83\xa2id\xa1x\xa4type\xa4ping\xa3zzz\x82\x01\xcd\x01\x00\x80\xc8\x00\x01\x05x",
        b"\x84\xa2id\xa1x\xa4type\xa4ping\xa5error\xc0\xa4data\xc0",
        b"\x83\xa2id\xa1x\xa4type\xa4ping\xa5error\x83\xa4code\x01\xa7message\xa1m\xa4more" + b"\x91" * 5000 + b"\xc0",
    ],
    ids=range(9),
)  # fmt: skip
def test_odd_messagepack_frames_are_accepted(msgpack_codec: Codec, message: bytes) -> None:
    frame = msgpack_codec.decode(message, DEFAULT_LIMITS)
    assert (frame.id, frame.type) == ("x", "ping")
    assert frame.error == (ErrorDetail(1, "m") if b"code" in message else None)


@pytest.mark.parametrize("data", [b"\xa3[1]", b"\xc4\x03[1]", b"\xd9\x03[1]", b"\xc6\x00\x00\x00\x03[1]"])
def test_the_payload_of_messagepack_is_text_as_bin_or_str(msgpack_codec: Codec, data: bytes) -> None:
    frame = msgpack_codec.decode(b"\x81\xa4data" + data, DEFAULT_LIMITS)
    assert msgpack_codec.data(frame) == b"[1]"
    assert msgpack_codec.value(frame, DEFAULT_LIMITS) == [1]


def test_the_empty_payload_of_messagepack_is_none(msgpack_codec: Codec) -> None:
    frame = msgpack_codec.decode(b"\x81\xa4data\xc4\x00", DEFAULT_LIMITS)
    assert msgpack_codec.value(frame, DEFAULT_LIMITS) is None


def test_messagepack_times_are_read_whatever_their_header(msgpack_codec: Codec) -> None:
    for ts in (
        b"\xd6\xff\x00\x00\x00\x07",
        b"\xc7\x04\xff\x00\x00\x00\x07",
        b"\xc9\x00\x00\x00\x04\xff\x00\x00\x00\x07",
    ):
        assert (
            msgpack_codec.timestamp(msgpack_codec.decode(b"\x81\xa2ts" + ts, DEFAULT_LIMITS)) == 7_000_000_000
        )


@pytest.mark.parametrize(
    "ts",
    [b"\xc0", b"\x05", b"\xc3", b"\xa1x", b"\xc4\x06\xd6\xff\x00\x00\x00\x07", b"\x91\x01", b"\xd4\x05\x00"],
    ids=bytes.hex,
)  # fmt: skip
def test_an_unreadable_messagepack_time_counts_as_absent(msgpack_codec: Codec, ts: bytes) -> None:
    assert msgpack_codec.timestamp(msgpack_codec.decode(b"\x81\xa2ts" + ts, DEFAULT_LIMITS)) is None


@pytest.mark.parametrize(
    "ts", [b"5", b"null", b"{}", b'"yesterday"', b'"\xff"', b'"\\ud800"', b"[" * 3000 + b"]" * 3000]
)
def test_an_unreadable_json_time_counts_as_absent(json_codec: Codec, ts: bytes) -> None:
    frame = json_codec.decode(b'{"id":"x","ts":' + ts + b"}", DEFAULT_LIMITS)
    assert frame.id == "x"
    assert json_codec.timestamp(frame) is None


def test_an_escaped_json_time_is_read(json_codec: Codec) -> None:
    frame = json_codec.decode(b'{"ts":"1970-01-01T00:00:0\\u0037Z"}', DEFAULT_LIMITS)
    assert json_codec.timestamp(frame) == 7_000_000_000


# --- reading payloads


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"[1e999]", "data: a number is not finite; numbers must fit a 64-bit float"),
        (b'["\\ud800"]', "data: text with a lone surrogate; surrogates must come in pairs"),
        (b"[" * 129 + b"]" * 129, "data: nested too deeply; at most 128 levels of arrays and objects are accepted"),
        (b"[" * 9000 + b"]" * 9000, "data: nested too deeply; at most 128 levels of arrays and objects are accepted"),
        (b'"\xff"', "data: not UTF-8"),
    ],
    ids=range(5),
)  # fmt: skip
def test_a_payload_is_judged_by_whoever_reads_it(codec: Codec, data: bytes, text: str) -> None:
    frame = codec.decode(codec.encode("request", "c-1", data=data, ts=TS), DEFAULT_LIMITS)
    assert codec.data(frame) == data
    with pytest.raises(PayloadError) as caught:
        codec.value(frame, DEFAULT_LIMITS)
    assert (caught.value.code, caught.value.message) == (400, text)


def test_a_payload_beyond_its_limit_is_refused_when_it_is_read(codec: Codec) -> None:
    frame = codec.decode(codec.encode("request", "c-1", data=b"[1,2,3]", ts=TS), DEFAULT_LIMITS)
    with pytest.raises(PayloadError, match="data: 7 bytes of JSON; at most 6 are accepted") as caught:
        codec.value(frame, Limits(payload=6))
    assert caught.value.code == 413
    assert codec.value(frame, Limits(payload=7)) == [1, 2, 3]


def test_a_payload_as_deep_as_allowed_is_read(codec: Codec) -> None:
    deep = b"[" * 128 + b"]" * 128
    frame = codec.decode(codec.encode("request", "c-1", data=deep, ts=TS), DEFAULT_LIMITS)
    value = codec.value(frame, DEFAULT_LIMITS)
    for _ in range(127):
        (value,) = value
    assert value == []
    with pytest.raises(PayloadError, match="at most 3 levels"):
        codec.value(frame, Limits(depth=3))


def test_a_null_payload_is_none(codec: Codec) -> None:
    frame = codec.decode(codec.encode("request", "c-1", data=b"null", ts=TS), DEFAULT_LIMITS)
    assert codec.data(frame) == b"null"
    assert codec.value(frame, DEFAULT_LIMITS) is None


# --- events


def test_an_event_tells_its_head_without_its_data_being_read(codec: Codec) -> None:
    frame = event_frame(
        codec,
        b'{"type":"job.completed","ts":"2026-01-02T03:04:05Z","topic":"job:job_1","seq":7,"data":{"a": "\\ud800"}}',
    )
    head = codec.event(frame)
    assert head is not None
    assert (head.type, head.topic, head.seq, head.ts) == (
        "job.completed",
        "job:job_1",
        7,
        "2026-01-02T03:04:05Z",
    )
    assert head.data == b'{"a": "\\ud800"}'


@pytest.mark.parametrize(
    "data",
    [
        b' {"type":"cron.fired"} ',
        b'{"type":"cron.fired","topic":null,"seq":null,"ts":null}',
        b'{"type":"cron.fired","ts":5}',
        b'{"type":"cron.fired","ts":"\\ud800"}',
        b'{"type":1,"type":"cron.fired","more":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    ],
    ids=range(5),
)  # fmt: skip
def test_what_an_event_lacks_is_empty(codec: Codec, data: bytes) -> None:
    head = codec.event(event_frame(codec, data))
    assert head is not None
    assert (head.type, head.topic, head.seq, head.ts, head.data) == ("cron.fired", "", None, "", b"")


@pytest.mark.parametrize(
    "data",
    [
        b"1",
        b"null",
        b"[]",
        b"{}",
        b'{"type":""}',
        b'{"type":null}',
        b'{"type":5}',
        b'{"type":"\\ud800"}',
        b'{"type":{"a":1}}',
        b'{"type":"a","topic":5}',
        b'{"type":"a","seq":1.5}',
        b'{"type":"a","seq":true}',
        b'{"type":"a","seq":9223372036854775808}',
        b'{"type":"a","seq":"1"}',
    ],
)  # fmt: skip
def test_what_is_no_event_has_no_head(codec: Codec, data: bytes) -> None:
    assert codec.event(event_frame(codec, data)) is None


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"type":"a"}x', b'{"type":"a"', b'{"type"', b'{"type":', b"{x", b'{"a":1 x']
)
def test_what_is_no_json_has_no_head(msgpack_codec: Codec, data: bytes) -> None:
    assert msgpack_codec.event(event_frame(msgpack_codec, data)) is None


# --- the standard library's scanner without its C half, as on some platforms


def test_frames_are_judged_alike_without_the_c_scanner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_syntax, "HAS_C_SCANNER", False)
    codec = get_codec("json", "portable")
    assert codec.value(codec.decode(b'{"id":"x","data":[1, {"a": []}]}', DEFAULT_LIMITS), DEFAULT_LIMITS) == [
        1,
        {"a": []},
    ]
    for malformed in (b'{"id":"x","data":01}', b'{"id":"x" "data":1}', b'{"id":null,"data":[1,]}'):
        assert refused(codec, malformed).message == "invalid frame: not JSON"
