from __future__ import annotations

import base64
from typing import Any

import pytest

from dwp_core import crons
from dwp_core.crons import (
    CATCH_UPS,
    FIRES_AT_ONCE,
    ON_TIME_NS,
    OPEN_JOBS_LIMIT,
    OVERLAPS,
    WAITING_LIMIT,
    Cron,
    CronDeclaration,
    cron_to_wire,
)
from dwp_core.jobs import SECOND

HOUR = 3600 * SECOND
START = 1_700_000_000 * SECOND
NIGHTLY = CronDeclaration("nightly", "hourly", "UTC", "report", b'{"n":1}', queue="mail")


def hourly(expression: str, timezone: str, after_ns: int) -> int | None:
    """Each hour after START; "thrice" ends after three, "never" never begins."""
    at = START + max(0, (after_ns - START) // HOUR + 1) * HOUR
    if expression == "never" or (expression == "thrice" and at > START + 3 * HOUR):
        return None
    return at


def entry(**fields: Any) -> Cron:
    made = crons.declare(NIGHTLY, None, id="cron_1", now_ns=START, next_after=hourly)
    return made._replace(**fields)


def fire(cron: Cron, now: int, *, busy: bool = False) -> tuple[int, Cron]:
    firing = crons.fire(cron, busy=busy, now_ns=now, next_after=hourly)
    return firing.jobs, firing.cron


# ── declared ──


def test_a_declared_entry_fires_next_when_its_schedule_says() -> None:
    cron = entry()
    assert (cron.id, cron.name, cron.function, cron.queue) == ("cron_1", "nightly", "report", "mail")
    assert (cron.created_at, cron.next_fire, cron.last_fire) == (START, START + HOUR, 0)
    assert not crons.is_due(cron, START + HOUR - 1)
    assert crons.is_due(cron, START + HOUR)


def test_what_is_declared_again_is_as_it_was() -> None:
    cron = entry(last_fire=5, skipped=2)
    again = crons.declare(NIGHTLY, cron, id="cron_2", now_ns=START + 9 * HOUR, next_after=hourly)
    assert again is cron


def test_another_payload_keeps_the_next_time_and_the_history() -> None:
    cron = entry(last_fire=5, last_job_id="job_1", open_jobs="job_1", skipped=2)
    changed = CronDeclaration("nightly", "hourly", "UTC", "report", b"2")
    again = crons.declare(changed, cron, id="cron_2", now_ns=START + 9 * HOUR, next_after=hourly)
    assert again == cron._replace(payload=b"2", queue="default", updated_at=START + 9 * HOUR)


def test_another_schedule_has_another_next_time() -> None:
    now = START + 9 * HOUR
    changed = CronDeclaration("nightly", "hourly", "Europe/Berlin", "report")
    again = crons.declare(changed, entry(), id="", now_ns=now, next_after=hourly)
    assert (again.id, again.next_fire) == ("cron_1", now + HOUR)


def test_a_schedule_that_never_comes_is_never_due() -> None:
    never = CronDeclaration("never", "never", "UTC", "report")
    cron = crons.declare(never, None, id="cron_1", now_ns=START, next_after=hourly)
    assert cron.next_fire == 0
    assert not crons.is_due(cron, START + HOUR)


# ── times that have come ──


@pytest.mark.parametrize("catch_up", CATCH_UPS)
def test_a_time_that_has_come_fires_once_and_the_next_one_is_set(catch_up: str) -> None:
    jobs, cron = fire(entry(catch_up=catch_up), START + HOUR)
    assert (jobs, cron.next_fire) == (1, START + 2 * HOUR)
    assert not crons.is_due(cron, START + HOUR)


@pytest.mark.parametrize(("catch_up", "jobs"), [("none", 0), ("one", 1), ("all", 5)])
def test_times_that_were_missed_are_made_up_for_as_the_policy_says(catch_up: str, jobs: int) -> None:
    now = START + 5 * HOUR + 2 * ON_TIME_NS
    cron = entry(catch_up=catch_up, overlap="allow")
    assert fire(cron, now) == (jobs, cron._replace(next_fire=START + 6 * HOUR, updated_at=now))


def test_a_time_missed_by_a_moment_was_not_missed() -> None:
    assert fire(entry(catch_up="none"), START + HOUR + ON_TIME_NS)[0] == 1
    assert fire(entry(catch_up="none"), START + HOUR + ON_TIME_NS + 1)[0] == 0
    # Nor was the last of many.
    assert fire(entry(catch_up="none"), START + 500 * HOUR + ON_TIME_NS)[0] == 1
    assert fire(entry(catch_up="none"), START + 500 * HOUR + ON_TIME_NS + 1)[0] == 0


def test_a_schedule_that_has_ended_makes_up_for_its_last_time() -> None:
    for catch_up, jobs in (("none", 0), ("one", 1), ("all", 3)):
        cron = entry(expression="thrice", catch_up=catch_up, overlap="allow")
        assert fire(cron, START + 50 * HOUR) == (
            jobs,
            cron._replace(next_fire=0, updated_at=START + 50 * HOUR),
        )


def test_making_up_for_very_many_times_takes_several_rounds() -> None:
    cron, total, now = entry(catch_up="all", overlap="allow"), 0, START + 250 * HOUR
    rounds = []
    while crons.is_due(cron, now):
        jobs, cron = fire(cron, now)
        rounds.append(jobs)
        total += jobs
    assert (rounds, total) == ([FIRES_AT_ONCE, FIRES_AT_ONCE, 50], 250)


def test_finding_the_last_of_very_many_times_takes_few_looks() -> None:
    looks = 0

    def counted(expression: str, timezone: str, after_ns: int) -> int | None:
        nonlocal looks
        looks += 1
        return hourly(expression, timezone, after_ns)

    now = START + 1_000_000 * HOUR
    assert crons.fire(entry(), busy=False, now_ns=now, next_after=counted).jobs == 1
    assert looks < 50


# ── overlaps ──


@pytest.mark.parametrize(
    ("overlap", "jobs", "waiting", "skipped"), [("skip", 0, 0, 1), ("queue", 0, 1, 0), ("allow", 1, 0, 0)]
)
def test_a_time_at_which_its_job_still_runs(overlap: str, jobs: int, waiting: int, skipped: int) -> None:
    done, cron = fire(entry(overlap=overlap), START + HOUR, busy=True)
    assert (done, cron.waiting, cron.skipped, cron.next_fire) == (jobs, waiting, skipped, START + 2 * HOUR)


def test_times_that_are_made_up_for_overlap_too() -> None:
    now = START + 4 * HOUR
    results = {overlap: fire(entry(overlap=overlap, catch_up="all"), now) for overlap in OVERLAPS}
    told = {overlap: (jobs, cron.waiting, cron.skipped) for overlap, (jobs, cron) in results.items()}
    assert told == {"skip": (1, 0, 3), "queue": (1, 3, 0), "allow": (4, 0, 0)}


def test_what_waits_goes_on_one_by_one_when_the_job_before_is_finished() -> None:
    cron = entry(overlap="queue", waiting=2)
    now = START + 1
    assert crons.is_due(cron, now)
    assert fire(cron, now, busy=True) == (0, cron)
    jobs, cron = fire(cron, now)
    assert (jobs, cron.waiting, cron.next_fire) == (1, 1, START + HOUR)
    # A time that comes meanwhile goes behind those that wait.
    jobs, cron = fire(cron, START + HOUR)
    assert (jobs, cron.waiting, cron.next_fire) == (1, 1, START + 2 * HOUR)


def test_only_so_many_fires_wait() -> None:
    cron = entry(overlap="queue", waiting=WAITING_LIMIT)
    jobs, cron = fire(cron, START + HOUR, busy=True)
    assert (jobs, cron.waiting, cron.skipped) == (0, WAITING_LIMIT, 1)


# ── fired ──


def test_an_entry_that_fired_knows_its_job_and_says_so() -> None:
    cron, happening = crons.fired(
        entry(name='the "nightly"'), "job_2", unfinished=["job_1"], now_ns=START + 9
    )
    assert (cron.last_fire, cron.last_job_id, cron.open_jobs) == (START + 9, "job_2", "job_2 job_1")
    assert happening == ("cron.fired", b'{"entry_name":"the \\"nightly\\"","job_id":"job_2"}')


def test_the_jobs_that_are_remembered_are_bounded() -> None:
    many = [f"job_{n}" for n in range(OPEN_JOBS_LIMIT)]
    cron, _ = crons.fired(entry(), "job_new", unfinished=many, now_ns=START)
    assert cron.open_jobs.split() == ["job_new", *many[:-1]]
    cron, _ = crons.fired(entry(overlap="allow"), "job_new", unfinished=[], now_ns=START)
    assert cron.open_jobs == ""


# ── paused ──


def test_a_paused_entry_does_not_fire_and_does_not_make_up_for_it() -> None:
    paused = crons.pause(entry(waiting=1), now_ns=START + 1)
    assert crons.pause(paused, now_ns=START + 2) is paused
    assert not crons.is_due(paused, START + 3 * HOUR)
    resumed = crons.resume(paused, now_ns=START + 5 * HOUR, next_after=hourly)
    assert (resumed.paused, resumed.next_fire, resumed.waiting) == (False, START + 6 * HOUR, 1)
    assert crons.resume(resumed, now_ns=START, next_after=hourly) is resumed


def test_a_pause_outlasts_another_declaration() -> None:
    changed = CronDeclaration("nightly", "thrice", "UTC", "report")
    paused = crons.pause(entry(), now_ns=START + 1)
    again = crons.declare(changed, paused, id="", now_ns=START + 2, next_after=hourly)
    assert (again.paused, again.next_fire, again.expression) == (True, 0, "thrice")


def test_resuming_a_schedule_that_has_ended_sets_no_time() -> None:
    paused = crons.pause(entry(expression="thrice"), now_ns=START)
    assert crons.resume(paused, now_ns=START + 9 * HOUR, next_after=hourly).next_fire == 0


# ── on the wire ──


def test_an_entry_on_the_wire_leaves_out_what_there_is_not() -> None:
    assert cron_to_wire(entry(payload=b"", next_fire=0)) == {
        "created_at": "2023-11-14T22:13:20Z",
        "updated_at": "2023-11-14T22:13:20Z",
        "id": "cron_1",
        "name": "nightly",
        "schedule": "hourly",
        "timezone": "UTC",
        "job_name": "report",
        "queue": "mail",
        "enabled": True,
        "overlap": "skip",
        "catch_up": "one",
        "waiting": 0,
        "skipped": 0,
    }


def test_an_entry_on_the_wire_has_what_there_is() -> None:
    wire = cron_to_wire(
        entry(last_fire=START, last_job_id="job_1", app_id="app-1", org_id="org-1", paused=True)
    )
    assert base64.b64decode(wire["payload"]) == b'{"n":1}'
    assert (wire["last_run_at"], wire["next_run_at"]) == ("2023-11-14T22:13:20Z", "2023-11-14T23:13:20Z")
    assert (wire["last_job_id"], wire["enabled"]) == ("job_1", False)
    assert (wire["scope_app_id"], wire["scope_org_id"]) == ("app-1", "org-1")
