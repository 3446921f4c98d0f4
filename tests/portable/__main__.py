"""Proves that the core and its portable codec need no extension: `make portable`.

The tests of the core are listed as they are in an ordinary Python, and then run in one that has neither msgspec nor
any extension module but its own (`blockade/sitecustomize.py`). Of those that were listed every one has to pass there,
but for those marked `fast_form`, which have to fail for want of it, and those that are skipped in both. So nothing is
left out in silence, and the number of tests that have to run is not a guess.

    python -m tests.portable                    everything
    python -m tests.portable tests/vectors      some of it
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.portable.tally import Tally

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BLOCKADE = HERE / "blockade"
# With the examples in the core's docstrings; the fast files cannot even be imported here.
TESTS = ("tests/core", "tests/property", "tests/vectors", "dwp_core")
PYTEST = ("-m", "pytest", "-q", "-p", "tests.portable.tally", "--doctest-modules", "--ignore-glob=*_fast.py")
# What proves that a Python is behind the blockade: it is asked, not trusted.
PROOF = """
import importlib, importlib.util, sys
import msgpack, msgpack.fallback
import dwp_core.codec
assert importlib.util.find_spec("msgspec") is None, "msgspec can be imported"
assert msgpack.Packer is msgpack.fallback.Packer, "msgpack has its extension"
assert dwp_core.codec.get_codec("json").form == dwp_core.codec.get_codec("msgpack").form == "portable"
"""


def behind_blockade(environment: dict[str, str]) -> dict[str, str]:
    """That environment, for Pythons without extensions."""
    paths = [str(BLOCKADE), *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(paths)}


def run(
    tests: Sequence[str], *, environment: dict[str, str], show: bool, root: Path = ROOT
) -> tuple[int, Tally]:
    """One run of pytest: its exit code, and what it saw."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "tally.json")
        # Without a cache: what failed last in an ordinary Python is none of this one's business.
        command = [sys.executable, *PYTEST, "-p", "no:cacheprovider", f"--tally={file}", *tests]
        output = None if show else subprocess.PIPE
        done = subprocess.run(command, cwd=root, env=environment, stdout=output, text=True, check=False)
        if not file.exists():
            sys.exit(f"pytest came to nothing:\n{done.stdout or ''}")
        return done.returncode, Tally(**json.loads(file.read_text()))


def judge(ordinary: Tally, blocked: Tally, skipped_anyway: set[str]) -> list[str]:
    """What speaks against it, one line each."""
    fast = set(ordinary.fast)
    due = set(ordinary.here) - fast
    passed, skipped = blocked.having("passed"), blocked.having("skipped")
    groups = {
        "never ran without msgspec": due - set(blocked.outcomes),
        "failed without msgspec": blocked.having("failed"),
        "skipped without msgspec, but not with it": skipped - skipped_anyway,
        "marked fast_form, but not refused without msgspec": fast - blocked.having("refused"),
        "there without msgspec only": set(blocked.here) - set(ordinary.here),
    }
    against = [f"{what}: {test}" for what, tests in groups.items() for test in sorted(tests)]
    if not due:
        against.append("there is no test that has to run")
    if not against and len(passed) != len(due - skipped_anyway):
        against.append(f"{len(passed)} passed where {len(due - skipped_anyway)} had to")
    return against


def main() -> int:
    """The exit code: 0 when it is proved."""
    arguments = argparse.ArgumentParser(prog="python -m tests.portable", description=__doc__)
    arguments.add_argument("tests", nargs="*", default=list(TESTS))
    arguments.add_argument("--root", type=Path, default=ROOT, help="the tree that is tested")
    arguments.add_argument("-n", default="2", help="how many processes run the tests")
    given = arguments.parse_args()
    here = dict(os.environ)
    there = behind_blockade(here)
    if subprocess.run([sys.executable, "-c", PROOF], cwd=given.root, env=there, check=False).returncode:
        return 1

    _, ordinary = run(["--collect-only", *given.tests], environment=here, show=False, root=given.root)
    code, blocked = run(
        [f"-n{given.n}", "--dist=worksteal", *given.tests], environment=there, show=True, root=given.root
    )
    skipped = blocked.having("skipped")
    anyway: set[str] = set()
    if skipped:
        _, again = run(sorted(skipped), environment=here, show=False, root=given.root)
        anyway = again.having("skipped")

    against = judge(ordinary, blocked, anyway)
    print(
        f"without msgspec, and without extensions but Python's own: {len(blocked.having('passed'))} tests passed of"
        f" the {len(ordinary.here) - len(ordinary.fast) - len(anyway)} that had to;"
        f" {len(blocked.having('refused'))} of the fast form failed for want of it, as they must;"
        f" {len(anyway)} are skipped anywhere"
    )
    for line in against[:50]:
        print(line)
    return 1 if against or code else 0


if __name__ == "__main__":
    sys.exit(main())
