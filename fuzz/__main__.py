"""`python -m fuzz [--seconds N] [TARGET …]`: fuzz the targets one after another and keep what fails."""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz.seeds import ROOT, keep, saved
from fuzz.targets import TARGETS, Target

FINDINGS = ROOT / "findings"
INPUT_SECONDS = 10
MEMORY_MB = 1024


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fuzz",
        description="Coverage-guided fuzzing. Inputs that fail are kept in fuzz/findings/.",
        epilog="Targets: " + "; ".join(f"{target.name}: {target.about}" for target in TARGETS.values()),
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--keep", action="store_true", help="add what reached new code to fuzz/corpus/")
    parser.add_argument("--replay", metavar="FILE", help="run one target on one saved input and nothing else")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.targets if name not in TARGETS]
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; there are {' '.join(TARGETS)}")
    chosen = [TARGETS[name] for name in arguments.targets or TARGETS]
    if arguments.replay:
        for target in chosen:
            target.function()(Path(arguments.replay).read_bytes())
        return 0
    failed = [
        target.name for target in chosen if not fuzz(target, arguments.seconds, keep_new=arguments.keep)
    ]
    if failed:
        print(f"failed: {', '.join(failed)}; the inputs are in {FINDINGS}")
        print("replay one with: python -m fuzz TARGET --replay FILE")
    return 1 if failed else 0


def fuzz(target: Target, seconds: int, *, keep_new: bool) -> bool:
    """Fuzz one target in a process of its own; whether it held."""
    working = FINDINGS / "working" / target.name
    working.mkdir(parents=True, exist_ok=True)
    for data in _known(target):
        (working / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
    print(f"== {target.name}: {target.about}", flush=True)
    common = [
        f"-max_len={target.max_len}",
        f"-timeout={INPUT_SECONDS}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={FINDINGS}/{target.name}-",
        f"-dict={ROOT}/dictionary.txt",
        "-print_final_stats=1",
    ]
    done = _run(target, [str(working), f"-max_total_time={seconds}", "-use_value_profile=1", *common])
    if done and keep_new:
        _keep_new(target, working)
    return done


def _keep_new(target: Target, working: Path) -> None:
    """Put into the corpus what reaches code that neither a seed nor the corpus reaches."""
    with tempfile.TemporaryDirectory() as folder:
        known = {hashlib.sha1(data, usedforsecurity=False).hexdigest(): data for data in _known(target)}
        for name, data in known.items():
            Path(folder, name).write_bytes(data)
        _run(target, ["-merge=1", folder, str(working), f"-max_len={target.max_len}"])
        keep(target.name, [path.read_bytes() for path in Path(folder).iterdir() if path.name not in known])


def _known(target: Target) -> list[bytes]:
    return [*target.seeds(), *(data for _, data in saved(target.name))]


def _run(target: Target, flags: list[str]) -> bool:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(ROOT.parent), str(ROOT.parent / "bindings"))),
    }
    return (
        subprocess.run(
            [sys.executable, "-m", "fuzz.run", target.name, *flags],
            cwd=ROOT.parent,
            env=environment,
            check=False,
        ).returncode
        == 0
    )


if __name__ == "__main__":
    sys.exit(main())
