"""An HTTP client on trio: each exchange is a task in the nursery of the client."""

from __future__ import annotations

from typing import cast

import trio

from dispatch.http_line import FAREWELL, AwaitedHttpLine, Carrier, HttpDriving
from dispatch.trio import driver, line
from dwp_core.client import ClientSession
from dwp_core.http_client import HttpClientSession
from dwp_core.http_exchange import BeginExchange


class HttpDriver(HttpDriving, driver.Driver):
    """One HTTP session, in one trio run."""

    def new_line(self, session: ClientSession) -> HttpLine:
        return HttpLine(cast("HttpClientSession", session), self)


class Gate:
    """Where a reader waits until it may go on."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def open(self) -> None:
        """Let it go on."""
        self._event.set()

    async def passed(self) -> None:
        """Wait for that."""
        await self._event.wait()
        self._event = trio.Event()


class HttpLine(AwaitedHttpLine, line.Line):
    """Drives an HTTP session in the nursery of its client."""

    def _carry(self, begin: BeginExchange) -> Carrier:
        scope, gate = trio.CancelScope(), Gate()
        self._left.add(scope)
        self._nursery.start_soon(self._talk_within, begin, scope, gate, name="dispatch-exchange")
        return Carrier(scope.cancel, gate.open)

    async def _talk_within(self, begin: BeginExchange, scope: trio.CancelScope, gate: Gate) -> None:
        try:
            with scope:
                await self._talk(begin, gate.passed)
        finally:
            self.gone(scope)

    def _start_closing(self) -> None:
        scope = trio.CancelScope(deadline=self.now() + FAREWELL, shield=True)
        self._left.add(scope)
        self._nursery.start_soon(self._close_within, scope, name="dispatch-close")

    async def _close_within(self, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await self._close()
        finally:
            self._transport = None
            self.gone(scope)
