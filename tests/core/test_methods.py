"""The table of methods and the judge of their data (`dwp_core.methods`)."""

from __future__ import annotations

from typing import Any

import pytest

from dwp_core.errors import InvalidRequest
from dwp_core.methods import METHODS, check_request, has_scope
from dwp_core.requests import Retry

JOB = "job_01h455vb4pex5vsknk084sn02q"


def refusal(method: str, value: object) -> str:
    with pytest.raises(InvalidRequest) as caught:
        check_request(METHODS[method], value)
    assert caught.value.code == 400
    return str(caught.value)


def test_every_method_has_a_scope_and_says_whether_it_may_be_repeated() -> None:
    assert len(METHODS) == 25
    for name, method in METHODS.items():
        assert method.name == name
        assert method.scope
        assert method.takes_data == bool(method.fields)
        assert len(method.by_name) == len(method.fields)
    assert METHODS["job.get"].retry is Retry.READ
    assert METHODS["job.enqueue"].retry is Retry.IDEMPOTENT
    assert METHODS["job.cancel"].retry is Retry.NEVER
    # Idempotent is what takes a key (PROTOCOL.md section 9).
    for method in METHODS.values():
        if method.retry is Retry.IDEMPOTENT:
            assert "idempotency_key" in method.by_name


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("job.enqueue", {"name": "send-email", "payload": None, "priority": -3, "queue": ""}),
        (
            "job.enqueue",
            {"name": "x", "payload": {"deep": [1]}, "delay_ms": 0, "unique_key": "u", "unique_for_ms": 1},
        ),
        ("job.get", {"job_id": JOB}),
        ("job.list", {"state": "failed", "limit": 1, "cursor": "abc"}),
        ("job.list", {}),
        ("subscribe", {"channel": "jobs", "since": "start"}),
        ("subscribe", {"channel": "jobs", "since": 0, "credits": 5}),
        ("stats", {}),
        ("unsubscribe", {"channel": ""}),
    ],
)
def test_what_is_right_is_taken_as_it_is(method: str, data: dict[str, Any]) -> None:
    assert check_request(METHODS[method], data) == data


def test_unknown_fields_are_ignored_and_null_is_absent() -> None:
    data = {"name": "x", "queue": None, "zzz": 1, "priority": None, "payload": None}
    assert check_request(METHODS["job.enqueue"], data) == {"name": "x", "payload": None}


def test_absent_data_is_an_empty_object() -> None:
    assert check_request(METHODS["job.list"], None) == {}
    assert refusal("job.get", None) == 'job.get: job_id is missing: it must be an id with prefix "job"'


def test_times_become_nanoseconds() -> None:
    data = {"name": "x", "run_at": "2026-01-02T03:04:05Z"}
    assert check_request(METHODS["job.enqueue"], data)["run_at"] == 1_767_323_045_000_000_000


@pytest.mark.parametrize(
    ("method", "data", "message"),
    [
        ("job.enqueue", "text", 'job.enqueue: data must be an object, got "text" (str)'),
        ("job.enqueue", [], "job.enqueue: data must be an object, got [] (list)"),
        ("job.enqueue", {}, "job.enqueue: name is missing: it must be a string of 1 to 255 characters"),
        (
            "job.enqueue",
            {"name": ""},
            'job.enqueue: name must be a string of 1 to 255 characters, got "" (str)',
        ),
        (
            "job.enqueue",
            {"name": 5},
            "job.enqueue: name must be a string of 1 to 255 characters, got 5 (int)",
        ),
        (
            "job.enqueue",
            {"name": "x", "priority": "high"},
            'job.enqueue: priority must be an integer, got "high" (str)',
        ),
        (
            "job.enqueue",
            {"name": "x", "priority": 1.5},
            "job.enqueue: priority must be an integer, got 1.5 (float)",
        ),
        (
            "job.enqueue",
            {"name": "x", "priority": True},
            "job.enqueue: priority must be an integer, got True (bool)",
        ),
        (
            "job.enqueue",
            {"name": "x", "priority": 2**40},
            "job.enqueue: priority must be an integer from -2147483647 to 2147483647, got 1099511627776 (int)",
        ),
        (
            "job.enqueue",
            {"name": "x", "run_at": "tomorrow"},
            'job.enqueue: run_at must be an RFC 3339 time, got "tomorrow" (str)',
        ),
        (
            "job.enqueue",
            {"name": "x", "run_at": "9999-12-31T23:59:59Z"},
            'job.enqueue: run_at must be a time from 1970 to 2262, got "9999-12-31T23:59:59Z" (str)',
        ),
        (
            "job.enqueue",
            {"name": "x", "run_at": "1969-12-31T23:59:59Z"},
            'job.enqueue: run_at must be a time from 1970 to 2262, got "1969-12-31T23:59:59Z" (str)',
        ),
        (
            "job.enqueue",
            {"name": "x", "run_at": 5},
            "job.enqueue: run_at must be an RFC 3339 time, got 5 (int)",
        ),
        (
            "job.enqueue",
            {"name": "x", "run_at": "2026-01-02T03:04:05Z", "delay_ms": 5},
            "job.enqueue: run_at and delay_ms exclude each other: give one of them",
        ),
        (
            "job.get",
            {"job_id": "wfrun_01h455vb4pex5vsknk084sn02q"},
            'invalid job_id: expected prefix "job", got "wfrun_01h455vb4pex5vsknk084sn02q"',
        ),
        (
            "job.list",
            {"state": "x"},
            'job.list: state must be one of pending, running, completed, retrying, failed, cancelled, got "x" (str)',
        ),
        ("job.list", {"cursor": 7}, "job.list: cursor must be a string, got 7 (int)"),
        (
            "job.list",
            {"limit": 0},
            "job.list: limit must be an integer from 1 to 1000, got 0 (int)",
        ),
        (
            "subscribe",
            {"channel": "jobs", "since": "end"},
            'subscribe: since must be an integer or "start", got "end" (str)',
        ),
        (
            "job.enqueue_many",
            {"jobs": []},
            "job.enqueue_many: jobs must be an array of objects as in job.enqueue, at least one, got [] (list)",
        ),
        (
            "job.enqueue_many",
            {"jobs": [{"name": "x"}, {"name": "y", "priority": "low"}]},
            'job.enqueue_many: jobs[1]: priority must be an integer, got "low" (str)',
        ),
        (
            "job.enqueue_many",
            {"jobs": 5},
            "job.enqueue_many: jobs must be an array of objects as in job.enqueue, at least one, got 5 (int)",
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(method: str, data: object, message: str) -> None:
    assert refusal(method, data) == message


def test_long_values_are_shortened_in_messages() -> None:
    assert len(refusal("job.list", {"limit": "x" * 10_000})) < 150


def test_jobs_of_a_batch_come_out_checked() -> None:
    data = {"jobs": [{"name": "x", "zzz": 1}, {"name": "y", "queue": None}]}
    assert check_request(METHODS["job.enqueue_many"], data) == {"jobs": [{"name": "x"}, {"name": "y"}]}


def test_a_scope_matches_exactly_and_the_star_matches_all() -> None:
    assert has_scope(frozenset(("job:read",)), "job:read")
    assert has_scope(frozenset(("*",)), "job:read")
    assert not has_scope(frozenset(("admin", "job", "job:*")), "job:read")
