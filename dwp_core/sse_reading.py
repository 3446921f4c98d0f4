"""Reads a stream of server-sent events, in whatever pieces it comes (WHATWG HTML, section 9.2.6).

`dwp_core.sse` is the other side. What a block means is decided elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

from dwp_core.errors import TOO_LARGE, FrameError

_BOM = b"\xef\xbb\xbf"


class Block(NamedTuple):
    """What stood between two empty lines.

    Attributes:
        type: of the field `event`; "" where there was none.
        data: the lines of `data`, joined.
        id: of the field `id`; "" where there was none.
    """

    type: str
    data: bytes
    id: str


class BlockReader:
    """Makes blocks of bytes. Comments and fields that mean nothing here are passed over.

    Args:
        limit: bytes that a block may have.

    Example:
        >>> reader = BlockReader(1000)
        >>> reader.feed(b"id: 7\\nevent: job.started\\nda")
        []
        >>> reader.feed(b"ta: {}\\n\\n")
        [Block(type='job.started', data=b'{}', id='7')]
    """

    __slots__ = ("_after_cr", "_begun", "_data", "_fields", "_limit", "_parts", "_size", "_taken")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._fields: dict[bytes, bytes] = {}
        self._data: list[bytes] = []
        self._size = 0
        """Bytes of the present block."""
        self._taken = 0
        """Of these, in lines that are complete."""
        self._begun = False
        self._after_cr = False

    def feed(self, data: bytes) -> list[Block]:
        """The blocks that are complete with these bytes.

        Raises:
            FrameError: (413) one is larger than the limit.
        """
        if self._after_cr and data.startswith(b"\n"):  # the rest of a line break that was taken already
            data = data[1:]
            self._after_cr = False
        if not data:
            return []
        self._after_cr = data.endswith(b"\r")
        self._parts.append(data)
        self._size += len(data)
        if b"\n" not in data and b"\r" not in data:
            self._check_size()
            return []
        text = b"".join(self._parts)
        if not self._begun:
            self._begun = True
            text = text.removeprefix(_BOM)
        lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        rest = lines.pop()
        self._parts = [rest]
        blocks = []
        for line in lines:
            if line:
                self._take(line)
            elif self._fields or self._data:
                blocks.append(self._block())
        self._size = len(rest) + self._taken
        self._check_size()
        return blocks

    def _check_size(self) -> None:
        if self._size > self._limit:
            raise FrameError(f"an event is larger than {self._limit} bytes", code=TOO_LARGE)

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._taken += len(line)
        elif name in (b"event", b"id"):
            self._fields[name] = value

    def _block(self) -> Block:
        type, id = self._fields.get(b"event", b""), self._fields.get(b"id", b"")
        block = Block(type.decode("utf-8", "replace"), b"\n".join(self._data), id.decode("utf-8", "replace"))
        self._fields.clear()
        self._data.clear()
        self._taken = 0
        return block
