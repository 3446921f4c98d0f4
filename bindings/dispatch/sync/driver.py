"""Drives a client for any number of threads. One lock guards the session; nobody holds it while waiting.

Whoever calls writes what the call wants written, as far as the socket takes it at once, and drives the line while it
waits for the answer (`dispatch.sync.line`).
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet

from dispatch import driver
from dispatch.dialing import Dialer
from dispatch.lifecycle import Counters
from dispatch.line import FAREWELL
from dispatch.operations import Operation
from dispatch.settings import check_seconds
from dispatch.subscription import Changes, Feed
from dispatch.sync.line import NEVER, Line
from dispatch.sync.waiting import Latch, Waiter, sleep_without, without_lock
from dwp_core.client import ClientSession
from dwp_core.client_events import ClientConfig, ClientEvent, Closed
from dwp_core.errors import DispatchError, InvalidRequest
from dwp_core.subscriptions import Since

P = ParamSpec("P")
T = TypeVar("T")


class Driver(driver.Driver):
    """One session and its lines, in one process."""

    _line: Line | None  # pyright: ignore[reportIncompatibleVariableOverride]  # it is what new_line makes
    _closed: Latch

    def __init__(self, config: ClientConfig, dialer: Dialer, timeout: float | None) -> None:
        super().__init__(config, dialer, timeout)
        self.lock = threading.RLock()
        self.stepping = False
        """A thread is in the middle of a step, with the lock."""
        self._entered_again = False
        self.unusable = False
        """By this process, or by now: `check_place` says more."""
        self._exiting = False
        self.threads: WeakSet[Line] = WeakSet()
        """The lines whose threads run: a thread keeps its line."""
        self._forked = False
        _DRIVERS.add(self)

    def connect(self) -> str:
        """Start the session; the server's name for it, or what went wrong."""
        connected = Waiter()
        with self.lock:
            self.check_place()
            self._unbroken(self.start, time.monotonic, connected, Latch())
            try:
                self.wait_for(connected)
                session_id: str = connected.result()
            except DispatchError:
                self._await_end()
                raise
            except BaseException:
                self._leave()
                raise
        return session_id

    def close(self, drain: float) -> None:
        """End the session; returns when nothing of it is left. It ends also where this is interrupted meanwhile."""
        check_seconds("drain", drain, least=0.0, or_none=False)
        if self._line is None or not self.reachable:
            return
        with self.lock:
            self._unbroken(self.end, drain)
            try:
                self._await_end()
            except BaseException:
                self._leave()
                raise

    def run(self, build: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """One call, from its arguments to its result."""
        operation = build(*args, **kwargs)
        waiter = Waiter()
        with self.lock:
            if self.unusable:
                self.check_place()
            line = self._line
            if line is not None:
                line.catch_up()
            request = self._unbroken(self.ask, operation, waiter)
            assert line is not None
            try:
                line.wait_for(waiter)
            except BaseException:  # Ctrl-C
                self._unbroken(self.withdraw, request)
                raise
        return self.read(operation, waiter.result())

    def wait_for(self, waiter: Waiter, until: float = NEVER) -> bool:
        """Wait, with the lock, which is not held meanwhile; whether it is there by then."""
        assert self._line is not None
        self.check_place()
        return self._line.wait_for(waiter, until)

    def deliver(self, events: list[ClientEvent]) -> None:
        if self._exiting:  # a daemon thread that waits is not to be woken for the end of the interpreter
            events = [event for event in events if isinstance(event, Closed)]
        super().deliver(events)
        line = self._line
        if line is not None:
            line.wake()  # its leader may be one of those who waited, and another thread has this for it

    @property
    def counters(self) -> Counters:
        with self.lock:
            return super().counters

    def follow(self, changes: Changes) -> None:
        with self.lock:
            super().follow(changes)

    def listen(self, feed: Feed, since: Since) -> None:
        with self.lock:
            self._unbroken(super().listen, feed, since)

    def leave(self, feed: Feed) -> None:
        with self.lock:
            self._unbroken(super().leave, feed)

    def consumed(self, feed: Feed, count: int) -> None:
        self._unbroken(super().consumed, feed, count)

    @property
    def reachable(self) -> bool:
        return not self._forked

    def check_place(self) -> None:
        if self._forked:
            raise InvalidRequest(
                "this client was made before this process was forked, and belongs to its parent;"
                " make one Dispatch in each process"
            )
        if self._exiting and threading.current_thread().daemon:
            # It is stopped any moment, wherever it is. An error would only get it to talk meanwhile.
            sleep_without(self.lock)

    def new_line(self, session: ClientSession) -> Line:
        return Line(session, self)

    def break_off(self) -> None:
        """A step was interrupted half-way, as by Ctrl-C: end, so that nobody waits for what is half done."""
        for line in list(self._lines.values()):
            assert isinstance(line, Line)
            with suppress(Exception):
                line.break_off()
        if self._line is not None:
            self.settle()

    def _unbroken(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Take a step, under the lock. One that Ctrl-C interrupts half-way is the last."""
        if self.stepping:
            self._entered_again = True
            raise RuntimeError(
                "a signal handler or a finalizer has called the client in the middle of its work;"
                " let it set an event, and the program act upon that"
            )
        try:
            self.stepping = True
            try:
                return step(*args, **kwargs)
            except BaseException as error:
                if self._entered_again or not isinstance(error, Exception):
                    self.break_off()
                raise
            finally:
                self.stepping = self._entered_again = False
        finally:  # where the first was interrupted
            self.stepping = False

    def _await_end(self) -> None:
        """Wait, with the lock, until nothing is left, not even a thread."""
        self.wait_for(self._closed.waiter())
        without_lock(self.lock, self._join)

    def _join(self) -> None:
        for line in list(self.threads):
            line.join()

    def _leave(self) -> None:
        """Interrupted, or the interpreter ends: do not wait for the server."""
        self._session.leave(now=self.now())
        self._pump_all()

    def end_with_the_process(self) -> None:
        """Close what was never closed, in a moment, so that no thread of ours meets the end of the interpreter."""
        if self.abandoned:
            with self.lock:
                self._exiting = self.unusable = True
                self._leave()
                self.wait_for(self._closed.waiter(), self.now() + 2 * FAREWELL)

    def forget_parent(self) -> None:
        """This is the child of a fork: the connection is its parent's, as are the threads that drove it."""
        self.lock = threading.RLock()  # whoever held the other one is not here any more
        self.unusable, self._forked, self.stepping = True, True, False
        for line in self._lines.values():
            assert isinstance(line, Line)
            line.drop_sockets()


_DRIVERS: WeakSet[Driver] = WeakSet()


def _each(action: Callable[[Driver], Any]) -> None:
    for each in list(_DRIVERS):
        action(each)


atexit.register(_each, Driver.end_with_the_process)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _each(Driver.forget_parent))
