"""How a session's fuzz input is read: a list of steps, each a byte that says what, and some bytes.

A step is `what` (one byte), the length of its argument (two bytes, big-endian) and the argument; a length that reaches
beyond the end takes what is there. So every input is a script, and cutting and joining scripts makes scripts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

MAX_STEPS = 400

Step = tuple[int, bytes]


def read(data: bytes) -> Iterator[Step]:
    at, size, count = 0, len(data), 0
    while at < size and count < MAX_STEPS:
        length = int.from_bytes(data[at + 1 : at + 3], "big")
        yield data[at], data[at + 3 : at + 3 + length]
        at += 3 + length
        count += 1


def write(steps: Iterable[Step]) -> bytes:
    return b"".join(
        bytes((what,)) + min(len(argument), 0xFFFF).to_bytes(2, "big") + argument[:0xFFFF]
        for what, argument in steps
    )
