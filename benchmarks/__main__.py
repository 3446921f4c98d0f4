"""`python -m benchmarks [--quick] [--json] [ID …]`: measure the bars and print the table."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time

from benchmarks import report
from benchmarks.harness import FULL, QUICK
from benchmarks.measurements import known_ids, run


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the performance bars: ratios of two things measured in turn in the same run.",
        epilog="Examples: python -m benchmarks --quick | python -m benchmarks T1 T2 | ... --json C1",
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help="bars to measure, such as T1 (default: all)")
    parser.add_argument("--quick", action="store_true", help="under one minute, rougher")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    arguments = parser.parse_args()
    unknown = [id for id in arguments.ids if id not in known_ids()]
    if unknown:
        parser.error(f"no bar {', '.join(unknown)}; there are {' '.join(known_ids())}")
    effort = QUICK if arguments.quick else FULL
    started = time.monotonic()
    outcomes = []
    if not arguments.json:
        print(report.header(), flush=True)
    for outcome in run(arguments.ids, effort):
        outcomes.append(outcome)
        if not arguments.json:
            print("\n".join(report.lines(outcome)), flush=True)
    if arguments.json:
        json.dump(report.as_json(outcomes), sys.stdout, indent=1)
        print()
    else:
        print(
            f"{time.monotonic() - started:.0f} s,",
            platform.python_implementation(),
            platform.python_version(),
        )
    return 1 if any(outcome.failed for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
