"""Many callers, one writer: grouping, order, what a failure spoils and what it does not."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from dispatch.store import NO_TENANT, Idempotency, NewJob, ReadableStore, Store
from dispatch.store.committer import Committer
from dispatch.store.memory import MemoryStore
from dispatch.store.sqlite import SqliteStore
from dwp_core.errors import ClosedError, ConflictError, DispatchError, LimitError, NotFoundError
from dwp_core.events import LoggedEvent

NOW = 1_700_000_000 * 10**9
PATIENCE = 60.0


class Owner:
    """Stands for an event loop: what is delivered waits here until the test takes it."""

    def __init__(self) -> None:
        self.deliveries: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.seen: list[Any] = []

    def on_events(self, events: list[LoggedEvent]) -> None:
        self.seen += [f"event {event.seq}" for event in events]

    def done(self, name: str) -> Callable[[Any, BaseException | None], None]:
        return lambda value, error: self.seen.append((name, value if error is None else error))

    def take(self) -> list[Any]:
        """What one delivery said."""
        before = len(self.seen)
        self.deliveries.get(timeout=PATIENCE)()
        return self.seen[before:]


@contextmanager
def committing(store: Store, owner: Owner, **options: Any) -> Iterator[Committer]:
    committer = Committer(store, deliver=owner.deliveries.put, on_events=owner.on_events, **options)
    yield committer
    assert committer.close(PATIENCE)


@pytest.fixture
def owner() -> Owner:
    return Owner()


def enqueue(name: str = "noop", key: str = "", digest: bytes = b"") -> Callable[[Store], str]:
    idempotency = Idempotency("job.enqueue", key, digest) if key else None
    return lambda store: (
        store.enqueue([NewJob(name)], tenant=NO_TENANT, now_ns=NOW, idempotency=idempotency).jobs[0].state
    )


def counts(store: ReadableStore) -> int:
    return store.stats(tenant=None).jobs["pending"]


def test_what_is_waiting_becomes_one_transaction_with_one_delivery(store: Store, owner: Owner) -> None:
    with committing(store, owner) as committer:
        for name in "abc":
            committer.submit(enqueue(), owner.done(name))
        assert committer.waiting == 3
        committer.start()
        assert owner.take() == [
            "event 1",
            "event 2",
            "event 3",
            ("a", "pending"),
            ("b", "pending"),
            ("c", "pending"),
        ]
    assert owner.deliveries.empty()


def test_a_transaction_has_at_most_so_many_operations(store: Store, owner: Owner) -> None:
    with committing(store, owner, max_batch=2) as committer:
        for name in "abc":
            committer.submit(lambda store: None, owner.done(name))
        committer.start()
        assert owner.take() == [("a", None), ("b", None)]
        assert owner.take() == [("c", None)]


def test_an_operation_that_refuses_does_not_spoil_the_others(store: Store, owner: Owner) -> None:
    with committing(store, owner) as committer:
        committer.submit(enqueue(key="k", digest=b"1"), owner.done("first"))
        committer.submit(enqueue("missing"), owner.done("unknown"))
        committer.submit(enqueue(key="k", digest=b"2"), owner.done("conflict"))
        committer.submit(enqueue(key="k", digest=b"1"), owner.done("again"))
        committer.start()
        events_and_outcomes = owner.take()
    assert events_and_outcomes[0] == "event 1"
    outcomes = dict(events_and_outcomes[1:])
    assert outcomes["first"] == outcomes["again"] == "pending"
    assert isinstance(outcomes["unknown"], NotFoundError)
    assert isinstance(outcomes["conflict"], ConflictError)
    with store.transaction():
        assert counts(store) == 1


@pytest.mark.parametrize("error", [ZeroDivisionError("bug"), ConflictError("late"), KeyboardInterrupt()])
def test_what_fails_after_it_wrote_is_undone_alone(store: Store, owner: Owner, error: BaseException) -> None:
    def writes_then_fails(store: Store) -> None:
        enqueue()(store)
        raise error

    with committing(store, owner) as committer:
        committer.submit(enqueue(), owner.done("before"))
        committer.submit(writes_then_fails, owner.done("bad"))
        committer.submit(enqueue(), owner.done("after"))
        committer.start()
        assert owner.take() == [
            "event 1",
            "event 2",
            ("before", "pending"),
            ("bad", error),
            ("after", "pending"),
        ]
        committer.submit(counts, owner.done("pending"))
        assert owner.take() == [("pending", 2)]


def test_results_are_durable_before_anyone_hears_of_them(tmp_path: Path, owner: Owner) -> None:
    path = tmp_path / "jobs.db"
    with closing(SqliteStore(path)) as store, committing(store, owner) as committer:
        with store.transaction():
            store.register_names(["noop"])
        committer.start()
        committer.submit(enqueue(), owner.done("job"))
        delivery = owner.deliveries.get(timeout=PATIENCE)
        with closing(SqliteStore(path)) as another, another.transaction():
            assert counts(another) == 1
        assert owner.seen == []
        delivery()
        assert owner.seen == ["event 1", ("job", "pending")]


def test_a_disk_error_reaches_everyone_who_waited_and_the_committer_lives_on(
    tmp_path: Path, owner: Owner
) -> None:
    with closing(SqliteStore(tmp_path / "jobs.db")) as store, committing(store, owner) as committer:
        with store.transaction():
            store.register_names(["noop"])
        store._execute("PRAGMA query_only = ON")
        for name in "ab":
            committer.submit(enqueue(), owner.done(name))
        committer.start()
        outcomes = owner.take()
        assert [name for name, _ in outcomes] == ["a", "b"]
        for _, error in outcomes:
            assert isinstance(error, DispatchError)
            assert "jobs.db cannot be written" in str(error)
        store._execute("PRAGMA query_only = OFF")
        committer.submit(counts, owner.done("left"))
        assert owner.take() == [("left", 0)]
        committer.submit(enqueue(), owner.done("c"))
        assert owner.take() == ["event 1", ("c", "pending")]


def test_what_does_not_fit_on_the_disk_does_not_keep_out_what_does(tmp_path: Path, owner: Owner) -> None:
    with closing(SqliteStore(tmp_path / "jobs.db")) as store, committing(store, owner) as committer:
        with store.transaction():
            store.register_names(["noop"])
        (pages,) = store._execute("PRAGMA page_count").fetchone()
        store._execute(f"PRAGMA max_page_count = {pages + 20}")

        def enqueue_huge(store: Store) -> object:
            return store.enqueue([NewJob("noop", b"x" * 10**6)], tenant=NO_TENANT, now_ns=NOW)

        committer.submit(enqueue(), owner.done("small"))
        committer.submit(enqueue_huge, owner.done("huge"))
        committer.submit(enqueue(), owner.done("small too"))
        committer.start()
        outcomes: dict[str, Any] = dict(outcome for outcome in owner.take() if isinstance(outcome, tuple))
        assert outcomes["small"] == outcomes["small too"] == "pending"
        assert "is full: nothing of this was written" in str(outcomes["huge"])


def test_too_many_waiting_operations_are_refused(store: Store, owner: Owner) -> None:
    with committing(store, owner, max_waiting=2) as committer:
        committer.submit(enqueue(), owner.done("a"))
        committer.submit(enqueue(), owner.done("b"))
        with pytest.raises(LimitError) as caught:
            committer.submit(enqueue(), owner.done("c"))
        assert str(caught.value) == "2 operations wait for the store already; try again later"
        committer.start()
        owner.take()
        committer.submit(enqueue(), owner.done("d"))
        assert owner.take()[-1] == ("d", "pending")


def test_closing_does_what_is_waiting_and_takes_nothing_more(store: Store, owner: Owner) -> None:
    committer = Committer(store, deliver=owner.deliveries.put, on_events=owner.on_events)
    committer.submit(enqueue(), owner.done("a"))
    committer.start()
    assert committer.close(PATIENCE)
    assert owner.take() == ["event 1", ("a", "pending")]
    with pytest.raises(ClosedError):
        committer.submit(enqueue(), owner.done("b"))
    with pytest.raises(ClosedError):
        committer.read(counts, owner.done("c"))
    assert committer.close(PATIENCE)


def test_closing_does_not_wait_for_ever(store: Store, owner: Owner) -> None:
    entered, leave = threading.Event(), threading.Event()

    def stuck(store: Store) -> None:
        entered.set()
        leave.wait(PATIENCE)

    committer = Committer(store, deliver=owner.deliveries.put)
    committer.start()
    committer.submit(stuck, owner.done("stuck"))
    assert entered.wait(PATIENCE)
    committer.submit(enqueue(), owner.done("left"))
    assert not committer.close(0.0)
    ((name, error),) = owner.take()
    assert name == "left"
    assert isinstance(error, ClosedError)
    leave.set()
    assert committer.close(PATIENCE)
    assert owner.take() == [("stuck", None)]
    with store.transaction():
        assert counts(store) == 0


def test_what_a_committer_never_started_has_taken_is_answered(store: Store, owner: Owner) -> None:
    committer = Committer(store, deliver=owner.deliveries.put)
    assert committer.close(PATIENCE)
    other = Committer(store, deliver=owner.deliveries.put)
    other.submit(enqueue(), owner.done("a"))
    assert not other.close(PATIENCE)
    assert isinstance(owner.take()[0][1], ClosedError)


def test_reads_see_what_was_answered_and_do_not_wait_for_the_writer(tmp_path: Path, owner: Owner) -> None:
    entered, leave = threading.Event(), threading.Event()

    def stuck(store: Store) -> None:
        entered.set()
        leave.wait(PATIENCE)

    with closing(SqliteStore(tmp_path / "jobs.db")) as store, committing(store, owner) as committer:
        with store.transaction():
            store.register_names(["noop"])
        committer.start()
        committer.submit(enqueue(), owner.done("written"))
        owner.take()
        committer.submit(stuck, owner.done("stuck"))
        assert entered.wait(PATIENCE)
        committer.read(counts, owner.done("read"))
        assert owner.take() == [("read", 1)]
        committer.read(lambda store: store.get_job("job_x", tenant=None), owner.done("not there"))
        assert isinstance(owner.take()[0][1], NotFoundError)
        leave.set()
        assert owner.take() == [("stuck", None)]


def test_reads_of_a_store_without_a_second_way_in_go_through_the_writer(owner: Owner) -> None:
    store = MemoryStore()
    with committing(store, owner) as committer:
        committer.start()
        committer.read(counts, owner.done("read"))
        assert owner.take() == [("read", 0)]


def test_events_of_another_process_come_in_their_place(tmp_path: Path, owner: Owner) -> None:
    path = tmp_path / "jobs.db"
    with (
        closing(SqliteStore(path)) as store,
        closing(SqliteStore(path)) as another,
        committing(store, owner) as committer,
    ):
        with store.transaction():
            store.register_names(["noop"])
        committer.start()
        committer.submit(enqueue(), owner.done("ours"))
        assert owner.take() == ["event 1", ("ours", "pending")]
        with another.transaction():
            enqueue()(another)
            enqueue()(another)
        committer.submit(enqueue(), owner.done("ours"))
        assert owner.take() == ["event 2", "event 3", "event 4", ("ours", "pending")]
        with another.transaction():
            enqueue()(another)
        committer.submit(lambda store: None, owner.done("a look"))
        assert owner.take() == ["event 5", ("a look", None)]
        assert [event.seq for event in another.take_events()] == [1, 2, 3, 4, 5]


def test_a_callback_that_raises_does_not_keep_others_from_being_called(store: Store, owner: Owner) -> None:
    def bad(value: object, error: object) -> None:
        raise ValueError(value)

    with committing(store, owner) as committer:
        committer.submit(lambda store: 1, bad)
        committer.submit(lambda store: 2, owner.done("good"))
        committer.start()
        with pytest.raises(ValueError, match="1"):
            owner.take()
        assert owner.seen == [("good", 2)]

    def bad_events(events: list[LoggedEvent]) -> None:
        raise ValueError(len(events))

    committer = Committer(store, deliver=owner.deliveries.put, on_events=bad_events)
    committer.submit(enqueue(), bad)
    committer.start()
    with pytest.raises(ExceptionGroup) as caught:
        owner.take()
    assert [str(error) for error in caught.value.exceptions] == ["1", "pending"]
    assert committer.close(PATIENCE)


def test_an_owner_that_is_gone_does_not_stop_the_writer(store: Store) -> None:
    async def lose_the_loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    loop = asyncio.run(lose_the_loop())
    committer = Committer(store, deliver=loop.call_soon_threadsafe)
    committer.start()
    committer.submit(enqueue(), lambda value, error: None)
    assert committer.close(PATIENCE)
    with store.transaction():
        assert counts(store) == 1


def test_it_serves_an_event_loop(store: Store) -> None:
    seen: list[int] = []

    async def call(committer: Committer, operation: Callable[[Store], str]) -> str:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def done(value: str | None, error: BaseException | None) -> None:
            if error is None:
                future.set_result(value or "")
            else:
                future.set_exception(error)

        committer.submit(operation, done)
        return await future

    async def main() -> None:
        committer = Committer(
            store,
            deliver=asyncio.get_running_loop().call_soon_threadsafe,
            on_events=lambda events: seen.extend(event.seq for event in events),
        )
        committer.start()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call(committer, enqueue())) for _ in range(64)]
        assert {task.result() for task in tasks} == {"pending"}
        assert seen == list(range(1, 65))
        with pytest.raises(NotFoundError):
            await call(committer, enqueue("missing"))
        assert await asyncio.to_thread(committer.close, PATIENCE)

    asyncio.run(main())


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "INSERT INTO jobs", "INSERT INTO events", "COMMIT"])
def test_an_error_of_the_database_anywhere_is_told_to_everyone_and_nothing_is_left(
    tmp_path: Path, owner: Owner, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC

    with closing(SqliteStore(tmp_path / "jobs.db")) as store, committing(store, owner) as committer:
        with store.transaction():
            store.register_names(["noop"])
        with monkeypatch.context() as broken:
            for name in ("_execute", "_execute_many"):
                broken.setattr(store, name, failing(getattr(store, name), statement, error))
            committer.submit(enqueue(), owner.done("a"))
            committer.submit(enqueue(), owner.done("b"))
            committer.start()
            outcomes = owner.take()
        assert [name for name, _ in outcomes] == ["a", "b"]
        for _, told in outcomes:
            assert isinstance(told, DispatchError)
            assert "jobs.db failed (disk I/O error): nothing of this was written" in str(told)
            assert told.__cause__ is error
        committer.submit(lambda store: (counts(store), store.head()), owner.done("left"))
        assert owner.take() == [("left", (0, 0))]
        committer.submit(enqueue(), owner.done("c"))
        assert owner.take() == ["event 1", ("c", "pending")]


def test_a_file_that_is_held_elsewhere_is_waited_for_once_and_not_once_for_each(
    tmp_path: Path, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.db"
    with closing(SqliteStore(path, busy_seconds=0.0)) as store, committing(store, owner) as committer:
        with store.transaction():
            store.register_names(["noop"])
        begun: list[str] = []
        monkeypatch.setattr(store, "_execute", noting(store._execute, "BEGIN", begun))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for name in "abc":
                committer.submit(enqueue(), owner.done(name))
            committer.start()
            outcomes = owner.take()
        assert [(name, told.code) for name, told in outcomes] == [("a", 503), ("b", 503), ("c", 503)]
        assert begun == ["BEGIN IMMEDIATE"]
        committer.submit(enqueue(), owner.done("d"))
        assert owner.take() == ["event 1", ("d", "pending")]


def test_what_others_committed_and_cannot_be_read_now_is_read_in_the_next_transaction(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with closing(SqliteStore(path)) as store, closing(SqliteStore(path)) as other:
        with other.transaction():
            other.register_names(["noop"])
            enqueue()(other)
        error = sqlite3.OperationalError("disk I/O error")
        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(store, "_execute", failing(store._execute, "SELECT seq", error))
            with pytest.raises(DispatchError, match="disk I/O error"), store.transaction():
                pass
        with store.transaction():
            pass
        assert [event.seq for event in store.take_events()] == [1]


def noting(execute: Callable[..., Any], statement: str, noted: list[str]) -> Callable[..., Any]:
    def execute_and_note(sql: str, *arguments: Any) -> Any:
        if sql.startswith(statement):
            noted.append(sql)
        return execute(sql, *arguments)

    return execute_and_note


def failing(execute: Callable[..., Any], statement: str, error: sqlite3.Error) -> Callable[..., Any]:
    def execute_or_fail(sql: str, *arguments: Any) -> Any:
        if sql.startswith(statement):
            raise error
        return execute(sql, *arguments)

    return execute_or_fail
