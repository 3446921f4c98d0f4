"""Results: mappings with typed attributes, values instead of base64, and what came over the wire as it came."""

from __future__ import annotations

import copy
import pickle
from base64 import b64encode
from typing import Any

import pytest

from dispatch import results
from dispatch.errors import ConnectionError
from dwp_core.codec import get_codec
from dwp_core.codec.payload import encode_payload
from dwp_core.frames import DEFAULT_LIMITS, EventHead
from dwp_core.subscriptions import Gap


def b64(content: bytes) -> str:
    return b64encode(content).decode()


def head(kind: str, data: Any, *, topic: str = "job:j", seq: int | None = None) -> EventHead:
    codec = get_codec("json")
    event = {"type": kind, "ts": "2026-01-02T03:04:05.123456789Z", "topic": topic, "data": data}
    if seq is not None:
        event["seq"] = seq
    message = codec.encode("event", "e1", data=encode_payload(event), channel=topic, ts=0)
    read = codec.event(codec.decode(message, DEFAULT_LIMITS))
    assert read is not None
    return read


def test_a_job_has_its_values_as_keys_and_as_attributes() -> None:
    raw = {"id": "job_1", "name": "f", "payload": b64(b'{"a":[1,null]}'), "output": b64(b'"x"'), "timeout": 5}
    job = results.read_job(raw)
    assert job["payload"] == job.payload == {"a": [1, None]}
    assert (job.output, job["timeout"], job.id, job.job_id) == ("x", 5, "job_1", "job_1")
    assert job.raw is raw
    assert job.raw["payload"] == b64(b'{"a":[1,null]}')
    assert (job.priority, job.started_at, job.error) == (0, None, None)
    assert dict(job)["name"] == "f"


@pytest.mark.parametrize(
    ("wire", "value"),
    [
        (b64(b"\x03\x04\x00T"), b"\x03\x04\x00T"),
        (b64(b"not json"), b"not json"),
        (b64(b"[1e999]"), b"[1e999]"),
        (b64(b"null"), None),
        ("", None),
        (b64("ünï😀".join(['"', '"']).encode()), "ünï😀"),
        (b64(b"%d" % 10**40), 10**40),
        ("not base64!", "not base64!"),
        ("späße", "späße"),
        (None, None),
        ({"already": "a value"}, {"already": "a value"}),
    ],
)
def test_payloads_are_values_or_bytes_or_what_they_were(wire: Any, value: Any) -> None:
    assert results.read_job({"id": "job_1", "payload": wire}).payload == value


def test_results_can_be_copied_and_pickled() -> None:
    job = results.read_job({"id": "job_1", "payload": b64(b"1")})
    for again in (copy.copy(job), copy.deepcopy(job), pickle.loads(pickle.dumps(job))):
        assert (type(again), again, again.raw, again.payload) == (results.Job, job, job.raw, 1)
    event = results.read_event("jobs", head("job.completed", {}, seq=7))
    again = pickle.loads(pickle.dumps(event))
    assert (again, again.kind, again.seq) == (event, "job.completed", 7)


def test_attributes_are_read_only_and_misspelt_ones_are_errors() -> None:
    job = results.read_job({"id": "job_1"})
    with pytest.raises(AttributeError):
        job.state = "completed"
    with pytest.raises(AttributeError, match="stat"):
        _ = job.stat  # type: ignore[attr-defined]
    assert results.Job.state is not None


def test_an_outcome_is_the_same_from_an_answer_and_from_the_entity() -> None:
    answered = results.read_outcome({"job_id": "job_1", "state": "completed", "output": b64(b"[1]")})
    looked = results.read_outcome(
        {"id": "job_1", "name": "f", "state": "completed", "output": b64(b"[1]"), "last_error": "once"}
    )
    assert (answered.job_id, answered.state, answered.output) == ("job_1", "completed", [1])
    assert (looked.job_id, looked.state, looked.output, looked.error) == ("job_1", "completed", [1], "once")
    assert looked.run_id is None
    assert results.read_outcome({"id": "wfrun_1", "state": "failed", "error": "e"}).run_id == "wfrun_1"


def test_pages_and_lists_hold_results() -> None:
    jobs = results.read_jobs({"jobs": [{"id": "job_1", "payload": b64(b"1")}], "cursor": "c"})
    assert (jobs.jobs[0].payload, jobs.cursor, jobs["jobs"][0].id) == (1, "c", "job_1")
    assert results.read_jobs({"jobs": None}).jobs == []
    assert results.read_enqueued_many({"jobs": [{"job_id": "job_1", "duplicate": True}]}).jobs[0].duplicate
    letters = results.read_dead_letters({"entries": [{"id": "dlq_1", "payload": b64(b"2")}]})
    assert (letters.entries[0]["payload"], letters.cursor) == (2, None)
    [entry] = results.read_timeline([{"step_name": "s", "data": b64(b"3"), "created_at": "t"}])
    assert (entry.step_name, entry.data, entry.raw["data"]) == ("s", 3, b64(b"3"))
    assert results.read_timeline(None) == []


@pytest.mark.parametrize("answer", [None, 5, "text", [], True])
@pytest.mark.parametrize(
    "read",
    [results.read_job, results.read_jobs, results.read_run, results.read_outcome, results.read_enqueued,
     results.read_enqueued_many, results.read_dead_letters, results.read_mapping],
)  # fmt: skip
def test_an_answer_of_another_shape_is_an_error_of_the_connection(read: Any, answer: Any) -> None:
    with pytest.raises(ConnectionError, match="where an object belongs"):
        read(answer)


def test_an_event_says_where_it_was_heard_and_what_it_means() -> None:
    event = results.read_event("jobs", head("job.completed", {"job_id": "j"}, seq=7))
    assert event == {"type": "event", "channel": "jobs", "data": {"job_id": "j", "state": "completed"}}
    assert (event.kind, event.topic, event.seq) == ("job.completed", "job:j", 7)
    assert event.at == "2026-01-02T03:04:05.123456789Z"
    assert not event.is_gap


@pytest.mark.parametrize(
    ("kind", "data", "seen"),
    [
        ("job.dlq", {}, {"state": "failed"}),
        ("job.completed", {"state": "theirs"}, {"state": "theirs"}),
        ("cron.fired", {"entry_name": "tick"}, {"entry_name": "tick"}),
        ("job.enqueued", None, {"value": None, "state": "pending"}),
        ("something.new", [1], {"value": [1]}),
    ],
)
def test_event_data_are_a_mapping_with_a_state_where_there_is_one(kind: str, data: Any, seen: Any) -> None:
    assert results.read_event("firehose", head(kind, data))["data"] == seen


def test_a_gap_says_what_is_missing() -> None:
    gap = results.read_gap("jobs", Gap(first=3, last=9))
    assert gap == {"type": "gap", "channel": "jobs", "data": {"from": 3, "to": 9, "dropped": 0}}
    assert (gap.kind, gap.is_gap, gap.seq) == ("gap", True, None)
