"""Both forms of the JSON codec on arbitrary bytes."""

from __future__ import annotations

from collections.abc import Iterable

from fuzz.differential import Differential
from fuzz.seeds import messages

_check = Differential("json")


def target(data: bytes) -> None:
    _check(data)


def seeds() -> Iterable[bytes]:
    return messages("json")
