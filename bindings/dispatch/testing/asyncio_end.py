"""An asyncio transport without a network: what is written goes to a peer in memory, in the next turn of the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatch.testing.transport import MockTransport


class AsyncioEnd(asyncio.Transport):
    """One connection of a `MockTransport` to a protocol of the running loop."""

    def __init__(self, transport: MockTransport, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._protocol = protocol
        self._closing = False
        self._lost = False
        self._timer: asyncio.TimerHandle | None = None
        self._peer = transport.connected(self)

    # What the protocol asks.

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send bytes."""
        if not self._closing:
            self._loop.call_soon(self._peer.receive, bytes(data))

    def is_closing(self) -> bool:
        """Whether it is, or was, closed."""
        return self._closing

    def close(self) -> None:
        """End it, after what was written."""
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._end, None)

    def abort(self) -> None:
        """End it."""
        self._closing = True
        self._loop.call_soon(self._end, None)

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be sent: none, ever."""
        return 0

    # What the peer asks, from any thread.

    def now(self) -> float:
        """The loop's clock."""
        return self._loop.time()

    def deliver(self, data: bytes) -> None:
        """Give the protocol these bytes."""
        self._soon(self._receive, data)

    def finish(self) -> None:
        """Nothing more follows."""
        self._soon(self._receive_eof)

    def break_off(self) -> None:
        """The connection is broken."""
        self._soon(self._end, ConnectionResetError("the connection was dropped by the test"))

    def set_timer(self, at: float | None) -> None:
        """Look at the peer again then."""
        if threading.get_ident() == self._thread:
            self._arm(at)
        else:
            self._soon(self._arm, at)

    # Inside.

    def _soon(self, function: Callable[..., object], *arguments: Any) -> None:
        here = threading.get_ident() == self._thread
        try:
            (self._loop.call_soon if here else self._loop.call_soon_threadsafe)(function, *arguments)
        except RuntimeError:
            pass  # the loop is closed, and nobody listens

    def _receive(self, data: bytes) -> None:
        if not self._closing:
            self._protocol.data_received(data)

    def _receive_eof(self) -> None:
        if not self._closing and not self._protocol.eof_received():
            self.close()

    def _arm(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None or self._lost else self._loop.call_at(at, self._peer.timed)

    def _end(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = self._closing = True
            self._peer.lost()
            self._arm(None)
            self._protocol.connection_lost(error)
