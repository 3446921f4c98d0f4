"""Every test that takes `store` runs over every store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatch.store import Store
from dispatch.store.memory import MemoryStore
from dispatch.store.sqlite import SqliteStore


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store: Store = SqliteStore(tmp_path / "jobs.db") if request.param == "sqlite" else MemoryStore()
    with store.transaction():
        store.register_names(["noop", "other"])
    yield store
    store.close()
