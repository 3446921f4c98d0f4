"""The raw SQL of a job's life, in a loop: the statements and rows of the SQLite store, and nothing around them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from dispatch.store.sqlite import SqliteStore

_JOB = (
    "INSERT INTO jobs (id, name, queue, priority, max_retries, timeout, app_id, org_id, unique_key, created_at, state,"
    " updated_at, run_at, retry_count, last_error, worker_id, started_at, completed_at, heartbeat_at, epoch,"
    " lease_until, cancel_requested, output, error, due)"
    " VALUES (?, ?, ?, 0, 3, 300000000000, '', '', '', ?, 'pending', ?, ?, 0, '', '', 0, 0, 0, 0, 0, 0, NULL, '', 1)"
)
_PAYLOAD = "INSERT INTO payloads (n, payload) VALUES (?, ?)"
_EVENT = "INSERT INTO events (type, ts_ns, topic, queue, app_id, org_id, data) VALUES (?, ?, ?, ?, '', '', ?)"
_READY = (
    "SELECT id, name, queue, payload, epoch FROM jobs LEFT JOIN payloads USING (n)"
    " WHERE due = 1 AND queue = 'default' AND name = 'send-email' ORDER BY priority DESC, run_at, id LIMIT ?"
)
_START = (
    "UPDATE jobs SET state = 'running', due = NULL, updated_at = ?, started_at = ?, heartbeat_at = ?, lease_until = ?,"
    " worker_id = 'wkr', epoch = ? WHERE id = ?"
)
_HELD = "SELECT epoch, state FROM jobs WHERE id = ?"
_COMPLETE = "UPDATE jobs SET state = 'completed', updated_at = ?, completed_at = ?, output = ? WHERE id = ?"


class RawJobs:
    """Jobs in a file with the store's own tables and settings."""

    def __init__(self, path: Path) -> None:
        SqliteStore(path).close()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._made = 0

    def enqueue(self, count: int, payload: bytes, now_ns: int) -> None:
        """That many jobs in one transaction."""
        execute = self._db.execute
        execute("BEGIN IMMEDIATE")
        for _ in range(count):
            self._made += 1
            id = f"job_{self._made:026d}"
            cursor = execute(_JOB, (id, "send-email", "default", now_ns, now_ns, now_ns))
            execute(_PAYLOAD, (cursor.lastrowid, payload))
            data = f'{{"job_id":"{id}","job_name":"send-email","queue":"default","state":"pending"}}'
            execute(_EVENT, ("job.enqueued", now_ns, f"job:{id}", "default", data.encode()))
        execute("COMMIT")

    def work(self, count: int, output: bytes, now_ns: int) -> int:
        """Claims that many in one transaction and completes them in another; how many there were."""
        execute = self._db.execute
        execute("BEGIN IMMEDIATE")
        ready = execute(_READY, (count,)).fetchall()
        for id, _, _, _, epoch in ready:
            execute(_START, (now_ns, now_ns, now_ns, now_ns + 10**10, epoch + 1, id))
            data = f'{{"job_id":"{id}","job_name":"send-email","queue":"default","state":"running"}}'
            execute(_EVENT, ("job.started", now_ns, f"job:{id}", "default", data.encode()))
        execute("COMMIT")
        execute("BEGIN IMMEDIATE")
        for id, _, _, _, epoch in ready:
            assert execute(_HELD, (id,)).fetchone() == (epoch + 1, "running")
            execute(_COMPLETE, (now_ns, now_ns, output, id))
            data = f'{{"job_id":"{id}","job_name":"send-email","queue":"default","state":"completed"}}'
            execute(_EVENT, ("job.completed", now_ns, f"job:{id}", "default", data.encode()))
        execute("COMMIT")
        return len(ready)

    def close(self) -> None:
        self._db.close()
