"""The raw SQL loop: the statements that the SQLite store executes, with their values, and nothing around them.

They are recorded on one file and repeated on another that is in the same state.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dispatch.store.sqlite import SqliteStore

Statement = tuple[bool, str, Any]
"""Whether it is done once for each of many rows, its text, its values."""


def record(store: SqliteStore, work: Callable[[], object]) -> list[Statement]:
    """What the store executes while it does this work, which it really does."""
    statements: list[Statement] = []
    execute, execute_many = store._execute, store._execute_many

    def executed(sql: str, values: Any = ()) -> sqlite3.Cursor:
        statements.append((False, sql, values))
        return execute(sql, values)

    def executed_many(sql: str, rows: Any) -> sqlite3.Cursor:
        rows = list(rows)
        statements.append((True, sql, rows))
        return execute_many(sql, rows)

    store._execute, store._execute_many = executed, executed_many
    try:
        work()
    finally:
        store._execute, store._execute_many = execute, execute_many
    return statements


class Replay:
    """A file of the store's, opened with nothing but sqlite3."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")

    def run(self, statements: list[Statement]) -> None:
        execute, execute_many = self._db.execute, self._db.executemany
        for many, sql, values in statements:
            if many:
                execute_many(sql, values)
            else:
                cursor = execute(sql, values)
                if cursor.description:
                    cursor.fetchall()

    def close(self) -> None:
        self._db.close()
