"""`dispatch.current()`: what a running function knows about its run."""

from __future__ import annotations

import threading
from contextvars import copy_context
from datetime import UTC, datetime

import pytest

from dispatch.functions.context import RunContext, current, enter

NOW = 1_700_000_000_000_000_000


def make(deadline_ns: int | None = None) -> RunContext:
    return RunContext(
        id="job_1", name="send-email", queue="mail", attempt=2, deadline_ns=deadline_ns, clock_ns=lambda: NOW
    )


def test_outside_of_a_run_it_says_where_it_works() -> None:
    with pytest.raises(
        RuntimeError, match=r"outside of a run: it works in functions declared with @dispatch.function"
    ):
        current()


def test_inside_of_a_run_it_is_that_run() -> None:
    context = make()

    def inside() -> RunContext:
        enter(context)
        return current()

    assert copy_context().run(inside) is context
    assert (context.id, context.name, context.queue, context.attempt) == ("job_1", "send-email", "mail", 2)
    assert repr(context) == "<run of send-email job_1, attempt 2>"


def test_a_deadline_is_told_as_a_time_and_as_what_remains() -> None:
    context = make(NOW + 1_500_000_000)

    assert context.deadline == datetime(2023, 11, 14, 22, 13, 21, 500000, tzinfo=UTC)
    assert context.remaining == 1.5
    assert make(NOW - 1).remaining == 0.0


def test_without_a_deadline_nothing_runs_out() -> None:
    assert make().deadline is None
    assert make().remaining is None


def test_a_function_that_waits_is_woken_by_its_cancellation() -> None:
    context = make()
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(context.wait_cancelled()))
    thread.start()
    context.cancel()
    thread.join()

    assert results == [True]
    assert context.cancelled
    assert context.noticed
    assert repr(context).endswith(", cancelled>")


def test_waiting_ends_with_its_time_too() -> None:
    assert not make().wait_cancelled(timeout=0)


def test_a_cancellation_counts_as_noticed_once_the_function_has_looked() -> None:
    context = make()
    assert not context.cancelled
    context.cancel()
    assert not context.noticed
    assert context.cancelled
    assert context.noticed


def test_the_log_carries_the_job() -> None:
    context = make()
    assert context.log.name == "dispatch.job.send-email"
    assert context.log.extra == {"job_id": "job_1", "job_name": "send-email", "attempt": 2}
