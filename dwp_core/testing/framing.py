"""Messages as bytes and back, the simplest way there is: one byte of kind, four of length, the content.

It stands in for RFC 6455, which is a binding's business, so that a simulated link can stall and be cut between any two
bytes. Like there, a close is a message too: two bytes of code, then the reason.
"""

from __future__ import annotations

TEXT, BINARY, CLOSE = 1, 2, 8
"""Kinds, numbered as the opcodes of RFC 6455 section 5.2."""

_HEAD = 5


def pack(kind: int, content: bytes) -> bytes:
    """One message as bytes.

    Example:
        >>> pack(TEXT, b"{}")
        b'\\x01\\x00\\x00\\x00\\x02{}'
    """
    return bytes((kind,)) + len(content).to_bytes(4, "big") + content


def pack_close(code: int, reason: str) -> bytes:
    """The close message."""
    return pack(CLOSE, code.to_bytes(2, "big") + reason.encode())


def read_close(content: bytes) -> tuple[int, str]:
    """Code and reason of a close message."""
    return int.from_bytes(content[:2], "big"), content[2:].decode()


class Unpacker:
    """Bytes in any pieces, messages out.

    Example:
        >>> unpacker = Unpacker()
        >>> unpacker.feed(pack(TEXT, b"{}") + b"\\x02\\x00")
        >>> unpacker.next(), unpacker.next()
        ((1, b'{}'), None)
    """

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> None:
        """More bytes have come."""
        self._bytes += data

    def next(self) -> tuple[int, bytes] | None:
        """Kind and content of the next whole message; None when there is none yet."""
        received = self._bytes
        if len(received) < _HEAD:
            return None
        end = _HEAD + int.from_bytes(received[1:_HEAD], "big")
        if len(received) < end:
            return None
        kind, content = received[0], bytes(received[_HEAD:end])
        del received[:end]
        return kind, content
