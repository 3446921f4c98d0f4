"""The testing kit on every binding, in both codecs; what blocks is called in threads, as in the contract suite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dispatch.testing import MockTransport
from tests.contract.bindings import BINDINGS, Binding, Client
from tests.contract.sync_adapter import Awaited

Connect = Callable[..., Client]


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


@pytest.fixture
def transport() -> MockTransport:
    return MockTransport()


@pytest.fixture
def connect(binding: Binding, codec: str) -> Connect:
    """Makes clients as users make them."""

    def make(**options: Any) -> Client:
        client = binding.client(**{"url": "ws://test/dwp", "format": codec, **options})
        return Awaited(client) if binding.blocking else client

    return make
