"""An HTTP client on asyncio: each exchange is a task."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from dispatch.asyncio import driver, line
from dispatch.http_line import FAREWELL, AwaitedHttpLine, Carrier, HttpDriving
from dwp_core.client import ClientSession
from dwp_core.http_client import HttpClientSession
from dwp_core.http_exchange import BeginExchange

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any


class HttpDriver(HttpDriving, driver.Driver):
    """One HTTP session, on one event loop."""

    def new_line(self, session: ClientSession) -> HttpLine:
        return HttpLine(cast("HttpClientSession", session), self)


class HttpLine(AwaitedHttpLine, line.Line):
    """Drives an HTTP session on an event loop."""

    def _carry(self, begin: BeginExchange) -> Carrier:
        gate = asyncio.Event()

        async def wait() -> None:
            await gate.wait()
            gate.clear()

        task = self._spawn(self._talk(begin, wait), "dispatch-exchange")
        return Carrier(task.cancel, gate.set)

    def _start_closing(self) -> None:
        self._spawn(self._close_in_time(), "dispatch-close")

    async def _close_in_time(self) -> None:
        try:
            await asyncio.wait_for(self._close(), FAREWELL)
        except TimeoutError:
            pass
        finally:
            self._transport = None

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self.loop.create_task(work, name=name)
        self._left.add(task)
        task.add_done_callback(self.gone)
        return task
