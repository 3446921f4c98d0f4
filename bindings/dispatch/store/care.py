"""Looks after a SQLite store from outside, also while servers use it: is the file sound, and a copy of it.

Neither waits for a server nor makes one wait: both read one snapshot, which SQLite's write-ahead log keeps for them.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from dispatch.store.schema import APPLICATION_ID, SCHEMA_VERSION
from dispatch.store.sqlite_file import BUSY_SECONDS, explain
from dwp_core.errors import ConflictError, DispatchError, NotFoundError
from dwp_core.ids import IdSource

Progress = Callable[[int, int], object]
"""Is told how many pages of how many are copied."""

_PAGES_AT_ONCE = 1024
_PROBLEMS_SHOWN = 20

_RULES = (
    (
        "a payload belongs to no job",
        "SELECT count(*) FROM payloads p WHERE NOT EXISTS (SELECT 1 FROM jobs j WHERE j.n = p.n)",
    ),
    (
        "a running job has no lease",
        "SELECT count(*) FROM jobs WHERE state = 'running' AND lease_until = 0",
    ),
    (
        "a job that waits is neither ready nor scheduled",
        "SELECT count(*) FROM jobs WHERE (state IN ('pending', 'retrying')) != (due IS NOT NULL)",
    ),
)
"""What is wrong, and how often: each is 0 in a sound store."""


@dataclass(frozen=True, slots=True)
class Report:
    """What is in a file, and what is wrong with it.

    Attributes:
        version: of the schema.
        size: bytes, with the write-ahead log.
        jobs: how many in each state.
        dead_letters: how many.
        events: how many the log holds.
        problems: what is wrong; empty for a sound file.
    """

    version: int
    size: int
    jobs: dict[str, int] = field(default_factory=dict[str, int])
    dead_letters: int = 0
    events: int = 0
    problems: tuple[str, ...] = ()


def check(path: str) -> Report:
    """Reads the whole file: SQLite's own check of every page and index, and what a store relies on.

    Raises:
        DispatchError: there is no store at that path, or it cannot be read; the message says why.

    Example:
        >>> check("jobs.db").problems                                       # doctest: +SKIP
        ()
    """
    with _snapshot(path) as connection:
        try:
            found = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({_PROBLEMS_SHOWN})")]
            if found != ["ok"]:
                return Report(_version(connection), _size(path), problems=tuple(found))
            problems = []
            for what, query in _RULES:
                (count,) = connection.execute(query).fetchone()
                if count:
                    problems.append(f"{what} ({count} times)")
            jobs = dict(connection.execute("SELECT state, count(*) FROM jobs GROUP BY state ORDER BY state"))
            (dead_letters,) = connection.execute("SELECT count(*) FROM dead_letters").fetchone()
            (events,) = connection.execute("SELECT count(*) FROM events").fetchone()
            return Report(_version(connection), _size(path), jobs, dead_letters, events, tuple(problems))
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
            return Report(0, _size(path), problems=(str(error),))


def backup(path: str, target: str, progress: Progress | None = None) -> int:
    """Copies a store as it is at this moment, also under load. The copy appears when it is whole, or not at all.

    Its event log gets an id of its own: what happens after a restore is another history than what has happened here,
    and clients that come back to it must not take one for the other (PROTOCOL.md section 9, `resume`).

    Returns:
        The size of the copy in bytes.

    Raises:
        ConflictError: (409) the target is there already.
        DispatchError: the file cannot be read, or the copy cannot be written.
    """
    if os.path.exists(target):
        raise ConflictError(
            f"{target} is there already: it was left as it is; choose another name, or remove it"
        )
    partial = f"{target}.{secrets.token_hex(4)}.partial"
    with _snapshot(path) as source:
        try:
            os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            raise DispatchError(
                f"cannot write {target}: {error.strerror}; choose a path that this user may write to"
            ) from error
        try:
            with closing(sqlite3.connect(partial, isolation_level=None)) as copy:
                _copy(source, copy, progress)
            _publish(partial, target)
        except FileExistsError:
            raise ConflictError(
                f"{target} has appeared meanwhile: it was left as it is; choose another name"
            ) from None
        except sqlite3.Error as error:
            raise explain(target, error) from error
        except OSError as error:
            raise DispatchError(f"cannot write {target}: {error.strerror}") from error
        finally:
            for left in (partial, f"{partial}-journal", f"{partial}-wal", f"{partial}-shm"):
                if os.path.exists(left):
                    os.unlink(left)
    _sync_folder(target)
    return os.path.getsize(target)


def _copy(source: sqlite3.Connection, copy: sqlite3.Connection, progress: Progress | None) -> None:
    def step(status: int, remaining: int, total: int) -> None:
        if progress is not None:
            progress(total - remaining, total)

    source.backup(copy, pages=_PAGES_AT_ONCE, progress=step)
    # No write-ahead log beside the copy: it is one file until a server opens it.
    copy.execute("PRAGMA journal_mode = DELETE")
    copy.execute("PRAGMA synchronous = FULL")
    new_log = IdSource(random_bytes=secrets.token_bytes, now_ns=time.time_ns).new("log")
    copy.execute("UPDATE meta SET value = ? WHERE key = 'log_id'", (new_log,))
    (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise DispatchError(
            f"the copy is damaged ({verdict}): is the file itself sound? try: dispatch db check FILE"
        )


@contextmanager
def _snapshot(path: str) -> Generator[sqlite3.Connection, None, None]:
    """A connection that reads the store as it is now, however long that takes, and writes nothing."""
    if not os.path.isfile(path):
        raise NotFoundError(f"there is no file {path}")
    try:
        # Not mode=ro: the reader of a write-ahead log has to be able to make its index.
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")
            owner = _number(connection, "application_id")
            if owner != APPLICATION_ID:
                raise DispatchError(f"{path} is no store of dispatch (application id {owner})")
            version = _version(connection)
            if version > SCHEMA_VERSION:
                raise DispatchError(
                    f"{path} was written by a newer version of dispatch (its schema is {version}, this version knows up"
                    f" to {SCHEMA_VERSION}): upgrade dispatch-sdk"
                )
            yield connection
    except sqlite3.Error as error:
        raise explain(path, error) from error


def _version(connection: sqlite3.Connection) -> int:
    return _number(connection, "user_version")


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    (number,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return int(number)


def _size(path: str) -> int:
    return sum(os.path.getsize(each) for each in (path, f"{path}-wal") if os.path.exists(each))


def _publish(partial: str, target: str) -> None:
    """Not by renaming where it can be helped: that would replace what somebody else has put there meanwhile."""
    try:
        os.link(partial, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        os.rename(partial, target)


def _sync_folder(path: str) -> None:
    """So that the name of the copy is as durable as its content."""
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
