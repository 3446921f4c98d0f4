"""The tables of a SQLite store, how a file gets them, and how an older file becomes a newer one.

A file says what it is by its `application_id`, and by `user_version` which of the migrations below it has seen.
Migrations
only ever go forward, each in the transaction that counts it, so two processes that open a file at once do it once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from dwp_core.errors import DispatchError
from dwp_core.jobs import DeadLetter, Job

APPLICATION_ID = 0x44575053
"""The letters DWPS."""

_FIRST = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID
    """,
    # Names match the fields of `Job`, in their order. `due`: 1 can be claimed, 0 waits for run_at, NULL neither.
    """
    CREATE TABLE jobs (
        n INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL, queue TEXT NOT NULL,
        priority INTEGER NOT NULL, max_retries INTEGER NOT NULL, timeout INTEGER NOT NULL,
        app_id TEXT NOT NULL, org_id TEXT NOT NULL, unique_key TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        state TEXT NOT NULL, updated_at INTEGER NOT NULL, run_at INTEGER NOT NULL,
        retry_count INTEGER NOT NULL, last_error TEXT NOT NULL, worker_id TEXT NOT NULL,
        started_at INTEGER NOT NULL, completed_at INTEGER NOT NULL, heartbeat_at INTEGER NOT NULL,
        epoch INTEGER NOT NULL, lease_until INTEGER NOT NULL, cancel_requested INTEGER NOT NULL,
        output BLOB, error TEXT NOT NULL,
        due INTEGER
    )
    """,
    # Apart from the job, so that a change of its state does not write a large payload again.
    """
    CREATE TABLE payloads (n INTEGER PRIMARY KEY, payload BLOB NOT NULL)
    """,
    # A lane is what one worker may skip as a whole: a queue or a function that it does not serve costs one step.
    """
    CREATE INDEX jobs_ready ON jobs (queue, name, priority DESC, run_at, id) WHERE due = 1
    """,
    """
    CREATE INDEX jobs_delayed ON jobs (run_at) WHERE due = 0
    """,
    """
    CREATE INDEX jobs_leased ON jobs (lease_until) WHERE state = 'running'
    """,
    """
    CREATE INDEX jobs_of_tenant ON jobs (app_id, org_id, state, id)
    """,
    """
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY,
        type TEXT NOT NULL, ts_ns INTEGER NOT NULL, topic TEXT NOT NULL, queue TEXT NOT NULL,
        app_id TEXT NOT NULL, org_id TEXT NOT NULL, data BLOB NOT NULL
    )
    """,
    """
    CREATE TABLE answers (
        app_id TEXT NOT NULL, org_id TEXT NOT NULL, method TEXT NOT NULL, key TEXT NOT NULL,
        digest BLOB NOT NULL, answer TEXT NOT NULL, expires_at INTEGER NOT NULL,
        PRIMARY KEY (app_id, org_id, method, key)
    ) WITHOUT ROWID
    """,
    """
    CREATE INDEX answers_by_expiry ON answers (expires_at)
    """,
    """
    CREATE TABLE unique_keys (
        app_id TEXT NOT NULL, org_id TEXT NOT NULL, name TEXT NOT NULL, key TEXT NOT NULL,
        job_id TEXT NOT NULL, until INTEGER NOT NULL,
        PRIMARY KEY (app_id, org_id, name, key)
    ) WITHOUT ROWID
    """,
    """
    CREATE INDEX unique_keys_by_expiry ON unique_keys (until) WHERE until > 0
    """,
    # Names match the fields of `DeadLetter`, in their order.
    """
    CREATE TABLE dead_letters (
        id TEXT PRIMARY KEY, job_id TEXT NOT NULL, job_name TEXT NOT NULL, queue TEXT NOT NULL, payload BLOB NOT NULL,
        error TEXT NOT NULL, retry_count INTEGER NOT NULL, max_retries INTEGER NOT NULL,
        app_id TEXT NOT NULL, org_id TEXT NOT NULL, priority INTEGER NOT NULL, timeout INTEGER NOT NULL,
        failed_at INTEGER NOT NULL, replayed_at INTEGER NOT NULL, replayed_as TEXT NOT NULL
    )
    """,
    """
    CREATE INDEX dead_letters_of_tenant ON dead_letters (app_id, org_id, id)
    """,
    """
    CREATE TABLE names (name TEXT PRIMARY KEY) WITHOUT ROWID
    """,
)

_CRONS = (
    # Names match the fields of `Cron`, in their order.
    """
    CREATE TABLE crons (
        id TEXT NOT NULL UNIQUE, name TEXT PRIMARY KEY,
        expression TEXT NOT NULL, timezone TEXT NOT NULL, function TEXT NOT NULL, payload BLOB NOT NULL,
        overlap TEXT NOT NULL, catch_up TEXT NOT NULL,
        queue TEXT NOT NULL, priority INTEGER NOT NULL, max_retries INTEGER NOT NULL, timeout INTEGER NOT NULL,
        app_id TEXT NOT NULL, org_id TEXT NOT NULL,
        created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
        next_fire INTEGER NOT NULL, last_fire INTEGER NOT NULL, last_job_id TEXT NOT NULL,
        paused INTEGER NOT NULL, waiting INTEGER NOT NULL, skipped INTEGER NOT NULL, open_jobs TEXT NOT NULL
    )
    """,
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _CRONS)
"""Version n is what the first n of these make. Add at the end; never change one that was released."""

SCHEMA_VERSION = len(MIGRATIONS)

JOB_COLUMNS = tuple(name for name in Job._fields if name != "payload")
DEAD_LETTER_COLUMNS = DeadLetter._fields


def prepare(
    connection: sqlite3.Connection,
    path: str,
    new_log_id: Callable[[], str],
    migrations: tuple[tuple[str, ...], ...] = MIGRATIONS,
) -> str:
    """Makes the file a store of this version if it is none yet; its log id.

    Args:
        connection: to the file, in autocommit mode.
        path: of the file, for messages.
        new_log_id: makes the id of a new log.
        migrations: as in `MIGRATIONS`.

    Raises:
        DispatchError: the file belongs to something else, or to a newer version of this.
    """
    if _number(connection, "application_id") != APPLICATION_ID or _number(connection, "user_version") < len(
        migrations
    ):
        connection.execute("BEGIN IMMEDIATE")
        try:
            _migrate(connection, path, new_log_id, migrations)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    version = _number(connection, "user_version")
    if version > len(migrations):
        raise DispatchError(
            f"{path} was written by a newer version of dispatch (its schema is {version}, this version knows up to"
            f" {len(migrations)}): upgrade dispatch-sdk, or use another file"
        )
    return _log_id(connection, path)


def _log_id(connection: sqlite3.Connection, path: str) -> str:
    (has_meta,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'meta'").fetchone()
    row = connection.execute("SELECT value FROM meta WHERE key = 'log_id'").fetchone() if has_meta else None
    if row is None:
        raise DispatchError(
            f"{path} says that it is a store of dispatch, but the id of its event log is missing: it is damaged, or"
            " something else has changed it; restore it from a backup, or use another file"
        )
    return str(row[0])


def _migrate(
    connection: sqlite3.Connection,
    path: str,
    new_log_id: Callable[[], str],
    migrations: tuple[tuple[str, ...], ...],
) -> None:
    """Runs in a transaction, so nobody else is doing the same."""
    owner = _number(connection, "application_id")
    if owner != APPLICATION_ID:
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if owner or tables:
            raise DispatchError(
                f"{path} is a SQLite database of something else (application id {owner}, {tables} tables):"
                " it was left as it is; use another file"
            )
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for version in range(_number(connection, "user_version"), len(migrations)):
        for statement in migrations[version]:
            connection.execute(statement)
        if version == 0:
            connection.execute("INSERT INTO meta VALUES ('log_id', ?)", (new_log_id(),))
        connection.execute(f"PRAGMA user_version = {version + 1}")


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    (number,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return int(number)
