"""Checking and copying a store while others use it (`dispatch.store.care`)."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dispatch.store import Completion, Lease, NewJob, Tenant
from dispatch.store.care import backup, check
from dispatch.store.sqlite import SqliteStore
from dwp_core.errors import ConflictError, DispatchError, NotFoundError
from dwp_core.jobs import SECOND

NOW = 1_700_000_000 * SECOND
MANY = 3000


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "jobs.db")


@pytest.fixture
def store(path: str) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as store:
        with store.transaction():
            store.register_names(["noop"])
        enqueue(store, 3)
        yield store


def enqueue(store: SqliteStore, count: int = 1) -> None:
    with store.transaction():
        store.enqueue([NewJob("noop", b"x" * 1000)] * count, tenant=Tenant(), now_ns=NOW)


def finish_one(store: SqliteStore) -> None:
    with store.transaction():
        [job] = store.claim("wkr_1", now_ns=NOW, lease_ns=SECOND, limit=1)
        store.complete([Completion(Lease(job.id, job.epoch), None)], now_ns=NOW)


# ── check ──


def test_a_sound_file_is_told_what_is_in_it_while_it_is_in_use(store: SqliteStore, path: str) -> None:
    finish_one(store)
    report = check(path)
    assert (report.jobs, report.dead_letters, report.problems) == ({"completed": 1, "pending": 2}, 0, ())
    assert report.events == 5
    assert report.size > 0


def test_a_damaged_page_is_found(store: SqliteStore, path: str) -> None:
    enqueue(store, 200)
    store.close()
    with open(path, "r+b") as file:
        file.seek(8 * 4096)
        file.write(os.urandom(4096 * 4))
    assert check(path).problems


def test_what_a_store_relies_on_is_checked_as_well(store: SqliteStore, path: str) -> None:
    store.close()
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("INSERT INTO payloads VALUES (999, 'lost')")
        other.execute("UPDATE jobs SET due = NULL WHERE n = 1")
    assert check(path).problems == (
        "a payload belongs to no job (1 times)",
        "a job that waits is neither ready nor scheduled (1 times)",
    )


def test_what_is_no_store_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    foreign, text = tmp_path / "foreign.db", tmp_path / "text"
    with closing(sqlite3.connect(foreign)) as other, other:
        other.execute("CREATE TABLE cats (name)")
    text.write_text("no database, but long enough to look like the header of one" * 20)
    for path, says in ((foreign, "is no store of dispatch"), (text, "is not a SQLite database")):
        before = path.read_bytes()
        with pytest.raises(DispatchError, match=says):
            check(str(path))
        with pytest.raises(DispatchError, match=says):
            backup(str(path), str(tmp_path / "copy.db"))
        assert path.read_bytes() == before
    with pytest.raises(NotFoundError):
        check(str(tmp_path / "absent.db"))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["foreign.db", "text"]


# ── backup ──


def test_a_copy_is_a_store_of_its_own_with_the_same_jobs(
    store: SqliteStore, path: str, tmp_path: Path
) -> None:
    finish_one(store)
    target = str(tmp_path / "copy.db")
    assert backup(path, target) == os.path.getsize(target)
    assert os.stat(target).st_mode & 0o777 == 0o600
    assert check(target).jobs == check(path).jobs
    with closing(SqliteStore(target)) as copy, copy.transaction():
        assert copy.log_id.startswith("log_")
        assert copy.log_id != store.log_id
        assert copy.span() == store.span()


def test_a_copy_under_load_is_whole_and_of_one_moment(store: SqliteStore, path: str, tmp_path: Path) -> None:
    enqueue(store, MANY)
    target = str(tmp_path / "copy.db")
    steps: list[tuple[int, int]] = []

    def progress(copied: int, total: int) -> None:
        steps.append((copied, total))
        enqueue(store)  # another connection writes between the steps

    backup(path, target, progress)
    assert len(steps) > 1
    assert steps[-1][0] == steps[-1][1]
    report = check(target)
    assert (report.jobs, report.problems) == ({"pending": MANY + 3}, ())
    assert check(path).jobs == {"pending": MANY + 3 + len(steps)}


def test_writers_do_not_wait_for_a_backup(store: SqliteStore, path: str, tmp_path: Path) -> None:
    enqueue(store, MANY)
    reached, go_on = threading.Event(), threading.Event()

    def hold(copied: int, total: int) -> None:
        reached.set()
        go_on.wait(30)

    thread = threading.Thread(target=backup, args=(path, str(tmp_path / "copy.db"), hold))
    thread.start()
    assert reached.wait(30)
    finish_one(store)
    go_on.set()
    thread.join(30)
    assert check(str(tmp_path / "copy.db")).jobs == {"pending": MANY + 3}


def test_a_target_that_is_there_is_left_as_it_is(store: SqliteStore, path: str, tmp_path: Path) -> None:
    target = tmp_path / "precious.db"
    target.write_text("precious")
    with pytest.raises(ConflictError, match="is there already"):
        backup(path, str(target))
    assert target.read_text() == "precious"


def test_a_target_that_appears_meanwhile_is_left_as_it_is(
    store: SqliteStore, path: str, tmp_path: Path
) -> None:
    target = tmp_path / "precious.db"
    with pytest.raises(ConflictError, match="has appeared meanwhile"):
        backup(path, str(target), lambda copied, total: target.write_text("precious"))
    assert target.read_text() == "precious"
    assert not list(tmp_path.glob("*.partial*"))


def test_a_backup_that_fails_leaves_nothing_behind(store: SqliteStore, path: str, tmp_path: Path) -> None:
    def interrupt(copied: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup(path, str(tmp_path / "copy.db"), interrupt)
    with pytest.raises(DispatchError, match="cannot write"):
        backup(path, str(tmp_path / "absent" / "copy.db"))
    assert not list(tmp_path.glob("copy*"))
