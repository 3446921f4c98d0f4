"""Fires cron entries: one timer on the server's loop, for when the next entry is due, and one operation on the store.

What fires is decided in the store's transaction (`Store.fire_crons`), so it does not matter how many servers look, or
how often. A server fires entries of functions that it has. PROTOCOL.md section 5 (`cron.fired`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from dispatch.functions.registry import Registry
from dispatch.functions.schedules import next_after
from dispatch.server.engine_ports import Scheduler, TimerHandle, Writer
from dispatch.store.port import Store
from dispatch.store.values import FiredCrons
from dwp_core.crons import NextAfter
from dwp_core.errors import DispatchError
from dwp_core.jobs import SECOND

logger = logging.getLogger("dispatch.crons")

POLL = 30.0
"""Seconds: how often to look anyway, for clocks that were set and for what other processes have changed in the file."""

LOOK_AGAIN = 1.0
"""Seconds: how soon to look for the end of a job that a fire waits for, and after the store has failed."""

_LEAST = 0.001


class CronLoop:
    """Fires the cron entries of a registry's functions.

    Args:
        writer: the way to the store.
        registry: the functions, with the entries that they declare.
        scheduler: the loop it lives on.
        notify: called when it has enqueued jobs.
        wall_ns: the wall clock.
        next_after: reads expressions.

    Raises:
        ValueError: two entries have the same name.
    """

    def __init__(
        self,
        writer: Writer,
        registry: Registry,
        scheduler: Scheduler,
        *,
        notify: Callable[[], None],
        wall_ns: Callable[[], int] = time.time_ns,
        next_after: NextAfter = next_after,
    ) -> None:
        self._writer = writer
        self._registry = registry
        self._declared = registry.crons()
        self._scheduler = scheduler
        self._notify = notify
        self._wall_ns = wall_ns
        self._next_after = next_after
        self._functions: frozenset[str] = frozenset()
        self._timer: TimerHandle | None = None
        self._looking = False
        self._asked = False
        self._over = True

    def start(self, done: Callable[[BaseException | None], None]) -> None:
        """Keep what is declared, and begin.

        Args:
            done: called when that is on disk, or with the error for which it cannot be.
        """
        functions = self._functions = self._registry.names()
        declared = self._declared

        def operation(store: Store) -> None:
            store.declare_crons(
                declared, functions=functions, now_ns=self._wall_ns(), next_after=self._next_after
            )

        def finished(_: None, error: BaseException | None) -> None:
            # Entries of these functions that are not declared are gone: without one there is nothing to look for.
            if error is None and declared:
                self._over = False
                self.look()
            done(error)

        self._writer.submit(operation, finished)

    def look(self) -> None:
        """Look now: an entry was resumed."""
        if self._over:
            return
        if self._looking:
            self._asked = True
            return
        self._looking = True
        self._asked = False
        self._disarm()
        try:
            self._writer.submit(self._fire, self._looked)
        except DispatchError as error:  # too many operations wait, or it is closed
            self._looked(None, error)

    def stop(self) -> None:
        """Fire no more."""
        self._over = True
        self._disarm()

    def _fire(self, store: Store) -> FiredCrons:
        return store.fire_crons(
            functions=self._functions, now_ns=self._wall_ns(), next_after=self._next_after
        )

    def _looked(self, fired: FiredCrons | None, error: BaseException | None) -> None:
        self._looking = False
        if fired is None:
            logger.error("cron entries could not be fired; trying again in %g s: %s", LOOK_AGAIN, error)
            self._look_in(LOOK_AGAIN)
            return
        if fired.job_ids:
            self._notify()
        if fired.more or self._asked:
            self.look()
            return
        wait = LOOK_AGAIN if fired.waiting else POLL
        if fired.next_fire is not None:
            wait = min(wait, (fired.next_fire - self._wall_ns()) / SECOND)
        self._look_in(max(wait, _LEAST))

    def _look_in(self, seconds: float) -> None:
        if not self._over:
            self._timer = self._scheduler.call_at(self._scheduler.time() + seconds, self.look)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
