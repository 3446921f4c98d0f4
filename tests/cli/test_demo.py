"""`dispatch demo` shows what it promises and ends by itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live import clean_environment, serving


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "dispatch", "demo", *arguments],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_demo_ends_by_itself_with_a_summary_that_people_can_read() -> None:
    result = demo("--port", "0")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "5 completed, 1 failed" in result.stdout
    assert "dead letter: import-feed: " in result.stdout
    for kind in ("job.enqueued", "job.started", "job.completed", "job.retrying", "job.dlq"):
        assert kind in result.stdout
    for client in ("dispatch.asyncio", "dispatch.trio", "dispatch.sync"):
        assert client in result.stdout
    assert "Traceback" not in result.stderr


def test_the_demo_says_in_json_what_machines_want_to_know(tmp_path: Path) -> None:
    result = demo("--port", "0", "--json", "--db", str(tmp_path / "demo.db"))
    assert result.returncode == 0, result.stdout + result.stderr
    *events, last = map(json.loads, result.stdout.splitlines())
    assert last["summary"]["states"] == {"completed": 5, "failed": 1}
    assert last["summary"]["clients"] == {"asyncio": 2, "trio": 2, "sync": 2}
    assert last["summary"]["as_expected"] is True
    assert last["summary"]["events"] == len(events)
    # Its file is a server's file like any other.
    with serving("dispatch.cli.demo_app", db=tmp_path / "demo.db"):
        pass


def test_a_demo_whose_server_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "foreign.db").write_text("this is no database, and it is long enough to be looked at " * 20)
    result = demo("--port", "0", "--db", str(tmp_path / "foreign.db"))
    assert result.returncode == 1
    assert "the demo's server did not start" in result.stderr
    assert "foreign.db" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_demo_and_its_server(number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "dispatch", "demo", "--port", "0"],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.send_signal(number)
        # The server shares our standard error: its end closes the pipe, and only then is all of it read.
        stderr = process.stderr.read()
        assert process.wait(60) == 130
        assert "Traceback" not in stderr
