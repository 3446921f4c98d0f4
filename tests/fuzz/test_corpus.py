"""Every fuzz target holds on its seeds, on what fuzzing kept, and on what once failed. Needs no atheris."""

from __future__ import annotations

import hashlib
import random

import pytest

from fuzz.seeds import saved
from fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_on_its_whole_corpus(name: str) -> None:
    target = TARGETS[name]
    function = target.function()
    seeds = list(target.seeds())
    assert seeds, f"{name} has nothing to begin with"
    for label, data in [*_named(seeds), *saved(name)]:
        try:
            function(data)
        except Exception as error:
            raise AssertionError(f"{name} fails on {label}: {data[:200]!r}") from error


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.mutation])
def test_a_target_holds_on_seeds_that_are_mutated(name: str) -> None:
    target = TARGETS[name]
    function, mutation = target.function(), target.mutation
    assert mutation is not None
    rng = random.Random(20261122)
    seeds = list(target.seeds())
    for _ in range(1500):
        data = mutation(rng.choice(seeds), rng)
        try:
            function(data)
        except Exception as error:
            raise AssertionError(f"{name} fails on {data[:300]!r}") from error


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_on_seeds_that_are_cut_or_damaged(name: str) -> None:
    target = TARGETS[name]
    function = target.function()
    for number, seed in enumerate(target.seeds()):
        place = int.from_bytes(hashlib.sha256(b"%d" % number).digest()[:4], "big") % (len(seed) + 1)
        for data in (seed[:place], seed[:place] + b"\xff" + seed[place + 1 :], seed + seed[place:]):
            try:
                function(data)
            except Exception as error:
                raise AssertionError(f"{name} fails on {data[:300]!r}") from error


def test_seeds_are_the_same_in_every_run() -> None:
    for target in TARGETS.values():
        assert list(target.seeds()) == list(target.seeds())


def _named(seeds: list[bytes]) -> list[tuple[str, bytes]]:
    return [(f"seed {number}", seed) for number, seed in enumerate(seeds)]
