"""Drives a client for the tasks of one trio run, from a nursery that the client owns.

The nursery lives in a system task. In the caller's own it would wrap what the body of `async with` raises into an
exception group, and `connect()` and `close()` by hand would have to be called from one task. It ends with the client,
and with the run at the latest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import copy_context
from typing import ParamSpec, TypeVar

import trio

from dispatch.client import AwaitedDriver
from dispatch.operations import Operation
from dispatch.settings import check_seconds
from dispatch.trio.line import Line
from dispatch.trio.waiting import Latch, Waiter
from dwp_core.client import ClientSession
from dwp_core.errors import DispatchError, InvalidRequest

P = ParamSpec("P")
T = TypeVar("T")

_LOGGER = logging.getLogger("dispatch.client")


class Driver(AwaitedDriver):
    """One session and its lines, in one trio run."""

    nursery: trio.Nursery
    """Where the tasks of this client live."""
    _home: trio.lowlevel.TrioToken
    _running = False
    _gone: Latch

    async def connect(self) -> str:
        await trio.lowlevel.checkpoint_if_cancelled()
        connected, closed = Waiter(), Latch()
        if self._line is None:
            self._home = trio.lowlevel.current_trio_token()
            await self._open_nursery(closed)
        self.start(trio.current_time, connected, closed)
        try:
            session_id: str = await connected.wait()
        except trio.Cancelled:
            await self._leave()
            raise
        except DispatchError:
            await self._until_gone()
            raise
        return session_id

    async def close(self, drain: float) -> None:
        check_seconds("drain", drain, least=0.0, or_none=False)
        if self._line is None or not self.reachable:
            await trio.lowlevel.checkpoint()
            return
        self.check_place()
        self.end(drain)
        try:
            await self._closed.wait()
        except trio.Cancelled:
            await self._leave()
            raise
        await self._until_gone()

    async def run(self, build: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        operation = build(*args, **kwargs)
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._line is not None:
            self.check_place()
        waiter = Waiter()
        request = self.ask(operation, waiter)
        try:
            answer = await waiter.wait()
        except (trio.Cancelled, GeneratorExit):
            if self.reachable:
                self.withdraw(request)
            raise
        return self.read(operation, answer)

    @property
    def reachable(self) -> bool:
        return self._running

    def check_place(self) -> None:
        try:
            here = trio.lowlevel.current_trio_token() is self._home
        except RuntimeError:
            here = False
        if not here:
            raise InvalidRequest(
                "this client belongs to another trio run or thread; make one Dispatch for each trio.run()"
            )

    def new_line(self, session: ClientSession) -> Line:
        return Line(session, self)

    async def _open_nursery(self, closed: Latch) -> None:
        ready, self._gone = trio.Event(), Latch()
        context = copy_context()
        trio.lowlevel.spawn_system_task(self._serve, ready, closed, name="dispatch-client", context=context)
        with trio.CancelScope(shield=True):
            await ready.wait()

    async def _serve(self, ready: trio.Event, closed: Latch) -> None:
        try:
            async with trio.open_nursery() as self.nursery:
                self._running = True
                ready.set()
                await closed.wait()
        except* Exception as defects:
            # A system task that fails ends the whole run, and with it programs that only use us.
            _LOGGER.critical("the client has failed, this is a defect of dispatch", exc_info=defects)
            self._session.leave(now=self.now())
            self._pump_all()
        finally:
            self._running = False
            self._gone.set_result(None)

    async def _leave(self) -> None:
        """Cancelled: end at once."""
        self._session.leave(now=self.now())
        self._pump_all()
        await self._until_gone()

    async def _until_gone(self) -> None:
        """No task of ours stays behind. This takes no longer than what is on its way out."""
        with trio.CancelScope(shield=True):
            await self._gone.wait()
