"""Files that are new, old, foreign, broken, locked or read-only: what happens, and what is said about it."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from dispatch.store import NO_TENANT, NewJob
from dispatch.store import schema as schema_module
from dispatch.store.schema import APPLICATION_ID, MIGRATIONS, SCHEMA_VERSION, prepare
from dispatch.store.sqlite import SqliteStore
from dispatch.store.sqlite_file import explain
from dwp_core.crons import Cron
from dwp_core.errors import DispatchError

NOW = 1_700_000_000 * 10**9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@contextmanager
def opened(path: Path, busy_seconds: float = 30.0) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path, busy_seconds=busy_seconds)) as store:
        yield store


def refusal(path: str | Path) -> str:
    with pytest.raises(DispatchError) as caught:
        SqliteStore(path)
    return str(caught.value)


def enqueue(store: SqliteStore) -> str:
    with store.transaction():
        store.register_names(["noop"])
        return store.enqueue([NewJob("noop")], tenant=NO_TENANT, now_ns=NOW).jobs[0].job_id


def test_a_new_file_is_made_for_its_owner_alone(path: Path) -> None:
    with opened(path) as store:
        enqueue(store)
        files = sorted(path.parent.iterdir())
        assert [file.name for file in files] == ["jobs.db", "jobs.db-shm", "jobs.db-wal"]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_commits_are_synchronous_and_the_log_is_written_ahead(path: Path) -> None:
    with opened(path) as store:
        assert store._execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._execute("PRAGMA synchronous").fetchone() == (2,)


def test_what_was_committed_is_there_when_the_file_is_opened_again(path: Path) -> None:
    with opened(path) as store:
        job_id, log_id = enqueue(store), store.log_id
        store.take_events()
    with opened(path) as store:
        assert store.log_id == log_id
        with store.transaction():
            assert store.get_job(job_id, tenant=None).state == "pending"
            assert store.knows_name("noop")
        assert store.take_events() == []
        enqueue(store)
        assert [event.seq for event in store.take_events()] == [2]


def test_another_file_is_another_log(path: Path) -> None:
    with opened(path) as one, opened(path.with_name("other.db")) as other:
        assert one.log_id != other.log_id


def test_an_existing_empty_file_becomes_a_store_and_keeps_its_mode(path: Path) -> None:
    path.touch(mode=0o640)
    path.chmod(0o640)
    with opened(path) as store:
        enqueue(store)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_missing_directory_is_named(path: Path) -> None:
    missing = path.parent / "var" / "jobs.db"
    assert refusal(missing) == (
        f"cannot open {missing}: there is no directory {missing.parent}; create it or choose another path"
    )


def test_a_directory_is_no_file(path: Path) -> None:
    assert refusal(path.parent) == f"cannot open {path.parent}: it is a directory; give the path of a file"


@pytest.mark.parametrize("name", ["", ":memory:"])
def test_what_sqlite_would_keep_in_memory_is_refused(name: str) -> None:
    assert refusal(name) == f'"{name}" is no file: give the path of one, or use MemoryStore'


def test_a_name_that_no_file_can_have_is_refused(path: Path) -> None:
    name = path.parent / ("x" * 300)
    assert (
        refusal(name)
        == f"cannot create {name}: File name too long; choose a path that this user may write to"
    )


def test_a_file_that_is_no_database_is_left_as_it_is(path: Path) -> None:
    path.write_bytes(b"Dear diary, today I wrote a job queue." * 100)
    before = path.read_bytes()
    assert refusal(path) == f"{path} is not a SQLite database: it was left as it is; use another file"
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["jobs.db"]


def test_a_database_of_something_else_is_left_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE songs (title)")
        other.execute("PRAGMA application_id = 7")
        other.commit()
    before = path.read_bytes()
    assert refusal(path) == (
        f"{path} is a SQLite database of something else (application id 7, 1 tables): it was left as it is;"
        " use another file"
    )
    assert path.read_bytes() == before


def test_a_database_of_something_else_without_an_id_is_recognized_by_its_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE songs (title)")
    assert "something else (application id 0, 1 tables)" in refusal(path)


@pytest.mark.parametrize("damage", ["DELETE FROM meta", "DROP TABLE meta"])
def test_a_store_without_its_log_id_is_called_damaged(path: Path, damage: str) -> None:
    with opened(path):
        pass
    with closing(sqlite3.connect(path)) as other:
        other.execute(damage)
        other.commit()
    said = refusal(path)
    assert said.startswith(f"{path} says that it is a store of dispatch, but")
    assert "restore it from a backup, or use another file" in said


def test_a_file_of_a_newer_version_is_left_as_it_is(path: Path) -> None:
    with opened(path) as store:
        store._execute(f"PRAGMA user_version = {SCHEMA_VERSION + 4}")
    assert refusal(path) == (
        f"{path} was written by a newer version of dispatch (its schema is {SCHEMA_VERSION + 4}, this version knows"
        f" up to {SCHEMA_VERSION}): upgrade dispatch-sdk, or use another file"
    )


def test_an_older_file_is_brought_forward_and_keeps_what_it_has(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(path) as store:
        job_id, log_id = enqueue(store), store.log_id
    newer = (*MIGRATIONS, ("ALTER TABLE jobs ADD COLUMN mood TEXT DEFAULT 'calm'",))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert prepare(connection, str(path), lambda: "log_never", newer) == log_id
        assert prepare(connection, str(path), lambda: "log_never", newer) == log_id
        assert connection.execute("SELECT id, mood FROM jobs").fetchall() == [(job_id, "calm")]
        assert connection.execute("PRAGMA user_version").fetchone() == (len(newer),)


def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    with opened(path):
        pass
    broken = (*MIGRATIONS, ("CREATE TABLE half (x)", "CREATE TABLE half (x)"))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError):
            prepare(connection, str(path), lambda: "log_never", broken)
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'half'").fetchall() == []


def test_a_file_says_what_it_is(path: Path) -> None:
    with opened(path):
        pass
    assert path.read_bytes()[68:72] == APPLICATION_ID.to_bytes(4, "big") == b"DWPS"


def test_columns_are_in_the_order_of_the_fields(path: Path) -> None:
    with opened(path) as store:
        for table, fields in (
            ("jobs", ["n", *schema_module.JOB_COLUMNS, "due"]),
            ("dead_letters", list(schema_module.DEAD_LETTER_COLUMNS)),
            ("crons", list(Cron._fields)),
        ):
            columns = store._execute(f"SELECT name FROM pragma_table_info('{table}')")
            assert [name for (name,) in columns] == fields


def test_a_damaged_file_says_so(path: Path) -> None:
    with opened(path) as store:
        enqueue(store)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path} is damaged (")


@pytest.fixture
def shared_path() -> Iterator[Path]:
    """Where every user may look, which pytest's directories are not."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory) / "jobs.db"


@contextmanager
def without_rights() -> Iterator[None]:
    """Root may write everything, so for a moment it is somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_file_says_what_to_do(shared_path: Path) -> None:
    with opened(shared_path):
        pass
    shared_path.chmod(0o444)
    with without_rights():
        assert refusal(shared_path) == (
            f"{shared_path} cannot be written (attempt to write a readonly database):"
            " make the file and its directory writable"
        )


def test_a_directory_that_may_not_be_written_says_what_to_do(shared_path: Path) -> None:
    shared_path.parent.chmod(0o555)
    with without_rights():
        text = refusal(shared_path)
    assert text == (
        f"cannot create {shared_path}: Permission denied; choose a path that this user may write to"
    )


def test_a_connection_that_may_not_write_says_what_to_do(path: Path) -> None:
    with opened(path) as store:
        enqueue(store)
        store._execute("PRAGMA query_only = ON")
        with pytest.raises(DispatchError) as caught:
            enqueue(store)
    assert str(caught.value) == (
        f"{path} cannot be written (attempt to write a readonly database): make the file and its directory writable"
    )


def test_a_full_disk_undoes_the_transaction_and_says_so(path: Path) -> None:
    with opened(path) as store:
        job_id = enqueue(store)
        (pages,) = store._execute("PRAGMA page_count").fetchone()
        store._execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(DispatchError) as caught, store.transaction():
            store.enqueue([NewJob("noop", b"x" * 10**6)], tenant=NO_TENANT, now_ns=NOW)
        assert str(caught.value) == (
            f"the disk that holds {path} is full: nothing of this was written; free some space"
        )
        assert caught.value.code == 500
        store._execute(f"PRAGMA max_page_count = {pages + 10_000}")
        enqueue(store)
        with store.transaction():
            assert store.stats(tenant=None).jobs["pending"] == 2
            assert store.get_job(job_id, tenant=None)


def test_a_process_that_holds_the_file_too_long_is_blamed(path: Path) -> None:
    with opened(path) as other, opened(path, busy_seconds=0.0) as store:
        enqueue(other)
        with other.transaction():
            with pytest.raises(DispatchError) as caught:
                enqueue(store)
            assert caught.value.code == 503
            assert str(caught.value).startswith(f"another process has held {path} for too long")
            reader = store.reader()
            with closing(reader), reader.transaction():
                assert reader.knows_name("noop")
        enqueue(store)


def test_any_other_error_still_names_the_file() -> None:
    error = explain("/srv/jobs.db", sqlite3.ProgrammingError("Cannot operate on a closed database."))
    assert (
        str(error) == "the store /srv/jobs.db failed: Cannot operate on a closed database. (ProgrammingError)"
    )


def test_a_closed_store_says_so_and_may_be_closed_again(path: Path) -> None:
    store = SqliteStore(path)
    store.close()
    store.close()
    with pytest.raises(DispatchError) as caught:
        enqueue(store)
    assert "closed" in str(caught.value)


def test_an_old_sqlite_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    assert "too old: a store needs 3.35 or later" in refusal(path)


def test_a_reader_sees_what_is_committed_and_cannot_write(path: Path) -> None:
    with opened(path) as store, closing(store.reader()) as reader:
        with store.transaction():
            store.register_names(["noop"])
            job_id = store.enqueue([NewJob("noop")], tenant=NO_TENANT, now_ns=NOW).jobs[0].job_id
            with reader.transaction():
                assert reader.list_jobs(tenant=None).jobs == []
        with reader.transaction():
            assert reader.get_job(job_id, tenant=None).id == job_id
            assert reader.head() == 1
        with pytest.raises(DispatchError), reader.transaction():
            reader._execute("DELETE FROM jobs")
        assert reader.log_id == store.log_id


_OPEN_AT_ONCE = """
import sys
from contextlib import closing
from dispatch.store.sqlite import SqliteStore
sys.stdin.readline()
with closing(SqliteStore(sys.argv[1])) as store, store.transaction():
    store.register_names([sys.argv[2]])
    print(store.log_id)
"""


def test_processes_that_open_a_new_file_at_once_all_get_the_same_store(path: Path) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _OPEN_AT_ONCE, str(path), f"name-{n}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = [child.communicate(timeout=60)[0].strip() for child in children]
    assert len(set(answers)) == 1
    assert answers[0].startswith("log_")
    with opened(path) as store:
        assert all(store.knows_name(f"name-{n}") for n in range(4))
