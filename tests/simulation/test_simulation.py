"""Whatever goes wrong between several clients and a server, the sessions keep their promises (DESIGN.md).

What is promised stands in `dwp_core.testing.invariants` and in the docstrings of `dwp_core.testing.simulation`; here
are the seeds. One of them alone, with everything that happened: `python -m tests.simulation --seed N`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from dwp_core.server_events import ServerConfig
from dwp_core.testing.history import InvariantBroken
from dwp_core.testing.ledger import Ledger
from dwp_core.testing.plan import HALF_OPEN, TROUBLES, Plan
from dwp_core.testing.simulation import Simulation
from tests.simulation.seeds import EVERY_TIME, FOUND

ROOT = Path(__file__).parents[2]

DIGESTS = """
from random import Random
from dwp_core.testing.simulation import Simulation
print([Simulation(Random(seed)).run().digest for seed in (0, 1)])
"""


def run_all(seeds: range) -> None:
    for seed in seeds:
        Simulation(Random(seed), seed=seed).run()


@pytest.mark.parametrize("seed", EVERY_TIME)
def test_promises_hold_under_troubles(seed: int) -> None:
    report = Simulation(Random(seed), seed=seed).run()
    assert report.connections


@pytest.mark.parametrize("seed", FOUND, ids=lambda seed: f"{seed}")
def test_what_was_found_once_stays_mended(seed: int) -> None:
    Simulation(Random(seed), seed=seed).run()


@pytest.mark.parametrize("trouble", [*TROUBLES, "none"])
def test_promises_hold_under_one_trouble_alone(trouble: str) -> None:
    troubles = (trouble,) if trouble in TROUBLES else ()
    report = Simulation(Random(trouble), seed=trouble, plan=Plan(troubles=troubles)).run()
    assert set(report.troubles) == set(troubles)
    assert report.calls


def test_promises_hold_towards_base_servers_and_connections_that_die_silently() -> None:
    base = ServerConfig(features=frozenset(), heartbeat=2.0)
    for seed in range(3):
        plan = Plan(troubles=(HALF_OPEN,), between=0.5, servers=(base,))
        Simulation(Random(seed), seed=seed, plan=plan).run()


def test_a_seed_is_one_history_whatever_the_hashes_of_strings() -> None:
    outputs = set()
    for hash_seed in ("1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", DIGESTS],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(result.stdout)
    assert len(outputs) == 1


def test_other_seeds_are_other_histories() -> None:
    assert len({Simulation(Random(seed)).run().digest for seed in (3, 4, 5)}) == 3


def test_a_broken_promise_is_told_with_the_seed_the_plan_and_the_history(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Ledger, "keep", lambda *_: None)
    with pytest.raises(InvariantBroken, match="carried out 2 times") as caught:
        run_all(range(15, 40))
    text = str(caught.value)
    assert text.startswith("seed ")
    assert "Plan(clients=" in text
    assert "What happened last:" in text
    assert " ping" in text
