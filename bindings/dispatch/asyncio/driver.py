"""Drives a client for the tasks of one asyncio event loop: calls wait for futures of that loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from dispatch.asyncio.line import Line
from dispatch.client import AwaitedDriver
from dispatch.driver import not_connected
from dispatch.operations import Operation
from dispatch.settings import check_seconds
from dwp_core.client import ClientSession
from dwp_core.client_events import RequestSucceeded
from dwp_core.errors import DispatchError, InvalidRequest

P = ParamSpec("P")
T = TypeVar("T")


class Driver(AwaitedDriver):
    """One session and its lines, on one event loop."""

    ALREADY = asyncio.InvalidStateError

    loop: asyncio.AbstractEventLoop
    _connected: asyncio.Future[str]
    _closed: asyncio.Future[None]

    async def connect(self) -> str:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise InvalidRequest(
                "this client is for asyncio, and no loop of it runs here; take dispatch.trio or dispatch.sync"
            ) from None
        if self._line is None:
            self.loop = loop
        self.start(_clock_of(loop), loop.create_future(), loop.create_future())
        self._connected.add_done_callback(_seen)
        try:
            return await asyncio.shield(self._connected)
        except asyncio.CancelledError:
            self.end()
            raise
        except DispatchError:
            await asyncio.shield(self._closed)
            raise

    async def close(self, drain: float) -> None:
        check_seconds("drain", drain, least=0.0, or_none=False)
        if self._line is None or not self.reachable:
            return
        self.check_place()
        self.end(drain)
        await asyncio.shield(self._closed)

    async def run(self, build: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        operation = build(*args, **kwargs)
        if self._line is None:
            raise not_connected()
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            here = False
        if not here:
            raise _wrong_loop()
        waiter: asyncio.Future[RequestSucceeded] = asyncio.Future()
        request = self.ask(operation, waiter)
        try:
            answer = await waiter
        except (asyncio.CancelledError, GeneratorExit):
            if self.reachable:
                self.withdraw(request)
            raise
        return self.read(operation, answer)

    @property
    def reachable(self) -> bool:
        return not self.loop.is_closed()

    def check_place(self) -> None:
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            here = False
        if not here:
            raise _wrong_loop()

    def new_line(self, session: ClientSession) -> Line:
        return Line(session, self)


def _clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """The loop's clock, without the call in between where the loop only passes it on."""
    return time.monotonic if type(loop).time is asyncio.BaseEventLoop.time else loop.time


def _seen(future: asyncio.Future[str]) -> None:
    """It may be that nobody awaits it any more."""
    if not future.cancelled():
        future.exception()


def _wrong_loop() -> InvalidRequest:
    return InvalidRequest(
        "this client belongs to another event loop or thread; make one Dispatch for each event loop"
    )
