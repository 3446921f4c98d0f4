"""Which function measures which bars, and what a run of them found."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from benchmarks.bars import BARS
from benchmarks.harness import Effort, Figures


@dataclass(frozen=True, slots=True)
class Measurement:
    """One function that measures the bars of some ids together; imported only when it runs."""

    ids: tuple[str, ...]
    function: str

    def load(self) -> Callable[[Effort], Figures]:
        module, name = self.function.split(":")
        found: Callable[[Effort], Figures] = getattr(importlib.import_module(module), name)
        return found


MEASUREMENTS: tuple[Measurement, ...] = (
    Measurement(("C1", "C2", "C3", "C4", "C5", "C6"), "benchmarks.codec:measure"),
    Measurement(("T1", "T2", "T3"), "benchmarks.clients:measure_requests"),
    Measurement(("T6",), "benchmarks.clients:measure_events"),
    Measurement(("T1", "T3", "T5"), "benchmarks.trio_clients:measure_requests"),
    Measurement(("T6",), "benchmarks.trio_clients:measure_events"),
    Measurement(("T1", "T3", "T4"), "benchmarks.sync_clients:measure_requests"),
    Measurement(("T6",), "benchmarks.sync_clients:measure_events"),
    Measurement(("D1", "D2"), "benchmarks.counters:measure_client"),
    Measurement(("D1", "D2"), "benchmarks.binding_counters:measure"),
    Measurement(("D3",), "benchmarks.counters:measure_fan_out"),
    Measurement(("S1",), "benchmarks.server:measure_requests"),
    Measurement(("S2",), "benchmarks.server:measure_fan_out"),
    Measurement(("S3",), "benchmarks.server:measure_memory"),
    Measurement(("S3",), "benchmarks.idle:measure"),
    Measurement(("Q1", "Q2"), "benchmarks.store:measure"),
    Measurement(("E1",), "benchmarks.server:measure_enqueue"),
    Measurement(("I1",), "benchmarks.imports:measure"),
)


@dataclass(slots=True)
class Outcome:
    """What one measurement found, or why it found nothing."""

    measurement: Measurement
    figures: Figures = field(default_factory=dict)
    failed: str = ""
    seconds: float = 0.0


def known_ids() -> list[str]:
    return list(dict.fromkeys(bar.id for bar in BARS))


def run(ids: Collection[str], effort: Effort) -> Iterator[Outcome]:
    """Carry out the measurements of these ids (all when there are none), one after another."""
    for measurement in MEASUREMENTS:
        if ids and not set(ids) & set(measurement.ids):
            continue
        started = time.monotonic()
        outcome = Outcome(measurement)
        try:
            found = measurement.load()(effort)
            outcome.figures = {key: figure for key, figure in found.items() if not ids or key[0] in ids}
        except (
            Exception
        ) as error:  # one that fails must not hide the others; its bars are shown as not measured
            outcome.failed = f"{type(error).__name__}: {error}"
        outcome.seconds = time.monotonic() - started
        yield outcome
