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
from trio.lowlevel import enable_ki_protection

from dispatch.client import AwaitedDriver
from dispatch.driver import connected_before
from dispatch.operations import Operation
from dispatch.settings import check_seconds
from dispatch.subscription import Feed
from dispatch.trio.line import Line
from dispatch.trio.waiting import Latch, Waiter
from dwp_core.client import ClientSession
from dwp_core.errors import DispatchError, InvalidRequest
from dwp_core.subscriptions import Since

P = ParamSpec("P")
T = TypeVar("T")

_LOGGER = logging.getLogger("dispatch.client")


class Driver(AwaitedDriver):
    """One session and its lines, in one trio run."""

    nursery: trio.Nursery
    """Where the tasks of this client live."""
    _home: trio.lowlevel.TrioToken
    _begun = False
    _running = False
    _gone: Latch

    # Ctrl-C may interrupt any line of a program, but a core that it interrupts is of no more use: from here on it waits
    # for the next checkpoint.

    @enable_ki_protection
    async def connect(self) -> str:
        if not trio.lowlevel.in_trio_run():
            raise InvalidRequest(
                "this client is for trio, and no trio.run() is here; take dispatch.asyncio or dispatch.sync"
            )
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._begun:
            raise connected_before()
        self._begun = True
        self._home = trio.lowlevel.current_trio_token()
        connected, closed = Waiter(), Latch()
        await self._open_nursery(closed)
        try:
            self.start(trio.current_time, connected, closed)
            session_id: str = await connected.wait()
        except DispatchError:
            await self._until_gone()
            raise
        except BaseException as error:
            await self._end_at_once(error)
            raise
        return session_id

    @enable_ki_protection
    async def close(self, drain: float) -> None:
        check_seconds("drain", drain, least=0.0, or_none=False)
        if self._line is None or not self.reachable:
            await trio.lowlevel.checkpoint()
            return
        self.check_place()
        self.end(drain)
        try:
            await self._closed.wait()
        except BaseException as error:
            await self._end_at_once(error)
            raise
        await self._until_gone()

    @enable_ki_protection
    async def run(self, build: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        operation = build(*args, **kwargs)
        if self._line is not None:
            self.check_place()
            await trio.lowlevel.checkpoint_if_cancelled()
        waiter = Waiter()
        request = self.ask(operation, waiter)
        try:
            answer = await waiter.wait()
        except DispatchError:
            raise
        except BaseException:  # cancelled, dropped, Ctrl-C
            if self.reachable:
                self.withdraw(request)
            raise
        return self.read(operation, answer)

    @enable_ki_protection
    def listen(self, feed: Feed, since: Since) -> None:
        super().listen(feed, since)

    @enable_ki_protection
    def leave(self, feed: Feed) -> None:
        super().leave(feed)

    @enable_ki_protection
    def consumed(self, feed: Feed, count: int) -> None:
        super().consumed(feed, count)

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
                try:
                    await closed.wait()
                except trio.Cancelled:  # the run ends, and nobody has closed the client
                    self._leave()
                    raise
        except* Exception as defects:
            # A system task that fails ends the whole run, and with it programs that only use us.
            _LOGGER.critical("the client has failed, this is a defect of dispatch", exc_info=defects)
            self._leave()
        finally:
            self._running = False
            self._gone.set_result(None)

    def _leave(self) -> None:
        """End at once: what is on its way out still gets out."""
        if self._line is not None:
            self._session.leave(now=self.now())
            self._pump_all()

    async def _end_at_once(self, why: BaseException) -> None:
        """Cancelled, interrupted, or dropped; then nothing can be waited for."""
        self._leave()
        if not isinstance(why, GeneratorExit):
            await self._until_gone()

    async def _until_gone(self) -> None:
        """No task of ours stays behind. This takes no longer than what is on its way out."""
        with trio.CancelScope(shield=True):
            await self._gone.wait()
