"""Both forms of the MessagePack codec on arbitrary bytes."""

from __future__ import annotations

from collections.abc import Iterable

from fuzz.differential import Differential
from fuzz.seeds import messages

_check = Differential("msgpack")


def target(data: bytes) -> None:
    _check(data)


def seeds() -> Iterable[bytes]:
    return messages("msgpack")
