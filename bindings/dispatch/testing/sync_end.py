"""A socket without a network: what is sent goes to a peer in memory at once, and a selector sees what came of it."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatch.testing.transport import MockTransport

_RING = b"\0"


class SyncEnd(socket.socket):
    """One connection of a `MockTransport`. What selectors see is one half of a pair of real sockets.

    There is no thread to keep the peer's time: what is due is done when the client writes next, as it does for its
    heartbeat.
    """

    def __init__(self, transport: MockTransport) -> None:
        near, self._bell = socket.socketpair()
        super().__init__(near.family, near.type, near.proto, near.detach())
        self.setblocking(False)
        self._bell.setblocking(False)
        self._lock = transport.lock
        self._incoming = bytearray()
        self._ended = False
        self._broken = False
        self._peer = transport.connected(self)

    # What the client asks.

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Send bytes; all of them are taken."""
        if self._broken:
            raise BrokenPipeError("the connection was dropped by the test")
        self._peer.receive(bytes(data))
        return len(data)

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Bytes that have come; b"" at the end; `BlockingIOError` where there are none yet."""
        with self._lock:
            self._listen()
            if self._broken:
                raise ConnectionResetError("the connection was dropped by the test")
            if not self._incoming and not self._ended:
                raise BlockingIOError
            some = bytes(self._incoming[:bufsize])
            del self._incoming[: len(some)]
            if self._incoming or self._ended:
                self._ring()
            return some

    def close(self) -> None:
        """End it."""
        self._peer.lost()
        with self._lock:
            self._bell.close()
            super().close()

    # What the peer asks, from any thread.

    def now(self) -> float:
        """The client's clock."""
        return time.monotonic()

    def deliver(self, data: bytes) -> None:
        """Let these bytes be read."""
        self._incoming += data
        self._ring()

    def finish(self) -> None:
        """Nothing more follows."""
        self._ended = True
        self._ring()

    def break_off(self) -> None:
        """The connection is broken."""
        self._broken = True
        self._ring()

    def set_timer(self, at: float | None) -> None:
        """See above."""

    def _ring(self) -> None:
        """Have selectors see that there is something to read."""
        try:
            self._bell.send(_RING)
        except OSError:
            pass  # it was rung often enough, or for the last time

    def _listen(self) -> None:
        """The bell was heard."""
        try:
            super().recv(4096)
        except BlockingIOError:
            pass
