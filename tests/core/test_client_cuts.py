"""One scenario, its connection cut at step 1, 2, 3…: every call ends once and rightly, no event is lost.

The scenario: connect, subscribe, enqueue with a key, read, cancel, start a workflow, wait. A step is one message that
is taken in by the server or by the client, or one thing that the application does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest

from dwp_core.client_events import (
    ClientConfig,
    RequestFailed,
    RequestOutcomeUnknown,
    RequestSucceeded,
    SubscriptionEnded,
    SubscriptionGap,
    SubscriptionStarted,
)
from dwp_core.codec import encode_payload
from dwp_core.requests import Retry
from tests.core.model_server import Line, ModelServer
from tests.core.scripted_server import Script

CONFIG = ClientConfig(max_retries=0, wait_for_server=60.0, poll_interval=0.05, heartbeat=1e6)
READS, KEYED, OTHERS = ("get", "wait", "stats"), ("enqueue", "start"), ("cancel", "call")
NUMBERS = {tag: n for n, tag in enumerate((*READS, *KEYED, *OTHERS))}


class Scenario:
    """The application's side, step by step."""

    def __init__(self, *, negotiated: bool, eager: bool) -> None:
        self.server = ModelServer(negotiated=negotiated)
        self.script = Script(CONFIG)
        self.line = Line(self.script, self.server)
        self.eager = eager
        self.negotiated = negotiated
        self.actions: deque[Callable[[], None]] = deque(
            [
                self.script.start,  # type: ignore[list-item]
                self.subscribe,
                lambda: self.ask("job.enqueue", "enqueue", Retry.IDEMPOTENT, key="k1"),
                lambda: self.ask("job.get", "get", Retry.READ),
                lambda: self.ask("job.cancel", "cancel", Retry.NEVER),
                lambda: self.ask("workflow.start", "start", Retry.IDEMPOTENT, key="k2"),
                self.wait,
                lambda: self.ask("stats", "stats", Retry.READ),
                lambda: self.ask("dlq.replay", "call", Retry.NEVER),
            ]
        )

    def subscribe(self) -> None:
        self.line.positions["sub"] = self.script.subscribe(tag="sub")

    def ask(self, method: str, tag: str, retry: Retry, key: str = "") -> None:
        self.script.ask(method, {"n": NUMBERS[tag]}, tag=tag, retry=retry, key=key)

    def wait(self) -> None:
        data = encode_payload({"n": NUMBERS["wait"]})
        self.script.session.wait("job.wait", data, tag="wait", now=self.script.now)

    def lines(self) -> list[Line]:
        return [self.line, *self.line.delegates]

    def step(self) -> bool:
        """The next thing; False when there is nothing more to happen."""
        if self.actions and (self.eager or not any(True for line in self.lines() for _ in line.steps())):
            self.actions.popleft()()
            self.line.look()
            return True
        for line in self.lines():
            for what in line.steps():
                line.step(what)
                self.line.look()
                return True
        for line in self.lines():
            looks_again = line.script.session._calls._looks.next is not None
            if line.script.session.state == "backing_off" or looks_again:
                line.timer()
                return True
        return False

    def outcomes(self) -> dict[object, str]:
        """How each call has ended; fails when one has ended twice."""
        names = {RequestSucceeded: "answer", RequestFailed: "failed", RequestOutcomeUnknown: "unknown"}
        ended: dict[object, str] = {}
        for line in self.lines():
            for event in line.told:
                if isinstance(event, RequestSucceeded | RequestFailed | RequestOutcomeUnknown):
                    assert event.tag not in ended, f"{event.tag} has ended twice"
                    ended[event.tag] = names[type(event)]
        return ended

    def run(self, cut_at: int) -> int:
        """Everything, with the connections cut before this step; how many steps there were."""
        steps = 0
        while True:
            if steps == cut_at:
                for line in self.lines():
                    line.cut()
                self.server.publish()
                self.line.look()
            if not self.step() and steps >= cut_at:
                return steps
            steps += 1
            assert steps < 1000, "it does not come to rest"


@pytest.mark.parametrize("eager", [False, True], ids=["patient", "eager"])
@pytest.mark.parametrize("negotiated", [False, True], ids=["base", "negotiated"])
def test_a_connection_may_be_cut_anywhere(negotiated: bool, eager: bool) -> None:
    for cut_at in range(1, _steps_without_cut(negotiated, eager) + 1):
        scenario = Scenario(negotiated=negotiated, eager=eager)
        scenario.run(cut_at)
        _check(scenario, cut_at)


def _steps_without_cut(negotiated: bool, eager: bool) -> int:
    scenario = Scenario(negotiated=negotiated, eager=eager)
    steps = 0
    while scenario.step():
        steps += 1
    assert set(scenario.outcomes().values()) == {"answer"}
    assert steps > 25
    return steps


def _check(scenario: Scenario, cut_at: int) -> None:
    server = scenario.server
    ended = scenario.outcomes()
    assert set(ended) == set(NUMBERS), f"cut at {cut_at}: not everybody has heard"
    assert scenario.script.session.state == "ready"
    for tag, outcome in ended.items():
        times = server.carried_out[NUMBERS[str(tag)]]
        where = f"cut at {cut_at}: {tag} {outcome}, carried out {times} times"
        if tag in READS or (tag in KEYED and scenario.negotiated):
            assert outcome == "answer", where
        if tag not in READS:
            assert times == 1 if outcome == "answer" else times <= 1, where
        assert outcome in ("answer", "unknown"), where
    _check_events(scenario, cut_at)


def _check_events(scenario: Scenario, cut_at: int) -> None:
    told = [
        event for event in scenario.line.told if not isinstance(event, SubscriptionGap | SubscriptionEnded)
    ]
    assert told == scenario.line.told, "nothing is missing and nobody was turned away"
    assert sum(isinstance(event, SubscriptionStarted) for event in told) == 1
    if scenario.negotiated:
        begun = scenario.line.begun["sub"]
        assert begun is not None
        expected = [happened.seq for happened in scenario.server.log if happened.seq > begun]
        assert scenario.line.seqs("sub") == expected, f"cut at {cut_at}"
