"""The command line as its users meet it: real processes against a real server."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command_line import APP, JOB_ID, READER, SECRET, cli, command, lines
from tests.live import Live, clean_environment, serving


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(APP, db=tmp_path_factory.mktemp("cli") / "dispatch.db") as live:
        yield live


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with keys: one for everything, one that may only read."""
    keys = {"DISPATCH_TOKENS": f"{SECRET} {READER}:job:read"}
    with serving(APP, db=tmp_path_factory.mktemp("keys") / "dispatch.db", environment=keys) as live:
        yield live


# ── enqueue ──


def test_enqueue_prints_the_jobs_id_and_where_it_went(live: Live) -> None:
    result = cli("enqueue", "resize-image", '{"image": "a", "width": 1}', "--queue", "images", live=live)
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(rf"{JOB_ID} pending on queue images\n", result.stdout)


def test_enqueue_answers_machines_in_json(live: Live) -> None:
    result = cli("enqueue", "resize-image", '{"image": "a", "width": 1}', "--json", live=live)
    (answer,) = lines(result.stdout)
    assert re.fullmatch(JOB_ID, answer["job_id"])
    assert answer["state"] == "pending"
    assert result.stderr == ""


def test_enqueue_reads_the_payload_from_standard_input(live: Live) -> None:
    result = cli("enqueue", "resize-image", "-", "--json", live=live, input='{"image": "stdin", "width": 7}')
    (answer,) = lines(result.stdout)
    (job,) = lines(cli("job", "get", answer["job_id"], "--json", live=live).stdout)
    assert job["payload"] == {"image": "stdin", "width": 7}


def test_enqueue_waits_for_a_job_that_succeeds(live: Live) -> None:
    result = cli("enqueue", "resize-image", '{"image": "a", "width": 3}', "--wait", "--json", live=live)
    assert result.returncode == 0, result.stderr
    (outcome,) = lines(result.stdout)
    assert outcome["state"] == "completed"
    assert outcome["output"] == {"image": "a", "width": 3}


def test_enqueue_that_waits_says_by_its_exit_code_that_the_job_failed(live: Live) -> None:
    result = cli("enqueue", "import-feed", '{"url": "u"}', "--max-retries", "0", "--wait", live=live)
    assert result.returncode == 1
    assert "failed" in result.stdout
    assert "503 Service Unavailable" in result.stdout


def test_the_same_idempotency_key_is_the_same_job(live: Live) -> None:
    arguments = (
        "enqueue",
        "resize-image",
        '{"image": "k", "width": 1}',
        "--idempotency-key",
        "once",
        "--json",
    )
    first, again = cli(*arguments, live=live), cli(*arguments, live=live)
    assert lines(first.stdout)[0]["job_id"] == lines(again.stdout)[0]["job_id"]


@pytest.mark.parametrize("payload", ["{to: 1}", "", "{'a': 1}", "[1,"])
def test_a_payload_that_is_no_json_is_a_usage_error_that_says_where(payload: str) -> None:
    result = cli("enqueue", "send-email", payload)
    assert result.returncode == 2
    assert "PAYLOAD is not JSON" in result.stderr
    assert "column" in result.stderr


def test_a_payload_that_dwp_cannot_carry_names_the_path(live: Live) -> None:
    result = cli("enqueue", "send-email", '{"to": [NaN]}', live=live)
    assert result.returncode == 1
    assert "payload.to[0]" in result.stderr


def test_an_unknown_function_is_answered_404(live: Live) -> None:
    result = cli("enqueue", "sned-email", "{}", live=live)
    assert result.returncode == 1
    assert result.stderr.startswith("error 404:")
    assert "sned-email" in result.stderr


# ── job get ──


def test_job_get_shows_what_people_want_to_know(live: Live) -> None:
    asked = cli("enqueue", "resize-image", '{"image": "cat", "width": 9}', "--wait", "--json", live=live)
    result = cli("job", "get", lines(asked.stdout)[0]["job_id"], live=live)
    assert result.returncode == 0
    assert re.search(r"state +completed", result.stdout)
    assert re.search(r'payload +{"image": "cat", "width": 9}', result.stdout)
    assert re.search(r'output +{"image": "cat", "width": 9}', result.stdout)


def test_a_job_that_is_not_there_is_answered_404(live: Live) -> None:
    result = cli("job", "get", "job_01h455vb4pex5vsknk084sn02q", live=live)
    assert result.returncode == 1
    assert "404" in result.stderr


def test_an_id_that_is_none_is_answered_with_what_one_looks_like(live: Live) -> None:
    result = cli("job", "get", "wfrun_01h455vb4pex5vsknk084sn02q", "--json", live=live)
    assert result.returncode == 1
    (problem,) = lines(result.stderr)
    assert problem["error"]["code"] == 400
    assert "job" in problem["error"]["message"]


# ── events ──


def test_events_shows_as_many_as_were_asked_for_from_the_beginning(live: Live) -> None:
    cli("enqueue", "resize-image", '{"image": "e", "width": 1}', "--wait", live=live)
    result = cli("events", "--since", "start", "--count", "3", "--json", live=live)
    assert result.returncode == 0, result.stderr
    events = lines(result.stdout)
    assert [event["type"] for event in events] == ["event"] * 3
    assert [event["channel"] for event in events] == ["firehose"] * 3
    assert [event["seq"] for event in events] == sorted(event["seq"] for event in events)
    assert {"job_id", "state"} <= events[0]["data"].keys()


def test_events_are_one_line_each_for_people(live: Live) -> None:
    cli("enqueue", "resize-image", '{"image": "e", "width": 1}', "--wait", live=live)
    result = cli("events", "jobs", "--since", "start", "-n", "2", live=live)
    shown = result.stdout.splitlines()
    assert len(shown) == 2
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} job\.\w+ +[\w-]+ +job_", shown[0])


def test_a_reader_that_closes_the_pipe_ends_events_quietly(live: Live) -> None:
    cli("enqueue", "resize-image", '{"image": "p", "width": 1}', "--wait", live=live)
    with subprocess.Popen(
        command("events", "--json"),
        env=clean_environment({"DISPATCH_URL": live.url}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        # Events of jobs that are enqueued now: before it has subscribed they pass it by, so until it has shown one.
        shown: list[str] = []
        while not shown:
            cli("enqueue", "resize-image", '{"image": "p", "width": 1}', "--wait", live=live)
            shown = [process.stdout.readline()]
        process.stdout.close()
        cli("enqueue", "resize-image", '{"image": "p", "width": 1}', "--wait", live=live)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""


def test_ctrl_c_ends_events_with_130_and_no_traceback(live: Live) -> None:
    with subprocess.Popen(
        command("events", "jobs"),
        env=clean_environment({"DISPATCH_URL": live.url}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while "watching jobs" not in (line := process.stderr.readline()):
            assert line, "it ended by itself"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert "Traceback" not in process.stderr.read()


def test_events_goes_on_where_it_was_when_the_server_comes_back(tmp_path: Path) -> None:
    db = tmp_path / "dispatch.db"
    resize = ("enqueue", "resize-image", '{"image": "r", "width": 1}', "--wait", "--json")
    with serving(APP, db=db) as live:
        (first,) = lines(cli(*resize, live=live).stdout)
        watching = subprocess.Popen(
            command("events", "jobs", "--since", "start", "--count", "6", "--json"),
            env=clean_environment({"DISPATCH_URL": live.url}),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert watching.stdout is not None
        shown = [watching.stdout.readline() for _ in range(3)]
        live.process.kill()
        live.process.wait()
    with watching, serving(APP, db=db, port=live.port) as live:
        (second,) = lines(cli(*resize, live=live).stdout)
        shown += watching.stdout.readlines()
        assert watching.wait(60) == 0
    events = [json.loads(line) for line in shown]
    assert [event["kind"] for event in events] == ["job.enqueued", "job.started", "job.completed"] * 2
    assert [event["data"]["job_id"] for event in events] == [first["job_id"]] * 3 + [second["job_id"]] * 3


@pytest.mark.parametrize("since", ["yesterday", "1.5"])
def test_a_since_that_is_no_seq_is_a_usage_error(since: str) -> None:
    result = cli("events", "--since", since)
    assert result.returncode == 2
    assert "--since must be a seq" in result.stderr


def test_a_channel_that_is_none_says_which_there_are(live: Live) -> None:
    result = cli("events", "mails", live=live)
    assert result.returncode == 1
    assert "queue:<name>" in result.stderr


# ── ping, and who may come in ──


def test_ping_says_how_long_it_took(live: Live) -> None:
    result = cli("ping", "--count", "2", live=live)
    assert result.returncode == 0
    assert len(re.findall(r"answered in [\d.]+ ms", result.stdout)) == 2
    (answer,) = lines(cli("ping", "--json", live=live).stdout)
    assert answer["elapsed_ms"] > 0


def test_a_good_key_comes_in(locked: Live) -> None:
    assert cli("ping", live=locked, token=SECRET).returncode == 0
    assert cli("ping", "--token", SECRET, live=locked).returncode == 0


def test_a_wrong_path_is_told_the_right_one_and_asked_for_no_key(live: Live) -> None:
    elsewhere = live.url.removesuffix("/dwp") + "/jobs"
    result = cli("ping", "--url", elsewhere, live=live)
    assert result.returncode == 3
    assert "HTTP 404: there is nothing here; the protocol is at /dwp" in result.stderr
    assert "DISPATCH_TOKEN" not in result.stderr


@pytest.mark.parametrize("token", ["", "dk_guess"])
def test_a_bad_key_ends_with_4_and_says_how_to_give_one(locked: Live, token: str) -> None:
    result = cli("ping", live=locked, token=token)
    assert result.returncode == 4
    assert "401" in result.stderr
    assert "DISPATCH_TOKEN" in result.stderr


def test_a_key_without_the_scope_ends_with_4(locked: Live) -> None:
    result = cli("enqueue", "resize-image", '{"image": "a", "width": 1}', live=locked, token=READER)
    assert result.returncode == 4
    assert "403: insufficient permissions (job.enqueue needs job:write)" in result.stderr


# ── what is not there ──


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    "arguments",
    [("ping",), ("job", "get", "job_01h455vb4pex5vsknk084sn02q"), ("enqueue", "send-email"), ("events",)],
    ids=" ".join,
)
def test_a_server_that_is_not_there_ends_with_3_and_says_where_it_looked(arguments: tuple[str, ...]) -> None:
    port = free_port()
    result = cli(*arguments, "--url", f"ws://127.0.0.1:{port}/dwp")
    assert result.returncode == 3
    assert f"127.0.0.1:{port}" in result.stderr
    assert "dispatch serve" in result.stderr


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = cli("ping", "--url", f"ws://127.0.0.1:{silent.getsockname()[1]}/dwp", "--timeout", "0.3")
    assert result.returncode in (3, 5)


@pytest.mark.parametrize("url", ["nonsense", "http://127.0.0.1/dwp", "ws://", "ws://127.0.0.1:port/dwp", ""])
def test_a_url_that_is_none_is_a_usage_error(url: str) -> None:
    result = cli("ping", "--url", url)
    assert result.returncode == 2
    assert "ws://" in result.stderr


# ── help and usage ──


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve",),
        ("enqueue",),
        *[("job", name) for name in ("get", "list", "cancel", "wait", "retry")],
        *[("dlq", name) for name in ("list", "replay")],
        ("queue", "list"),
        ("stats",),
        ("top",),
        *[("db", name) for name in ("check", "backup")],
        ("events",),
        ("ping",),
        ("demo",),
    ],
)
def test_every_command_explains_itself_with_examples(arguments: tuple[str, ...]) -> None:
    result = cli(*arguments, "--help")
    assert result.returncode == 0
    assert "Examples:" in result.stdout
    assert f"dispatch {' '.join(arguments)}" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [("nonsense",), ("enqueue",), ("job", "get"), ("ping", "--cuont", "1"), ("job",), ()],
    ids=str,
)
def test_a_wrong_command_line_ends_with_2(arguments: tuple[str, ...]) -> None:
    result = cli(*arguments)
    assert result.returncode == 2
    assert "Usage: dispatch" in result.stdout + result.stderr


def test_the_version_is_the_packages() -> None:
    import dispatch

    assert cli("--version").stdout == f"dispatch {dispatch.__version__}\n"


# ── serve ──


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("absent.py", "there is no file absent.py"),
        ("absent_module", "there is no module absent_module"),
        ("broken.py", "NameError: name 'oops' is not defined"),
        ("twice.py", 'two functions are named "a"'),
        ("empty.py", "declares no functions"),
    ],
)
def test_a_program_that_cannot_be_served_is_named_with_the_way_out(
    app: str, says: str, tmp_path: Path
) -> None:
    decorated = "import dispatch\n@dispatch.function(name='a')\ndef {}(): return {}\n"
    (tmp_path / "broken.py").write_text("oops\n")
    (tmp_path / "twice.py").write_text(decorated.format("one", 1) + decorated.format("two", 2))
    (tmp_path / "empty.py").write_text("")
    result = subprocess.run(
        command("serve", app, "--port", "0"),
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert says in result.stderr
    assert "importlib" not in result.stderr
    assert not (tmp_path / "dispatch.db").exists()


def test_a_port_in_use_says_how_to_take_another(live: Live, tmp_path: Path) -> None:
    port = live.port
    result = cli("serve", APP, "--port", str(port), "--db", str(tmp_path / "other.db"))
    assert result.returncode == 2
    assert f"port {port}" in result.stderr
    assert "--port" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_gracefully(number: int, tmp_path: Path) -> None:
    with serving(APP, db=tmp_path / "dispatch.db") as live:
        assert cli("ping", live=live).returncode == 0
        assert live.stop(number) == 0


def test_queues_that_are_not_served_wait(tmp_path: Path) -> None:
    with serving(APP, "--queues", "images,mail", db=tmp_path / "dispatch.db") as live:
        waits = cli("enqueue", "charge-card", '{"order_id": "1", "amount": 1}', "--json", live=live)
        runs = cli(
            "enqueue", "resize-image", '{"image": "a", "width": 1}', "-q", "images", "--wait", live=live
        )
        assert runs.returncode == 0
        (job,) = lines(cli("job", "get", lines(waits.stdout)[0]["job_id"], "--json", live=live).stdout)
        assert job["state"] == "pending"


@pytest.mark.parametrize("option", ["--lease", "--drain"])
@pytest.mark.parametrize("seconds", ["inf", "nan", "86401"])
def test_a_server_that_would_wait_for_ever_is_a_mistake(option: str, seconds: str) -> None:
    result = cli("serve", "--port", "0", "--db", ":memory:", option, seconds)
    assert result.returncode == 2
    assert option in result.stderr
    assert "86400" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("time", ["week", "7", "-1d", "1.5d", "", "999999999999999d"])
def test_a_time_that_is_none_is_a_usage_error(time: str) -> None:
    result = cli("serve", "--port", "0", "--db", ":memory:", "--keep-jobs", time)
    assert result.returncode == 2
    assert "such as 90s, 30m, 12h or 7d" in result.stderr
