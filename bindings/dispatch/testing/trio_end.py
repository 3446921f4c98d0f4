"""A trio stream without a network: what is sent goes to a peer in memory, and whoever reads keeps the peer's time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from dispatch.testing.transport import MockTransport

_MOST = 256 * 1024
_NEVER = float("inf")


class TrioEnd(trio.abc.Stream):
    """One connection of a `MockTransport` in the current trio run."""

    def __init__(self, transport: MockTransport) -> None:
        self._lock = transport.lock
        self._token = trio.lowlevel.current_trio_token()
        self._clock = trio.lowlevel.current_clock()
        self._incoming = bytearray()
        self._ended = False
        self._broken = False
        self._closed = False
        self._timer_at = _NEVER
        self._change = trio.Event()
        self._peer = transport.connected(self)

    # What the client asks.

    async def send_all(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send bytes."""
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        if self._broken:
            raise trio.BrokenResourceError("the connection was dropped by the test")
        self._peer.receive(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        """Nothing ever blocks."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Bytes that have come; b"" at the end."""
        await trio.lowlevel.checkpoint()
        while True:
            if self._closed:
                raise trio.ClosedResourceError("this stream was closed")
            with self._lock:
                if self._broken:
                    raise trio.BrokenResourceError from ConnectionResetError(
                        "the connection was dropped by the test"
                    )
                if self._incoming or self._ended:
                    some = bytes(self._incoming[: max_bytes or _MOST])
                    del self._incoming[: len(some)]
                    return some
                self._change = trio.Event()
                at = self._timer_at
            with trio.CancelScope(deadline=at) as waiting:
                await self._change.wait()
            if waiting.cancelled_caught:
                self._timer_at = _NEVER
                self._peer.timed()

    async def aclose(self) -> None:
        """End it."""
        if not self._closed:
            self._closed = True
            self._change.set()
            self._peer.lost()
        await trio.lowlevel.checkpoint()

    # What the peer asks, from any thread.

    def now(self) -> float:
        """The run's clock."""
        return self._clock.current_time()

    def deliver(self, data: bytes) -> None:
        """Let these bytes be read."""
        self._incoming += data
        self._look_again()

    def finish(self) -> None:
        """Nothing more follows."""
        self._ended = True
        self._look_again()

    def break_off(self) -> None:
        """The connection is broken."""
        self._broken = True
        self._look_again()

    def set_timer(self, at: float | None) -> None:
        """Look at the peer again then."""
        self._timer_at = _NEVER if at is None else at
        self._look_again()

    def _look_again(self) -> None:
        """Have whoever reads see what has changed."""
        if trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is self._token:
            self._change.set()
            return
        try:
            self._token.run_sync_soon(lambda: self._change.set())
        except trio.RunFinishedError:
            pass  # nobody reads any more
