"""`dispatch job list|cancel|wait|retry`, `dispatch dlq`, `dispatch stats`, `dispatch queue`, against a real server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command_line import APP, JOB_ID, READER, SECRET, cli, lines
from tests.live import Live, serving

DLQ_ID = r"dlq_[0-9a-hjkmnp-tv-z]{26}"
NOBODY = "job_01h455vb4pex5vsknk084sn02q"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server that does not run what is in the queue `nobody`."""
    with serving(APP, "--queues", "default,mail", db=tmp_path_factory.mktemp("jobs") / "jobs.db") as live:
        yield live


def enqueued(live: Live, *options: str, name: str = "resize-image") -> str:
    payload = json.dumps({"image": "a", "width": 1} if name == "resize-image" else {"url": "u"})
    (answer,) = lines(cli("enqueue", name, payload, *options, "--json", live=live).stdout)
    return str(answer["job_id"])


def failed(live: Live, queue: str = "default") -> str:
    job_id = enqueued(live, "--max-retries", "0", "--queue", queue, name="import-feed")
    assert cli("job", "wait", job_id, live=live).returncode == 1
    return job_id


# ── job list ──


def test_jobs_are_listed_newest_first_as_a_table_and_as_json(live: Live) -> None:
    older, newer = enqueued(live, "-q", "nobody"), enqueued(live, "-q", "nobody")
    listed = lines(cli("job", "list", "--queue", "nobody", "--limit", "2", "--json", live=live).stdout)
    assert [job["id"] for job in listed] == [newer, older]
    head, first, second = cli("job", "list", "-q", "nobody", "-n", "2", live=live).stdout.splitlines()
    assert head.split() == ["id", "name", "queue", "state", "retries", "created", "error"]
    assert first.split()[:4] == [newer, "resize-image", "nobody", "pending"]
    assert second.split()[0] == older


def test_no_jobs_are_no_output_and_no_failure(live: Live) -> None:
    result = cli("job", "list", "--name", "nothing-like-that", live=live)
    assert (result.returncode, result.stdout) == (0, "")
    assert "no such jobs" in result.stderr
    assert cli("job", "list", "--name", "nothing-like-that", "--json", live=live).stderr == ""


def test_a_state_that_is_none_is_a_usage_error() -> None:
    result = cli("job", "list", "--state", "done")
    assert result.returncode == 2
    assert 'pending, running, completed, retrying, failed, cancelled, got "done"' in result.stderr


# ── job cancel, wait, retry ──


def test_a_waiting_job_is_cancelled_and_a_second_time_is_a_failure(live: Live) -> None:
    job_id = enqueued(live, "--queue", "nobody")
    assert cli("job", "cancel", job_id, live=live).stdout == f"{job_id} cancelled\n"
    again = cli("job", "cancel", job_id, live=live)
    assert again.returncode == 1
    assert again.stderr.startswith("error 409:")


def test_waiting_shows_every_outcome_and_fails_if_one_did_not_complete(live: Live) -> None:
    good, bad = enqueued(live), failed(live)
    result = cli("job", "wait", good, bad, "--json", live=live)
    assert result.returncode == 1
    assert [outcome["state"] for outcome in lines(result.stdout)] == ["completed", "failed"]
    assert cli("job", "wait", good, live=live).returncode == 0


def test_waiting_has_an_end_and_an_exit_code_of_its_own(live: Live) -> None:
    job_id = enqueued(live, "--queue", "nobody")
    assert cli("job", "wait", job_id, "--timeout", "0.2", live=live).returncode == 5


def test_a_failed_job_is_replayed_and_its_dead_letter_notes_it(live: Live) -> None:
    job_id = failed(live)
    (answer,) = lines(cli("job", "retry", job_id, "--json", live=live).stdout)
    assert answer["retry_of"] == job_id
    entries = lines(cli("dlq", "list", "--json", live=live).stdout)
    (entry,) = [entry for entry in entries if entry["job_id"] == job_id]
    assert entry["replayed_as"] == answer["job_id"]


def test_a_cancelled_job_is_run_again_as_it_was(live: Live) -> None:
    job_id = enqueued(live, "--queue", "nobody", "--priority", "7", "--max-retries", "1")
    cli("job", "cancel", job_id, live=live)
    (answer,) = lines(cli("job", "retry", job_id, "--json", live=live).stdout)
    (job,) = lines(cli("job", "get", answer["job_id"], "--json", live=live).stdout)
    assert (job["queue"], job["priority"], job["max_retries"]) == ("nobody", 7, 1)
    assert job["payload"] == {"image": "a", "width": 1}


def test_a_job_that_has_not_failed_is_not_run_again(live: Live) -> None:
    result = cli("job", "retry", enqueued(live, "--queue", "nobody"), live=live)
    assert result.returncode == 1
    assert "is pending: only a failed or cancelled job is run again" in result.stderr


@pytest.mark.parametrize("name", ["cancel", "wait", "retry"])
def test_a_job_that_is_not_there_is_404(live: Live, name: str) -> None:
    result = cli("job", name, NOBODY, live=live)
    assert result.returncode == 1
    assert result.stderr.startswith("error 404:")


# ── dead letters ──


def test_dead_letters_are_listed_and_replayed_one_by_one_or_all_of_a_queue(live: Live) -> None:
    first, second = failed(live, "mail"), failed(live, "mail")
    entries = lines(cli("dlq", "list", "--queue", "mail", "--json", live=live).stdout)
    assert [entry["job_id"] for entry in entries] == [second, first]
    assert "503 Service Unavailable" in cli("dlq", "list", "-q", "mail", live=live).stdout
    one = cli("dlq", "replay", entries[0]["id"], live=live)
    assert re.fullmatch(rf"{entries[0]['id']} runs again as {JOB_ID}\n", one.stdout)
    rest = cli("dlq", "replay", "--all", "--queue", "mail", live=live)
    assert re.match(rf"{entries[1]['id']} runs again as {JOB_ID}\n", rest.stdout)
    assert entries[0]["id"] not in rest.stdout


@pytest.mark.parametrize("arguments", [(), ("--all", "dlq_1"), ("dlq_1", "--queue", "mail")], ids=str)
def test_replay_takes_ids_or_all(arguments: tuple[str, ...]) -> None:
    result = cli("dlq", "replay", *arguments)
    assert result.returncode == 2
    assert "--all" in result.stderr


# ── figures ──


def test_stats_and_queues_tell_what_is_to_be_done(live: Live) -> None:
    enqueued(live, "--queue", "figures")
    enqueued(live, "--queue", "figures", "--delay", "600")
    wanted = {"queue": "figures", "ready": 1, "scheduled": 1, "running": 0}
    assert wanted in lines(cli("queue", "list", "--json", live=live).stdout)
    (answer,) = lines(cli("stats", "--json", live=live).stdout)
    assert wanted in answer["queues"]
    shown = cli("stats", live=live).stdout
    assert re.search(r"^connections +1 *$", shown, re.MULTILINE)
    assert re.search(r"^figures +1 +1 +0 *$", shown, re.MULTILINE)
    assert re.search(r"^figures +1 +1 +0 *$", cli("queue", "list", live=live).stdout, re.MULTILINE)


@pytest.mark.parametrize("arguments", [("stats",), ("queue", "list"), ("dlq", "list")], ids=" ".join)
def test_what_a_key_may_not_see_ends_with_4(arguments: tuple[str, ...], tmp_path: Path) -> None:
    keys = {"DISPATCH_TOKENS": f"{SECRET} {READER}:job:read"}
    with serving(APP, db=tmp_path / "jobs.db", environment=keys) as locked:
        assert cli(*arguments, live=locked, token=READER).returncode == 4
        assert cli(*arguments, live=locked, token=SECRET).returncode == 0
