"""Waiting for the end of a job or run, at servers that can be asked for it and at those that cannot."""

from __future__ import annotations

from typing import Any

import pytest

from dwp_core.client_events import ClientConfig, RequestSucceeded
from dwp_core.codec import encode_payload
from dwp_core.errors import LimitError, TimeoutError
from tests.core.scripted_server import JOB, Script


def test_a_server_is_asked_again_until_it_has_ended() -> None:
    script = Script().connect_negotiated(limits={"wait_ms": 5000})
    script.events()
    script.wait()
    [first] = script.sent()
    assert (first.method, first.data) == ("job.wait", {"job_id": JOB, "timeout_ms": 5000})
    script.answer(first, {"job_id": JOB, "state": "running", "timed_out": True})
    [second] = script.sent()
    assert second.id != first.id
    assert script.events() == []
    script.answer(second, {"job_id": JOB, "state": "completed", "output": 7})
    assert script.values() == [("wait", {"job_id": JOB, "state": "completed", "output": 7})]


def test_it_is_asked_for_no_longer_than_its_caller_waits() -> None:
    script = Script().connect_negotiated(limits={"wait_ms": 60_000})
    script.wait(timeout=2.0)
    [asked] = script.sent()
    assert asked.data["timeout_ms"] == 2000
    script.now += 1.5
    script.answer(asked, {"timed_out": True})
    assert script.sent()[-1].data["timeout_ms"] == 500
    assert script.timer() == 102.0
    error = script.failure()
    assert (type(error), str(error)) == (TimeoutError, "job.wait: no answer from the server in time")


def test_a_wait_whose_time_is_over_when_it_is_sent_asks_for_next_to_no_time() -> None:
    script = Script().start()
    script.wait(timeout=1.0)
    script.now += 5.0
    script.open()
    script.welcome(features=["wait"])
    assert script.sent()[-1].data["timeout_ms"] == 1


def test_a_server_that_cannot_wait_is_looked_at_again_and_again() -> None:
    script = Script(ClientConfig(poll_interval=0.25)).connect()
    script.wait()
    for state in ("pending", "running", "retrying"):
        [look] = script.sent()
        assert (look.method, look.data) == ("job.get", {"job_id": JOB})
        script.answer(look, {"id": JOB, "state": state})
        assert script.sent() == []
        script.timer()
    assert script.now == 100.75
    [look] = script.sent()
    script.answer(look, {"id": JOB, "state": "failed"})
    assert script.values() == [("wait", {"id": JOB, "state": "failed"})]


def test_a_run_is_looked_at_likewise() -> None:
    script = Script().connect()
    script.session.wait("workflow.wait", encode_payload({"run_id": "r"}), tag="w", now=script.now)
    assert script.asked() == [("workflow.get", {"run_id": "r"})]


def test_the_time_of_a_wait_runs_out_between_two_looks() -> None:
    script = Script(ClientConfig(poll_interval=10.0)).connect()
    script.wait(timeout=3.0)
    script.answer(script.sent()[-1], {"state": "running"})
    script.sleep(3.0)
    assert "no answer from the server in time" in str(script.failure())
    script.sleep(60.0)
    assert script.methods() == []


def test_a_wait_can_be_cancelled_between_two_looks() -> None:
    script = Script().connect()
    request = script.wait()
    script.answer(script.sent()[-1], {"state": "running"})
    script.cancel(request)
    script.events()
    script.sleep(5.0)
    assert (script.methods(), script.events()) == ([], [])


@pytest.mark.parametrize("negotiated", [False, True])
def test_a_wait_survives_a_lost_connection_wherever_it_is(negotiated: bool) -> None:
    script = Script()
    connect = script.connect_negotiated if negotiated else script.connect
    connect()
    script.wait(tag="flying")
    script.wait(tag="between")
    _, between = script.sent()
    script.answer(between, {"state": "running", "timed_out": True})
    script.cut()
    connect()
    assert len(script.methods()) == 2
    assert script.outcomes() == []


def test_those_that_wait_for_their_next_look_count_as_open() -> None:
    script = Script(ClientConfig(max_requests=2)).connect()
    for tag in (1, 2):
        script.wait(tag=tag)
        script.answer(script.sent()[-1], {"state": "running"})
    with pytest.raises(LimitError, match="2 requests to the server are open"):
        script.wait(tag=3)


def test_it_is_looked_at_once_for_each_time_that_has_come() -> None:
    script = Script(ClientConfig(poll_interval=1.0)).connect()
    for tag in (1, 2):
        script.wait(tag=tag)
    for look in script.sent():
        script.answer(look, {"state": "running"})
    script.timer()
    assert script.methods() == ["job.get", "job.get"]


def test_closing_forgets_the_next_look() -> None:
    script = Script().connect()
    script.wait()
    script.answer(script.sent()[-1], {"state": "running"})
    script.close()
    script.cut(1000)
    assert script.outcomes() == [("wait", "failed")]
    assert script.session.next_deadline is None


@pytest.mark.parametrize(
    "raw", [b"null", b"[]", b"5", b'{"state":"\\ud800"}', b'{"state":"completed","x":1e999}']
)
@pytest.mark.parametrize("negotiated", [False, True])
def test_an_answer_that_makes_no_sense_is_left_to_whoever_reads_it(raw: bytes, negotiated: bool) -> None:
    script = Script()
    (script.connect_negotiated if negotiated else script.connect)()
    script.wait()
    asked = script.sent()[-1]
    script.receive(b'{"id":"s","type":"response","correl_id":"%b","data":%b}' % (asked.id.encode(), raw))
    assert [e.tag for e in script.told(RequestSucceeded)] == ["wait"]


@pytest.mark.parametrize("state", [[], {}, None, 5, ["completed"], "Completed"])
def test_a_state_that_is_none_is_not_the_end(state: Any) -> None:
    script = Script().connect()
    script.events()
    script.wait()
    script.answer(script.sent()[-1], {"state": state})
    assert script.events() == []
