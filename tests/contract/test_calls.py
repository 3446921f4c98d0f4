"""Calls: every method once, what they return, and what their failures say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatch.errors import (
    AuthError,
    ConflictError,
    DispatchError,
    InvalidRequest,
    NotFoundError,
    PayloadError,
    TimeoutError,
    UnsupportedError,
)
from dwp_core.frames import DEFAULT_LIMITS
from tests.contract.bindings import over_http_too
from tests.contract.go_server import GoServer
from tests.contract.our_server import OurServer
from tests.contract.world import NO_JOB, NO_RUN, World, confirmed, failure_of, gather

pytestmark = pytest.mark.anyio

PAYLOADS: list[Any] = [
    None,
    True,
    0,
    -1.5,
    "",
    "text",
    [],
    {},
    [None, [[]], {"": {}}],
    {"ünï": "cödé 😀 \u2028 <&>", "escapes": '"\\\n\x00'},
    2**63 + 1,
    10**40,
    -(10**30),
    {"n": [2**53 + 1, 1e308, 5e-324, 0.1]},
]


# Jobs.


@over_http_too
async def test_a_job_is_enqueued_run_and_read(world: World[Any]) -> None:
    """It goes in, ends, and is read again: a mapping with attributes, payload decoded, the raw one within reach."""
    async with world.client() as client:
        enqueued = await client.enqueue("send-email", {"to": "user@example.com"}, queue="mail", priority=7)
        assert enqueued == {"job_id": enqueued.job_id, "queue": "mail", "state": "pending"}
        assert (enqueued.queue, enqueued.state, enqueued.duplicate) == ("mail", "pending", False)
        outcome = await client.wait(enqueued.job_id)
        assert (outcome.job_id, outcome.state, outcome["state"]) == (
            enqueued.job_id,
            "completed",
            "completed",
        )
        job = await client.get_job(enqueued.job_id)
        assert (job.id, job.job_id, job["id"]) == (enqueued.job_id,) * 3
        assert (job.name, job.queue, job.state, job.priority) == ("send-email", "mail", "completed", 7)
        assert job.payload == job["payload"] == {"to": "user@example.com"}
        assert job.raw["payload"] == "eyJ0byI6InVzZXJAZXhhbXBsZS5jb20ifQ=="
        assert (job.max_retries, job.retry_count, job.error) == (3, 0, None)
        for time in (job.created_at, job.updated_at, job.completed_at):
            assert time.endswith("Z")
            assert datetime.fromisoformat(time[:26]).year >= 2024


async def test_times_keep_their_nanoseconds(go: World[GoServer]) -> None:
    """Times are texts as the server wrote them; no digit is lost."""
    async with go.client() as client:
        job = await client.get_job((await client.enqueue("noop")).job_id)
        assert job.created_at.endswith("789Z")
        assert len(job.created_at) == len("2026-01-02T03:04:05.123456789Z")


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: repr(payload)[:24])
async def test_payloads_come_back_as_they_went(world: World[Any], payload: Any) -> None:
    """Any JSON value: every digit of an integer, every character, and null is not absence."""
    async with world.client() as client:
        name = "noop" if world.server.base else "echo"
        enqueued = await client.enqueue(name, {"it": payload})
        if not world.server.base:
            assert (await client.wait(enqueued.job_id)).output == payload
        assert (await client.get_job(enqueued.job_id)).payload == {"it": payload}
        alone = await client.enqueue("noop", payload)
        assert (await client.get_job(alone.job_id)).payload == payload


@over_http_too
async def test_a_failure_is_an_outcome(world: World[Any]) -> None:
    """`wait` returns how it ended; that a function failed is no error of the call."""
    async with world.client() as client:
        outcome = await client.wait((await client.enqueue("always-fails")).job_id)
        assert outcome.state == "failed"
        assert "as it always does" in outcome.error


@over_http_too
async def test_a_job_that_waits_is_cancelled(world: World[Any]) -> None:
    """It never runs, and whoever waits for it hears so."""
    async with world.client() as client:
        enqueued = await client.enqueue("hold")
        assert await client.cancel_job(enqueued.job_id) == {"status": "cancelled"}
        world.server.release()
        assert (await client.wait(enqueued.job_id)).state == "cancelled"


async def test_a_job_that_has_ended_cannot_be_cancelled(ours: World[OurServer]) -> None:
    """That is a conflict, 409; the base peer alone says that it succeeded."""
    async with ours.client() as client:
        enqueued = await client.enqueue("noop")
        await client.wait(enqueued.job_id)
        error = await failure_of(lambda: client.cancel_job(enqueued.job_id))
        assert isinstance(error, ConflictError)
        assert error.code == 409


async def test_options_of_a_job(ours: World[OurServer]) -> None:
    """Delay or time, retries, time limit and unique key reach the job; a unique key that holds gives the same job."""
    async with ours.client() as client:
        later = datetime.now(UTC) + timedelta(hours=1)
        delayed = await client.enqueue(
            "noop", delay=3600, max_retries=7, job_timeout=1.5, unique_key="only-one", unique_for=60
        )
        job = await client.get_job(delayed.job_id)
        assert (job.state, job.max_retries, job["timeout"]) == ("pending", 7, 1_500_000_000)
        assert datetime.fromisoformat(job.run_at[:19] + "+00:00") > later - timedelta(minutes=5)
        again = await client.enqueue("noop", unique_key="only-one")
        assert (again.job_id, again.duplicate) == (delayed.job_id, True)
        assert (await client.enqueue("noop", run_at=later)).state == "pending"
        assert (await client.enqueue("noop", run_at=later.isoformat())).state == "pending"


async def test_options_are_refused_before_a_base_server_could_ignore_them(go: World[GoServer]) -> None:
    """A delay that a peer does not know would be no delay: the call fails here, and nothing is sent."""
    async with go.client() as client:
        error = await failure_of(lambda: client.enqueue("noop", delay=5))
        assert isinstance(error, UnsupportedError)
        assert '"options"' in str(error)
        error = await failure_of(lambda: client.enqueue_many([{"name": "noop"}]))
        assert isinstance(error, UnsupportedError)
        assert go.server.heard == []


async def test_an_idempotency_key_makes_one_job_of_two_calls(ours: World[OurServer]) -> None:
    """The same key and data is the same job; the same key and other data is a conflict."""
    async with ours.client() as client:
        first = await client.enqueue("noop", 1, idempotency_key="k")
        second = await client.enqueue("noop", 1, idempotency_key="k")
        assert (second.job_id, second.duplicate) == (first.job_id, True)
        error = await failure_of(lambda: client.enqueue("noop", 2, idempotency_key="k"))
        assert isinstance(error, ConflictError)


async def test_several_jobs_are_enqueued_at_once(ours: World[OurServer]) -> None:
    """All of them, or none and an error."""
    async with ours.client() as client:
        jobs = [{"name": "noop", "payload": n} for n in range(3)] + [{"name": "noop", "delay": 60}]
        answer = await client.enqueue_many(jobs)
        assert len(answer.jobs) == len({job.job_id for job in answer.jobs}) == 4
        assert answer["jobs"][0].queue == "default"
        error = await failure_of(lambda: client.enqueue_many([{"name": "noop"}, {"name": "nobody-has-it"}]))
        assert isinstance(error, NotFoundError)


async def test_jobs_are_listed_by_pages(ours: World[OurServer]) -> None:
    """Newest first, by state, queue and name; the cursor of a page asks for the next, and the last has none."""
    async with ours.client() as client:
        ids = [(await client.enqueue("noop", n, queue="q", delay=60)).job_id for n in range(3)]
        page = await client.list_jobs(queue="q", state="pending", name="noop", limit=2)
        assert [job.id for job in page.jobs] == ids[:0:-1]
        assert page.jobs[0].payload == 2
        rest = await client.list_jobs(queue="q", limit=2, cursor=page.cursor)
        assert [job.id for job in rest.jobs] == ids[:1]
        assert rest.cursor is None


async def test_a_dead_letter_is_listed_and_replayed(ours: World[OurServer]) -> None:
    """What has failed for good is there with its payload, and runs again as a new job."""
    async with ours.client() as client:
        failed = await client.enqueue("always-fails", {"a": 1})
        await client.wait(failed.job_id)
        [letter] = (await client.list_dead_letters(queue="default", limit=5)).entries
        assert letter["payload"] == {"a": 1}
        replayed = await client.replay_dead_letter(letter["id"])
        assert replayed["job_id"] != failed.job_id
        assert (await client.wait(replayed["job_id"])).state == "failed"


# Everything else.


async def test_workflows_on_a_base_server(go: World[GoServer]) -> None:
    """A run is started, read, and its timeline told; step results that are not JSON stay bytes."""
    async with go.client() as client:
        run = await client.start_workflow("order-pipeline", {"order_id": "ORD-001"})
        assert (run["run_id"], run.name, run.state) == (run.run_id, "order-pipeline", "completed")
        read = await client.get_workflow(run.run_id)
        assert (read.id, read.state, read.input) == (run.run_id, "completed", {"order_id": "ORD-001"})
        timeline = await client.workflow_timeline(run.run_id)
        assert [entry.step_name for entry in timeline] == ["validate", "charge", "ship"]
        assert timeline[1].data == b"\x03\x04\x00T"  # its own binary form stays bytes
        assert timeline[1].raw["data"] == "AwQAVA=="
        assert timeline[0].data is None
        assert (await client.wait(run.run_id)).run_id == run.run_id
        failed = await client.start_workflow("order-pipeline")
        assert (await client.get_workflow(failed.run_id)).error.endswith("order_id is required")
        event = await client.publish_event("anything", {"a": 1})
        assert event["event_id"].startswith("evt_")


@over_http_too
async def test_every_method_that_a_server_does_not_have_is_answered_405(world: World[Any]) -> None:
    """`UnsupportedError` with the code 405, whether the server says so or the client knows it."""
    async with world.client() as client:
        calls = [
            lambda: client.cancel_workflow(NO_RUN),
            lambda: client.replay_workflow(NO_RUN, from_step="charge"),
            lambda: client.call("nonsense", {"a": 1}),
            lambda: client.call("federation.enqueue", {"name": "noop", "payload": 1, "source_id": "s"}),
        ]
        if world.server.base:
            calls += [client.list_jobs, client.list_dead_letters, lambda: client.replay_dead_letter("dlq_1")]
            calls += [client.list_crons, lambda: client.pause_cron("c"), lambda: client.trigger_cron("c")]
        else:
            calls += [
                lambda: client.start_workflow("noop"),
                lambda: client.get_workflow(NO_RUN),
                lambda: client.workflow_timeline(NO_RUN),
                lambda: client.publish_event("e"),
                lambda: client.wait(NO_RUN),
            ]
        for call in calls:
            error = await failure_of(call)
            assert isinstance(error, UnsupportedError)
            assert error.code == 405


async def test_cron_entries_are_listed_paused_resumed_and_triggered(ours: World[OurServer]) -> None:
    """By `list_crons`, `pause_cron`, `resume_cron` and `trigger_cron`; payloads are values."""
    async with ours.client() as client:
        (entry,) = (await client.list_crons()).crons
        assert (entry.name, entry.schedule, entry.timezone) == ("yearly", "@yearly", "Europe/Berlin")
        assert (entry.job_name, entry.payload, entry.enabled) == ("noop", {"a": [1]}, True)
        assert not (await client.pause_cron("yearly")).enabled
        triggered = await client.trigger_cron("yearly")
        assert (await client.get_job(triggered["job_id"])).payload == {"a": [1]}
        resumed = await client.resume_cron("yearly")
        assert (resumed.enabled, resumed.next_run_at) == (True, entry.next_run_at)
        assert resumed.last_job_id == triggered["job_id"]
        error = await failure_of(lambda: client.pause_cron("nightly"))
        assert isinstance(error, NotFoundError)


@over_http_too
async def test_stats_ping_and_any_method_by_name(world: World[Any]) -> None:
    """`call` asks for any method and gives its data as they are."""
    async with world.client() as client:
        assert "broker" in await client.stats()
        assert 0 < await client.ping() < 30
        assert "broker" in await client.call("stats")
        job = await client.call("job.enqueue", {"name": "noop", "payload": [1]})
        assert (await client.call("job.get", {"job_id": job["job_id"]}))["payload"] == "WzFd"


async def test_a_thousand_calls_at_once(world: World[Any]) -> None:
    """Each gets its own answer, whatever order they come in."""
    async with world.client() as client:
        answers = await gather(*[lambda n=n: client.enqueue("noop", n, queue="nobody") for n in range(1000)])
        assert len({answer.job_id for answer in answers}) == 1000
        looks = await gather(*[lambda a=a: client.get_job(a.job_id) for a in answers])
        assert [job.payload for job in looks] == list(range(1000))


@over_http_too
async def test_errors_have_classes_codes_and_messages(world: World[Any]) -> None:
    """An error is caught by its class, by the builtin that it also is, or told by its code."""
    async with world.client() as client:
        missing = await failure_of(lambda: client.get_job(NO_JOB))
        assert isinstance(missing, NotFoundError)
        assert isinstance(missing, LookupError)
        assert (missing.code, "not found" in str(missing) or NO_JOB in str(missing)) == (404, True)
        for id in ("job_", "", "wfrun_01h455vb4pex5vsknk084sn02q"):
            wrong = await failure_of(lambda id_=id: client.get_job(id_))  # type: ignore[misc]
            assert isinstance(wrong, InvalidRequest)
            assert isinstance(wrong, ValueError)
            assert wrong.code == 400
        nowhere = await failure_of(lambda: client.cancel_job(NO_JOB))
        assert isinstance(nowhere, NotFoundError)
        assert isinstance(await failure_of(lambda: client.wait(NO_JOB)), NotFoundError)
        assert isinstance(await failure_of(lambda: client.watch(NO_JOB)), NotFoundError)
    async with world.client(token="dk_reader") as reader:
        forbidden = await failure_of(lambda: reader.enqueue("noop"))
        assert isinstance(forbidden, AuthError)
        assert forbidden.code == 403
        assert isinstance(await failure_of(lambda: reader.get_job(NO_JOB)), NotFoundError)


async def test_wrong_arguments_are_refused_before_anything_is_sent(go: World[GoServer]) -> None:
    """The message names the argument; the connection does not notice."""
    async with go.client() as client:
        payloads = [
            float("nan"), float("inf"), b"bytes", {1, 2}, {1: "a"}, object(), "\ud800", {"a": [{"b": 1j}]},
        ]  # fmt: skip
        for payload in payloads:
            error = await failure_of(lambda payload=payload: client.enqueue("noop", payload))  # type: ignore[misc]
            assert isinstance(error, PayloadError), payload
            assert "payload" in str(error)
        assert "payload.a[0].b" in str(await failure_of(lambda: client.enqueue("noop", {"a": [{"b": 1j}]})))
        calls: list[Any] = [
            lambda: client.enqueue("noop", delay=-1),
            lambda: client.enqueue("noop", delay="soon"),
            lambda: client.enqueue("noop", run_at=datetime(2026, 1, 1)),  # noqa: DTZ001  # that is what is refused
            lambda: client.enqueue("noop", idempotency_key=""),
            lambda: client.enqueue("noop", idempotency_key="k" * 256),
            lambda: client.enqueue("noop", idempotency_key=5),
            lambda: client.enqueue("noop", timeout=0),
            lambda: client.enqueue("noop", timeout="1"),
            lambda: client.enqueue("noop", timeout=float("nan")),
            lambda: client.enqueue_many([{"payload": 1}]),
            lambda: client.enqueue_many([{"name": "a", "nam": 1}]),
            lambda: client.enqueue_many({"name": "a"}),
            lambda: client.enqueue_many(5),
            lambda: client.enqueue_many(["a"]),
            lambda: client.enqueue_many([{"name": "a", "delay": -1}]),
            lambda: client.wait("nothing"),
            lambda: client.wait(5),
            lambda: client.watch("evt_1"),
            lambda: client.call(""),
            lambda: client.call(None),
        ]
        for position, call in enumerate(calls):
            error = await failure_of(call)
            assert isinstance(error, InvalidRequest), position
            assert error.code == 400
        for channel in ("nothing", "", "job:", "x:y", "j" * 600, None, 5):
            error = await failure_of(lambda channel=channel: confirmed(client.subscribe(channel)))  # type: ignore[misc]
            assert isinstance(error, InvalidRequest)
            assert "channel" in str(error)
        for since in (-1, 1.5, "end", True, 2**63):
            error = await failure_of(lambda since=since: confirmed(client.subscribe("jobs", since=since)))  # type: ignore[misc]
            assert isinstance(error, InvalidRequest)
            assert "since" in str(error)
        assert await client.ping() > 0
        assert go.server.heard == []


@over_http_too
async def test_a_payload_at_the_limit_passes_and_one_over_it_is_an_error(world: World[Any]) -> None:
    """8 MiB to the byte. One more is 413, and the connection lives on."""
    key = "" if world.server.base else ',"idempotency_key":"k"'  # which base peers do not take
    room = DEFAULT_LIMITS.payload - len(f'{{"name":"noop","payload":"","queue":"nobody"{key}}}')
    async with world.client() as client:
        options = {"queue": "nobody", "idempotency_key": "k"}
        job = await client.enqueue("noop", "x" * room, **options)
        assert (await client.get_job(job.job_id)).payload == "x" * room
        error = await failure_of(lambda: client.enqueue("noop", "x" * (room + 1), **options))
        assert isinstance(error, DispatchError)
        assert error.code == 413
        assert await client.ping() > 0


@over_http_too
async def test_a_call_has_a_time(world: World[Any]) -> None:
    """`timeout=` of a call ends the waiting, with the builtin's TimeoutError, 408; the job goes on."""
    async with world.client() as client:
        job = await client.enqueue("hold")
        error = await failure_of(lambda: client.wait(job.job_id, timeout=0.05))
        assert isinstance(error, TimeoutError)
        assert isinstance(error, DispatchError)
        assert error.code == 408
        world.server.release()
        assert (await client.wait(job.job_id)).state == "completed"


@over_http_too
async def test_any_number_of_tasks_wait_for_one_job(world: World[Any]) -> None:
    """All of them are told."""
    async with world.client() as client:
        job = await client.enqueue("hold")
        world.server.release()
        outcomes = await gather(*[lambda: client.wait(job.job_id) for _ in range(20)])
        assert {outcome.state for outcome in outcomes} == {"completed"}
