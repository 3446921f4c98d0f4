"""First inputs for every target, made of the recordings in `tests/vectors`: the same bytes in every run."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent
VECTORS = ROOT.parent / "tests" / "vectors"

CodecName = Literal["json", "msgpack"]
MOST_KEPT = 60_000


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
    for number, data in enumerate(kept(target), start=1):
        yield f"corpus/{target}.base64, line {number}", data
    for path in sorted((ROOT / "regressions" / target).glob("*")):
        yield f"regressions/{target}/{path.name}", path.read_bytes()


def kept(target: str) -> list[bytes]:
    """The committed corpus of a target: inputs that reached code which no seed reaches, one a line."""
    path = ROOT / "corpus" / f"{target}.base64"
    return [base64.b64decode(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(target: str, found: Iterable[bytes]) -> None:
    """Add inputs to the committed corpus, the shortest first, as long as it stays small."""
    everything = sorted({*kept(target), *found}, key=lambda data: (len(data), data))
    total, lines = 0, []
    for data in everything:
        total += len(data)
        if total > MOST_KEPT:
            break
        lines.append(base64.b64encode(data).decode() + "\n")
    (ROOT / "corpus").mkdir(exist_ok=True)
    (ROOT / "corpus" / f"{target}.base64").write_text("".join(lines))


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
