"""A subscription as trio programs see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from dispatch.lifecycle import Change
from dispatch.results import Event
from dispatch.subscription import AwaitedChanges, AwaitedFeed, AwaitedReading
from dwp_core.frames import EventHead
from dwp_core.subscriptions import Gap

if TYPE_CHECKING:
    from dispatch.trio.driver import Driver

I = TypeVar("I")  # noqa: E741  # an item
R = TypeVar("R")

_FAIR = 32
"""Items after which a reader that never has to wait lets others run."""


class _Reading(AwaitedReading[I, R]):
    """How trio waits for the next item."""

    _home: Driver
    _readers: trio.lowlevel.ParkingLot
    _in_a_row = 0

    def _wake(self) -> None:
        if self._readers:
            self._readers.unpark_all()

    async def _changed(self) -> None:
        self._in_a_row = 0
        self._home.check_place()  # nobody could wake a task of another run
        await self._readers.park()

    async def __anext__(self) -> R:
        await trio.lowlevel.checkpoint_if_cancelled()  # before anything is taken: then nothing is lost
        self._in_a_row += 1
        if self._in_a_row > _FAIR:
            self._in_a_row = 0
            await trio.lowlevel.cancel_shielded_checkpoint()
        return await super().__anext__()


class Subscription(_Reading[EventHead | Gap, Event], AwaitedFeed):
    """The events of one channel, in order, across reconnects: see `dispatch.subscription.AwaitedFeed`."""

    def __init__(self, driver: Driver, channel: str, until: frozenset[str]) -> None:
        super().__init__(driver, channel, until)
        self._home = driver
        self._readers = trio.lowlevel.ParkingLot()


class States(_Reading[Change, Change], AwaitedChanges):
    """What happens to the connection: see `dispatch.subscription.Changes`."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self._home = driver
        self._readers = trio.lowlevel.ParkingLot()
