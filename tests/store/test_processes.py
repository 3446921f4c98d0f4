"""Several processes on one file: every job is completed by exactly one of them, and nobody sees a locked database."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

from dispatch.store import NO_TENANT, NewJob
from dispatch.store.sqlite import SqliteStore

CHILD = Path(__file__).with_name("contender.py")
JOBS = 300


def test_processes_that_take_each_other_s_jobs_never_both_complete_one(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with closing(SqliteStore(path)) as store, store.transaction():
        store.register_names(["noop"])
        new = [NewJob("noop", max_retries=10**6, run_at=0)] * JOBS
        ids = [job.job_id for job in store.enqueue(new, tenant=NO_TENANT, now_ns=1).jobs]
    children = [
        subprocess.Popen(
            [sys.executable, str(CHILD), str(path), f"wkr_{n}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(3)
    ]
    outputs = [child.communicate(timeout=120) for child in children]
    assert [error for _, error in outputs] == ["", "", ""]
    claims_of = [[line.split()[1] for line in output.splitlines()] for output, _ in outputs]
    assert Counter(job_id for claims in claims_of for job_id in claims) == Counter(ids)
    with closing(SqliteStore(path)) as store, store.transaction():
        assert store.stats(tenant=None).jobs["completed"] == JOBS
        for n, claims in enumerate(claims_of):
            for job_id in claims:
                assert store.get_job(job_id, tenant=None).output == f"wkr_{n}".encode()
