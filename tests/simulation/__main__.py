"""Runs one seed or many, outside the test suite: `python -m tests.simulation --seed N --count M`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from random import Random

from dwp_core.testing.history import InvariantBroken
from dwp_core.testing.simulation import Simulation


def main() -> int:
    """The exit code: 1 when a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument(
        "--count", type=int, default=1, help="how many seeds, one after the other (default 1)"
    )
    parser.add_argument(
        "--keep", type=int, default=0, help="entries of the history to show when a seed fails"
    )
    arguments = parser.parse_args()
    keep = arguments.keep or (1_000_000 if arguments.count == 1 else 20)
    begun = time.perf_counter()
    failed: list[int] = []
    totals: Counter[str] = Counter()
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        if seed > arguments.seed and seed % 500 == 0:
            print(f"… up to {seed}, {len(failed)} failed", flush=True)
        try:
            report = Simulation(Random(seed), seed=seed, keep=keep).run()
        except InvariantBroken as error:
            failed.append(seed)
            print(error if arguments.count == 1 else str(error).splitlines()[-1], flush=True)
            continue
        totals.update(
            {
                name: getattr(report, name)
                for name in ("steps", "calls", "unknown", "events", "gaps", "connections")
            }
        )
        if arguments.count == 1:
            print(report)
    elapsed = time.perf_counter() - begun
    rate = arguments.count / elapsed
    figures = ", ".join(f"{count} {name}" for name, count in totals.items())
    print(
        f"{arguments.count} seeds from {arguments.seed} in {elapsed:.0f} s ({rate:.1f} a second): {figures}"
    )
    print(f"failed: {failed}" if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
