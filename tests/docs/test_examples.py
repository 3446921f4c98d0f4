"""Every program under examples/ runs to its end against a server that serves examples/app.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.documents import ROOT
from tests.live import Live, serving

EXAMPLES = ROOT / "examples"
SERVED = {"app.py"}
PROGRAMS = sorted(path for path in EXAMPLES.glob("*.py") if path.name not in SERVED)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(str(EXAMPLES / "app.py"), db=tmp_path_factory.mktemp("examples") / "dispatch.db") as live:
        yield live


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_the_example_runs(program: Path, live: Live) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        env={**os.environ, "DISPATCH_URL": live.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout
    assert not result.stderr
