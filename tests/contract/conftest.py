"""Every scenario on every binding, in both codecs, against our server (both stores) or the recorded one, or both."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dispatch.store.memory import MemoryStore
from dispatch.store.sqlite import SqliteStore
from tests.bindings.http_servers import OurHttpServer
from tests.contract.bindings import BINDINGS, Binding
from tests.contract.go_server import GoServer
from tests.contract.our_server import OurServer
from tests.contract.relay import Relay
from tests.contract.threads import PATIENCE
from tests.contract.world import World, bounded

UNHURRIED = 3 * PATIENCE
"""Seconds until a timer comes that a scenario does not ask for: none helps what was forgotten until then."""
TIMES = {"heartbeat": UNHURRIED, "connect_timeout": UNHURRIED, "stall_timeout": UNHURRIED}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        here = item.path.parent == Path(__file__).parent
        if here and isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = bounded(item.obj)


@pytest.fixture(params=BINDINGS, ids=lambda binding: binding.name)
def binding(request: pytest.FixtureRequest) -> Binding:
    chosen: Binding = request.param
    return chosen


@pytest.fixture
def anyio_backend(binding: Binding) -> tuple[str, dict[str, Any]]:
    return binding.backend


@pytest.fixture(params=["json", "msgpack"])
def codec(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def our_world(binding: Binding, codec: str, folder: Path, **settings: Any) -> Iterator[World[OurServer]]:
    """At our server; each store with each binding and with each codec."""
    in_memory = (BINDINGS.index(binding) % 2 == 0) == (codec == "json")
    store = MemoryStore() if in_memory else SqliteStore(folder / "dispatch.db")
    with closing(store), OurServer(store, **{"heartbeat": UNHURRIED, **settings}) as server:
        yield World(server, binding, codec, server.url, settings=TIMES)


@contextmanager
def http_world(binding: Binding, codec: str, folder: Path) -> Iterator[World[OurServer]]:
    """At our server over HTTP: calls by RPC, subscriptions by event streams."""
    with closing(MemoryStore()) as store, OurHttpServer(store) as server:
        yield World(server, binding, codec, server.url, settings=TIMES)


@contextmanager
def go_world(binding: Binding, codec: str) -> Iterator[World[GoServer]]:
    """At the existing server, as it was recorded."""
    with GoServer() as server:
        yield World(server, binding, codec, server.url, settings={**TIMES, "poll_interval": 0.01})


@pytest.fixture
def ours(binding: Binding, codec: str, tmp_path: Path) -> Iterator[World[OurServer]]:
    with our_world(binding, codec, tmp_path) as world:
        yield world


@pytest.fixture
def go(binding: Binding, codec: str) -> Iterator[World[GoServer]]:
    with go_world(binding, codec) as world:
        yield world


@pytest.fixture(params=["ours", "go"])
def world(
    request: pytest.FixtureRequest, binding: Binding, codec: str, tmp_path: Path
) -> Iterator[World[Any]]:
    """At either; with `over_http_too`, at the third as well."""
    if request.param == "go":
        chosen: AbstractContextManager[World[Any]] = go_world(binding, codec)
    else:
        chosen = (our_world if request.param == "ours" else http_world)(binding, codec, tmp_path)
    with chosen as world:
        yield world


@pytest.fixture
def relay(world: World[Any]) -> Iterator[Relay]:
    """A network that can be cut; clients of this world go through it from now on."""
    with Relay(world.url) as relay:
        world.url = relay.url
        yield relay
