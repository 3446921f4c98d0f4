"""The command line as its users run it: `dispatch` in a process of its own, for tests."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.live import Live, clean_environment

APP = "dispatch.cli.demo_app"
JOB_ID = r"job_[0-9a-hjkmnp-tv-z]{26}"
SECRET = "dk_very_secret_full"
READER = "dk_very_secret_reader"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "dispatch", *arguments]


def cli(
    *arguments: str, live: Live | None = None, input: str = "", token: str = ""
) -> subprocess.CompletedProcess[str]:
    more = {"DISPATCH_URL": live.url} if live is not None else {}
    if token:
        more["DISPATCH_TOKEN"] = token
    result = subprocess.run(
        command(*arguments),
        env=clean_environment(more),
        input=input,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in result.stderr, result.stderr
    for key in (SECRET, READER):
        assert key not in result.stdout + result.stderr
    return result


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]
