"""What one trio task waits for: an answer, set by another task."""

from __future__ import annotations

from typing import Any

import outcome
import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled


class Waiter:
    """A result or an error that one task at a time waits for. Cancelling the wait leaves it as it is."""

    __slots__ = ("_outcome", "_task")

    def __init__(self) -> None:
        self._outcome: outcome.Value[Any] | outcome.Error | None = None
        self._task: Task | None = None

    def done(self) -> bool:
        """Whether it is there."""
        return self._outcome is not None

    def set_result(self, result: Any, /) -> None:
        """Here it is."""
        self._settle(outcome.Value(result))

    def set_exception(self, error: BaseException, /) -> None:
        """There will be none, because of this."""
        self._settle(outcome.Error(error))

    async def wait(self) -> Any:
        """The result.

        Raises:
            Exception: the error that was set.
        """
        if self._outcome is not None:
            await trio.lowlevel.checkpoint()
            return self._outcome.unwrap()
        self._task = current_task()
        return await wait_task_rescheduled(self._leave)

    def _leave(self, _: RaiseCancelT) -> Abort:
        self._task = None
        return Abort.SUCCEEDED

    def _settle(self, settled: outcome.Value[Any] | outcome.Error) -> None:
        self._outcome = settled
        if self._task is not None:
            reschedule(self._task, settled)
            self._task = None


class Latch:
    """Something that happens once, for which any number of tasks wait."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = trio.Event()

    def done(self) -> bool:
        """Whether it has happened."""
        return self._event.is_set()

    def set_result(self, _: object, /) -> None:
        """It has happened."""
        self._event.set()

    async def wait(self) -> None:
        """Until it has."""
        await self._event.wait()
