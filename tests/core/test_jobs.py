from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dwp_core import jobs
from dwp_core.errors import ConflictError
from dwp_core.jobs import (
    BACKOFF_CAP_NS,
    CANCELLED,
    COMPLETED,
    ERROR_LIMIT,
    FAILED,
    FINISHED,
    PENDING,
    RETRYING,
    RUNNING,
    SECOND,
    STATES,
    TRANSITIONS,
    WAITING,
    Change,
    Job,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "conversations" / "json"
NOW = 1_700_000_000 * SECOND
LEASE = 30 * SECOND


def new_job(**fields: Any) -> Job:
    job = Job(
        id="job_01hf7yat00e008000000000000",
        name="send-email",
        queue="mail",
        payload=b'{"to":"x"}',
        priority=10,
        max_retries=3,
        timeout=300 * SECOND,
        app_id="app-1",
        org_id="org-1",
        unique_key="",
        created_at=NOW,
        state=PENDING,
        updated_at=NOW,
        run_at=NOW,
    )
    return job._replace(**fields)


def running(**fields: Any) -> Job:
    started = jobs.start(new_job(), worker_id="wkr_1", now_ns=NOW, lease_ns=LEASE).job
    return started._replace(**fields)


def told(change: Change) -> list[tuple[str, dict[str, Any]]]:
    return [(event.type, json.loads(event.data)) for event in change.events]


SUBJECT = {
    "job_id": "job_01hf7yat00e008000000000000",
    "job_name": "send-email",
    "queue": "mail",
    "scope_app_id": "app-1",
    "scope_org_id": "org-1",
}


def test_the_table_has_the_states_of_the_protocol() -> None:
    assert TRANSITIONS.states == set(STATES)
    assert TRANSITIONS.final == FINISHED
    assert {state for state in STATES if TRANSITIONS.allows(state, "start")} == WAITING


def test_an_enqueued_job_is_told() -> None:
    change = jobs.enqueued(new_job())
    assert told(change) == [("job.enqueued", {**SUBJECT, "state": "pending"})]
    assert jobs.topic_of(change.job) == "job:job_01hf7yat00e008000000000000"


def test_a_job_without_tenant_names_none() -> None:
    change = jobs.enqueued(new_job(app_id="", org_id=""))
    assert list(told(change)[0][1]) == ["job_id", "job_name", "queue", "state"]


@pytest.mark.parametrize("state", sorted(WAITING))
def test_starting_gives_a_lease_under_a_new_epoch(state: str) -> None:
    change = jobs.start(new_job(state=state, epoch=4), worker_id="wkr_1", now_ns=NOW + 5, lease_ns=LEASE)
    job = change.job
    assert (job.state, job.epoch, job.worker_id) == (RUNNING, 5, "wkr_1")
    assert (job.started_at, job.updated_at, job.lease_until) == (NOW + 5, NOW + 5, NOW + 5 + LEASE)
    assert told(change) == [("job.started", {**SUBJECT, "state": "running"})]
    assert jobs.holds_lease(job, 5)
    assert not jobs.holds_lease(job, 4)


def test_a_job_that_does_not_run_has_no_lease_to_hold() -> None:
    assert not jobs.holds_lease(new_job(epoch=4), 4)


def test_completing_keeps_the_output_and_tells_how_long_it_took() -> None:
    change = jobs.complete(running(), output=b"42", now_ns=NOW + 30_999_999)
    job = change.job
    assert (job.state, job.output, job.completed_at, job.lease_until) == (
        COMPLETED,
        b"42",
        NOW + 30_999_999,
        0,
    )
    assert told(change) == [("job.completed", {**SUBJECT, "elapsed_ms": 30, "state": "completed"})]


def test_less_than_a_millisecond_is_not_told() -> None:
    change = jobs.complete(running(), output=None, now_ns=NOW + 999_999)
    assert "elapsed_ms" not in told(change)[0][1]
    assert change.job.output is None


def test_completing_wins_over_a_cancellation_that_came_too_late() -> None:
    job = jobs.complete(running(cancel_requested=True), output=b"1", now_ns=NOW).job
    assert (job.state, job.cancel_requested) == (COMPLETED, False)


def test_a_failed_attempt_is_tried_again_within_its_window() -> None:
    change = jobs.fail(running(), error="boom", now_ns=NOW, jitter=0.25)
    job = change.job
    assert (job.state, job.retry_count, job.last_error, job.error) == (RETRYING, 1, "boom", "")
    assert (job.run_at, job.lease_until) == (NOW + SECOND // 4, 0)
    assert not change.dead
    expected = {**SUBJECT, "attempt": 1, "next_run_at": "2023-11-14T22:13:20.250000000Z", "state": "retrying"}
    assert told(change) == [("job.retrying", expected)]


def test_a_handler_may_ask_for_the_time_of_the_retry() -> None:
    job = jobs.fail(running(), error="busy", now_ns=NOW, jitter=0.9, retry_after_ns=7 * SECOND).job
    assert job.run_at == NOW + 7 * SECOND
    job = jobs.fail(running(), error="busy", now_ns=NOW, jitter=0.9, retry_after_ns=-1).job
    assert job.run_at == NOW


def test_the_last_attempt_ends_in_the_dead_letters() -> None:
    change = jobs.fail(running(retry_count=3), error='say "no"', now_ns=NOW, jitter=0.5)
    job = change.job
    assert change.dead
    assert (job.state, job.retry_count, job.last_error, job.error) == (FAILED, 4, 'say "no"', 'say "no"')
    data = {**SUBJECT, "error": 'say "no"', "state": "failed"}
    assert told(change) == [("job.failed", data), ("job.dlq", data)]


def test_what_cannot_succeed_is_not_tried_again() -> None:
    change = jobs.fail(running(), error="bad argument", now_ns=NOW, jitter=0.5, retryable=False)
    assert change.dead
    assert change.job.retry_count == 1


def test_a_job_to_be_cancelled_is_not_tried_again() -> None:
    change = jobs.fail(running(cancel_requested=True), error="stopped", now_ns=NOW, jitter=0.5)
    assert change.job.state == CANCELLED
    assert told(change) == [("job.cancelled", {**SUBJECT, "state": "cancelled"})]


def test_a_lost_worker_costs_the_job_an_attempt_and_no_time() -> None:
    change = jobs.rescue(running(), now_ns=NOW + LEASE)
    assert (change.job.state, change.job.run_at, change.job.retry_count) == (RETRYING, NOW + LEASE, 1)
    assert change.job.last_error == "worker wkr_1 stopped answering while it ran the job (attempt 1 of 4)"


def test_a_job_that_loses_every_worker_ends_in_the_dead_letters() -> None:
    change = jobs.rescue(running(retry_count=3), now_ns=NOW)
    assert change.dead
    assert change.job.error.endswith("(attempt 4 of 4)")


def test_a_released_job_waits_again_and_lost_no_attempt() -> None:
    change = jobs.release(running(retry_count=2), now_ns=NOW + 1)
    job = change.job
    assert (job.state, job.retry_count, job.run_at, job.lease_until) == (PENDING, 2, NOW, 0)
    assert change.events == ()
    assert not jobs.holds_lease(job, job.epoch)


def test_a_released_job_that_was_to_be_cancelled_is_cancelled() -> None:
    assert jobs.release(running(cancel_requested=True), now_ns=NOW).job.state == CANCELLED


@pytest.mark.parametrize("state", sorted(WAITING))
def test_a_waiting_job_is_cancelled_at_once(state: str) -> None:
    change = jobs.request_cancel(new_job(state=state), now_ns=NOW + 1)
    assert (change.job.state, change.job.updated_at) == (CANCELLED, NOW + 1)
    assert [event.type for event in change.events] == ["job.cancelled"]


def test_a_running_job_is_only_asked_to_end() -> None:
    change = jobs.request_cancel(running(), now_ns=NOW + 1)
    assert (change.job.state, change.job.cancel_requested) == (RUNNING, True)
    assert change.events == ()
    assert jobs.holds_lease(change.job, 1)


def test_cancelling_takes_the_lease_from_the_worker() -> None:
    job = jobs.cancel(running(), now_ns=NOW).job
    assert (job.state, job.epoch, job.lease_until, job.cancel_requested) == (CANCELLED, 2, 0, False)


@pytest.mark.parametrize("state", sorted(FINISHED))
def test_a_finished_job_cannot_be_cancelled(state: str) -> None:
    with pytest.raises(ConflictError) as caught:
        jobs.request_cancel(new_job(state=state), now_ns=NOW)
    assert str(caught.value) == (
        f"job job_01hf7yat00e008000000000000 is {state} already: only a job that is not finished can be cancelled"
    )


def test_the_window_of_a_retry_doubles_up_to_a_minute() -> None:
    top = 1 - 2**-53
    seconds = [jobs.retry_delay_ns(n, top) / SECOND for n in (1, 2, 3, 6, 7, 8, 1000)]
    assert [round(second) for second in seconds] == [1, 2, 4, 32, 60, 60, 60]
    assert jobs.retry_delay_ns(5, 0.0) == 0
    assert jobs.retry_delay_ns(10**6, top) <= BACKOFF_CAP_NS


def test_an_attempt_has_a_deadline_unless_it_may_take_for_ever() -> None:
    assert jobs.deadline_ns(running()) == NOW + 300 * SECOND
    assert jobs.deadline_ns(running(timeout=0)) is None
    assert jobs.timeout_error(running(timeout=1_500_000_000)) == "timed out after 1.5 s"


def test_an_error_text_can_always_be_kept_and_sent() -> None:
    assert jobs.readable_error("plain") == "plain"
    assert jobs.readable_error("caf\u00e9 \udc80") == "caf\u00e9 \\udc80"
    long = jobs.readable_error("x" * (ERROR_LIMIT + 5))
    assert long == "x" * ERROR_LIMIT + "… (5 more characters)"
    event = jobs.fail(running(), error="\udc80\n\x00", now_ns=NOW, jitter=0, retryable=False).events[0]
    assert json.loads(event.data)["error"] == "\\udc80\n\x00"


def test_a_dead_letter_has_what_it_takes_to_do_the_job_again() -> None:
    job = jobs.fail(running(retry_count=3), error="boom", now_ns=NOW, jitter=0).job
    entry = jobs.dead_letter(job, id="dlq_01hf7yat00e008000000000000", payload=b"1", failed_at=NOW)
    assert jobs.dead_letter_to_wire(entry) == {
        "id": "dlq_01hf7yat00e008000000000000",
        "job_id": job.id,
        "job_name": "send-email",
        "queue": "mail",
        "payload": "MQ==",
        "error": "boom",
        "retry_count": 4,
        "max_retries": 3,
        "scope_app_id": "app-1",
        "scope_org_id": "org-1",
        "failed_at": "2023-11-14T22:13:20Z",
    }
    replayed = jobs.dead_letter_to_wire(entry._replace(replayed_at=NOW + 1, replayed_as="job_x"))
    assert (replayed["replayed_at"], replayed["replayed_as"]) == ("2023-11-14T22:13:20.000000001Z", "job_x")


def test_a_job_on_the_wire_leaves_out_what_it_has_not() -> None:
    wire = jobs.job_to_wire(new_job(app_id="", org_id="", timeout=0))
    assert wire == {
        "created_at": "2023-11-14T22:13:20Z",
        "updated_at": "2023-11-14T22:13:20Z",
        "id": "job_01hf7yat00e008000000000000",
        "name": "send-email",
        "queue": "mail",
        "payload": "eyJ0byI6IngifQ==",
        "state": "pending",
        "priority": 10,
        "max_retries": 3,
        "retry_count": 0,
        "worker_id": "",
        "run_at": "2023-11-14T22:13:20Z",
    }


def test_a_job_on_the_wire_has_everything_else() -> None:
    job = jobs.complete(running(heartbeat_at=NOW + 2), output=b"[1]", now_ns=NOW + 3).job
    wire = jobs.job_to_wire(job._replace(last_error="once", error="never"))
    assert (wire["output"], wire["error"], wire["last_error"]) == ("WzFd", "never", "once")
    assert wire["heartbeat_at"] == "2023-11-14T22:13:20.000000002Z"
    assert wire["completed_at"] == "2023-11-14T22:13:20.000000003Z"
    assert (wire["worker_id"], wire["timeout"]) == ("wkr_1", 300 * SECOND)


# -- what the existing server tells, in the same order and with the same keys


def recorded(name: str) -> Iterator[dict[str, Any]]:
    for line in (VECTORS / f"{name}.jsonl").read_text().splitlines()[1:]:
        entry = json.loads(line)
        if entry["dir"] == "server" and entry["op"] == "text":
            yield json.loads(entry["text"])


def recorded_events(name: str) -> list[tuple[str, list[str]]]:
    return [
        (frame["data"]["type"], list(frame["data"]["data"]))
        for frame in recorded(name)
        if frame["type"] == "event"
    ]


def recorded_job(name: str) -> dict[str, Any]:
    return next(frame["data"] for frame in recorded(name) if "payload" in (frame.get("data") or {}))


def played(job: Job, attempts: list[bool]) -> tuple[Job, list[tuple[str, list[str]]]]:
    changes = [jobs.enqueued(job)]
    for succeeds in attempts:
        changes.append(jobs.start(changes[-1].job, worker_id="wkr_1", now_ns=NOW, lease_ns=LEASE))
        if succeeds:
            changes.append(jobs.complete(changes[-1].job, output=None, now_ns=NOW))
        else:
            changes.append(jobs.fail(changes[-1].job, error="boom", now_ns=NOW, jitter=0.5))
    return changes[-1].job, [(type, list(data)) for change in changes for type, data in told(change)]


@pytest.mark.parametrize(
    ("name", "attempts"),
    [("job_dead_letter", [False] * 4), ("job_retry_then_success", [False, True])],
)
def test_events_and_job_are_those_of_the_existing_server(name: str, attempts: list[bool]) -> None:
    job, events = played(new_job(), attempts)
    # `state` at the end is our addition, as is `error` of a job.
    assert [(type, keys[:-1]) for type, keys in events] == recorded_events(name)
    assert {keys[-1] for _, keys in events} == {"state"}
    theirs, ours = recorded_job(name), jobs.job_to_wire(job)
    assert [key for key in ours if key != "error"] == list(theirs)
    assert (ours["state"], ours["retry_count"]) == (theirs["state"], theirs["retry_count"])
