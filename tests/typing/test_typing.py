"""The API is tested as it is typed, under two checkers: what is right passes, and every wrong line is found."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RIGHT = sorted(HERE.glob("right_*.py"))
WRONG = sorted(HERE.glob("wrong_*.py"))

Found = dict[str, set[int]]
"""Lines with errors, by file name."""


def run(*command: str) -> str:
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert not result.stderr, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


def mypy(files: list[Path], cache: Path) -> Found:
    output = run(
        sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", str(cache), *map(str, files)
    )
    found: Found = {}
    for line in output.splitlines():
        if match := re.match(r"(?P<file>[^:]+):(?P<line>\d+): error:", line):
            found.setdefault(Path(match["file"]).name, set()).add(int(match["line"]))
    return found


def pyright(files: list[Path], cache: Path) -> Found:
    report = json.loads(
        run(sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", *map(str, files))
    )
    found: Found = {}
    for each in report["generalDiagnostics"]:
        if each["severity"] == "error":
            found.setdefault(Path(each["file"]).name, set()).add(each["range"]["start"]["line"] + 1)
    assert report["summary"]["filesAnalyzed"] == len(files)
    return found


checkers = pytest.mark.parametrize("check", [mypy, pyright])


@checkers
def test_what_users_write_is_well_typed(check: Callable[[list[Path], Path], Found], cache: Path) -> None:
    assert check(RIGHT, cache) == {}


@checkers
def test_what_users_write_wrongly_is_found(check: Callable[[list[Path], Path], Found], cache: Path) -> None:
    wanted = {
        path.name: {
            number
            for number, line in enumerate(path.read_text().splitlines(), start=1)
            if line.endswith("# wrong")
        }
        for path in WRONG
    }
    assert check(WRONG, cache) == wanted
