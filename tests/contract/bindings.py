"""The bindings under test, and what the scenarios need of them: one small protocol, the same for each."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Protocol

from dispatch.asyncio import Dispatch
from dwp_core.backoff import Backoff
from dwp_core.client_events import ClientConfig

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
        make: a client with these settings of its session.
        client: the class that users import.
    """

    name: str
    backend: tuple[str, dict[str, Any]]
    make: Callable[[dict[str, Any], dict[str, Any]], Client]
    client: type


def _make_asyncio(settings: dict[str, Any], options: dict[str, Any]) -> Client:
    client = Dispatch(**options)
    config: ClientConfig = replace(client._driver.config, backoff=QUICK)
    client._driver.config = replace(config, **settings)
    return client


BINDINGS = (
    Binding("asyncio", ("asyncio", {}), _make_asyncio, Dispatch),
    Binding("uvloop", ("asyncio", {"use_uvloop": True}), _make_asyncio, Dispatch),
)
