"""What the simulation found, each as a promise of its own: the shortest way to what went wrong, over a `Pair`."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from dwp_core.backoff import Backoff
from dwp_core.client_events import ClientConfig
from dwp_core.errors import AuthError, OutcomeUnknown, TimeoutError, UnsupportedError
from dwp_core.peer import DRAIN, FEATURES, IDEMPOTENCY
from dwp_core.server_events import ServerConfig
from dwp_core.testing import Pace, Pair, Weather

PATIENT = ClientConfig(max_retries=0, backoff=Backoff(base=0.1, cap=1.0))


def pair_of(**settings: Any) -> Pair:
    settings.setdefault("client", PATIENT)
    pair = Pair(Random(1), **settings)
    pair.connect()
    return pair


def publish(pair: Pair, count: int) -> None:
    for number in range(count):
        pair.server.publish("job.completed", "job:job_1", {"number": number})


def numbers(values: list[Any]) -> list[int]:
    return [value["number"] for value in values]


def test_a_window_of_one_event_comes_back_after_a_reconnect() -> None:
    pair = pair_of(client=replace(PATIENT, event_window=1))
    jobs = pair.subscribe("jobs")
    pair.cut()
    pair.run_until(lambda: pair.client.ready)
    publish(pair, 3)
    pair.run_for(1.0)
    assert numbers(jobs.values()) == [0, 1, 2]


def test_a_server_without_resume_is_believed_how_much_credit_it_gives() -> None:
    server = ServerConfig(features=frozenset((IDEMPOTENCY,)), credits=2)
    pair = pair_of(client=replace(PATIENT, event_buffer=64), server=server)
    jobs = pair.subscribe("jobs")
    publish(pair, 50)
    pair.run_for(1.0)
    assert numbers(jobs.values()) == list(range(50))


def test_a_wait_that_is_almost_over_is_not_asked_again_and_again() -> None:
    pair = pair_of(weather=Weather(latency=0.0001), pace=Pace(run=1_000_000.0))
    job = pair.ask("job.enqueue", {"name": "slow"})
    call = pair.client.wait("job.wait", {"job_id": job["job_id"]}, timeout=0.0105)
    pair.run_until(lambda: call.done, within=1.0)
    assert isinstance(call.error, TimeoutError)
    assert str(pair.history).count("< request job.wait") <= 2


def test_giving_up_says_that_the_outcome_is_unknown_of_what_was_sent_before() -> None:
    pair = pair_of(pace=Pace(answer=1_000.0))
    sent = pair.call("job.enqueue", {"name": "a"}, key="key-1", timeout=None)
    read = pair.call("stats", timeout=None)
    pair.run_for(1.0)
    pair.client.token = "wrong"
    pair.cut()
    unsent = pair.call("job.enqueue", {"name": "b"}, key="key-2", timeout=None)
    pair.run_until(lambda: pair.client.closed)
    assert len(pair.server.ledger.records) == 1
    assert sent.unknown
    assert isinstance(read.error, AuthError)
    assert isinstance(unsent.error, AuthError)


def test_closing_tells_what_was_sent_before_from_what_never_was() -> None:
    pair = pair_of(pace=Pace(answer=1_000.0))
    sent = pair.call("job.enqueue", {"name": "a"}, key="key-1", timeout=None)
    pair.run_for(1.0)
    pair.cut()
    unsent = pair.call("job.enqueue", {"name": "b"}, key="key-2", timeout=None)
    pair.close()
    assert "before the answer came" in str(sent.error)
    assert "before this could be sent" in str(unsent.error)


def test_a_second_subscription_from_later_on_takes_nothing_from_the_first() -> None:
    pair = pair_of(
        client=replace(PATIENT, event_window=8), server=ServerConfig(credits=1), weather=Weather(1.0)
    )
    first = pair.subscribe("jobs")
    publish(pair, 30)
    second = pair.subscribe("jobs", since=28)
    pair.run_for(300.0)
    assert numbers(first.values()) == list(range(30))
    assert numbers(second.values()) == [28, 29]


def test_requests_in_flight_do_not_cost_a_client_its_subscriptions() -> None:
    pair = pair_of(server=ServerConfig(in_flight=1), pace=Pace(answer=1_000.0))
    pair.call("stats", timeout=None)
    pair.run_for(1.0)
    assert pair.connection.session.room == 0
    jobs = pair.subscribe("jobs")
    publish(pair, 1)
    pair.run_for(1.0)
    assert numbers(jobs.values()) == [0]


def test_a_running_subscription_outlives_a_question_that_nobody_answers() -> None:
    pair = pair_of(client=replace(PATIENT, ask_timeout=1.0, connect_timeout=30.0, heartbeat=60.0))
    jobs = pair.subscribe("jobs")
    pair.network.to_client = Weather(latency=3.0)
    pair.cut()
    publish(pair, 2)
    pair.run_for(20.0)
    pair.network.to_client = Weather()
    pair.network.links[-1].change(latency=0.001)
    pair.run_for(20.0)
    assert not jobs.ended
    assert numbers(jobs.values()) == [0, 1]


def test_a_new_subscription_that_nobody_answers_ends() -> None:
    pair = pair_of(client=replace(PATIENT, ask_timeout=1.0, heartbeat=60.0))
    pair.link.vanish()
    with pytest.raises(TimeoutError):
        pair.subscribe("jobs")


def test_a_running_subscription_outlives_a_server_that_goes_away_and_cannot_say_so() -> None:
    features = frozenset(FEATURES) - {DRAIN}
    server = ServerConfig(features=features, credits=4)
    pair = pair_of(client=replace(PATIENT, event_window=4), server=server)
    slow, _fast = pair.subscribe("jobs"), pair.subscribe("firehose")
    slow.reading = False
    publish(pair, 20)
    pair.run_for(1.0)
    assert slow.subscription.lagging
    pair.server.application.pace = Pace(answer=1_000.0)
    pair.call("stats", timeout=None)
    pair.run_for(1.0)
    # The server keeps the connection for the call in flight, and refuses to send the rest of the events: 503.
    pair.server.drain(60.0)
    slow.reading = True
    pair.client.read(slow)
    pair.run_for(1.0)
    pair.restart_server()
    pair.run_until(lambda: len(slow.events) == 20)
    assert numbers(slow.values()) == list(range(20))


def test_a_request_that_one_server_may_have_carried_out_is_not_called_refused_by_the_next() -> None:
    pair = pair_of(pace=Pace(answer=1_000.0))
    sent = pair.call("job.enqueue_many", {"jobs": [{"name": "a"}]}, key="key-1", timeout=None)
    pair.run_for(1.0)
    pair.server.config = ServerConfig(features=frozenset((IDEMPOTENCY,)))
    pair.restart_server()
    # The client asks by `feature`, so the next server, which has no batches, is not even sent the request.
    pair.run_until(lambda: sent.done)
    assert isinstance(sent.error, OutcomeUnknown)
    unsent = pair.client.call("job.enqueue_many", {"jobs": [{"name": "b"}]}, key="key-2")
    pair.run_until(lambda: unsent.done)
    assert isinstance(unsent.error, UnsupportedError)
