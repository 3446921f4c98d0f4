"""A subscription as asyncio programs see it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dispatch.subscription import AwaitedFeed

if TYPE_CHECKING:
    from dispatch.asyncio.driver import Driver


class Subscription(AwaitedFeed):
    """The events of one channel, in order, across reconnects: see `dispatch.subscription.AwaitedFeed`."""

    def __init__(self, driver: Driver, channel: str, until: frozenset[str]) -> None:
        super().__init__(driver, channel, until)
        self._home = driver
        self._waiters: list[asyncio.Future[None]] = []

    def _wake(self) -> None:
        if self._waiters:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiters.clear()

    async def _changed(self) -> None:
        waiter: asyncio.Future[None] = asyncio.Future(loop=self._home.loop)  # on another one, it says so
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
