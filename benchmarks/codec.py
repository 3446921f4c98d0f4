"""C1 to C6: the codec against raw msgspec, against the baseline codec, and against bad input.

All in this process, statement against statement. "Raw" decodes and encodes the very struct of the fast codec, with
nothing around it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from benchmarks.baselines import naive, raw
from benchmarks.harness import Candidate, Effort, Figure, Figures, interleave, statement
from benchmarks.peer import JOB_ID, TS, event_text
from dwp_core.codec import Codec, get_codec
from dwp_core.errors import FrameError, PayloadError
from dwp_core.frames import DEFAULT_LIMITS

TS_NS = 1795340954349296251


@dataclass(frozen=True, slots=True)
class Sample:
    """A frame of everyday size: its JSON, and the arguments that make it."""

    name: str
    json: bytes
    type: str
    fields: Mapping[str, Any]


def _sample(name: str, type: str, data: str, **fields: Any) -> Sample:
    fields |= {"data": data.encode()}
    text = get_codec("json").encode(type, "c1-1742", ts=TS_NS, **fields)
    return Sample(name, text, type, fields)


def _jobs(size: int) -> str:
    """A page of jobs as `job.list` answers them, about `size` bytes long."""
    job = {
        "created_at": TS,
        "updated_at": TS,
        "id": JOB_ID,
        "name": "send-email",
        "queue": "default",
        "payload": "eyJ0byI6InVzZXJAZXhhbXBsZS5jb20iLCJzdWJqZWN0IjoiV2VsY29tZSEifQ==",
        "state": "completed",
        "priority": 0,
        "max_retries": 3,
        "retry_count": 0,
        "worker_id": "wkr_01m81ac18fes2ta9n43szh8zc2",
        "run_at": TS,
    }
    one = json.dumps(job, separators=(",", ":"))
    return '{"jobs":[' + ",".join([one] * (size // (len(one) + 1))) + "]}"


REQUEST = _sample(
    "request",
    "request",
    '{"name":"send-email","payload":{"to":"user@example.com","subject":"Welcome!"},"queue":"mail","priority":10}',
    method="job.enqueue",
)
RESPONSE = _sample(
    "response",
    "response",
    f'{{"job_id":"{JOB_ID}","queue":"default","state":"pending"}}',
    correl_id="c1-1742",
)
EVENT = Sample("event", event_text(4711).encode(), "event", {})
LARGE = _sample("64 KiB", "response", _jobs(65536), correl_id="c1-1742")
SAMPLES = (REQUEST, RESPONSE, EVENT, LARGE)


def measure(effort: Effort) -> Figures:
    parts = effort.shared(16, round_ms=1.5)
    figures: Figures = {}
    figures |= _decoding(parts)
    figures |= _encoding(parts)
    figures |= _messagepack(parts)
    figures |= _portable(parts)
    figures |= _refusing(parts)
    return figures


def _decoding(effort: Effort) -> Figures:
    """C1, and the decoding of C3.

    For C3 each frame is read as far as whoever gets it reads it at once: a request to the frame (its payload is
    judged where it is taken up), an event with what routing needs, an answer with its value. The baseline always
    reads everything.
    """
    codec = get_codec("json", "fast")
    figures: Figures = {}
    for sample in SAMPLES:
        struct = type(codec.decode(sample.json, DEFAULT_LIMITS))
        rounds = interleave(
            {
                "envelope": statement(
                    "decode(m, limits)", decode=codec.decode, m=sample.json, limits=DEFAULT_LIMITS
                ),
                "raw": statement("decode(m)", decode=msgspec.json.Decoder(struct).decode, m=sample.json),
                "read": _taking(codec, sample),
                "baseline": statement("decode(m)", decode=naive.decode, m=sample.json.decode()),
            },
            effort,
        )
        figures["C1", sample.name] = rounds.ratio("envelope", "raw")
        figures["C3", f"decode {sample.name}"] = rounds.ratio("baseline", "read")
    return figures


def _encoding(effort: Effort) -> Figures:
    figures: Figures = {}
    codec = get_codec("json", "fast")
    for sample in (REQUEST, RESPONSE):
        rounds = interleave(
            {
                "ours": _writing(codec, sample),
                "raw": _writing_raw(sample),
                "baseline": _writing_naive(sample),
            },
            effort,
        )
        figures["C2", sample.name] = rounds.ratio("ours", "raw")
        if sample is REQUEST:
            figures["C3", "encode"] = rounds.ratio("baseline", "ours")
    return figures


def _messagepack(effort: Effort) -> Figures:
    """C4. The raw one also decodes twice: the map, then the JSON text in it."""
    codec = get_codec("msgpack", "fast")
    found: dict[str, Figure] = {}
    for sample in (REQUEST, RESPONSE, LARGE):
        message = codec.encode(sample.type, "c1-1742", ts=TS_NS, **sample.fields)
        struct = type(codec.decode(message, DEFAULT_LIMITS))
        rounds = interleave(
            {
                "ours": _reading(codec, message),
                "raw": statement(
                    "read(decode(m).raw_data)",
                    decode=msgspec.msgpack.Decoder(struct).decode,
                    read=raw.decode_payload,
                    m=message,
                ),
            },
            effort,
        )
        found[sample.name] = rounds.ratio("ours", "raw")
    return {("C4", ""): Figure.worst(found)}


def _portable(effort: Effort) -> Figures:
    codec = get_codec("json", "portable")
    decoding: dict[str, Figure] = {}
    encoding: dict[str, Figure] = {}
    for sample in (REQUEST, RESPONSE, EVENT):
        rounds = interleave(
            {
                "ours": _reading(codec, sample.json),
                "baseline": statement("decode(m)", decode=naive.decode, m=sample.json.decode()),
            },
            effort,
        )
        decoding[sample.name] = rounds.ratio("ours", "baseline")
    for sample in (REQUEST, RESPONSE):
        rounds = interleave({"ours": _writing(codec, sample), "baseline": _writing_naive(sample)}, effort)
        encoding[sample.name] = rounds.ratio("ours", "baseline")
    return {("C5", "decode"): Figure.worst(decoding), ("C5", "encode"): Figure.worst(encoding)}


def _refusing(effort: Effort) -> Figures:
    """C6: the worst of each list, in all codec work that a message can cause: decoding it and reading its payload.

    Of the large frames only those count that are refused: what it costs to read a legal payload of many small
    things is the cost of making those things.
    """
    codec = get_codec("json", "fast")

    def take(message: bytes) -> bool:
        try:
            codec.value(codec.decode(message, DEFAULT_LIMITS), DEFAULT_LIMITS)
        except (FrameError, PayloadError):
            return False
        return True

    figures: Figures = {}
    for part, good, bad in (
        ("malformed", REQUEST.json, dict(malformed(REQUEST.json))),
        ("bad payload", REQUEST.json, dict(bad_payloads(REQUEST.json))),
        ("hostile 64 KiB", LARGE.json, dict(hostile(len(LARGE.json)))),
    ):
        refused = {name: message for name, message in bad.items() if not take(message)}
        candidates = {name: statement("take(m)", take=take, m=message) for name, message in refused.items()}
        candidates["good"] = statement("take(m)", take=take, m=good)
        rounds = interleave(candidates, effort.shared(0.5))
        figures["C6", part] = Figure.worst({name: rounds.ratio(name, "good") for name in refused})
    return figures


def malformed(good: bytes) -> Iterable[tuple[str, bytes]]:
    """Small frames that are refused, each in another way."""
    yield "cut short", good[:-1]
    yield "trailing bytes", good + b"x"
    yield "a second root", good + b"{}"
    yield "an array", b"[" + good[1:-1].replace(b":", b",") + b"]"
    yield "id is a number", good.replace(b'"id":"', b'"id":1,"x":"')
    yield "method too long", good.replace(b'"method":"', b'"method":"' + b"m" * 200)
    yield "not UTF-8", good.replace(b"job.", b"job\xff")
    yield "no JSON", b"x" * len(good)
    yield "an unclosed string", good[:-2]
    yield "a bad escape", good.replace(b'"id":"', b'"id":"\\x')
    yield "credits are a float", good.replace(b'"id":', b'"credits":1.5,"id":')
    yield "an error without its form", good.replace(b'"id":', b'"error":[],"id":')


def bad_payloads(good: bytes) -> Iterable[tuple[str, bytes]]:
    """Small frames whose payload is refused by whoever reads it."""
    yield "a lone surrogate", good.replace(b"Welcome!", b"\\ud800")
    yield "a number too large", good.replace(b'"priority":10', b'"priority":1e999')
    yield "not UTF-8", good.replace(b"Welcome!", b"Welcome\xff")
    yield "nested too deeply", good.replace(b'"priority":10', b'"priority":' + b"[" * 130 + b"]" * 130)


def hostile(size: int) -> Iterable[tuple[str, bytes]]:
    """Frames of that size, made to be expensive."""
    head, tail = b'{"id":"x","type":"request","method":"job.get","data":', b"}"
    room = size - len(head) - len(tail)

    def around(data: bytes) -> bytes:
        return head + data + tail

    yield "deep arrays", around(b"[" * (room // 2) + b"]" * (room // 2))
    yield "deep objects", around(b'{"a":' * (room // 6) + b"1" + b"}" * (room // 6))
    yield "unclosed arrays", head + b"[" * room
    yield "many empty arrays", around(b"[" + b"[]," * (room // 3 - 1) + b"[]]")
    yield "many small objects", around(b"[" + b'{"a":1},' * (room // 8 - 1) + b"1]")
    yield "many numbers", around(b"[" + b"1," * (room // 2 - 1) + b"1]")
    yield "many floats", around(b"[" + b"1.5e-7," * (room // 7 - 1) + b"1]")
    yield "a long number", around(b"1" * room)
    yield "long numbers", around(b"[" + (b"9" * 4000 + b",") * (room // 4001) + b"1]")
    yield "a long fraction", around(b"0." + b"1" * (room - 2))
    yield "many escapes", around(b'"' + b"\\u00e9" * (room // 6 - 1) + b'"')
    yield "many backslashes", around(b'"' + b"\\\\" * (room // 2 - 1) + b'"')
    yield (
        "surrogate pairs, the last one lone",
        around(b'"' + b"\\ud83d\\ude00" * (room // 12 - 1) + b'\\ud83d"'),
    )
    yield "two-byte characters", around(b'"' + "é".encode() * (room // 2 - 1) + b'"')
    yield "not UTF-8 at the end", around(b'"' + b"a" * (room - 3) + b'\xff"')
    yield "too large a number at the end", around(b"[" + b"1.25," * (room // 5 - 2) + b"1e999]")
    yield "many keys", around(b"{" + b",".join(b'"k%d":1' % n for n in range(room // 10)) + b"}")
    yield "one key many times", around(b"{" + b'"k":1,' * (room // 6 - 1) + b'"k":1}')
    yield (
        "data many times",
        b'{"id":"x","type":"request","method":"a"' + b',"data":[1,2]' * (room // 13) + b"}",
    )
    yield "unknown keys", b'{"id":"x","type":"request"' + b',"k":[1,2]' * (room // 10) + b"}"
    yield "white space", around(b" " * (room - 1) + b"1")
    yield "trailing bytes", around(b'"' + b"a" * (room - 3) + b'"') + b"x"
    yield "a second root", around(b'"' + b"a" * (room - 4) + b'"') + b"{}"
    yield "a long id", b'{"type":"ping","id":"' + b"i" * (size - 24) + b'"}'
    yield "no JSON", b"x" * size
    yield "a wrong id at the end", b'{"data":' + _jobs(size - 40).encode() + b',"type":"request","id":1}'


def _taking(codec: Codec, sample: Sample) -> Candidate:
    if sample.type == "response":
        return _reading(codec, sample.json)
    code = "event(decode(m, limits))" if sample.type == "event" else "decode(m, limits)"
    return statement(code, decode=codec.decode, event=codec.event, m=sample.json, limits=DEFAULT_LIMITS)


def _reading(codec: Codec, message: bytes) -> Candidate:
    return statement(
        "value(decode(m, limits), limits)",
        decode=codec.decode,
        value=codec.value,
        m=message,
        limits=DEFAULT_LIMITS,
    )


def _writing(codec: Codec, sample: Sample) -> Candidate:
    fields = ", ".join(f"{name}={name}" for name in sample.fields)
    return statement(
        f"encode(type, 'c1-1742', {fields}, ts=ts)",
        encode=codec.encode,
        type=sample.type,
        ts=TS_NS,
        **sample.fields,
    )


def _writing_raw(sample: Sample) -> Candidate:
    """With the time of its making, as every frame; msgspec writes a datetime by itself."""
    names = [name for name in sample.fields if name != "data"]
    fields = ", ".join(f"{name}={name}" for name in names)
    code = f"encode(struct(id='c1-1742', type=type, {fields}, data=Raw(data), ts=now(UTC)))"
    return statement(
        code,
        encode=raw.encode,
        struct=raw.RawFrame,
        Raw=msgspec.Raw,
        now=datetime.now,
        UTC=UTC,
        type=sample.type,
        **sample.fields,
    )


def _writing_naive(sample: Sample) -> Candidate:
    fields = ", ".join(f"{name}={name}" for name in sample.fields)
    values = {**sample.fields, "data": json.loads(sample.fields["data"])}
    code = f"encode(frame(id='c1-1742', type=type, {fields}))"
    return statement(code, encode=naive.encode, frame=naive.Frame, type=sample.type, **values)
