"""The store in a SQLite file: the default. Durable before it answers, safe for several processes on one file.

What operations mean is in `reading` and `writing`; here are the statements. Each write transaction begins with the
write lock (`BEGIN IMMEDIATE`), so what an operation has looked up stays true until it has written.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import closing, suppress
from heapq import merge
from itertools import islice
from typing import Any

from dispatch.store.schema import DEAD_LETTER_COLUMNS, JOB_COLUMNS
from dispatch.store.sqlite_crons import SqliteCrons
from dispatch.store.sqlite_file import BUSY_SECONDS, explain, open_file
from dispatch.store.sqlite_reading import ALONE, FROM_JOBS, SqliteReader, SqliteReading
from dispatch.store.values import Tenant
from dispatch.store.writing import KeptAnswer, UniqueHolder
from dwp_core.events import LoggedEvent
from dwp_core.ids import IdSource
from dwp_core.jobs import FINISHED, FIXED_FIELDS, WAITING, DeadLetter, Job

# Jobs that become ready in one claim; the rest with the next, so that no claim takes long.
_DUE_AT_ONCE = 1000


class SqliteStore(SqliteCrons, SqliteReading):
    """A store in a SQLite file. Implements `dispatch.store.Store`.

    Args:
        path: of the file; made, for its owner alone, if there is none. Its directory has to be there.
        new_id: makes an id with the prefix that it is given; None for real ones.
        busy_seconds: how long to wait for another process that writes.

    Raises:
        DispatchError: there can be no store at that path; the message says why and what would help.

    Example:
        >>> store = SqliteStore("jobs.db")                                  # doctest: +SKIP
        >>> with store.transaction():                                       # doctest: +SKIP
        ...     store.register_names(["send-email"])
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        new_id: Callable[[str], str] | None = None,
        busy_seconds: float = BUSY_SECONDS,
    ) -> None:
        make_id = new_id or IdSource(random_bytes=secrets.token_bytes, now_ns=time.time_ns).new
        connection, log_id = open_file(os.fspath(path), lambda: make_id("log"), busy_seconds)
        SqliteCrons.__init__(self, make_id)
        SqliteReading.__init__(self, os.fspath(path), connection, log_id)
        self._execute_many = connection.executemany
        self._seen = self.span().head

    def reader(self) -> SqliteReader:
        """See `Store.reader`."""
        return SqliteReader(self.path, self.log_id)

    # -- transactions

    def _begin(self) -> int:
        try:
            self._execute("BEGIN IMMEDIATE")
            (head,) = self._execute(_HEAD).fetchone()
        except sqlite3.Error as error:
            self._roll_back()
            raise explain(self.path, error) from error
        return head or 0

    def _events_since(self, seq: int) -> list[LoggedEvent]:
        return list(map(LoggedEvent._make, self._execute(_EVENTS_SINCE, (seq,))))

    def _commit(self, told: list[LoggedEvent]) -> None:
        try:
            if told:
                self._execute_many(_ADD_EVENT, told)
            self._execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise explain(self.path, error) from error

    def _undo(self, error: BaseException) -> None:
        self._roll_back()
        if isinstance(error, sqlite3.Error):
            raise explain(self.path, error) from error

    def _roll_back(self) -> None:
        # What was found in this transaction may never have been.
        self._known_names.clear()
        # Why it is rolled back is what people have to know, not that this failed as well.
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._execute("ROLLBACK")

    # -- jobs

    def _job_alone(self, job_id: str) -> Job | None:
        row = self._execute(_JOB_ALONE, (job_id,)).fetchone()
        return None if row is None else Job._make(row)

    def _payload(self, job_id: str) -> bytes:
        row = self._execute(_PAYLOAD, (job_id,)).fetchone()
        return b"" if row is None else bytes(row[0])

    def _add_job(self, job: Job, now_ns: int) -> None:
        cursor = self._execute(_ADD_JOB, (*job[:3], *job[4:], job.run_at <= now_ns))
        if job.payload:
            self._execute(_ADD_PAYLOAD, (cursor.lastrowid, job.payload))

    def _save(self, jobs: Iterable[Job], now_ns: int) -> None:
        self._execute_many(_SAVE_JOB, [(*job[FIXED_FIELDS:], _due(job, now_ns), job.id) for job in jobs])

    def _make_due(self, now_ns: int) -> None:
        self._execute(_MAKE_DUE, (now_ns, _DUE_AT_ONCE))

    def _ready(self, names: Collection[str] | None, queues: Collection[str] | None, limit: int) -> list[Job]:
        """Merges the lanes (queue and function) that are served, each of which the index has in the right order."""
        lanes = []
        lane = self._execute(_FIRST_LANE).fetchone()
        while lane is not None:
            queue, name = lane[:2]
            if (names is None or name in names) and (queues is None or queue in queues):
                lanes.append(lane)
            lane = self._execute(_NEXT_NAME, (queue, name)).fetchone()
            if lane is None:
                lane = self._execute(_NEXT_QUEUE, (queue,)).fetchone()
        if len(lanes) > limit:
            # Each of the best `limit` lanes has a job before every job of the others.
            lanes = sorted(lanes, key=_rank_of_lane)[:limit]
        cursors = [self._execute(_READY_IN_LANE, (queue, name, limit)) for queue, name, *_ in lanes]
        ready = [map(Job._make, cursor) for cursor in cursors]
        jobs = list(ready[0]) if len(ready) == 1 else list(islice(merge(*ready, key=_rank), limit))
        for cursor in cursors:
            cursor.close()
        return jobs

    def _expired(self, now_ns: int, workers: Collection[str], limit: int) -> list[Job]:
        if workers:
            marks = ", ".join("?" * len(workers))
            rows = self._execute(
                f"{_LEASED} AND (lease_until <= ? OR worker_id IN ({marks})) ORDER BY lease_until LIMIT ?",
                (now_ns, *workers, limit),
            )
        else:
            rows = self._execute(
                f"{_LEASED} AND lease_until <= ? ORDER BY lease_until LIMIT ?", (now_ns, limit)
            )
        return list(map(Job._make, rows))

    # -- names and keys

    def _add_names(self, names: Sequence[str]) -> None:
        self._execute_many("INSERT OR IGNORE INTO names VALUES (?)", [(name,) for name in names])

    def _kept_answer(self, tenant: Tenant, method: str, key: str) -> KeptAnswer | None:
        row = self._execute(_ANSWER, (tenant.app_id, tenant.org_id, method, key)).fetchone()
        return None if row is None else KeptAnswer._make(row)

    def _keep_answer(self, tenant: Tenant, method: str, key: str, kept: KeptAnswer) -> None:
        self._execute(_KEEP_ANSWER, (tenant.app_id, tenant.org_id, method, key, *kept))

    def _unique_holder(self, tenant: Tenant, name: str, key: str) -> UniqueHolder | None:
        row = self._execute(_UNIQUE_HOLDER, (tenant.app_id, tenant.org_id, name, key)).fetchone()
        return None if row is None else UniqueHolder._make(row)

    def _take_unique_key(self, job: Job, until: int) -> None:
        self._execute(_TAKE_UNIQUE_KEY, (job.app_id, job.org_id, job.name, job.unique_key, job.id, until))

    def _free_unique_key(self, job: Job) -> None:
        self._execute(_FREE_UNIQUE_KEY, (job.app_id, job.org_id, job.name, job.unique_key, job.id))

    # -- dead letters

    def _add_dead_letter(self, entry: DeadLetter) -> None:
        self._execute(_ADD_DEAD_LETTER, entry)

    def _note_replay(self, entry: DeadLetter) -> None:
        self._execute(_NOTE_REPLAY, (entry.replayed_at, entry.replayed_as, entry.id))

    # -- retention

    def _last_event_before(self, cutoff_ns: int, limit: int) -> int:
        last = 0
        with closing(self._execute(_OLDEST_EVENTS, (limit,))) as events:
            for seq, ts_ns in events:
                if ts_ns >= cutoff_ns:
                    break
                last = seq
        return last

    def _drop_events(self, through: int) -> None:
        self._execute("DELETE FROM events WHERE seq <= ?", (through,))

    def _finished_by_age(self, before_ns: int) -> Generator[Job, None, None]:
        tenant = self._execute(_FIRST_TENANT).fetchone()
        while tenant is not None:
            for state in _FINISHED_IN_ORDER:
                with closing(self._execute(_JOBS_OF_LANE, (*tenant, state))) as rows:
                    for job in map(Job._make, rows):
                        if job.created_at >= before_ns:
                            break
                        yield job
            app_id, org_id = tenant
            tenant = self._execute(_NEXT_ORG, (app_id, org_id)).fetchone()
            if tenant is None:
                tenant = self._execute(_NEXT_APP, (app_id,)).fetchone()

    def _drop_jobs(self, job_ids: Sequence[str]) -> None:
        ids = [(job_id,) for job_id in job_ids]
        self._execute_many("DELETE FROM payloads WHERE n = (SELECT n FROM jobs WHERE id = ?)", ids)
        self._execute_many("DELETE FROM jobs WHERE id = ?", ids)

    def _drop_answers(self, now_ns: int, limit: int) -> int:
        return self._execute(_DROP_ANSWERS, (now_ns, limit)).rowcount

    def _drop_unique_keys(self, now_ns: int, limit: int) -> int:
        return self._execute(_DROP_UNIQUE_KEYS, (now_ns, limit)).rowcount


def _due(job: Job, now_ns: int) -> bool | None:
    return job.run_at <= now_ns if job.state in WAITING else None


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _rank(job: Job) -> tuple[int, int, str]:
    return -job.priority, job.run_at, job.id


def _rank_of_lane(lane: tuple[Any, ...]) -> tuple[int, int, str]:
    _, _, priority, run_at, id = lane
    return -priority, run_at, id


_CHANGING = ", ".join(f"{name} = ?" for name in Job._fields[FIXED_FIELDS:])

_HEAD = "SELECT max(seq) FROM events"
_EVENTS_SINCE = f"SELECT {', '.join(LoggedEvent._fields)} FROM events WHERE seq > ? ORDER BY seq"
_ADD_EVENT = (
    f"INSERT INTO events ({', '.join(LoggedEvent._fields)}) VALUES ({_marks(len(LoggedEvent._fields))})"
)

_JOB_ALONE = f"SELECT {ALONE} FROM jobs WHERE id = ?"
_PAYLOAD = "SELECT payload FROM payloads WHERE n = (SELECT n FROM jobs WHERE id = ?)"
_ADD_JOB = f"INSERT INTO jobs ({', '.join(JOB_COLUMNS)}, due) VALUES ({_marks(len(JOB_COLUMNS) + 1)})"
_ADD_PAYLOAD = "INSERT INTO payloads (n, payload) VALUES (?, ?)"
_SAVE_JOB = f"UPDATE jobs SET {_CHANGING}, due = ? WHERE id = ?"
_MAKE_DUE = """
    UPDATE jobs SET due = 1 WHERE n IN (SELECT n FROM jobs WHERE due = 0 AND run_at <= ? ORDER BY run_at LIMIT ?)
"""
_LANES = "SELECT queue, name, priority, run_at, id FROM jobs INDEXED BY jobs_ready WHERE due = 1"
_IN_ORDER = "ORDER BY queue, name, priority DESC, run_at, id LIMIT 1"
_FIRST_LANE = f"{_LANES} {_IN_ORDER}"
# Not `(queue, name) > (?, ?)`: SQLite would walk over every job of the lane to get past it.
_NEXT_NAME = f"{_LANES} AND queue = ? AND name > ? {_IN_ORDER}"
_NEXT_QUEUE = f"{_LANES} AND queue > ? {_IN_ORDER}"
_READY_IN_LANE = f"""
    {FROM_JOBS.replace("jobs j", "jobs j INDEXED BY jobs_ready")} WHERE j.due = 1 AND j.queue = ? AND j.name = ?
    ORDER BY j.priority DESC, j.run_at, j.id LIMIT ?
"""
_TENANTS = "SELECT app_id, org_id FROM jobs INDEXED BY jobs_of_tenant"
_FIRST_TENANT = f"{_TENANTS} ORDER BY app_id, org_id LIMIT 1"
# In two steps, as for lanes.
_NEXT_ORG = f"{_TENANTS} WHERE app_id = ? AND org_id > ? ORDER BY app_id, org_id LIMIT 1"
_NEXT_APP = f"{_TENANTS} WHERE app_id > ? ORDER BY app_id, org_id LIMIT 1"
_JOBS_OF_LANE = f"""
    SELECT {ALONE} FROM jobs INDEXED BY jobs_of_tenant WHERE app_id = ? AND org_id = ? AND state = ? ORDER BY id
"""
_FINISHED_IN_ORDER = sorted(FINISHED)
_LEASED = f"SELECT {ALONE} FROM jobs WHERE state = 'running'"

_ANSWER = """
    SELECT digest, answer, expires_at FROM answers WHERE app_id = ? AND org_id = ? AND method = ? AND key = ?
"""
_KEEP_ANSWER = "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)"
_DROP_ANSWERS = """
    DELETE FROM answers WHERE (app_id, org_id, method, key) IN
    (SELECT app_id, org_id, method, key FROM answers WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)
"""
_UNIQUE_HOLDER = (
    "SELECT job_id, until FROM unique_keys WHERE app_id = ? AND org_id = ? AND name = ? AND key = ?"
)
_TAKE_UNIQUE_KEY = "INSERT OR REPLACE INTO unique_keys VALUES (?, ?, ?, ?, ?, ?)"
_FREE_UNIQUE_KEY = """
    DELETE FROM unique_keys
    WHERE app_id = ? AND org_id = ? AND name = ? AND key = ? AND job_id = ? AND until = 0
"""
_DROP_UNIQUE_KEYS = """
    DELETE FROM unique_keys WHERE (app_id, org_id, name, key) IN
    (SELECT app_id, org_id, name, key FROM unique_keys WHERE until > 0 AND until <= ? ORDER BY until LIMIT ?)
"""
_ADD_DEAD_LETTER = (
    f"INSERT INTO dead_letters ({', '.join(DEAD_LETTER_COLUMNS)}) VALUES ({_marks(len(DEAD_LETTER_COLUMNS))})"
)
_NOTE_REPLAY = "UPDATE dead_letters SET replayed_at = ?, replayed_as = ? WHERE id = ?"
_OLDEST_EVENTS = "SELECT seq, ts_ns FROM events ORDER BY seq LIMIT ?"
