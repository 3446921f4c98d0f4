"""One of several processes that work off one file: claims under leases that end at once, completes, tells what counted.

python contender.py FILE WORKER_ID
"""

from __future__ import annotations

import sys
from contextlib import closing

from dispatch.store import Completion, Lease
from dispatch.store.sqlite import SqliteStore

NOW = 1_700_000_000 * 10**9


def main(path: str, worker_id: str) -> None:
    with closing(SqliteStore(path)) as store:
        now = NOW
        while True:
            # Leases of no length: the others take our jobs whenever they rescue, and only fencing keeps order.
            now += 1
            with store.transaction():
                store.rescue(now_ns=now, limit=5)
                jobs = store.claim(worker_id, now_ns=now, lease_ns=0, limit=4)
                open_jobs = store.stats(tenant=None).jobs
            completions = [Completion(Lease(job.id, job.epoch), worker_id.encode()) for job in jobs]
            with store.transaction():
                settled = store.complete(completions, now_ns=now)
            for one in settled:
                if one is not None:
                    print("completed", one.job_id)
            if not any(open_jobs[state] for state in ("pending", "running", "retrying")):
                return


if __name__ == "__main__":
    main(*sys.argv[1:])
