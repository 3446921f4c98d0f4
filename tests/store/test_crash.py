"""`kill -9` at any moment loses nothing that was acknowledged, and leaves nothing half done."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from dispatch.store.sqlite import SqliteStore

CHILD = Path(__file__).with_name("crash_child.py")


def run_and_kill(path: Path, number: int, lines: int) -> list[list[str]]:
    """Every whole line that the child had printed when it was killed, after so many."""
    command = [sys.executable, str(CHILD), str(path), str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        said += child.stdout
    assert child.returncode == -signal.SIGKILL
    return [line.split() for line in said if line.endswith("\n")]


@pytest.mark.parametrize("seed", range(4))
def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path / "jobs.db"
    enqueued: set[str] = set()
    completed: set[str] = set()
    last_seq = 0
    for number in range(3):
        for kind, *rest in run_and_kill(path, number, rng.randrange(1, 300)):
            if kind == "enqueued":
                enqueued.add(rest[0])
            elif kind == "completed":
                completed.add(rest[0])
            else:
                # One log over all the lives of the store, without a hole.
                assert int(rest[0]) == last_seq + 1
                last_seq = int(rest[1])
        check(path, enqueued, completed, last_seq)
        # The next life starts from what the last one left; its dead worker's jobs come back.
        with closing(SqliteStore(path)) as store:
            with store.transaction():
                store.rescue(now_ns=0, workers=[f"wkr_{number}"])
            last_seq = store.head()


def check(path: Path, enqueued: set[str], completed: set[str], last_seq: int) -> None:
    with closing(SqliteStore(path)) as store, store.transaction():
        states = dict(store._execute("SELECT id, state FROM jobs").fetchall())
        assert enqueued <= states.keys()
        for job_id in completed:
            assert store.get_job(job_id, tenant=None).output == job_id.encode()
        assert {job_id for job_id, state in states.items() if state == "completed"} >= completed
        assert store.head() >= last_seq
        assert list(store._execute("PRAGMA integrity_check")) == [("ok",)]
        check_events_agree(store._db, states)


def check_events_agree(db: sqlite3.Connection, states: dict[str, str]) -> None:
    """A state change and its event are one transaction, so the log tells exactly what the jobs are."""
    seqs = [seq for (seq,) in db.execute("SELECT seq FROM events ORDER BY seq")]
    assert seqs == list(range(1, len(seqs) + 1))
    told: dict[str, str] = {}
    rows = db.execute("SELECT topic, json_extract(CAST(data AS TEXT), '$.state') FROM events ORDER BY seq")
    for topic, state in rows:
        told[topic.removeprefix("job:")] = state
    assert told == states
