"""The table of the bars with their figures, for people and as JSON."""

from __future__ import annotations

from typing import Any

from benchmarks.bars import BARS, Bar, find
from benchmarks.harness import Figure
from benchmarks.measurements import Outcome

_COLUMNS = "{:<4} {:<16} {:>9} {:>9} {:>9}  {:<14} {:<13} {}"


def header() -> str:
    return _COLUMNS.format("id", "part", "bar", "stretch", "figure", "verdict", "95 %", "what")


def lines(outcome: Outcome) -> list[str]:
    found = [(find(*key), figure) for key, figure in outcome.figures.items()]
    rows = [_row(bar, figure) for bar, figure in sorted(found, key=lambda each: BARS.index(each[0]))]
    if outcome.failed:
        first, *rest = outcome.failed.splitlines()
        rows.append(f"{' '.join(outcome.measurement.ids)}: not measured: {first}")
        rows.extend(rest)
    return rows


def as_json(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for outcome in outcomes:
        for (id, part), figure in outcome.figures.items():
            bar = find(id, part)
            found.append(
                {
                    "id": id,
                    "part": part,
                    "what": bar.text,
                    "bar": bar.bar,
                    "stretch": bar.stretch,
                    "at_least": bar.at_least,
                    "figure": figure.value,
                    "low": figure.low,
                    "high": figure.high,
                    "rounds": figure.rounds,
                    "note": figure.note,
                    "verdict": bar.verdict(figure.value),
                }
            )
        if outcome.failed:
            found.append({"ids": outcome.measurement.ids, "failed": outcome.failed})
    return found


def _row(bar: Bar, figure: Figure) -> str:
    sign = "≥" if bar.at_least else "≤"
    stretch = "" if bar.stretch is None else f"{sign} {_number(bar.stretch)}"
    spread = "exact" if bar.exact else f"{_number(figure.low)}–{_number(figure.high)}"
    return _COLUMNS.format(
        bar.id,
        bar.part,
        f"{sign} {_number(bar.bar)}",
        stretch,
        _number(figure.value),
        bar.verdict(figure.value),
        spread,
        f"{bar.text} ({figure.note})" if figure.note else bar.text,
    ).rstrip()


def _number(value: float) -> str:
    if value >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"
