"""A subscription as asyncio programs see it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from dispatch.lifecycle import Change
from dispatch.results import Event
from dispatch.subscription import AwaitedChanges, AwaitedFeed, AwaitedReading
from dwp_core.frames import EventHead
from dwp_core.subscriptions import Gap

if TYPE_CHECKING:
    from dispatch.asyncio.driver import Driver

I = TypeVar("I")  # noqa: E741  # an item
R = TypeVar("R")


class _Reading(AwaitedReading[I, R]):
    """How asyncio waits for the next item."""

    _home: Driver
    _waiters: list[asyncio.Future[None]]

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


class Subscription(_Reading[EventHead | Gap, Event], AwaitedFeed):
    """The events of one channel, in order, across reconnects: see `dispatch.subscription.AwaitedFeed`."""

    def __init__(self, driver: Driver, channel: str, until: frozenset[str]) -> None:
        super().__init__(driver, channel, until)
        self._home = driver
        self._waiters = []


class States(_Reading[Change, Change], AwaitedChanges):
    """What happens to the connection: see `dispatch.subscription.Changes`."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self._home = driver
        self._waiters = []
