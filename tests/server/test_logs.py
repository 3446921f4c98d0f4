"""What `dispatch serve` writes about its work (`dispatch.server.logs`)."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatch.server.logs import fields, log_events, set_up, steps
from dwp_core.events import LoggedEvent
from tests.cli.command_line import cli
from tests.live import Live, clean_environment

TOKEN = "dk_very_secret"
APP = """
import dispatch

@dispatch.function(name="greet")
def greet(who):
    return {"greeting": "private output"}

@dispatch.function(name="break", max_retries=0)
def break_it(who):
    raise ValueError("boom")
"""


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where records go; afterwards logging is as it was."""
    root = logging.getLogger()
    before = list(root.handlers), root.level, steps.level
    yield io.StringIO()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    steps.setLevel(before[2])


def event(**data: Any) -> LoggedEvent:
    return LoggedEvent(
        7, "job.completed", 10**18, "job:job_1", "mail", "app", "org", json.dumps(data).encode()
    )


def test_a_step_is_told_with_ids_and_times_and_nothing_else(stream: io.StringIO) -> None:
    set_up(stream, format="json", level="info")
    log_events(
        [
            event(
                job_id="job_1",
                job_name="greet",
                elapsed_ms=3,
                payload="p",
                output="o",
                error="e",
                scope_app_id="a",
            )
        ]
    )
    line = json.loads(stream.getvalue())
    assert line.pop("ts").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "dispatch.steps",
        "message": "job.completed",
        "seq": 7,
        "happened_at": "2001-09-09T01:46:40Z",
        "queue": "mail",
        "job_id": "job_1",
        "name": "greet",
        "elapsed_ms": 3,
    }


def test_text_is_one_line_with_the_same_values_and_quotes_where_they_are_needed(stream: io.StringIO) -> None:
    set_up(stream, format="text", level="info")
    log_events([event(job_id="job_1", job_name='two words\n"', elapsed_ms=3)])
    (line,) = stream.getvalue().splitlines()
    assert "INFO job.completed seq=7 happened_at=2001-09-09T01:46:40Z queue=mail job_id=job_1" in line
    assert r'name="two words\n\""' in line


def test_without_a_level_steps_are_not_told_and_what_functions_log_is(stream: io.StringIO) -> None:
    set_up(stream, format="text", level=None)
    assert not steps.isEnabledFor(logging.INFO)
    logging.getLogger("shop").info("sold")
    assert "INFO sold" in stream.getvalue()


def test_a_program_that_has_set_up_logging_itself_keeps_it(stream: io.StringIO) -> None:
    own = logging.NullHandler()
    logging.getLogger().handlers[:] = [own]
    set_up(stream, format=None, level=None)
    assert logging.getLogger().handlers == [own]


def test_a_traceback_is_part_of_its_json_line(stream: io.StringIO) -> None:
    set_up(stream, format="json", level="error")
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("shop").exception("it broke", extra=fields(job_id="job_1"))
    line = json.loads(stream.getvalue())
    assert (line["message"], line["job_id"]) == ("it broke", "job_1")
    assert line["traceback"].endswith("ValueError: boom")


def test_a_server_tells_of_every_step_and_of_no_payload_or_key(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    options = ("--port", "0", "--db", "jobs.db", "--log-format", "json", "--log-level", "info", "--json")
    with (
        (tmp_path / "log").open("w+") as log,
        subprocess.Popen(
            [sys.executable, "-m", "dispatch", "serve", "app.py", *options],
            cwd=tmp_path,
            env=clean_environment({"DISPATCH_TOKENS": TOKEN}),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        live = Live(json.loads(process.stdout.readline())["ready"]["url"], process)
        for name in ("greet", "break"):
            cli("enqueue", name, '"private payload"', "--wait", live=live, token=TOKEN)
        assert live.stop() == 0
        log.seek(0)
        text = log.read()
    for secret in ("private", TOKEN):
        assert secret not in text
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    told = [line["message"] for line in lines if line["logger"] == "dispatch.steps"]
    assert told == [
        f"job.{step}" for step in ("enqueued", "started", "completed", "enqueued", "started", "failed", "dlq")
    ]
    (warning,) = [line for line in lines if line["level"] == "warning"]
    assert (warning["name"], warning["attempt"], warning["queue"]) == ("break", 1, "default")
    assert "ValueError: boom" in warning["message"]


@pytest.mark.parametrize(
    ("option", "known"), [("--log-format", "text, json"), ("--log-level", "debug, info")]
)
def test_a_format_or_level_that_is_none_is_a_usage_error(option: str, known: str) -> None:
    result = cli("serve", option, "loud")
    assert result.returncode == 2
    assert f"{option} must be one of {known}" in result.stderr
