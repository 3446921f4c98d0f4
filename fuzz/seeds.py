"""First inputs for every target, made of the recordings in `tests/vectors`: the same bytes in every run."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent
VECTORS = ROOT.parent / "tests" / "vectors"

CodecName = Literal["json", "msgpack"]


@dataclass(frozen=True, slots=True)
class Line:
    """One thing of a recorded conversation."""

    conn: int
    dir: str
    op: str
    data: bytes


@cache
def messages(codec: CodecName) -> tuple[bytes, ...]:
    """Every recorded frame of this codec and every odd one, without repetitions that differ in numbers only."""
    found: dict[bytes, bytes] = {}
    for path in (VECTORS / "inputs" / f"{codec}.jsonl", VECTORS / "frames" / f"{codec}.jsonl"):
        for record in _records(path):
            data = _bytes(record)
            found.setdefault(data.translate(None, b"0123456789") if codec == "json" else data[:24], data)
    return tuple(found.values())


@cache
def payloads() -> tuple[bytes, ...]:
    """The JSON text of every recorded payload."""
    found: dict[str, bytes] = {}
    for codec in ("json", "msgpack"):
        for record in _records(VECTORS / "frames" / f"{codec}.jsonl"):
            text = record["frame"].get("data_text", "")
            found.setdefault(text.translate(str.maketrans("", "", "0123456789")), text.encode())
    return (*found.values(), *_ODD_PAYLOADS)


@cache
def conversations(codec: CodecName) -> tuple[tuple[Line, ...], ...]:
    paths = sorted((VECTORS / "conversations" / codec).glob("*.jsonl"))
    if codec == "json":
        paths += sorted((VECTORS / "clients").glob("*.jsonl"))
    return tuple(tuple(_lines(path)) for path in paths)


def saved(target: str) -> Iterator[tuple[str, bytes]]:
    """What fuzzing kept: the committed corpus of a target, and the inputs which once failed."""
    for folder in ("corpus", "regressions"):
        for path in sorted((ROOT / folder / target).glob("*")):
            yield f"{folder}/{path.name}", path.read_bytes()


def _lines(path: Path) -> Iterator[Line]:
    for record in _records(path):
        if "op" in record:
            yield Line(record["conn"], record["dir"], record["op"], _bytes(record))


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def _bytes(record: dict[str, Any]) -> bytes:
    if "base64" in record:
        return base64.b64decode(record["base64"])
    text: str = record.get("text", "")
    return text.encode()


_ODD_PAYLOADS = (
    b"1e999",
    b"-0.0",
    b"123456789012345678901234567890",
    b'"\\ud800"',
    b'"\\ud83d\\ude00"',
    b'{"a":1,"a":2}',
    b"[" * 200,
    b"[" * 128 + b"]" * 128,
    b"NaN",
    b'{"a":[1,2,{"b":null}],"c":"\\u00e9\\n"}',
    b" \t\r\n[1 , 2]\n",
    b"[1,]",
    b"01",
    b"1.",
    b'"\x00"',
    b"\xef\xbb\xbf1",
    b'"\xff"',
    b"1" * 5000,
)
