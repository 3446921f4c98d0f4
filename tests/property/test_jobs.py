"""Whatever happens to a job in whatever order, some things are always true of it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dwp_core import jobs
from dwp_core.errors import ConflictError
from dwp_core.jobs import FINISHED, PENDING, RUNNING, SECOND, STATES, WAITING, Change, Job
from dwp_core.topics import state_of

NOW = 1_700_000_000 * SECOND

texts = st.text(max_size=30)
steps = st.lists(
    st.tuples(
        st.sampled_from(["start", "complete", "fail", "release", "rescue", "cancel", "request_cancel"]),
        st.integers(0, 10**12),
        st.floats(0, 1, exclude_max=True),
        st.text(st.characters(), max_size=20),
    ),
    max_size=25,
)


def step(job: Job, trigger: str, now: int, jitter: float, text: str) -> Change:
    actions: dict[str, Any] = {
        "start": lambda: jobs.start(job, worker_id="wkr_1", now_ns=now, lease_ns=SECOND),
        "complete": lambda: jobs.complete(job, output=b"1", now_ns=now),
        "fail": lambda: jobs.fail(job, error=text, now_ns=now, jitter=jitter),
        "release": lambda: jobs.release(job, now_ns=now),
        "rescue": lambda: jobs.rescue(job, now_ns=now),
        "cancel": lambda: jobs.cancel(job, now_ns=now),
        "request_cancel": lambda: jobs.request_cancel(job, now_ns=now),
    }
    change: Change = actions[trigger]()
    return change


@given(name=texts, queue=texts, app=texts, max_retries=st.integers(0, 4), steps=steps)
def test_a_job_stays_whole_whatever_happens(
    name: str, queue: str, app: str, max_retries: int, steps: list[tuple[str, int, float, str]]
) -> None:
    job = Job("job_x", name, queue, b"", 0, max_retries, 0, app, "", "", NOW, PENDING, NOW, NOW)
    now = NOW
    starts = 0
    for trigger, pause, jitter, text in steps:
        now += pause
        try:
            change = step(job, trigger, now, jitter, text)
        except ConflictError:
            assert trigger == "request_cancel" or not jobs.TRANSITIONS.allows(job.state, trigger)
            continue
        after = change.job
        assert job.state not in FINISHED
        assert after[: jobs.FIXED_FIELDS] == job[: jobs.FIXED_FIELDS]
        assert after.state in STATES
        assert after.epoch >= job.epoch
        assert (after.lease_until > 0) == (after.state == RUNNING)
        assert after.retry_count <= max_retries + 1
        assert change.dead == (after.state == "failed")
        if after.state in WAITING:
            assert after.run_at <= now + 60 * SECOND
        if after.state != job.state and (after.state, trigger) != (PENDING, "release"):
            assert change.events
        for event in change.events:
            data = json.loads(event.data)
            assert state_of(event.type) == data["state"] == after.state
            assert (data["job_name"], data["queue"], data.get("scope_app_id", "")) == (name, queue, app)
        starts += trigger == "start"
        json.dumps(jobs.job_to_wire(after)).encode()
        job = after
    assert job.retry_count <= starts


@given(failures=st.integers(1, 200), jitter=st.floats(0, 1, exclude_max=True))
def test_a_retry_is_never_later_than_its_window(failures: int, jitter: float) -> None:
    window = min(2 ** (failures - 1), 60) * SECOND
    assert 0 <= jobs.retry_delay_ns(failures, jitter) < window
