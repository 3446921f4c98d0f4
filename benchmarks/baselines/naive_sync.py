"""The naive client with threads: a reader thread, a future per request, events into a queue.

As `naive` does it on asyncio, and with its frames. It does no checks and survives nothing.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import count
from typing import Any, Self

from websockets.sync.client import connect

from benchmarks.baselines.naive import Frame, decode, encode


class NaiveSyncClient:
    """Connects, asks, subscribes; nothing more."""

    def __init__(self, url: str, token: str = "dk_full", timeout: float = 30.0) -> None:
        self.token = token
        self.timeout = timeout
        self._pending: dict[str, Future[Any]] = {}
        self._channels: dict[str, queue.Queue[Any]] = {}
        self._numbers = count(1)
        self._connection = connect(url)
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        self.request("auth", {"token": self.token, "format": "json"})
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()
        self._reader.join()

    def request(self, method: str, data: Any = None) -> Any:
        frame = Frame(id=f"{time.time_ns()}-{next(self._numbers)}", type="request", method=method, data=data)
        future: Future[Any] = Future()
        self._pending[frame.id] = future
        try:
            self._connection.send(encode(frame))
            return future.result(self.timeout)
        finally:
            self._pending.pop(frame.id, None)

    def subscribe(self, channel: str) -> Iterator[Any]:
        events = self._channels[channel] = queue.Queue()
        self.request("subscribe", {"channel": channel})
        return self._events(events)

    def _events(self, events: queue.Queue[Any]) -> Iterator[Any]:
        for seen in count(1):
            event = events.get()
            if seen % 500 == 0:
                self._connection.send(encode(Frame(id=f"{time.time_ns()}-c", type="request", credits=500)))
            yield event

    def _read(self) -> None:
        for message in self._connection:
            frame = decode(message)
            if frame.type == "event":
                for channel, events in self._channels.items():
                    if channel in ("firehose", frame.channel) or frame.data["type"].startswith(channel[:-1]):
                        events.put(frame.data)
            elif frame.correl_id in self._pending:
                future = self._pending[frame.correl_id]
                if frame.error is not None:
                    future.set_exception(RuntimeError(frame.error["message"]))
                else:
                    future.set_result(frame.data)
