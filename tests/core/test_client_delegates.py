"""`workflow.start` at a base server: each over a connection of its own (DESIGN.md, "ClientSession")."""

from __future__ import annotations

import pytest

from dwp_core.client_events import ClientConfig, Closed, RequestFailed
from dwp_core.errors import ClosedError, LimitError, TimeoutError
from tests.core.scripted_server import Script


def delegated(**config: float) -> tuple[Script, Script]:
    """A client at a base server that has started a workflow, and the session that does it."""
    script = Script(ClientConfig(**config)).connect()  # type: ignore[arg-type]
    script.events()
    script.start_workflow()
    [delegate] = script.delegates
    return script, delegate


def test_a_workflow_is_started_over_a_connection_of_its_own_and_everything_else_goes_on() -> None:
    script, delegate = delegated()
    assert script.methods() == []
    delegate.connect()
    assert delegate.asked() == [("workflow.start", {"name": "w"})]
    script.ask("workflow.event", {"name": "approved"}, tag="event")
    script.answer(script.sent()[-1])
    assert script.outcomes() == [("event", "answer")]


def test_its_answer_goes_to_its_caller_and_the_connection_is_closed() -> None:
    script, delegate = delegated()
    delegate.connect()
    delegate.answer(delegate.sent()[-1], {"run_id": "wfrun_1", "state": "completed"})
    assert delegate.values() == [("run", {"run_id": "wfrun_1", "state": "completed"})]
    assert delegate.session.state == "closing"
    delegate.cut(1000)
    assert delegate.events() == [Closed(None)]
    assert script.events() == []


def test_a_server_that_starts_workflows_at_once_needs_none() -> None:
    script = Script().connect_negotiated()
    script.start_workflow()
    assert script.asked() == [("workflow.start", {"name": "w", "idempotency_key": "k2"})]
    assert script.delegates == []


def test_frame_ids_are_unique_over_both() -> None:
    script, delegate = delegated()
    delegate.connect()
    script.ask()
    ids = [frame.id for frame in delegate.sent() + script.sent()]
    assert len(set(ids)) == len(ids)


def test_a_server_that_runs_a_workflow_may_be_silent_for_as_long_as_it_takes() -> None:
    _, delegate = delegated(heartbeat=10.0)
    delegate.connect()
    delegate.sent()
    for _ in range(50):
        delegate.timer()
    assert delegate.session.state == "ready"
    assert delegate.sent() == []


def test_its_time_runs_out_as_that_of_any_call() -> None:
    script = Script().connect()
    script.start_workflow(timeout=3.0)
    [delegate] = script.delegates
    delegate.connect()
    delegate.sleep(3.0)
    assert isinstance(delegate.failure(), TimeoutError)
    assert delegate.session.state == "closing"


def test_a_delegate_that_cannot_connect_ends_when_its_call_has_ended() -> None:
    script = Script(ClientConfig(max_retries=0)).connect()
    script.start_workflow(timeout=3.0)
    [delegate] = script.delegates
    while delegate.session.state != "closed":
        if delegate.session.state == "connecting":
            delegate.fail("connection refused")
        else:
            delegate.timer()
    assert delegate.now <= 103.0
    failed, closed = delegate.events()[-2:]
    assert isinstance(failed, RequestFailed)
    assert "could not be sent to the server in time" in str(failed.error)
    assert closed == Closed(None)
    assert script.session.state == "ready"


def test_what_was_not_sent_when_its_connection_was_lost_is_sent_over_the_next() -> None:
    _, delegate = delegated()
    delegate.open()
    delegate.cut()
    assert delegate.outcomes() == []
    delegate.connect()
    assert delegate.methods() == ["workflow.start"]


def test_a_connection_that_is_lost_while_the_workflow_runs_leaves_the_outcome_unknown_and_is_not_made_again() -> (
    None
):
    _, delegate = delegated()
    delegate.connect()
    delegate.events()
    delegate.cut()
    assert delegate.outcomes() == [("run", "unknown")]
    assert (delegate.session.state, delegate.session.next_deadline) == ("closed", None)


@pytest.mark.parametrize("step", ["connecting", "authenticating", "ready"])
def test_a_cancelled_start_says_nothing_and_its_connection_is_closed(step: str) -> None:
    script = Script().connect()
    request = script.start_workflow()
    [delegate] = script.delegates
    if step == "authenticating":
        delegate.open()
    elif step == "ready":
        delegate.connect()
    delegate.events()
    script.cancel(request)
    script.cancel(request)
    assert delegate.outcomes() == []
    assert delegate.session.state == ("closing" if step == "ready" else "closed")


def test_closing_the_client_closes_it_too() -> None:
    script, delegate = delegated()
    delegate.connect()
    delegate.events()
    script.close()
    assert delegate.session.state == "closing"
    delegate.cut(1000)
    failed, _ = delegate.events()
    assert isinstance(failed, RequestFailed)
    assert isinstance(failed.error, ClosedError)


def test_closing_the_client_can_wait_for_the_run() -> None:
    script, delegate = delegated()
    delegate.connect()
    asked = delegate.sent()[-1]
    script.close(drain=60.0)
    assert delegate.session.state == "finishing"
    delegate.answer(asked, {"state": "completed"})
    assert delegate.outcomes() == [("run", "answer")]


def test_a_start_that_may_have_been_carried_out_is_not_repeated_by_a_delegate() -> None:
    script = Script().connect_negotiated()
    script.start_workflow()
    script.cut()
    script.connect()
    [delegate] = script.delegates
    delegate.connect()
    assert delegate.methods() == []
    assert delegate.outcomes() == [("run", "unknown")]
    assert delegate.session.state == "closing"


def test_starts_that_waited_for_the_connection_are_delegated_when_it_is_there() -> None:
    script = Script().start()
    script.start_workflow(tag=1)
    script.ask(tag=2)
    script.start_workflow(tag=3)
    script.open()
    script.welcome()
    assert (len(script.delegates), script.methods()) == (2, ["stats"])


def test_delegated_calls_count_as_open() -> None:
    script = Script(ClientConfig(max_requests=2)).connect()
    script.start_workflow(tag=1)
    script.start_workflow(tag=2)
    with pytest.raises(LimitError, match="2 requests to the server are open"):
        script.start_workflow(tag=3)
    first = script.delegates[0]
    first.connect()
    first.answer(first.sent()[-1])
    first.cut(1000)
    script.start_workflow(tag=3)
    assert len(script.delegates) == 3


def test_a_delegate_meets_a_server_that_goes_away() -> None:
    _, delegate = delegated()
    delegate.connect_negotiated()
    delegate.refuse(delegate.sent()[-1], 503)
    assert delegate.session.state == "backing_off"
    delegate.connect_negotiated()
    assert delegate.asked() == [("workflow.start", {"name": "w", "idempotency_key": "k2"})]
