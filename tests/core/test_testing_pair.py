"""What users' tests can do with a client and a server in virtual time (dwp_core/testing/pair.py, what it stands on)."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from dwp_core.client_events import ClientConfig, Connected, Disconnected
from dwp_core.errors import (
    AuthError,
    ClosedError,
    ConflictError,
    ConnectionError,
    DispatchError,
    InvalidRequest,
    NotFoundError,
    TimeoutError,
)
from dwp_core.server_events import ServerConfig
from dwp_core.testing import History, InvariantBroken, Pace, Pair, Route, Weather

BASE = ServerConfig(features=frozenset())


def connected(**settings: Any) -> Pair:
    pair = Pair(Random(1), **settings)
    pair.connect()
    return pair


def test_a_job_runs_and_its_events_arrive() -> None:
    pair = connected(pace=Pace(run=2.0))
    jobs = pair.subscribe("jobs")
    job = pair.ask("job.enqueue", {"name": "send-email", "queue": "mail"})
    assert pair.ask("job.get", {"job_id": job["job_id"]})["state"] == "pending"
    pair.run_until(lambda: len(jobs.events) == 3)
    assert jobs.kinds == ["job.enqueued", "job.started", "job.completed"]
    assert [value["state"] for value in jobs.values()] == ["pending", "running", "completed"]
    assert not jobs.gaps


def test_runs_can_be_started_looked_at_and_waited_for() -> None:
    pair = connected(pace=Pace(run=2.0))
    run = pair.ask("workflow.start", {"name": "pipeline", "input": 1})
    assert run["state"] == "running"
    assert pair.ask("workflow.get", {"run_id": run["run_id"]})["state"] == "running"
    call = pair.client.wait("workflow.wait", {"run_id": run["run_id"]})
    pair.run_until(lambda: call.done)
    assert call.answer["state"] == "completed"
    late = pair.client.wait("workflow.wait", {"run_id": run["run_id"]})
    pair.run_until(lambda: late.done)
    assert late.answer["state"] == "completed"
    assert pair.ask("workflow.event", {"name": "approved"})["name"] == "approved"


def test_a_base_server_answers_when_the_run_has_ended_and_the_client_goes_on_meanwhile() -> None:
    pair = connected(server=BASE, pace=Pace(run=5.0))
    run = pair.call("workflow.start", {"name": "pipeline"})
    pair.ask("stats")
    assert not run.done
    pair.run_until(lambda: run.done)
    assert run.answer["state"] == "completed"


def test_a_base_server_stops_reading_when_it_is_full_and_loses_nothing() -> None:
    pair = connected(server=ServerConfig(features=frozenset(), in_flight=2), pace=Pace(work=0.1))
    calls = [pair.call("stats") for _ in range(20)]
    pair.run_until(lambda: all(call.done for call in calls))
    assert all(call.answer == {"connections": 1} for call in calls)


def test_a_wait_for_nothing_fails_and_a_long_one_is_asked_again() -> None:
    pair = connected(server=ServerConfig(wait=0.5), pace=Pace(run=20.0))
    job = pair.ask("job.enqueue", {"name": "slow"})
    call = pair.client.wait("job.wait", {"job_id": job["job_id"]})
    pair.run_until(lambda: call.done)
    assert call.answer["state"] == "completed"
    assert str(pair.history).count("< request job.wait") > 2
    none = pair.client.wait("job.wait", {"job_id": "job_01h455vb4pex5vsknk084sn02q"})
    pair.run_until(lambda: none.done)
    assert isinstance(none.error, NotFoundError)


def test_waits_end_when_the_server_drains_and_go_on_at_the_next() -> None:
    pair = connected(pace=Pace(run=20.0))
    job = pair.ask("job.enqueue", {"name": "slow"})
    call = pair.client.wait("job.wait", {"job_id": job["job_id"]})
    pair.run_for(1.0)
    pair.server.drain(5.0, retry_after=0.5)
    assert pair.server.draining
    pair.run_for(1.0)
    pair.server.crash()
    pair.server.start()
    pair.server.start()
    pair.run_until(lambda: call.done)
    assert call.answer["state"] == "completed"


def test_a_connection_that_comes_to_a_draining_server_is_sent_away() -> None:
    pair = connected()
    pair.server.drain(5.0)
    pair.run_for(4.0)
    assert any(isinstance(event, Disconnected) for event in pair.client.states)
    assert not pair.client.ready


def test_jobs_can_be_cancelled_once() -> None:
    pair = connected(pace=Pace(run=100.0))
    job = pair.ask("job.enqueue", {"name": "slow"})
    assert pair.ask("job.cancel", {"job_id": job["job_id"]}) == {"status": "cancelled"}
    with pytest.raises(ConflictError):
        pair.ask("job.cancel", {"job_id": job["job_id"]})
    pair.run_for(300.0)
    assert pair.server.ledger.records[job["job_id"]].state == "cancelled"


def test_a_key_counts_once_and_with_the_same_data() -> None:
    pair = connected()
    first = pair.ask("job.enqueue", {"name": "a"}, key="k")
    assert pair.ask("job.enqueue", {"name": "a"}, key="k") == {**first, "duplicate": True}
    with pytest.raises(ConflictError):
        pair.ask("job.enqueue", {"name": "b"}, key="k")
    assert len(pair.server.ledger.records) == 1


def test_tenants_do_not_see_each_other() -> None:
    pair = connected(token="app-1/me")
    job = pair.server.ledger.create("job", "theirs", None)
    with pytest.raises(NotFoundError):
        pair.ask("job.get", {"job_id": job.id})


def test_methods_can_be_replaced_and_unknown_ones_are_told() -> None:
    pair = connected()
    pair.server.application.methods["stats"] = lambda params, tenant: {"mine": True}
    assert pair.ask("stats") == {"mine": True}
    with pytest.raises(NotFoundError, match=r"no dlq\.list"):
        pair.ask("dlq.list", {})


def test_a_wrong_token_is_refused() -> None:
    pair = Pair(Random(1), token="wrong")
    with pytest.raises(AuthError):
        pair.connect()
    assert isinstance(pair.client.last_error, AuthError)


def test_a_client_that_is_closed_while_it_connects_is_closed() -> None:
    pair = Pair(Random(1), pace=Pace(login=5.0))
    pair.clock.call_later(0.003, pair.client.close)
    pair.connect()
    assert pair.client.closed
    assert pair.client.last_error is None
    with pytest.raises(ClosedError):
        pair.call("stats")


@pytest.mark.parametrize("route", [Route.REFUSED, Route.OVERLOADED, Route.SILENT])
def test_an_unreachable_server_is_told_with_its_reason(route: Route) -> None:
    pair = Pair(Random(1))
    pair.network.route = route
    with pytest.raises(ConnectionError):
        pair.connect()
    with pytest.raises(DispatchError, match="no connection at the moment"):
        pair.cut()


def test_a_connection_may_break_before_the_client_hears_that_it_is_open() -> None:
    pair = Pair(Random(1), client=ClientConfig(wait_for_server=10.0), weather=Weather(latency=1.0))
    pair.client.start()
    pair.run_for(1.5)
    pair.cut()
    pair.run_until(lambda: pair.client.ready)


def test_an_attempt_that_is_given_up_is_taken_back() -> None:
    pair = Pair(Random(1), weather=Weather(latency=1.0))
    pair.client.start()
    pair.run_for(1.5)
    pair.client.close()
    pair.run_for(5.0)
    assert not pair.server.connections


def test_what_does_not_come_about_is_told_with_the_history() -> None:
    pair = connected()
    with pytest.raises(TimeoutError, match=r"(?s)within 5 virtual seconds.*Connected"):
        pair.run_until(lambda: False, within=5.0)
    with pytest.raises(LookupError, match="no answer yet"):
        _ = pair.call("stats").answer


def test_a_refused_subscription_raises() -> None:
    pair = connected()
    with pytest.raises(InvalidRequest):
        pair.subscribe("jobs", since=99)


def test_a_reader_may_pause_read_on_and_leave() -> None:
    pair = connected()
    jobs = pair.subscribe("jobs")
    jobs.reading = False
    pair.server.publish("job.completed", "job:job_1")
    pair.run_for(1.0)
    assert jobs.unread == 1
    pair.client.read(jobs)
    pair.client.read(jobs)
    assert jobs.unread == 0
    pair.client.unsubscribe(jobs)
    assert jobs.ended
    assert jobs.error is None


def test_a_restarted_server_remembers_and_events_are_resumed() -> None:
    pair = connected(pace=Pace(run=10.0))
    jobs = pair.subscribe("jobs")
    pair.ask("job.enqueue", {"name": "a"})
    pair.restart_server(down_for=2.0)
    pair.server.publish("job.completed", "job:job_1")
    pair.run_until(lambda: "job.completed" in jobs.kinds)
    pair.run_until(lambda: len(jobs.events) == 4)
    assert len(pair.client.states) > 2


def test_what_retention_has_removed_is_a_gap() -> None:
    pair = connected()
    jobs = pair.subscribe("jobs")
    pair.server.crash()
    for _ in range(5):
        pair.server.ledger.append("job.completed", "job:job_1")
    pair.server.retain(2)
    pair.server.start()
    pair.server.retain(2)
    pair.run_until(lambda: len(jobs.entries) == 3)
    (gap,) = jobs.gaps
    assert (gap.first, gap.last) == (1, 3)


def test_another_log_is_a_gap_without_an_end() -> None:
    pair = connected()
    jobs = pair.subscribe("jobs")
    pair.server.crash()
    pair.server.ledger.begin_another_log()
    pair.server.start()
    pair.run_until(lambda: jobs.gaps)
    assert jobs.gaps[0].last is None


def test_a_cancelled_call_hears_nothing() -> None:
    pair = connected(pace=Pace(answer=1.0))
    call = pair.call("stats")
    pair.client.cancel(call)
    pair.run_for(5.0)
    assert not call.done
    assert call.error is None
    assert "Call(stats" in repr(call)


def test_a_cancelled_call_of_a_delegate_takes_its_connection_away() -> None:
    pair = connected(server=BASE, pace=Pace(run=100.0))
    call = pair.call("workflow.start", {"name": "pipeline"}, timeout=None)
    pair.run_for(1.0)
    assert len(pair.server.connections) == 2
    pair.client.cancel(call)
    pair.run_for(10.0)
    assert len(pair.server.connections) == 1


def test_a_busy_client_catches_up() -> None:
    for seed in range(4):  # timers before messages, and after them
        pair = Pair(Random(seed), client=ClientConfig(max_retries=0))
        pair.connect()
        jobs = pair.subscribe("jobs")
        pair.client.line.busy(90.0)
        pair.client.line.busy(1.0)
        assert pair.client.line.is_busy
        pair.server.publish("job.completed", "job:job_1")
        pair.run_for(100.0)
        assert not pair.client.line.is_busy
        pair.run_until(lambda pair=pair, jobs=jobs: pair.client.ready and len(jobs.events) == 1)


def test_a_client_may_be_busy_while_it_connects_and_while_that_fails() -> None:
    pair = Pair(Random(1), client=ClientConfig(wait_for_server=100.0))
    pair.network.route = Route.REFUSED
    pair.client.start()
    pair.client.line.busy(1.0)
    pair.run_for(2.0)
    pair.network.route = Route.OPEN
    pair.client.line.busy(1.0)
    pair.run_until(lambda: pair.client.ready)
    assert isinstance(pair.client.states[-1], Connected)


def test_back_pressure_is_felt_on_both_sides_and_passes() -> None:
    pair = connected(weather=Weather(latency=0.01, buffer=200, window=100))
    jobs = pair.subscribe("jobs")
    calls = [pair.call("job.enqueue", {"name": "a", "payload": "x" * 300}) for _ in range(10)]
    pair.client.line.busy(0.5)
    pair.run_until(lambda: all(call.done for call in calls) and len(jobs.events) == 30)


def test_an_orderly_end_leaves_nothing() -> None:
    pair = connected()
    pair.subscribe("jobs")
    pair.close()
    pair.run_for(10.0)
    assert not pair.server.connections
    assert pair.server.hub.subscribers == 0
    assert pair.clock.next is None


def test_the_history_reads_as_a_story_and_can_hold_anything() -> None:
    pair = connected(client=ClientConfig(format="msgpack"))
    pair.server.application.methods["stats"] = _conflict
    with pytest.raises(ConflictError):
        pair.ask("stats")
    story = str(pair.history)
    assert "client       > request auth" in story
    assert "409 no" in story
    history = History()
    history.note(0.0, "somebody", "sends", b"no frame")
    assert "b'no frame'" in str(history)


def _conflict(params: dict[str, Any], tenant: tuple[str, str]) -> Any:
    raise ConflictError("no")


# The witness itself: what it would say if a session broke its promise.


def test_an_outcome_after_the_outcome_is_found() -> None:
    pair = connected()
    call = pair.call("stats")
    pair.run_until(lambda: call.done)
    with pytest.raises(InvariantBroken, match="after it was settled"):
        pair.client._deliver([call.outcomes[0]])


def test_an_event_after_the_end_of_a_subscription_is_found() -> None:
    pair = connected()
    jobs = pair.subscribe("jobs")
    pair.client.session.unsubscribe(jobs.subscription, now=pair.clock.now)
    ended = pair.client.session.take_events()
    pair.client._deliver(ended)
    with pytest.raises(InvariantBroken, match="after its end"):
        pair.client._deliver(ended)


def test_an_event_after_the_end_of_a_client_is_found() -> None:
    pair = connected()
    pair.close()
    with pytest.raises(InvariantBroken, match="after it was closed"):
        pair.client._deliver([pair.client.states[0]])


def test_more_unread_events_than_there_may_be_are_found() -> None:
    pair = connected(client=ClientConfig(event_window=8, event_buffer=8))
    jobs = pair.subscribe("jobs")
    jobs.unread = 5_000
    with pytest.raises(InvariantBroken, match="over its bound"):
        pair.client._deliver([])


def test_an_event_without_credit_is_found() -> None:
    pair = connected(server=ServerConfig(credits=1))
    event = b'{"id":"e1","type":"event","data":{}}'
    pair.connection.send([event], binary=False)
    with pytest.raises(InvariantBroken, match="with credit for 1"):
        pair.connection.send([event], binary=False)


def test_a_message_after_the_end_is_found() -> None:
    pair = connected()
    connection = pair.connection
    pair.cut()
    with pytest.raises(InvariantBroken, match="after it was closed"):
        connection.send([b"{}"], binary=False)


def test_a_timer_that_stands_still_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for session in ("client", "server"):
        pair = connected()
        owner = pair.client.session if session == "client" else pair.connection.session
        with monkeypatch.context() as patched:
            patched.setattr(type(owner), "handle_timer", lambda *_, **__: None)
            with pytest.raises(InvariantBroken, match="the next deadline is"):
                pair.run_for(100.0)


def test_a_closed_session_with_a_deadline_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = connected()
    session = pair.client.session

    def close(_: Any, *, now: float) -> None:
        session.state = "closed"

    deadlines = iter([pair.clock.now, pair.clock.now + 1.0])
    monkeypatch.setattr(type(session), "handle_timer", close)
    monkeypatch.setattr(type(session), "next_deadline", property(lambda _: next(deadlines)))
    with pytest.raises(InvariantBroken, match="still has a deadline"):
        pair.client.line._check_timer()


def test_more_requests_in_flight_than_allowed_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = connected()
    monkeypatch.setattr(type(pair.connection.session), "in_flight", property(lambda _: 5_000))
    pair.call("stats")
    with pytest.raises(InvariantBroken, match="5000 requests in flight"):
        pair.run_for(1.0)
