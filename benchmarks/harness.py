"""Measures ratios that repeat on a shared machine.

Absolute times drift by half within minutes, so nothing here reports one. The candidates run alternately, in
rounds of a few milliseconds and in an order that is shuffled anew for each round; CPU clocks are read and
not the wall clock, unless a rate is what is asked for; the ratio is taken inside each round and the median
over the rounds counts.

Two kinds of candidates: a *statement* is measured in this process on the thread's CPU clock; a *child* is a
process driven over its pipes, and its CPU is read from the kernel. Every wait has a deadline.
"""

from __future__ import annotations

import json
import os
import random
import select
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent

Costs = Mapping[str, float]
"""What one operation cost, by the name of the measure: `cpu`, `wall`, `p50`, all in nanoseconds."""

Candidate = Callable[[int], Costs]
"""Does n operations and tells what one of them cost."""


class MeasurementError(Exception):
    """Something could not be measured: a child died or was too slow. Says which and shows its last words."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure. The figures of `QUICK` are rougher, not different."""

    seconds: float
    round_ms: float = 4.0
    full: bool = True

    def shared(self, parts: float, *, round_ms: float = 0.0) -> Effort:
        """The effort for one of so many parts of a measurement."""
        return Effort(self.seconds / parts, round_ms or self.round_ms, self.full)


FULL = Effort(seconds=12.0)
QUICK = Effort(seconds=2.0, round_ms=2.5, full=False)


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured figure; `low` and `high` enclose the median with about 95 % confidence.

    `note` says which of several it is, where the worst of them counts.
    """

    value: float
    low: float
    high: float
    rounds: int = 1
    note: str = ""

    @classmethod
    def worst(cls, figures: Mapping[str, Figure]) -> Figure:
        """The highest of several figures, with its name as the note."""
        name, figure = max(figures.items(), key=lambda item: item[1].value)
        return replace(figure, note=f"worst of {len(figures)}: {name}")

    @classmethod
    def exact(cls, value: float) -> Figure:
        return cls(value, value, value)

    @classmethod
    def median(cls, samples: Sequence[float]) -> Figure:
        """The median and the order statistics around it: the sign test's interval, no distribution
        assumed."""
        ordered = sorted(samples)
        count = len(ordered)
        reach = int(0.98 * count**0.5) + 1
        middle = count // 2
        return cls(
            statistics.median(ordered),
            ordered[max(0, middle - reach)],
            ordered[min(count - 1, middle + reach)],
            count,
        )


Figures = dict[tuple[str, str], Figure]
"""What a measurement found: id and part of the bar, and the figure."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """What each candidate cost in each round."""

    costs: list[dict[str, Costs]]

    def ratio(self, name: str, against: str, measure: str = "cpu", against_measure: str = "") -> Figure:
        """How much `name` cost in units of `against`, each round for itself."""
        other = against_measure or measure
        return Figure.median([round[name][measure] / round[against][other] for round in self.costs])

    def cost(self, name: str, measure: str = "cpu") -> float:
        """Nanoseconds of one operation. To look at, never to compare between runs."""
        return statistics.median(round[name][measure] for round in self.costs)


def statement(code: str, setup: str = "pass", **names: Any) -> Candidate:
    """A candidate of this process: one Python statement, in a compiled loop, on the thread's CPU clock."""
    timer = timeit.Timer(code, setup, timer=time.thread_time_ns, globals=names)

    def run(count: int) -> Costs:
        return {"cpu": timer.timeit(count) / count}

    return run


def interleave(
    candidates: Mapping[str, Candidate],
    effort: Effort,
    *,
    step: int = 1,
    counts: Mapping[str, int] | None = None,
    at_least_rounds: int = 7,
) -> Rounds:
    """Run the candidates alternately until `effort.seconds` are over (and a few rounds at the very least).

    Args:
        step: operations are done in multiples of this (a window in flight, a burst).
        counts: fixed numbers of operations a round, where a number is part of what is measured.
    """
    order = list(candidates)
    rng = random.Random(len(order))
    sizes = dict(counts or {})
    for name in order:
        if name not in sizes:
            sizes[name] = _calibrate(candidates[name], effort.round_ms, step)
    rounds: list[dict[str, Costs]] = []
    end = time.monotonic() + effort.seconds
    while time.monotonic() < end or len(rounds) < at_least_rounds:
        rng.shuffle(order)
        rounds.append({name: candidates[name](sizes[name]) for name in order})
    return Rounds(rounds)


def _calibrate(candidate: Candidate, round_ms: float, step: int) -> int:
    """How many operations fill a round; doubles as the warm-up.

    The quickest of three tries counts: one that was interrupted would make rounds of next to nothing, which then
    measure the clock.
    """
    count = step
    while True:
        spent = min(_wall_ns(candidate, count) for _ in range(3))
        if spent >= round_ms * 0.7e6:
            return count
        count = max(count + step, min(count * 4, int(count * round_ms * 1e6 / max(spent, 1)) // step * step))


def _wall_ns(candidate: Candidate, count: int) -> int:
    started = time.perf_counter_ns()
    candidate(count)
    return time.perf_counter_ns() - started


def cpu_of(pid: int) -> int:
    """CPU nanoseconds that a process has used, all its threads, from the kernel's own account.

    Linux encodes the CPU clock of a process in the clock's number (clock_getcpuclockid(3)); /proc/PID/stat
    counts in ticks of ten milliseconds, which is longer than a round.
    """
    return time.clock_gettime_ns((~pid << 3) | 2)


def memory_of(pid: int) -> int:
    """Bytes of a process's own memory (/proc/PID/smaps_rollup, private pages)."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1]) * 1024
    return total


class Child:
    """A process of a measurement: it prints one JSON line when it is ready, and one for each command."""

    def __init__(self, module: str, *arguments: str, name: str = "", patience: float = 30.0) -> None:
        self.name = name or module
        self._patience = patience
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "bindings")))},
        )
        self._read = b""
        try:
            self.ready: dict[str, Any] = self._answer()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Have the child carry out one command; its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": command, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failed("is gone") from None
        return self._answer()

    def cpu(self) -> int:
        return cpu_of(self.pid)

    def memory(self) -> int:
        return memory_of(self.pid)

    def candidate(self, command: str = "run", **arguments: Any) -> Candidate:
        """The child itself as a candidate: it reports its own costs per operation."""
        return lambda count: self.ask(command, count=count, **arguments)

    def served_by(self, client: Child, command: str = "run", **arguments: Any) -> Candidate:
        """This child as a server candidate: `client` causes the operations, the CPU is this process's."""

        def run(count: int) -> Costs:
            before = self.cpu()
            answer = client.ask(command, count=count, **arguments)
            spent = self.cpu() - before
            return {**answer, "cpu": spent / count, "client_cpu": answer.get("cpu", 0.0)}

        return run

    def stop(self) -> None:
        if self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        end = time.monotonic() + self._patience
        while b"\n" not in self._read:
            left = end - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise self._failed(f"gave no answer within {self._patience:.0f} s")
            chunk = os.read(descriptor, 65536)
            if not chunk:
                raise self._failed("is gone")
            self._read += chunk
        line, self._read = self._read.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise self._failed(answer["failed"])
        return answer

    def _failed(self, what: str) -> MeasurementError:
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip().splitlines()[-12:]
        return MeasurementError("\n    ".join([f"the child process {self.name} {what}", *words]))
