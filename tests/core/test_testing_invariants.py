"""A broken promise is found (dwp_core/testing/invariants.py, simulation.py).

A run that went well is doctored in one place; the check must say what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from dwp_core.client_events import ClientConfig, RequestFailed, RequestOutcomeUnknown
from dwp_core.errors import ConflictError, LimitError, OutcomeUnknown, TimeoutError
from dwp_core.frames import EventHead
from dwp_core.server_events import ServerConfig
from dwp_core.subscriptions import Gap
from dwp_core.testing import Call, InvariantBroken, Listener, Pace, Pair, Plan, Simulation
from dwp_core.testing import simulation as simulation_module
from dwp_core.testing.invariants import (
    check_answers,
    check_ends,
    check_listener,
    check_made_once,
    check_outcomes,
    has_seen_all,
)

NOBODY = ("", "")


def went_well() -> tuple[Pair, Call, Listener]:
    pair = Pair(Random(1), pace=Pace(run=1.0))
    pair.connect()
    jobs = pair.subscribe("jobs")
    call = pair.call("job.enqueue", {"name": "a", "payload": 1}, key="key-1")
    pair.run_until(lambda: len(jobs.events) == 3)
    return pair, call, jobs


def outcomes_of(pair: Pair, **settings: Any) -> None:
    usual: dict[str, Any] = {"slack": 0.1, "keys_honoured": True, "all_of_them": True}
    check_outcomes([pair.client], **{**usual, **settings})


def test_nothing_is_said_about_a_run_that_went_well() -> None:
    pair, call, jobs = went_well()
    pair.client.cancel(pair.call("stats"))
    outcomes_of(pair)
    check_made_once([pair.client], pair.server.ledger)
    check_answers([pair.client], pair.server.ledger)
    check_ends([pair.client])
    check_listener(pair.client, jobs, pair.server.ledger, NOBODY, complete=True)
    assert has_seen_all(jobs, pair.server.ledger, NOBODY)
    assert call.done


def test_what_is_made_twice_is_found() -> None:
    pair, _, _ = went_well()
    pair.server.ledger.create("job", "a", 1)
    with pytest.raises(InvariantBroken, match="carried out 2 times"):
        check_made_once([pair.client], pair.server.ledger)


def test_what_was_acknowledged_and_is_lost_is_found() -> None:
    pair, _, _ = went_well()
    pair.server.ledger.records.clear()
    with pytest.raises(InvariantBroken, match="is lost"):
        check_made_once([pair.client], pair.server.ledger)


def test_what_was_carried_out_without_having_been_sent_is_found() -> None:
    pair, _, _ = went_well()
    pair.client.line.handed.clear()
    with pytest.raises(InvariantBroken, match="never sent"):
        check_made_once([pair.client], pair.server.ledger)


def test_what_was_refused_and_carried_out_is_found() -> None:
    pair, call, _ = went_well()
    call.outcomes[:] = [RequestFailed(call, ConflictError("no"))]
    with pytest.raises(InvariantBroken, match="still carried out"):
        check_made_once([pair.client], pair.server.ledger)


@pytest.mark.parametrize(
    ("method", "value", "wrong"),
    [
        ("job.enqueue", {"name": "a", "payload": 2}, {"name": "a", "payload": 3}),
        (
            "job.enqueue_many",
            {"jobs": [{"name": "a", "payload": 2}]},
            {"jobs": [{"name": "a", "payload": 3}]},
        ),
        ("workflow.start", {"name": "a", "input": 2}, {"name": "a", "input": 3}),
    ],
)
def test_the_answer_to_another_call_is_found(method: str, value: Any, wrong: Any) -> None:
    pair, _, _ = went_well()
    call = pair.call(method, value)
    pair.run_until(lambda: call.done)
    check_answers([pair.client], pair.server.ledger)
    call.value = wrong
    with pytest.raises(InvariantBroken, match="answer to another call"):
        check_answers([pair.client], pair.server.ledger)


def test_the_answer_about_another_job_is_found() -> None:
    pair, first, _ = went_well()
    call = pair.call("job.get", {"job_id": first.answer["job_id"]})
    pair.run_until(lambda: call.done)
    check_answers([pair.client], pair.server.ledger)
    call.value = {"job_id": "another"}
    with pytest.raises(InvariantBroken, match="answer to another call"):
        check_answers([pair.client], pair.server.ledger)


def test_a_call_without_an_outcome_is_found_at_the_end_only() -> None:
    pair, call, _ = went_well()
    call.outcomes.clear()
    call.settled_at = None
    outcomes_of(pair, all_of_them=False)
    with pytest.raises(InvariantBroken, match="has no outcome"):
        outcomes_of(pair)


def test_an_outcome_that_comes_too_late_is_found() -> None:
    pair, call, _ = went_well()
    call.expires = -1.0
    with pytest.raises(InvariantBroken, match="was settled at"):
        outcomes_of(pair)


@pytest.mark.parametrize(
    ("method", "key", "sent", "promise"),
    [
        ("job.enqueue", "", False, "never sent"),
        ("job.get", "", True, "changes nothing"),
        ("", "", True, "changes nothing"),
        ("job.enqueue", "key", True, "has a key"),
    ],
)
def test_an_unknown_outcome_where_there_was_something_better_is_found(
    method: str, key: str, sent: bool, promise: str
) -> None:
    pair, call, _ = went_well()
    call.method, call.key = method, key
    call.outcomes[:] = [RequestOutcomeUnknown(call, OutcomeUnknown("?"))]
    if not sent:
        pair.client.line.handed.clear()
    with pytest.raises(InvariantBroken, match=promise):
        outcomes_of(pair)


@pytest.mark.parametrize(("method", "key"), [("job.cancel", ""), ("job.enqueue", ""), ("mine", "key")])
def test_an_unknown_outcome_where_there_was_nothing_better_is_right(method: str, key: str) -> None:
    pair, call, _ = went_well()
    call.method, call.key = method, key
    call.outcomes[:] = [RequestOutcomeUnknown(call, OutcomeUnknown("?"))]
    outcomes_of(pair)


def test_a_running_subscription_that_ends_by_itself_is_found() -> None:
    pair, _, jobs = went_well()
    jobs.error = LimitError("subscribe: at most 3 channels at a time")
    check_ends([pair.client])
    jobs.error = TimeoutError("no answer")
    with pytest.raises(InvariantBroken, match="had begun and ended"):
        check_ends([pair.client])


Entries = list[tuple[str, EventHead | Gap]]
DOCTORED: dict[str, tuple[Callable[[Entries], Entries], str]] = {
    "twice": (lambda entries: [entries[0], *entries], "twice, or out of order"),
    "out of order": (lambda entries: [entries[1], entries[0]], "were lost"),
    "lost at the beginning": (lambda entries: entries[1:], "were lost"),
    "lost in the middle": (lambda entries: [entries[0], entries[2]], "were lost"),
    "lost at the end": (lambda entries: entries[:2], "were lost"),
    "lost before a gap": (lambda entries: [("log-1", Gap(2, 3))], "were lost"),
    "dropped though kept": (lambda entries: [("log-1", Gap(dropped=3))], "can send again"),
    "another log": (lambda entries: [("log-2", entries[0][1])], "without a gap"),
}


@pytest.mark.parametrize("name", DOCTORED)
def test_events_that_are_not_those_of_the_log_are_found(name: str) -> None:
    pair, _, jobs = went_well()
    doctor, promise = DOCTORED[name]
    jobs.entries = doctor(jobs.entries)
    pair.server.ledger.archive["log-2"] = []
    with pytest.raises(InvariantBroken, match=promise):
        check_listener(pair.client, jobs, pair.server.ledger, NOBODY, complete=True)


def test_what_a_gap_tells_is_not_lost() -> None:
    pair, _, jobs = went_well()
    ledger = pair.server.ledger
    jobs.entries = [("log-1", Gap(1, 2)), jobs.entries[2]]
    check_listener(pair.client, jobs, ledger, NOBODY, complete=True)
    jobs.entries = [("log-1", Gap(1))]
    check_listener(pair.client, jobs, ledger, NOBODY, complete=True)
    jobs.entries = [("log-1", Gap(1)), ("log-1", Gap(2, 3))]
    check_listener(pair.client, jobs, ledger, NOBODY, complete=True)


def test_an_event_that_is_another_one_or_has_no_seq_is_found() -> None:
    pair, _, jobs = went_well()
    events = pair.server.ledger.events
    events[0] = events[0]._replace(topic="job:another")
    with pytest.raises(InvariantBroken, match="event 1 is"):
        check_listener(pair.client, jobs, pair.server.ledger, NOBODY, complete=True)
    base, _, labelled = went_well()
    unnumbered = Pair(Random(1), server=ServerConfig(features=frozenset()))
    unnumbered.connect()
    theirs = unnumbered.subscribe("jobs")
    unnumbered.server.publish("job.completed", "job:job_1")
    unnumbered.run_for(1.0)
    labelled.entries = [("log-1", theirs.entries[0][1])]
    assert has_seen_all(theirs, unnumbered.server.ledger, NOBODY)
    with pytest.raises(InvariantBroken, match="without seq"):
        check_listener(base.client, labelled, base.server.ledger, NOBODY, complete=True)


def test_who_has_not_seen_everything_is_known() -> None:
    pair, _, jobs = went_well()
    pair.server.ledger.append("job.completed", "job:job_1")
    assert not has_seen_all(jobs, pair.server.ledger, NOBODY)


def test_a_start_is_not_judged_where_nobody_knows_what_there_was() -> None:
    pair, _, _ = went_well()
    late = pair.subscribe("jobs", since="start")
    pair.run_until(lambda: len(late.events) == 3)
    late.entries = late.entries[1:]
    ledger = pair.server.ledger
    ledger.retain(2)
    check_listener(pair.client, late, ledger, NOBODY, complete=True)


# The simulation itself says what goes wrong in a run.


def quiet(**settings: Any) -> Simulation:
    plan = Plan(clients=1, troubled=5.0, troubles=(), client_configs=(ClientConfig(),))
    return Simulation(Random(1), plan=plan, seed="mine", **settings)


def test_a_run_that_goes_round_in_circles_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation_module, "_MOST_STEPS", 10)
    with pytest.raises(InvariantBroken, match=r"(?s)^seed mine, .*round in circles"):
        quiet().run()


def test_a_buffer_that_grows_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation_module, "_MOST_UNSENT", -1)
    with pytest.raises(InvariantBroken, match="wait to be sent"):
        quiet().run()


def test_whatever_is_raised_in_a_run_is_told_with_the_seed() -> None:
    simulation = quiet()
    simulation.clock.call_later(1.0, lambda: [][0])
    with pytest.raises(InvariantBroken, match=r"^seed mine, at .* s: IndexError"):
        simulation.run()


def test_a_calm_in_which_all_is_not_well_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Simulation, "_what_is_wrong", lambda _: "something")
    with pytest.raises(InvariantBroken, match="after the troubles: something"):
        quiet().run()


def test_a_client_that_does_not_close_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = quiet()
    monkeypatch.setattr(type(simulation.users[0].client), "close", lambda *_, **__: None)
    with pytest.raises(InvariantBroken, match="was closed and is not"):
        simulation.run()


def test_a_server_that_keeps_a_connection_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = quiet()
    monkeypatch.setattr(type(simulation.server.hub), "channels", property(lambda _: 3))
    with pytest.raises(InvariantBroken, match="everybody has left, and the server has"):
        simulation.run()


def test_something_that_never_ends_is_found() -> None:
    simulation = quiet()
    simulation.clock.call_later(1e9, lambda: None)
    with pytest.raises(InvariantBroken, match="something is to happen"):
        simulation.run()


def test_a_listener_that_is_forgotten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = quiet()
    listener = simulation.users[0].client.subscribe
    monkeypatch.setattr(type(simulation.server), "publish_soon", lambda _: None)
    simulation.clock.call_later(1.0, lambda: listener("jobs"))
    monkeypatch.setattr(Simulation, "_what_is_wrong", lambda _: "")
    with pytest.raises(InvariantBroken, match="gets no events any more"):
        simulation.run()
