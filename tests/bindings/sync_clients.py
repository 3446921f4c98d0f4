"""What the tests of the blocking client share: clients that hurry, threads, and what must not be left behind."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dispatch.sync import Dispatch
from dwp_core.backoff import Backoff
from tests.bindings.sockets import sockets_to
from tests.contract.threads import PATIENCE

ROOT = Path(__file__).parents[2]
THREADS = 16


def new_client(url: str, **options: Any) -> Dispatch:
    settings = {name: options.pop(name) for name in ("close_timeout", "heartbeat") if name in options}
    client = Dispatch(url, "dk_full", **{"max_retries": 0, **options})
    quick = Backoff(base=0.01, cap=0.05)
    client._driver.config = replace(client._driver.config, backoff=quick, **settings)
    return client


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        threading.Event().wait(0.001)


def in_thread(call: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Do this in a thread of its own."""
    begun: Future[Any] = Future()

    def work() -> None:
        try:
            begun.set_result(call(*arguments))
        except BaseException as error:
            begun.set_exception(error)

    threading.Thread(target=work, name="test", daemon=True).start()
    return begun


def waits(client: Dispatch, count: int) -> Callable[[], bool]:
    """Whether so many calls of the client are under way."""
    return lambda: client.counters.calls == count


def our_threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("dispatch"))


def descriptors() -> set[str]:
    """What this process holds open but for the sockets of its servers, which come and go in their own time."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            continue
    return {each for each in found if "socket:" not in each}


@contextmanager
def nothing_of_ours_afterwards(url: str) -> Iterator[None]:
    """Neither a thread of a client, nor a descriptor, nor a socket to that address is there after the block."""
    gc.collect()
    before, inside = descriptors(), unnamed_sockets()
    yield
    until(lambda: our_threads() == [])  # an attempt that was given up ends in its own time, which is short
    assert descriptors() - before == set()
    assert sockets_to(url) == 0
    assert unnamed_sockets() == inside


def unnamed_sockets() -> int:
    """How many ends of socket pairs are open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            twin = os.dup(int(name))
        except OSError:
            continue
        try:
            with socket.socket(fileno=twin) as sock:
                found += sock.family == socket.AF_UNIX
        except OSError:
            os.close(twin)
    return found
