"""The existing server, as it was recorded, for the tests of every binding."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.go_server import GoServer


@pytest.fixture
def server() -> Iterator[GoServer]:
    with GoServer() as server:
        yield server
