"""A subscription as trio programs see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from dispatch.results import Event
from dispatch.subscription import AwaitedFeed

if TYPE_CHECKING:
    from dispatch.trio.driver import Driver

_FAIR = 32
"""Events after which a reader that never has to wait lets others run."""


class Subscription(AwaitedFeed):
    """The events of one channel, in order, across reconnects: see `dispatch.subscription.AwaitedFeed`."""

    def __init__(self, driver: Driver, channel: str, until: frozenset[str]) -> None:
        super().__init__(driver, channel, until)
        self._readers = trio.lowlevel.ParkingLot()
        self._in_a_row = 0

    def _wake(self) -> None:
        if self._readers:
            self._readers.unpark_all()

    async def _changed(self) -> None:
        self._in_a_row = 0
        await self._readers.park()

    async def __anext__(self) -> Event:
        await trio.lowlevel.checkpoint_if_cancelled()  # before anything is taken: then nothing is lost
        self._in_a_row += 1
        if self._in_a_row > _FAIR:
            self._in_a_row = 0
            await trio.lowlevel.cancel_shielded_checkpoint()
        return await super().__anext__()
