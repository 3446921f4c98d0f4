"""`dispatch top`: one look, and a live view that counts what happens."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator

import pytest

from dispatch.cli.top import Picture, Watch, view
from tests.cli.command_line import APP, cli, command, lines
from tests.live import Live, clean_environment, serving


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(APP, "--queues", "default", db=tmp_path_factory.mktemp("top") / "jobs.db") as live:
        cli("enqueue", "resize-image", '{"image": "a", "width": 1}', "--queue", "nobody", live=live)
        cli("enqueue", "import-feed", '{"url": "u"}', "--max-retries", "0", "--wait", live=live)
        yield live


def test_one_look_shows_queues_and_failures(live: Live) -> None:
    result = cli("top", "--once", live=live)
    assert result.returncode == 0, result.stderr
    assert "connections 1" in result.stdout
    assert "nobody" in result.stdout
    assert "503 Service Unavailable" in result.stdout


def test_one_look_for_machines_is_one_value_without_payloads(live: Live) -> None:
    (picture,) = lines(cli("top", "--once", "--json", live=live).stdout)
    assert picture["stats"]["queues"] == [{"queue": "nobody", "ready": 1, "scheduled": 0, "running": 0}]
    assert [job["name"] for job in picture["failures"]] == ["import-feed"]
    assert picture["rates"] == {}
    assert "payload" not in picture["failures"][0]


def test_the_live_view_counts_what_happens_and_ends_quietly_with_ctrl_c(live: Live) -> None:
    with subprocess.Popen(
        command("top", "--interval", "0.1", "--json"),
        env=clean_environment({"DISPATCH_URL": live.url}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        # It watches from its first picture on.
        assert json.loads(process.stdout.readline())["rates"]["completed"] == 0
        cli("enqueue", "resize-image", '{"image": "a", "width": 1}', "--wait", live=live)
        while json.loads(process.stdout.readline())["rates"]["completed"] == 0:
            pass
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(30) == 130
        assert process.stderr.read() == ""


def test_a_server_that_is_not_there_ends_with_3() -> None:
    assert cli("top", "--once", "--url", "ws://127.0.0.1:9/dwp").returncode == 3


def test_rates_are_those_of_the_last_ten_seconds() -> None:
    times = iter((0.0, 1.0, 2.0, 4.0, 4.0, 20.0))
    watch = Watch(lambda: next(times))
    for kind in ("job.completed", "job.completed", "job.failed", "job.progress"):
        watch.happened(kind)
    assert watch.rates() == {"enqueued": 0, "started": 0, "completed": 0.5, "retried": 0, "failed": 0.2}
    assert set(watch.rates().values()) == {0}


def test_what_a_server_says_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    job = {"id": "job_1", "name": "[red]name", "queue": "q[/]", "error": "Traceback\n[bold]ValueError"}
    queues = [{"queue": "[b]q", "ready": 1, "scheduled": 0, "running": 0}]
    Console(width=200).print(view("ws://[::1]:1/dwp", Picture({"queues": queues}, [job], [job])))
    shown = capsys.readouterr().out
    for text in ("[red]name", "q[/]", "[bold]ValueError", "[b]q", "ws://[::1]:1/dwp"):
        assert text in shown
