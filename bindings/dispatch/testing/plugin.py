"""Fixtures for pytest, which finds them by itself where Dispatch is installed (docs/testing.md).

pytest imports this in every run of everybody who has Dispatch installed: nothing is imported here but pytest, and
nothing is started before a test asks for it. All fixtures are plain ones: they work without a plugin for asynchronous
tests, and with any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dispatch import asyncio as dispatch_asyncio
    from dispatch import sync as dispatch_sync
    from dispatch import trio as dispatch_trio
    from dispatch.functions.registry import Registry
    from dispatch.testing import MemoryServer, MockTransport


@pytest.fixture
def dispatch_app() -> Registry | str | None:
    """Whose functions `dispatch_server` runs; override it: a registry, "app.py", "package.module".

    None for those that `@dispatch.function` has declared by the time the server starts.
    """
    return None


@pytest.fixture
def dispatch_settings() -> dict[str, Any]:
    """Settings of `dispatch_server`, e.g. `{"concurrency": 1}`; override it. See `dispatch.testing.server`."""
    return {}


@pytest.fixture
def dispatch_server(
    dispatch_app: Registry | str | None, dispatch_settings: dict[str, Any]
) -> Iterator[MemoryServer]:
    """A server in memory that runs the functions of `dispatch_app`; one for each test."""
    from dispatch.testing import server

    with server(dispatch_app, **dispatch_settings) as running:
        yield running


@pytest.fixture
def dispatch_client(dispatch_server: MemoryServer) -> Iterator[dispatch_sync.Dispatch]:
    """A connected `dispatch.sync.Dispatch`, at `dispatch_server`."""
    from dispatch.sync import Dispatch

    with Dispatch(url=dispatch_server.url, token=dispatch_server.token) as client:
        yield client


@pytest.fixture
def dispatch_asyncio_client(dispatch_server: MemoryServer) -> Callable[..., dispatch_asyncio.Dispatch]:
    """Makes a `dispatch.asyncio.Dispatch` at `dispatch_server`: `async with dispatch_asyncio_client() as client`."""
    from dispatch.asyncio import Dispatch

    return _maker(Dispatch, dispatch_server)


@pytest.fixture
def dispatch_trio_client(dispatch_server: MemoryServer) -> Callable[..., dispatch_trio.Dispatch]:
    """Makes a `dispatch.trio.Dispatch` at `dispatch_server`: `async with dispatch_trio_client() as client`."""
    from dispatch.trio import Dispatch

    return _maker(Dispatch, dispatch_server)


@pytest.fixture
def dispatch_transport() -> MockTransport:
    """A `MockTransport`, for `Dispatch(url="ws://test/dwp", transport=dispatch_transport)`."""
    from dispatch.testing import MockTransport

    return MockTransport()


def _maker(client: type[Any], server: MemoryServer) -> Callable[..., Any]:
    def make(**options: Any) -> Any:
        return client(**{"url": server.url, "token": server.token, **options})

    return make
