"""`dispatch cron` as its users meet it: real processes against a real server, with functions that the clock calls."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live import Live, clean_environment, serving

PROGRAM = """
import dispatch

@dispatch.cron("30 2 * * *", timezone="Europe/Berlin", name="nightly", payload={"days": 1})
@dispatch.function(name="report", queue="reports")
def report(days: int) -> int:
    return days

@dispatch.cron("@yearly", name="new-year")
@dispatch.function(name="greet")
def greet() -> None: ...
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("crons")
    (folder / "app.py").write_text(PROGRAM)
    with serving("app.py", db=folder / "dispatch.db", cwd=folder) as live:
        yield live


def cron(*arguments: str, live: Live) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "dispatch", "cron", *arguments],
        env=clean_environment({"DISPATCH_URL": live.url}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result


def answer(result: subprocess.CompletedProcess[str]) -> Any:
    assert result.returncode == 0, result.stderr
    (line,) = result.stdout.splitlines()
    return json.loads(line)


def test_entries_are_a_table_for_people(live: Live) -> None:
    result = cron("list", live=live)
    assert result.returncode == 0, result.stderr
    head, first, second = result.stdout.splitlines()
    assert head.split() == ["name", "schedule", "time", "zone", "function", "next", "last", "state"]
    assert re.match(r"new-year +@yearly +UTC +greet +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +active", first)
    assert re.match(r"nightly +30 2 \* \* \* +Europe/Berlin +report +\d{4}-", second)


def test_entries_are_json_for_machines(live: Live) -> None:
    result = cron("list", "--json", live=live)
    entries = [json.loads(line) for line in result.stdout.splitlines()]
    assert [entry["name"] for entry in entries] == ["new-year", "nightly"]
    assert entries[1]["payload"] == {"days": 1}
    assert result.stderr == ""


def test_an_entry_is_paused_and_resumed(live: Live) -> None:
    assert cron("pause", "new-year", live=live).stdout == "new-year is paused\n"
    assert re.search(r"new-year .* paused", cron("list", live=live).stdout)
    result = cron("resume", "new-year", live=live)
    assert re.fullmatch(r"new-year fires next at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n", result.stdout)
    assert not answer(cron("pause", "new-year", "--json", live=live))["enabled"]
    assert answer(cron("resume", "new-year", "--json", live=live))["enabled"]


def test_an_entry_is_run_now(live: Live) -> None:
    assert re.fullmatch(r"job_[0-9a-z]{26} for nightly\n", cron("trigger", "nightly", live=live).stdout)
    triggered = answer(cron("trigger", "nightly", "--json", live=live))
    (entry,) = (
        one
        for one in map(json.loads, cron("list", "--json", live=live).stdout.splitlines())
        if one["name"] == "nightly"
    )
    assert entry["last_job_id"] == triggered["job_id"]
    assert re.search(r"nightly .* report +\d{4}\S+ \S+ +\d{4}\S+ \S+ +active", cron("list", live=live).stdout)


@pytest.mark.parametrize("command", ["pause", "resume", "trigger"])
def test_what_there_is_not_is_answered_404(command: str, live: Live) -> None:
    result = cron(command, "nigthly", live=live)
    assert result.returncode == 1
    assert result.stderr == 'error 404: there is no cron entry "nigthly"\n'


@pytest.mark.parametrize("command", ["list", "pause", "resume", "trigger"])
def test_the_help_has_examples(command: str, live: Live) -> None:
    result = cron(command, "--help", live=live)
    assert result.returncode == 0
    assert f"dispatch cron {command}" in result.stdout
    assert "Examples:" in result.stdout


def test_a_server_without_entries_says_how_to_declare_one(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import dispatch\n\n@dispatch.function\ndef f() -> None: ...\n")
    with serving("app.py", db=tmp_path / "dispatch.db", cwd=tmp_path) as live:
        result = cron("list", live=live)
        assert (result.returncode, result.stdout) == (0, "")
        assert "@dispatch.cron" in result.stderr
        assert cron("list", "--json", live=live).stdout == ""
