"""Calls as data: what each one asks for, what may be repeated, and what is refused before anything is sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from dispatch import operations, results
from dispatch.calls import Calls
from dispatch.errors import InvalidRequest, PayloadError
from dispatch.operations import Operation
from dwp_core.methods import METHODS
from dwp_core.peer import BATCH, OPTIONS
from dwp_core.requests import Purpose, Retry

JOB = "job_01h455vb4pex5vsknk084sn02q"
RUN = "wfrun_01h455vb4pex5vsknk084sn02q"


def build(name: str, *args: Any, **kwargs: Any) -> Operation[Any]:
    """The operation that a call of the client means."""
    operation: Operation[Any] = vars(Calls)[name].__wrapped__(None, *args, **kwargs)
    return operation


def asked(operation: Operation[Any]) -> tuple[str, Any]:
    return operation.method, json.loads(operation.data or b"null")


def test_a_plain_enqueue_is_base_dwp() -> None:
    operation = build("enqueue", "f", {"a": [1, 2**70]}, queue="q", priority=-3)
    data = {"name": "f", "payload": {"a": [1, 2**70]}, "queue": "q", "priority": -3}
    assert asked(operation) == ("job.enqueue", data)
    assert (operation.retry, operation.feature) == (Retry.IDEMPOTENT, "")


def test_options_travel_in_milliseconds_and_need_a_server_that_has_them() -> None:
    operation = build(
        "enqueue", "f", delay=0.0015, max_retries=0, job_timeout=2, unique_key="u", unique_for=60
    )
    assert asked(operation)[1] == {
        "name": "f",
        "payload": None,
        "delay_ms": 2,
        "max_retries": 0,
        "timeout_ms": 2000,
        "unique_key": "u",
        "unique_for_ms": 60_000,
    }
    assert operation.feature == OPTIONS


@pytest.mark.parametrize(
    "run_at", [datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05.000006+00:00"]
)
def test_a_time_to_run_is_rfc_3339(run_at: Any) -> None:
    assert asked(build("enqueue", "f", run_at=run_at))[1]["run_at"] == "2026-01-02T03:04:05.000006+00:00"


def test_each_call_has_an_idempotency_key_of_its_own_unless_it_is_given() -> None:
    for make in (
        partial(build, "enqueue", "f"),
        partial(build, "enqueue_many", [{"name": "f"}]),
        partial(build, "start_workflow", "w"),
        partial(build, "publish_event", "e"),
    ):
        assert make().key != make().key
        assert len(make().key) == 32
        assert make(idempotency_key="mine").key == "mine"
        for wrong in ("", "k" * 256, 5, b"k"):
            with pytest.raises(InvalidRequest, match="idempotency_key"):
                make(idempotency_key=wrong)


def test_several_jobs_take_the_arguments_of_one() -> None:
    operation = build("enqueue_many", iter([{"name": "a", "payload": 1}, {"name": "b", "delay": 1}]))
    assert asked(operation)[1] == {"jobs": [{"name": "a", "payload": 1}, {"name": "b", "delay_ms": 1000}]}
    assert operation.feature == BATCH


@pytest.mark.parametrize(
    ("jobs", "why"),
    [
        ({"name": "a"}, "list of mappings, got dict"),
        ("ab", "got str"),
        (5, "got int"),
        ([5], r"jobs\[0\] must be a mapping, got int"),
        ([{"name": "a"}, {}], r"jobs\[1\] has no name"),
        ([{"name": "a", "nam": 1}], r"jobs\[0\] has the unknown field 'nam'"),
        ([{"name": "a", 5: 1}], r"unknown field '5'"),
        ([{"name": "a"}, {"name": "a", "delay": -1}], r"jobs\[1\]: delay must be"),
    ],
)
def test_a_wrong_list_of_jobs_is_refused_at_its_place(jobs: Any, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        build("enqueue_many", jobs)


@pytest.mark.parametrize("name", ["delay", "job_timeout", "unique_for"])
@pytest.mark.parametrize("wrong", [-1, "1", True, float("nan"), float("inf"), 10**10])
def test_times_are_numbers_of_seconds(name: str, wrong: Any) -> None:
    arguments: dict[str, Any] = {name: wrong}
    with pytest.raises(InvalidRequest, match=f"{name} must be a number of seconds from 0, got"):
        build("enqueue", "f", **arguments)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="time zone"):
        build("enqueue", "f", run_at=datetime(2026, 1, 2))  # noqa: DTZ001  # that is what is refused


@pytest.mark.parametrize("payload", [float("nan"), b"x", {1}, {1: 2}, object(), "\ud800"])
def test_what_json_cannot_carry_is_refused_with_its_path(payload: Any) -> None:
    with pytest.raises(PayloadError, match=r"payload\.deep"):
        build("enqueue", "f", {"deep": [payload]})
    with pytest.raises(PayloadError, match="input"):
        build("start_workflow", "w", payload)


def test_an_entity_is_known_by_its_id() -> None:
    job, run = operations.entity(JOB), operations.entity(RUN)
    assert (job.channel, run.channel) == (f"job:{JOB}", f"workflow:{RUN}")
    assert asked(job.operation) == ("job.get", {"job_id": JOB})
    assert asked(run.operation) == ("workflow.get", {"run_id": RUN})
    assert job.ends == {"job.completed", "job.failed", "job.cancelled"}
    for wrong in ("", "evt_1", "job", 5, None, {"job_id": JOB}):
        with pytest.raises(InvalidRequest, match="expected a job id"):
            operations.entity(wrong)  # type: ignore[arg-type]


def test_a_wait_is_asked_again_until_it_has_an_answer() -> None:
    for id, method in ((JOB, "job.wait"), (RUN, "workflow.wait")):
        operation = build("wait", id)
        assert (operation.method, operation.purpose, operation.retry) == (method, Purpose.WAIT, Retry.READ)


def test_arguments_that_were_not_given_are_left_out() -> None:
    assert asked(operations.simple("job.list", results.read_jobs, None, state="failed", queue=None)) == (
        "job.list",
        {"state": "failed"},
    )
    assert operations.simple("stats", results.read_mapping, None).data == b""


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_method_by_name_is_repeated_only_if_it_is_a_read(method: str) -> None:
    operation = build("call", method, {})
    expected = Retry.READ if METHODS[method].retry is Retry.READ else Retry.NEVER
    assert (operation.method, operation.retry, operation.key) == (method, expected, "")


def test_an_unknown_method_is_never_repeated() -> None:
    assert build("call", "their.own", [1]).retry is Retry.NEVER
    for wrong in ("", None, 5, b"stats"):
        with pytest.raises(InvalidRequest, match="call: method must be text"):
            build("call", wrong)
