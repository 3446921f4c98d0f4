"""The calls of a client over HTTP: each is an exchange of its own, and lost by itself.

What may be repeated, and what is asked again while somebody waits, is decided as over a WebSocket, in `client_calls`.
"""

from __future__ import annotations

from dataclasses import replace

from dwp_core.client_calls import Calls
from dwp_core.client_events import ClientConfig, ClientEvent
from dwp_core.codec import Codec
from dwp_core.errors import DispatchError
from dwp_core.frames import Frame
from dwp_core.outbox import Outbox
from dwp_core.peer import Peer
from dwp_core.requests import Purpose, Request, Retry

MOST_EXCHANGES = 64
"""Calls under way at a time: each occupies a connection."""

MOST_WAITS = 32
"""Of these, how many may be questions whether something has ended, so that other calls get their turn."""

LONG_WAITS = 24
"""Of these, how many may be held by the server until it has; the others are asked again and again, in turns."""


class HttpCalls(Calls):
    """The open requests of one client over HTTP. Arguments: `Calls`."""

    __slots__ = ("_hasty", "_long")

    def __init__(self, config: ClientConfig, outbox: Outbox, events: list[ClientEvent]) -> None:
        super().__init__(config, outbox, events)
        self._long: set[str] = set()
        self._hasty: Peer | None = None

    def connected(self, peer: Peer) -> None:
        super().connected(peer)
        self._hasty = replace(peer, limits=replace(peer.limits, wait_ms=1))

    def send_waiting(self, now: float) -> None:
        waiting, room = self.table.waiting, MOST_WAITS
        if not waiting:
            return
        room -= sum(request.purpose is Purpose.WAIT for request in self.table.flying.values())
        waits = [request for request in waiting.values() if request.purpose is Purpose.WAIT]
        held = waits[max(room, 0) :]
        for request in held:
            del waiting[request.id]
        super().send_waiting(now)
        waiting.update((request.id, request) for request in held)

    def answer(self, request: Request, frame: Frame, codec: Codec, now: float) -> None:
        was_long = request.id in self._long
        self._long.discard(request.id)
        super().answer(request, frame, codec, now)
        if not was_long and request.id in self.table.waiting:  # in turns
            self.table.park(self.table.waiting.pop(request.id))
            self._looks.set(request.id, now + self._config.poll_interval)

    def lost(self, request: Request, cause: DispatchError, *, sent: bool, again: bool) -> None:
        """No answer to a request in flight will come.

        Args:
            sent: whether the server may have got it.
            again: whether lost connections are made again.
        """
        self.table.drop(request.id)
        assert self._peer is not None
        if sent and not request.may_be_repeated(keys_honoured=again and self._keys_honoured):
            self._outcome_unknown(request, cause)
        elif not again:
            self.fail(request, cause)
        else:
            if sent:
                request.reached = self._peer.log
            self.table.wait(request)

    def unreadable(self, request: Request, cause: DispatchError) -> None:
        """The server has answered a request in flight, and nobody knows what."""
        self.table.drop(request.id)
        if request.retry is Retry.READ:
            self.fail(request, cause)
        else:
            self._outcome_unknown(request, cause)

    def _question(self, request: Request, peer: Peer, now: float) -> tuple[str, bytes]:
        self._long &= self.table.flying.keys()
        if len(self._long) < LONG_WAITS:
            self._long.add(request.id)
            return super()._question(request, peer, now)
        assert self._hasty is not None
        return super()._question(request, self._hasty, now)
