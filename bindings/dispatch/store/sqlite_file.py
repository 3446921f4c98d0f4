"""Opens SQLite files so that commits are durable and nobody sees "database is locked", and says what is wrong with one.

A write transaction takes the write lock at its beginning and waits for it; with WAL, readers and the writer do not wait
for each other. New files are for their owner alone.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable

from dispatch.store.schema import prepare
from dwp_core.errors import INTERNAL, UNAVAILABLE, DispatchError

BUSY_SECONDS = 30.0
OLDEST_SQLITE = (3, 35, 0)

# Fewer, larger checkpoints: each one waits for the disk twice.
_CHECKPOINT_PAGES = 4000
_KEPT_WAL_BYTES = 64 * 1024 * 1024
_CACHE_KIB = 32 * 1024


def open_file(
    path: str, new_log_id: Callable[[], str], busy_seconds: float = BUSY_SECONDS
) -> tuple[sqlite3.Connection, str]:
    """A connection for writing to the store in this file, which is made if there is none; and its log id.

    Raises:
        DispatchError: there can be no store at that path; the message says why and what would help.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise DispatchError(
            f"SQLite {sqlite3.sqlite_version} is too old: a store needs 3.35 or later; update Python or its sqlite3"
        )
    _create(path)
    connection = _connect(path, busy_seconds)
    try:
        log_id = prepare(connection, path, new_log_id)
        _use_wal(connection, path, busy_seconds)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {_KEPT_WAL_BYTES}")
    except sqlite3.Error as error:
        connection.close()
        raise explain(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection, log_id


def open_for_reading(path: str, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    """One more connection to a file that `open_file` has opened, which cannot write."""
    connection = _connect(path, busy_seconds)
    connection.execute("PRAGMA query_only = ON")
    return connection


def explain(path: str, error: sqlite3.Error) -> DispatchError:
    """The error as people can act on it: which file, what is wrong, the way out."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    text = _EXPLANATIONS.get(code)
    if text is None:
        return DispatchError(f"the store {path} failed: {error} ({type(error).__name__})", code=INTERNAL)
    return DispatchError(text.format(path=path, error=error), code=_CODES.get(code, INTERNAL))


def _create(path: str) -> None:
    if path in ("", ":memory:"):
        raise DispatchError(f'"{path}" is no file: give the path of one, or use MemoryStore')
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise DispatchError(
            f"cannot open {path}: there is no directory {folder}; create it or choose another path"
        )
    if os.path.isdir(path):
        raise DispatchError(f"cannot open {path}: it is a directory; give the path of a file")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise DispatchError(
            f"cannot create {path}: {error.strerror}; choose a path that this user may write to"
        ) from error


def _connect(path: str, busy_seconds: float) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            path,
            timeout=busy_seconds,
            isolation_level=None,
            # Opened on one thread and used on another, but never by two at once.
            check_same_thread=False,
            cached_statements=256,
        )
    except sqlite3.Error as error:
        raise explain(path, error) from error


def _use_wal(connection: sqlite3.Connection, path: str, busy_seconds: float) -> None:
    """SQLite does not wait when another process is switching the file at this moment, so we do."""
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
            continue
        if mode != "wal":
            raise DispatchError(
                f"{path} cannot use SQLite's write-ahead log here (journal mode {mode}): put it on a local disk"
            )
        return


_EXPLANATIONS = {
    sqlite3.SQLITE_FULL: "the disk that holds {path} is full: nothing of this was written; free some space",
    sqlite3.SQLITE_READONLY: "{path} cannot be written ({error}): make the file and its directory writable",
    sqlite3.SQLITE_CANTOPEN: "{path} cannot be opened ({error}): check the path and the rights of this user",
    sqlite3.SQLITE_PERM: "{path} cannot be opened ({error}): check the rights of this user",
    sqlite3.SQLITE_NOTADB: "{path} is not a SQLite database: it was left as it is; use another file",
    sqlite3.SQLITE_CORRUPT: "{path} is damaged ({error}): restore it from a backup, or try `sqlite3 FILE .recover`",
    sqlite3.SQLITE_IOERR: "reading or writing {path} failed ({error}): nothing of this was written; check the disk",
    sqlite3.SQLITE_BUSY: "another process has held {path} for too long: nothing of this was written; try again later",
}

# Not executed, and worth another try; anything else needs someone to look at it.
_CODES = {sqlite3.SQLITE_BUSY: UNAVAILABLE}
