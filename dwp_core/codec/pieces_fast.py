"""The quick half of `pieces` where msgspec is installed."""

from __future__ import annotations

import msgspec

_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def member_text(raw: bytes, name: str) -> bytes:
    """See `pieces.member_text`."""
    return bytes(_object(raw).get(name, b""))


def element_texts(raw: bytes) -> list[bytes]:
    """See `pieces.element_texts`."""
    return [bytes(element) for element in _array(raw)]
