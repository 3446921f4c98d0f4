"""HTTP connections that never finish a request, or never take what they were sent, are closed: uvicorn's own protocol
waits for both as long as it takes.

Only a connection that speaks WebSocket has a session with its time for the login (PROTOCOL.md section 3); before the
upgrade, or without one, this is what keeps a silent or a dripping peer from holding a socket for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

# One of two classes, whichever parser is installed; what both have is used below.
_HTTP: Any = AutoHTTPProtocol


def punctual_http(seconds: float) -> type[asyncio.Protocol]:
    """The class to give to uvicorn as `http=`: within each two spans of so many seconds, a request has to be whole, and
    a connection that is closed has to take some of what is left for it.

    Example:
        >>> # uvicorn.run(app, http=punctual_http(10.0))
    """

    class PunctualHttp(_HTTP):  # type: ignore[misc]  # which of two it is, is known at run time only
        """uvicorn makes one for each connection."""

        _look_timer: asyncio.TimerHandle
        _last: Any = None
        _left: int | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._look_timer.cancel()
            super().connection_lost(exc)

        def handle_websocket_upgrade(self, *request: Any) -> None:
            self._look_timer.cancel()
            super().handle_websocket_upgrade(*request)

        def _wait(self) -> None:
            self._look_timer = self.loop.call_later(seconds, self._look)

        def _look(self) -> None:
            cycle, transport = self.cycle, self.transport
            if transport.is_closing():
                # Closed once what was written has gone; a peer that takes nothing would keep it for ever.
                left = transport.get_write_buffer_size()
                if left == self._left:
                    transport.abort()
                    return
                self._left = left
            elif cycle is self._last and (cycle is None or cycle.response_complete):
                transport.close()
            self._last = cycle
            self._wait()

    return PunctualHttp
