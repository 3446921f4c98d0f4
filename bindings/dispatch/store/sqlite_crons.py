"""Cron entries in a SQLite file: the statements of `cron_operations`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from dispatch.store.cron_operations import CronOperations
from dwp_core.crons import Cron


class SqliteCrons(CronOperations):
    """What `CronOperations` asks of a SQLite store."""

    _execute: Callable[..., sqlite3.Cursor]

    def _cron(self, name: str) -> Cron | None:
        row = self._execute(_CRON, (name,)).fetchone()
        return None if row is None else Cron._make(row)

    def _keep_cron(self, cron: Cron) -> None:
        self._execute(_KEEP, cron)

    def _claim_cron(self, before: Cron, after: Cron) -> bool:
        claimed = self._execute(
            _CLAIM, (after.next_fire, after.waiting, before.name, before.next_fire, before.waiting)
        )
        if claimed.rowcount == 1:
            self._keep_cron(after)
        return claimed.rowcount == 1

    def _forget_cron(self, name: str) -> None:
        self._execute("DELETE FROM crons WHERE name = ?", (name,))


COLUMNS = ", ".join(Cron._fields)

_CRON = f"SELECT {COLUMNS} FROM crons WHERE name = ?"
_KEEP = f"INSERT OR REPLACE INTO crons ({COLUMNS}) VALUES ({', '.join('?' * len(Cron._fields))})"
_CLAIM = "UPDATE crons SET next_fire = ?, waiting = ? WHERE name = ? AND next_fire = ? AND waiting = ?"
