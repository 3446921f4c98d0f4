"""What one trio task waits for: an answer, set by another task."""

from __future__ import annotations

from typing import Any

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule, wait_task_rescheduled


class Waiter:
    """A result or an error that one task at a time waits for. Cancelling the wait leaves it as it is."""

    __slots__ = ("_done", "_error", "_result", "_task")

    def __init__(self) -> None:
        self._done = False
        self._error: BaseException | None = None
        self._task: Task | None = None

    def done(self) -> bool:
        """Whether it is there."""
        return self._done

    def set_result(self, result: Any, /) -> None:
        """Here it is."""
        self._done = True
        self._result = result
        if self._task is not None:
            reschedule(self._task)
            self._task = None

    def set_exception(self, error: BaseException, /) -> None:
        """There will be none, because of this."""
        self._error = error
        self.set_result(None)

    async def wait(self) -> Any:
        """The result.

        Raises:
            BaseException: the error that was set.
        """
        if self._done:
            await trio.lowlevel.checkpoint()
        else:
            self._task = current_task()
            await wait_task_rescheduled(self._leave)
        if self._error is not None:
            raise self._error
        return self._result

    def _leave(self, _: RaiseCancelT) -> Abort:
        self._task = None
        return Abort.SUCCEEDED


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
