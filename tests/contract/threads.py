"""An event loop in a thread of its own: where the servers of these tests live, out of the way of the client's loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Self, TypeVar

T = TypeVar("T")

PATIENCE = 30.0


class LoopThread:
    """Runs coroutines and callbacks on an asyncio loop in another thread, for callers of any kind.

    Example:
        with LoopThread() as thread:
            assert thread.run(asyncio.sleep(0, "done")) == "done"
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="contract-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(_end_tasks())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do this over there; its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call this over there; its result."""

        async def calling() -> T:
            return function(*arguments)

        return self.run(calling())

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()


async def stop_accepting(sockets: Iterable[Any]) -> None:
    """Take no more connections on these, so that their server can be closed.

    asyncio loses one that it accepts in the very turn in which its server is closed.
    """
    loop = asyncio.get_running_loop()
    for listening in sockets:
        loop.remove_reader(listening.fileno())
    await _turns(10)


async def _end_tasks() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await _turns(3)


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
