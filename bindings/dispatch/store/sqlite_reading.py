"""Looks things up in a SQLite store: the reading half, of the writer and of a second connection that only reads."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from heapq import merge
from typing import Any

from dispatch.store.reading import ReadingOperations
from dispatch.store.schema import DEAD_LETTER_COLUMNS
from dispatch.store.sqlite_file import explain, open_for_reading
from dispatch.store.values import LogSpan, QueueDepth, Stats, Tenant
from dwp_core.crons import Cron
from dwp_core.events import LoggedEvent
from dwp_core.jobs import STATES, DeadLetter, Job

_COLUMNS = ", ".join("coalesce(p.payload, x'')" if name == "payload" else f"j.{name}" for name in Job._fields)
FROM_JOBS = f"SELECT {_COLUMNS} FROM jobs j LEFT JOIN payloads p ON p.n = j.n"
ALONE = ", ".join("x''" if name == "payload" else name for name in Job._fields)

_JOB = f"{FROM_JOBS} WHERE j.id = ?"
_DEAD_LETTERS = f"SELECT {', '.join(DEAD_LETTER_COLUMNS)} FROM dead_letters"
_CRONS = f"SELECT {', '.join(Cron._fields)} FROM crons"
_EVENTS = f"SELECT {', '.join(LoggedEvent._fields)} FROM events WHERE seq > ? AND seq <= ?"
# By the indexes that have unfinished jobs only: the one of tenants would lead over every finished job of a tenant.
_DEPTHS = "SELECT queue, count(*) FROM jobs INDEXED BY {} WHERE {} AND {} GROUP BY queue"
_SPAN = "SELECT (SELECT min(seq) FROM events), (SELECT max(seq) FROM events)"


class SqliteReading(ReadingOperations):
    """Look-ups on one connection."""

    def __init__(self, path: str, connection: sqlite3.Connection, log_id: str) -> None:
        super().__init__()
        self.path = path
        self.log_id = log_id
        self._db = connection
        self._execute = connection.execute
        # Names are only ever added, so what was found once needs no second look.
        self._known_names: set[str] = set()

    def close(self) -> None:
        """See `ReadableStore.close`."""
        self._db.close()

    def knows_name(self, name: str) -> bool:
        """See `ReadableStore.knows_name`."""
        if name in self._known_names:
            return True
        if self._execute("SELECT 1 FROM names WHERE name = ?", (name,)).fetchone() is None:
            return False
        self._known_names.add(name)
        return True

    def stats(self, *, tenant: Tenant | None) -> Stats:
        """See `ReadableStore.stats`."""
        where, arguments = _of_tenant(tenant)
        rows = self._execute(f"SELECT state, count(*) FROM jobs WHERE {where} GROUP BY state", arguments)
        counts = {**dict.fromkeys(STATES, 0), **dict(rows)}
        oldest, head = self.span()
        return Stats(counts, self.count_dead_letters(tenant=tenant), head - oldest + 1)

    def count_dead_letters(self, *, tenant: Tenant | None) -> int:
        """See `ReadableStore.count_dead_letters`."""
        where, arguments = _of_tenant(tenant)
        (count,) = self._execute(f"SELECT count(*) FROM dead_letters WHERE {where}", arguments).fetchone()
        return int(count)

    def queue_depths(self, *, tenant: Tenant | None, now_ns: int) -> list[QueueDepth]:
        """See `ReadableStore.queue_depths`."""
        where, arguments = _of_tenant(tenant)
        depths: dict[str, list[int]] = {}
        for column, index, condition, more in (
            (0, "jobs_ready", "due = 1", ()),
            (0, "jobs_delayed", "due = 0 AND run_at <= ?", (now_ns,)),
            (1, "jobs_delayed", "due = 0 AND run_at > ?", (now_ns,)),
            (2, "jobs_leased", "state = 'running'", ()),
        ):
            counts = self._execute(_DEPTHS.format(index, condition, where), (*more, *arguments))
            for queue, count in counts:
                depths.setdefault(queue, [0, 0, 0])[column] += count
        return [QueueDepth(queue, *depths[queue]) for queue in sorted(depths)]

    def span(self) -> LogSpan:
        """See `ReadableStore.span`."""
        oldest, head = self._execute(_SPAN).fetchone()
        return LogSpan(1, 0) if head is None else LogSpan(oldest, head)

    def next_run_at(self) -> int | None:
        """See `ReadableStore.next_run_at`."""
        return _number(self._execute("SELECT min(run_at) FROM jobs WHERE due = 0"))

    def next_lease_end(self) -> int | None:
        """See `ReadableStore.next_lease_end`."""
        return _number(self._execute("SELECT min(lease_until) FROM jobs WHERE state = 'running'"))

    def _job(self, job_id: str) -> Job | None:
        row = self._execute(_JOB, (job_id,)).fetchone()
        return None if row is None else Job._make(row)

    def _jobs_newest_first(
        self, tenant: Tenant | None, state: str, queue: str, name: str, before: str, limit: int
    ) -> Generator[Job, None, None]:
        conditions = ["j.id < ?"] if before else []
        arguments: list[object] = [before] if before else []
        for column, wanted in (("queue", queue), ("name", name)):
            if wanted:
                conditions.append(f"j.{column} = ?")
                arguments.append(wanted)
        if tenant is not None:
            conditions += ["j.app_id = ?", "j.org_id = ?"]
            arguments += [tenant.app_id, tenant.org_id]
        # The index of a tenant has its jobs by state: reading all states side by side walks it without sorting.
        states: Iterable[str | None] = [state] if state else (STATES if tenant is not None else [None])
        cursors = []
        for one in states:
            where = " AND ".join([*conditions, *(["j.state = ?"] if one else [])]) or "TRUE"
            sql = f"{FROM_JOBS} WHERE {where} ORDER BY j.id DESC LIMIT ?"
            cursors.append(self._execute(sql, [*arguments, *([one] if one else []), limit]))
        try:
            for row in merge(*cursors, key=_first_column, reverse=True):
                yield Job._make(row)
        finally:
            for cursor in cursors:
                cursor.close()

    def _dead_letter(self, dlq_id: str) -> DeadLetter | None:
        row = self._execute(f"{_DEAD_LETTERS} WHERE id = ?", (dlq_id,)).fetchone()
        return None if row is None else DeadLetter._make(row)

    def _dead_letters_newest_first(
        self, tenant: Tenant | None, queue: str, before: str, limit: int
    ) -> Generator[DeadLetter, None, None]:
        where, arguments = _of_tenant(tenant)
        if queue:
            where += " AND queue = ?"
            arguments.append(queue)
        if before:
            where += " AND id < ?"
            arguments.append(before)
        cursor = self._execute(f"{_DEAD_LETTERS} WHERE {where} ORDER BY id DESC LIMIT ?", [*arguments, limit])
        try:
            for row in cursor:
                yield DeadLetter._make(row)
        finally:
            cursor.close()

    def _crons(self, tenant: Tenant | None) -> list[Cron]:
        where, arguments = _of_tenant(tenant)
        return list(map(Cron._make, self._execute(f"{_CRONS} WHERE {where} ORDER BY name", arguments)))

    def _events(
        self, after: int, through: int, limit: int, tenant: Tenant | None, topic: str
    ) -> list[LoggedEvent]:
        where, arguments = _of_tenant(tenant)
        if topic:
            where += " AND topic = ?"
            arguments.append(topic)
        rows = self._execute(
            f"{_EVENTS} AND {where} ORDER BY seq LIMIT ?", [after, through, *arguments, limit]
        )
        return list(map(LoggedEvent._make, rows))


class SqliteReader(SqliteReading):
    """A second way into a SQLite store, for a thread that only reads. It waits for nobody and nobody waits for it."""

    def __init__(self, path: str, log_id: str) -> None:
        super().__init__(path, open_for_reading(path), log_id)

    def transaction(self) -> AbstractContextManager[None]:
        """All reads in it see the store as it is at the first of them."""
        return self._snapshot()

    @contextmanager
    def _snapshot(self) -> Generator[None, None, None]:
        try:
            self._execute("BEGIN")
            try:
                yield
            finally:
                if self._db.in_transaction:
                    self._execute("ROLLBACK")
        except sqlite3.Error as error:
            raise explain(self.path, error) from error


def _of_tenant(tenant: Tenant | None) -> tuple[str, list[object]]:
    return ("TRUE", []) if tenant is None else ("app_id = ? AND org_id = ?", [tenant.app_id, tenant.org_id])


def _number(cursor: sqlite3.Cursor) -> int | None:
    (number,) = cursor.fetchone()
    return None if number is None else int(number)


def _first_column(row: tuple[Any, ...]) -> Any:
    return row[0]
