"""The bindings under test, and what the scenarios need of them: one small protocol, the same for each."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pytest

import dispatch.asyncio
import dispatch.sync
import dispatch.trio
from dwp_core.backoff import Backoff
from tests.contract.sync_adapter import Awaited

Call = Callable[..., Coroutine[Any, Any, Any]]

QUICK = Backoff(base=0.01, cap=0.05, stable_after=10.0)


class Client(Protocol):
    """A client as the scenarios use it; what each call takes and gives, the scenarios say."""

    @property
    def state(self) -> str: ...
    @property
    def session_id(self) -> str | None: ...
    async def connect(self) -> str: ...
    async def close(self, *, drain: float = 0.0) -> None: ...
    async def __aenter__(self) -> Any: ...
    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None: ...
    @property
    def subscribe(self) -> Callable[..., Any]: ...
    @property
    def enqueue(self) -> Call: ...
    @property
    def enqueue_many(self) -> Call: ...
    @property
    def get_job(self) -> Call: ...
    @property
    def cancel_job(self) -> Call: ...
    @property
    def list_jobs(self) -> Call: ...
    @property
    def wait(self) -> Call: ...
    @property
    def list_dead_letters(self) -> Call: ...
    @property
    def replay_dead_letter(self) -> Call: ...
    @property
    def list_crons(self) -> Call: ...
    @property
    def pause_cron(self) -> Call: ...
    @property
    def resume_cron(self) -> Call: ...
    @property
    def trigger_cron(self) -> Call: ...
    @property
    def start_workflow(self) -> Call: ...
    @property
    def get_workflow(self) -> Call: ...
    @property
    def cancel_workflow(self) -> Call: ...
    @property
    def replay_workflow(self) -> Call: ...
    @property
    def workflow_timeline(self) -> Call: ...
    @property
    def publish_event(self) -> Call: ...
    @property
    def watch(self) -> Call: ...
    @property
    def stats(self) -> Call: ...
    @property
    def ping(self) -> Call: ...
    @property
    def call(self) -> Call: ...


@dataclass(frozen=True)
class Binding:
    """One way to wait.

    Attributes:
        name: for people.
        backend: what anyio runs the scenarios on.
        client: the class that users import.
        blocking: whether a call blocks the thread that makes it. Then the scenarios make it in a thread of its own, and
            it cannot be cancelled, only run out of time.
    """

    name: str
    backend: tuple[str, dict[str, Any]]
    client: type
    blocking: bool = False

    def make(self, settings: dict[str, Any], options: dict[str, Any]) -> Client:
        """A client with these settings of its session, not yet connected."""
        client = self.client(**options)
        client._driver.config = replace(client._driver.config, backoff=QUICK, **settings)
        return Awaited(client) if self.blocking else client


def inner(client: Client) -> Any:
    """The client that a user would have in hand."""
    return client.client if isinstance(client, Awaited) else client


BINDINGS = (
    Binding("asyncio", ("asyncio", {}), dispatch.asyncio.Dispatch),
    Binding("uvloop", ("asyncio", {"use_uvloop": True}), dispatch.asyncio.Dispatch),
    Binding("trio", ("trio", {}), dispatch.trio.Dispatch),
    Binding("sync", ("asyncio", {}), dispatch.sync.Dispatch, blocking=True),
)

with_cancellation = pytest.mark.parametrize(
    "binding", [each for each in BINDINGS if not each.blocking], ids=lambda binding: binding.name
)
"""For scenarios about what an awaited call can do and a blocking one cannot: be cancelled, or begun and awaited later.
A blocking call ends with its answer, with its time, or with its client."""

in_one_codec = pytest.mark.parametrize("codec", ["json"])
"""For scenarios that are heavy, and whose promise is about what happens below the codec."""

over_http_too = pytest.mark.parametrize("world", ["ours", "go", "http"], indirect=True)
"""For scenarios whose promise says nothing about a connection: our server keeps it over HTTP as well."""

ours_over_http_too = pytest.mark.parametrize("world", ["ours", "http"], indirect=True)
"""The same, where only our server keeps it."""
