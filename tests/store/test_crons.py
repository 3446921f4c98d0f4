"""What every store promises about cron entries. The schedules here are those of the library that servers use."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dispatch.functions.schedules import next_after
from dispatch.store import NO_TENANT, Completion, FiredCrons, Lease, Store, Tenant
from dispatch.store.schema import MIGRATIONS, prepare
from dispatch.store.sqlite import SqliteStore
from dwp_core.crons import Cron, CronDeclaration
from dwp_core.errors import NotFoundError
from dwp_core.events import LoggedEvent
from dwp_core.ids import parse_id
from dwp_core.jobs import SECOND

NOW = int(datetime.fromisoformat("2026-03-02T12:02:00Z").timestamp()) * SECOND
MINUTE = 60 * SECOND
ACME = Tenant("app-1", "org-1")


def declare(store: Store, *declarations: CronDeclaration, now: int = NOW) -> None:
    with store.transaction():
        store.declare_crons(declarations, functions={"noop"}, now_ns=now, next_after=next_after)


def cron(name: str = "tick", expression: str = "*/5 * * * *", **fields: Any) -> CronDeclaration:
    return CronDeclaration(name, expression, fields.pop("timezone", "UTC"), "noop", **fields)


def fire(store: Store, now: int, functions: tuple[str, ...] = ("noop",), **options: Any) -> FiredCrons:
    with store.transaction():
        return store.fire_crons(functions=functions, now_ns=now, next_after=next_after, **options)


def entries(store: Store, tenant: Tenant | None = None) -> list[Cron]:
    with store.transaction():
        return store.list_crons(tenant=tenant)


def entry(store: Store) -> Cron:
    (one,) = entries(store)
    return one


def finish(store: Store, now: int) -> None:
    """Runs every job that waits."""
    with store.transaction():
        jobs = store.claim("wkr_1", now_ns=now, lease_ns=MINUTE, limit=100)
        store.complete([Completion(Lease(job.id, job.epoch), None) for job in jobs], now_ns=now)


def test_a_declared_entry_is_listed(store: Store) -> None:
    declare(store, cron(payload=b"[1]", queue="mail", app_id="app-1", org_id="org-1"), cron("a"))
    first, second = entries(store)
    assert (first.name, second.name) == ("a", "tick")
    parse_id(second.id, "cron", "id")
    assert second == Cron(
        second.id,
        "tick",
        "*/5 * * * *",
        "UTC",
        "noop",
        b"[1]",
        "skip",
        "one",
        "mail",
        0,
        3,
        300 * SECOND,
        "app-1",
        "org-1",
        NOW,
        NOW,
        NOW + 3 * MINUTE,
    )
    assert entries(store, ACME) == [second]
    assert entries(store, NO_TENANT) == [first]


def test_an_entry_fires_at_its_time_and_its_job_and_its_event_are_there(store: Store) -> None:
    declare(store, cron(payload=b"[1]", queue="mail", max_retries=7, app_id="app-1", org_id="org-1"))
    assert fire(store, NOW) == FiredCrons((), NOW + 3 * MINUTE, waiting=False, more=False)
    at = NOW + 3 * MINUTE
    fired = fire(store, at + 1)
    assert fired == FiredCrons(fired.job_ids, at + 5 * MINUTE, waiting=False, more=False)
    (job_id,) = fired.job_ids
    with store.transaction():
        job = store.get_job(job_id, tenant=ACME)
    assert (job.name, job.payload, job.queue, job.max_retries, job.run_at) == (
        "noop",
        b"[1]",
        "mail",
        7,
        at + 1,
    )
    enqueued, told = store.take_events()
    assert (enqueued.type, told.type) == ("job.enqueued", "cron.fired")
    assert json.loads(told.data) == {"entry_name": "tick", "job_id": job_id}
    assert (told.topic, told.queue, told.app_id, told.org_id) == ("", "", "app-1", "org-1")
    after = entry(store)
    assert (after.last_fire, after.last_job_id, after.next_fire) == (at + 1, job_id, at + 5 * MINUTE)


def test_looking_again_at_the_same_time_fires_nothing_more_and_writes_nothing(store: Store) -> None:
    declare(store, cron())
    at = NOW + 3 * MINUTE
    assert len(fire(store, at).job_ids) == 1
    before = store.changes
    assert fire(store, at).job_ids == ()
    assert fire(store, at + 4 * MINUTE).job_ids == ()
    assert store.changes == before


def test_a_fire_that_is_undone_happens_again(store: Store) -> None:
    declare(store, cron())
    with suppress(ZeroDivisionError), store.transaction():
        store.fire_crons(functions={"noop"}, now_ns=NOW + 3 * MINUTE, next_after=next_after)
        raise ZeroDivisionError
    assert entry(store).last_fire == 0
    assert store.take_events() == []
    assert len(fire(store, NOW + 3 * MINUTE).job_ids) == 1


def test_entries_of_functions_that_a_server_does_not_have_wait_for_one_that_has(store: Store) -> None:
    declare(store, cron())
    assert fire(store, NOW + 3 * MINUTE, ("other",)) == FiredCrons((), None, waiting=False, more=False)
    assert len(fire(store, NOW + 3 * MINUTE, ("other", "noop")).job_ids) == 1


def test_no_round_is_long(store: Store) -> None:
    declare(store, *(cron(f"tick-{n}") for n in range(5)))
    at = NOW + 3 * MINUTE
    rounds = [fire(store, at, limit=2) for _ in range(3)]
    assert [(len(one.job_ids), one.more) for one in rounds] == [(2, True), (2, True), (1, False)]


def test_all_that_was_missed_is_made_up_for_in_rounds(store: Store) -> None:
    declare(store, cron(expression="* * * * *", catch_up="all", overlap="allow"))
    at = NOW + 150 * MINUTE
    first, second = fire(store, at), fire(store, at)
    assert (len(first.job_ids), first.more) == (100, True)
    assert (len(second.job_ids), second.more, second.next_fire) == (50, False, at + MINUTE)


@pytest.mark.parametrize(("catch_up", "jobs"), [("none", 0), ("one", 1), ("all", 12)])
def test_after_an_hour_without_a_server(store: Store, catch_up: str, jobs: int) -> None:
    declare(store, cron(catch_up=catch_up, overlap="allow"))
    # The server that comes back declares again what it has.
    back = NOW + 62 * MINUTE
    declare(store, cron(catch_up=catch_up, overlap="allow"), now=back)
    assert len(fire(store, back).job_ids) == jobs
    assert entry(store).next_fire == back + MINUTE


def test_a_time_is_skipped_while_the_job_before_is_not_finished(store: Store) -> None:
    declare(store, cron(expression="* * * * *", overlap="skip"))
    assert len(fire(store, NOW + MINUTE).job_ids) == 1
    assert fire(store, NOW + 2 * MINUTE).job_ids == ()
    finish(store, NOW + 2 * MINUTE)
    assert len(fire(store, NOW + 3 * MINUTE).job_ids) == 1
    assert entry(store).skipped == 1


def test_a_time_waits_until_the_job_before_is_finished(store: Store) -> None:
    declare(store, cron(expression="* * * * *", overlap="queue"))
    for minute in (1, 2, 3):
        fired = fire(store, NOW + minute * MINUTE)
    assert (fired.job_ids, fired.waiting, entry(store).waiting) == ((), True, 2)
    for waiting in (1, 0):
        finish(store, NOW + 3 * MINUTE + 1)
        assert len(fire(store, NOW + 3 * MINUTE + 2).job_ids) == 1
        assert entry(store).waiting == waiting
    finish(store, NOW + 3 * MINUTE + 3)
    assert fire(store, NOW + 3 * MINUTE + 4) == FiredCrons((), NOW + 4 * MINUTE, waiting=False, more=False)


def test_jobs_may_overlap_where_that_is_allowed(store: Store) -> None:
    declare(store, cron(expression="* * * * *", overlap="allow"))
    assert [len(fire(store, NOW + minute * MINUTE).job_ids) for minute in (1, 2, 3)] == [1, 1, 1]


def test_an_entry_can_be_triggered_also_when_it_is_paused_or_busy(store: Store) -> None:
    declare(store, cron(expression="* * * * *"))
    (scheduled,) = fire(store, NOW + MINUTE).job_ids
    with store.transaction():
        store.pause_cron("tick", tenant=None, now_ns=NOW + MINUTE)
        triggered = store.trigger_cron("tick", tenant=None, now_ns=NOW + MINUTE + 1)
        store.resume_cron("tick", tenant=None, now_ns=NOW + MINUTE, next_after=next_after)
        assert store.get_job(triggered, tenant=None).state == "pending"
    assert [event.type for event in store.take_events()].count("cron.fired") == 2
    now = entry(store)
    assert (now.last_job_id, now.open_jobs) == (triggered, f"{triggered} {scheduled}")
    # Both count: nothing fires while one of them runs.
    with store.transaction():
        store.cancel(triggered, tenant=None, now_ns=NOW)
    assert fire(store, NOW + 2 * MINUTE).job_ids == ()
    finish(store, NOW + 2 * MINUTE)
    assert len(fire(store, NOW + 3 * MINUTE).job_ids) == 1


def test_a_paused_entry_stays_paused_over_a_restart_and_goes_on_from_when_it_is_resumed(store: Store) -> None:
    declare(store, cron())
    with store.transaction():
        assert store.pause_cron("tick", tenant=None, now_ns=NOW).paused
        store.pause_cron("tick", tenant=None, now_ns=NOW)
    declare(store, cron(), now=NOW + 7 * MINUTE)
    assert fire(store, NOW + 60 * MINUTE) == FiredCrons((), None, waiting=False, more=False)
    with store.transaction():
        resumed = store.resume_cron("tick", tenant=None, now_ns=NOW + 60 * MINUTE, next_after=next_after)
    assert (resumed.paused, resumed.next_fire) == (False, NOW + 63 * MINUTE)
    assert fire(store, NOW + 60 * MINUTE) == FiredCrons((), NOW + 63 * MINUTE, waiting=False, more=False)


def test_another_tenant_s_entry_is_not_found(store: Store) -> None:
    declare(store, cron(app_id="app-1", org_id="org-1"))
    with store.transaction():
        for tenant, name in ((NO_TENANT, "tick"), (ACME, "tock")):
            for act in (store.trigger_cron, store.pause_cron):
                with pytest.raises(NotFoundError, match=f'there is no cron entry "{name}"'):
                    act(name, tenant=tenant, now_ns=NOW)
            with pytest.raises(NotFoundError):
                store.resume_cron(name, tenant=tenant, now_ns=NOW, next_after=next_after)
        assert store.trigger_cron("tick", tenant=ACME, now_ns=NOW)


def test_what_is_no_longer_declared_is_removed_by_a_server_that_has_its_function(store: Store) -> None:
    declare(store, cron("old"), cron("new"))
    with store.transaction():
        store.declare_crons((), functions={"other"}, now_ns=NOW, next_after=next_after)
    assert [one.name for one in entries(store)] == ["new", "old"]
    declare(store, cron("new"))
    assert [one.name for one in entries(store)] == ["new"]


def test_declaring_the_same_again_writes_nothing(store: Store) -> None:
    declare(store, cron())
    before = store.changes
    declare(store, cron(), now=NOW + MINUTE)
    assert store.changes == before


# ── SQLite ──


def test_a_fire_counts_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    at = NOW + 3 * MINUTE
    for expected in (1, 0):
        with closing(SqliteStore(path)) as store:
            with store.transaction():
                store.register_names(["noop"])
            # Later than its time, and the second time later than it fired.
            declare(store, cron(overlap="allow"), now=NOW if expected else at + 30 * SECOND)
            assert len(fire(store, at + 30 * SECOND).job_ids) == expected


def test_an_entry_that_was_claimed_by_another_since_it_was_read_does_not_fire(tmp_path: Path) -> None:
    """As a store without SQLite's write lock would meet it: the claim compares the time that was read."""
    with closing(SqliteStore(tmp_path / "jobs.db")) as store:
        declare(store, cron())
        before = entry(store)
        after = before._replace(next_fire=before.next_fire + MINUTE)
        with store.transaction():
            assert store._claim_cron(before, after)
            assert not store._claim_cron(before, after._replace(skipped=9))
        assert entry(store) == after


def test_a_reader_sees_entries(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "jobs.db")) as store:
        declare(store, cron())
        with closing(store.reader()) as reader, reader.transaction():
            assert reader.list_crons(tenant=None) == entries(store)


def test_a_file_from_before_there_were_crons_gets_them(tmp_path: Path) -> None:
    path = str(tmp_path / "jobs.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        prepare(connection, path, lambda: "log_1", MIGRATIONS[:1])
    with closing(SqliteStore(path)) as store:
        assert store.log_id == "log_1"
        declare(store, cron())
        assert entry(store).name == "tick"


CHILD = """
import sys
from contextlib import closing
from dispatch.functions.schedules import next_after
from dispatch.store.sqlite import SqliteStore

path, start, minutes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with closing(SqliteStore(path)) as store:
    for minute in range(minutes):
        now = start + minute * 60 * 10**9
        with store.transaction():
            fired = store.fire_crons(functions={"noop"}, now_ns=now, next_after=next_after)
        for job_id in fired.job_ids:
            print(minute, job_id)
"""


def test_of_several_servers_on_one_file_one_fires_each_time(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with closing(SqliteStore(path)) as store:
        with store.transaction():
            store.register_names(["noop"])
        names = [f"tick-{n}" for n in range(3)]
        every_minute = (cron(name, expression="* * * * *", overlap="allow", catch_up="all") for name in names)
        declare(store, *every_minute)
    minutes = 200
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), str(NOW), str(minutes + 1)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    outputs = [child.communicate(timeout=120) for child in children]
    assert [error for _, error in outputs] == ["", "", ""]
    jobs = [line.split()[1] for output, _ in outputs for line in output.splitlines()]
    assert len(jobs) == len(set(jobs)) == minutes * len(names)
    with closing(SqliteStore(path)) as store, store.transaction():
        assert store.stats(tenant=None).jobs["pending"] == minutes * len(names)
        told = [json.loads(event.data) for event in fires(store)]
    assert Counter(one["entry_name"] for one in told) == dict.fromkeys(names, minutes)
    assert Counter(one["job_id"] for one in told) == Counter(jobs)


def test_kill_9_at_any_moment_leaves_no_time_out_and_fires_none_twice(tmp_path: Path) -> None:
    path, minutes = tmp_path / "jobs.db", 300
    with closing(SqliteStore(path)) as store:
        with store.transaction():
            store.register_names(["noop"])
        declare(store, cron(expression="* * * * *", overlap="allow", catch_up="all"))
    command = [sys.executable, "-u", "-c", CHILD, str(path), str(NOW), str(minutes + 1)]
    said: list[str] = []
    for lines in (1, 7, 40, minutes):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            said += [child.stdout.readline() for _ in range(lines)]
            child.kill()
            said += child.stdout
        with closing(SqliteStore(path)) as store, store.transaction():
            jobs = [job.id for job in store.list_jobs(tenant=None, limit=1000).jobs]
            told = [json.loads(one.data)["job_id"] for one in fires(store)]
            (now,) = store.list_crons(tenant=None)
        # Job, event and next time are one transaction, and what was printed was committed.
        assert Counter(jobs) == Counter(told)
        assert set(jobs) >= {line.split()[1] for line in said if line.endswith("\n")}
        assert now.next_fire == NOW + (len(jobs) + 1) * MINUTE
    assert len(jobs) == minutes


def fires(store: Store) -> list[LoggedEvent]:
    events = store.read_events(0, limit=100_000).events
    return [event for event in events if event.type == "cron.fired"]
