"""What becomes of a call: answered once, kept, repeated where that does no harm, or of unknown outcome."""

from __future__ import annotations

import pytest

from dwp_core.client_events import ClientConfig, RequestFailed, RequestOutcomeUnknown, RequestSucceeded
from dwp_core.errors import (
    ConflictError,
    LimitError,
    NotFoundError,
    OutcomeUnknown,
    TimeoutError,
    UnsupportedError,
)
from dwp_core.requests import Retry
from tests.core.scripted_server import JOB, Script


def test_a_call_is_answered() -> None:
    script = Script().connect()
    script.events()
    script.ask("job.get", {"job_id": JOB}, tag="me")
    [asked] = script.sent()
    assert (asked.type, asked.method, asked.data, asked.binary) == (
        "request",
        "job.get",
        {"job_id": JOB},
        False,
    )
    script.answer(asked, {"id": JOB})
    answer = script.one(RequestSucceeded)
    assert (answer.tag, answer.codec.data(answer.frame)) == ("me", b'{"id":"%b"}' % JOB.encode())
    script.answer(asked, {"id": JOB})
    assert script.events() == []


def test_answers_may_come_in_any_order() -> None:
    script = Script().connect()
    for tag in (1, 2, 3):
        script.ask(tag=tag)
    one, two, three = script.sent()
    for asked in (three, one, two):
        script.answer(asked)
    assert [tag for tag, _ in script.outcomes()] == [3, 1, 2]


@pytest.mark.parametrize(
    ("code", "kind"), [(404, NotFoundError), (409, ConflictError), (405, UnsupportedError)]
)
def test_an_error_frame_is_the_error_of_the_call(code: int, kind: type[Exception]) -> None:
    script = Script().connect()
    script.ask()
    script.refuse(script.sent()[-1], code, "said so")
    error = script.failure()
    assert (type(error), error.code, error.message) == (kind, code, "said so")


def test_an_error_frame_without_an_error_is_one_all_the_same() -> None:
    script = Script().connect()
    script.ask()
    script.say("error", correl_id=script.sent()[-1].id)
    assert script.failure().code == 0


def test_a_call_can_be_cancelled_and_its_answer_is_left_out() -> None:
    script = Script().connect()
    script.events()
    request = script.ask(timeout=1.0)
    script.cancel(request)
    script.cancel(request)
    script.answer(script.sent()[-1])
    script.sleep(5.0)
    assert script.events() == []


def test_a_cancelled_call_makes_room_for_another() -> None:
    script = Script().connect_negotiated(limits={"in_flight": 2})
    request = script.read(tag=1)
    script.read(tag=2)
    assert len(script.sent()) == 1
    script.cancel(request)
    assert len(script.sent()) == 1


def test_no_more_are_in_flight_than_the_server_takes_and_one_is_left_for_the_sessions_own() -> None:
    script = Script().connect_negotiated(limits={"in_flight": 4})
    for tag in range(5):
        script.read(tag=tag)
    script.subscribe()
    assert script.methods() == ["job.get", "job.get", "job.get", "subscribe"]


# ── time ──


def test_a_call_that_is_not_answered_in_time_says_so() -> None:
    script = Script().connect()
    script.ask("stats", timeout=3.0)
    assert script.timer() == 103.0
    error = script.failure()
    assert (type(error), str(error)) == (TimeoutError, "stats: no answer from the server in time")


def test_a_call_that_could_not_be_sent_in_time_says_why() -> None:
    script = Script(ClientConfig(wait_for_server=60.0)).start()
    script.fail("connection refused")
    script.ask("stats", timeout=0.001)
    script.sleep(0.001)
    error = script.failure()
    assert str(error) == (
        "stats: could not be sent to the server in time;"
        " the last error was: cannot connect to the server: connection refused"
    )
    assert "connection refused" in str(error.__cause__)


def test_a_connection_that_came_back_is_no_reason_any_more() -> None:
    script = Script().connect()
    script.cut()
    script.connect()
    script.blocked()
    script.ask("stats", timeout=1.0)
    script.timer()
    assert str(script.failure()) == "stats: could not be sent to the server in time"


def test_its_own_time_runs_on_while_there_is_no_connection() -> None:
    script = Script(jitter=0.999).connect()
    script.read(timeout=2.0)
    for _ in range(6):
        script.cut()
        if script.session.state == "backing_off" and (script.session.next_deadline or 0) < 102.0:
            script.connect()
    script.sleep(3.0)
    assert script.outcomes()[-1] == ("read", "failed")


def test_a_call_without_a_timeout_waits_as_long_as_the_client_lives() -> None:
    script = Script(ClientConfig(heartbeat=1e9)).connect()
    script.ask()
    script.now += 1e6
    script.session.handle_timer(now=script.now)
    assert len(script.events()) == 1


def test_a_timer_that_comes_too_early_does_nothing() -> None:
    script = Script().connect()
    script.ask(timeout=5.0)
    assert not script.silent
    script.session.handle_timer(now=script.now + 4.9)
    assert script.silent


# ── a lost connection ──


def test_what_may_be_repeated_is_repeated_and_for_the_rest_the_outcome_is_unknown_at_once() -> None:
    script = Script().connect_negotiated()
    script.read(tag="read")
    script.enqueue(tag="keyed")
    script.enqueue(tag="keyless", key="")
    script.cancel_job(tag="write")
    script.events()
    script.cut()
    assert [(e.tag, type(e.error)) for e in script.told(RequestOutcomeUnknown)] == [
        ("keyless", OutcomeUnknown),
        ("write", OutcomeUnknown),
    ]
    script.connect_negotiated()
    script.events()
    first, second = [f for f in script.sent() if f.method != "auth"][-2:]
    assert (first.method, second.method, second.data["idempotency_key"]) == ("job.get", "job.enqueue", "k1")
    script.answer(first)
    script.answer(second, {"duplicate": True})
    assert script.outcomes() == [("read", "answer"), ("keyed", "answer")]


def test_an_unknown_outcome_says_what_and_why() -> None:
    script = Script().connect()
    script.cancel_job()
    script.cut()
    error = script.failure()
    assert str(error) == (
        "job.cancel: the connection to the server was lost before the answer came; it may have been carried out or not"
    )
    assert "closed the connection" in str(error.__cause__)


def test_what_the_transport_never_got_is_kept() -> None:
    script = Script().connect()
    script.events()
    script.taking = False
    script.cancel_job(tag="unsent")
    script.cut()
    script.taking = True
    assert script.outcomes() == []
    script.connect()
    assert script.methods() == ["job.cancel"]


def test_a_key_is_sent_to_those_who_honour_it_only() -> None:
    script = Script().connect()
    script.enqueue()
    assert script.asked() == [("job.enqueue", {"name": "f"})]
    script.cut()
    assert script.outcomes() == [("enqueue", "unknown")]


def test_a_request_that_may_have_been_carried_out_goes_to_no_server_that_would_do_it_twice() -> None:
    script = Script().connect_negotiated()
    script.enqueue(tag=1)
    script.cut()
    script.enqueue(tag=2)
    assert script.outcomes() == []
    script.sent()
    script.connect()
    assert script.asked() == [("job.enqueue", {"name": "f"})], "the second one was never sent before"
    assert script.outcomes() == [(1, "unknown")]


def test_a_server_with_another_log_does_not_know_the_keys_of_before() -> None:
    script = Script().connect_negotiated(log="log-1")
    script.enqueue(tag=1)
    script.read(tag=2)
    script.cut()
    script.enqueue(tag=3, key="k3")
    script.sent()
    script.connect_negotiated(log="log-2")
    assert script.methods() == ["job.get", "job.enqueue"]
    assert script.outcomes() == [(1, "unknown")]


@pytest.mark.parametrize("gives_up", [True, False])
def test_a_request_that_may_have_been_carried_out_is_not_said_to_have_failed_at_the_end(
    gives_up: bool,
) -> None:
    script = Script(ClientConfig(max_retries=1)).connect_negotiated()
    script.enqueue(tag="doubtful")
    script.read(tag="read")
    script.cut()
    script.enqueue(tag="never sent", key="k9")
    script.timer()
    script.events()
    if gives_up:
        script.fail()
        assert script.outcomes() == [("doubtful", "unknown"), ("read", "failed"), ("never sent", "failed")]
    else:
        script.close()
        texts = [str(e.error) for e in script.told(RequestFailed)]
        assert ["before the answer came" in text for text in texts] == [True, True, False]


def test_a_request_that_may_have_been_carried_out_is_not_said_to_be_unsent_when_its_time_is_over() -> None:
    script = Script(jitter=0.999).connect_negotiated()
    script.enqueue(timeout=0.01)
    script.cut()
    script.sleep(0.01)
    assert str(script.failure()) == "job.enqueue: no answer from the server in time"


def test_a_request_that_waits_is_not_touched_by_a_lost_connection() -> None:
    script = Script().connect_negotiated(limits={"in_flight": 2})
    script.read(tag=1)
    script.cancel_job(tag=2)
    script.cut()
    assert script.outcomes() == []
    script.connect_negotiated()
    assert script.methods()[-2:] == ["job.get", "job.cancel"]


def test_reconnecting_keeps_the_order_of_what_was_asked() -> None:
    script = Script().connect_negotiated()
    for name in "ab":
        script.ask("job.get", {"job_id": name}, retry=Retry.READ)
    script.cut()
    script.ask("job.get", {"job_id": "c"})
    script.sent()
    script.connect_negotiated()
    assert [data["job_id"] for _, data in script.asked()] == ["a", "b", "c"]


# ── what a server does not take ──


def test_a_feature_that_the_server_does_not_have_is_refused_when_it_is_to_be_sent() -> None:
    script = Script().start()
    script.ask("job.enqueue", {"name": "f", "delay_ms": 5}, tag=1, feature="options")
    script.open()
    script.welcome()
    error = script.failure()
    assert (type(error), error.code) == (UnsupportedError, 405)
    assert str(error) == 'job.enqueue: the server does not have "options", which this call needs'
    assert script.methods() == []


def test_a_refusal_here_says_nothing_of_what_another_server_did_before() -> None:
    script = Script().connect_negotiated()
    script.enqueue(feature="options")
    script.cut()
    script.connect_negotiated(features=["idempotency"])
    assert script.outcomes() == [("enqueue", "unknown")]


def test_a_feature_that_the_server_has_changes_nothing() -> None:
    script = Script().connect_negotiated()
    script.ask("job.enqueue", {"name": "f"}, feature="options")
    assert script.methods() == ["job.enqueue"]


def test_data_that_the_server_would_not_take_are_not_sent() -> None:
    script = Script().connect_negotiated(limits={"payload": 100})
    script.events()
    script.ask("job.enqueue", {"name": "x" * 200}, tag=1)
    failed = script.one(RequestFailed)
    assert (type(failed.error), failed.error.code) == (LimitError, 413)
    assert str(failed.error) == "job.enqueue: its data are 211 bytes of JSON, the server takes 100"
    assert script.methods() == []
    script.read()
    assert script.methods() == ["job.get"], "it left no trace"


# ── pings ──


def test_a_ping_is_a_round_trip() -> None:
    script = Script().connect()
    script.session.ping(tag="p", now=script.now)
    [ping] = script.sent()
    assert (ping.type, ping.method) == ("ping", "")
    script.say("pong", correl_id=ping.id)
    assert script.outcomes() == [("p", "answer")]


def test_a_ping_that_is_not_answered_runs_out_of_time_and_is_asked_again_after_a_reconnect() -> None:
    script = Script().connect()
    script.session.ping(tag="p", now=script.now, timeout=30.0)
    script.cut()
    script.connect()
    [ping] = [frame for frame in script.sent() if frame.type == "ping"][-1:]
    assert ping.type == "ping"
    script.now = 129.9
    script.say("ping")
    script.now = 130.0
    script.session.handle_timer(now=script.now)
    assert str(script.failure()) == "ping: no answer from the server in time"
