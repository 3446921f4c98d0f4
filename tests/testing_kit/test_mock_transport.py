"""`MockTransport`: a test says what the server answers, and sees what it was asked, whatever the client waits with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from dispatch.errors import (
    AuthError,
    ConflictError,
    ConnectionError,
    DispatchError,
    InvalidRequest,
    NotFoundError,
    OutcomeUnknown,
    PayloadError,
    TimeoutError,
    UnsupportedError,
)
from dispatch.testing import MockTransport, Request, new_id
from dwp_core.peer import RESUME
from dwp_core.server_events import ServerConfig
from tests.testing_kit.conftest import Connect

pytestmark = pytest.mark.anyio

JOB = "job_01h455vb4pex5vsknk084sn02q"
RUN = "wfrun_01h455vb4pex5vsknk084sn02q"


async def at_once(*calls: Callable[[], Awaitable[Any]], meanwhile: Callable[[], Awaitable[Any]]) -> list[Any]:
    """What the calls give, begun in this order; `meanwhile` runs beside them."""
    results: list[Any] = [None] * len(calls)

    async def call(place: int) -> None:
        results[place] = await calls[place]()

    async with anyio.create_task_group() as group:
        for place in range(len(calls)):
            group.start_soon(call, place)
        await meanwhile()
    return results


# Answers.


async def test_a_request_gets_its_scripted_answer_and_is_kept_to_be_looked_at(
    transport: MockTransport, connect: Connect
) -> None:
    transport.answer("job.enqueue", {"job_id": JOB, "queue": "mail", "state": "pending"})
    async with connect(token="dk_1", transport=transport) as client:
        job = await client.enqueue(
            "send-email", {"to": "user@example.com"}, queue="mail", idempotency_key="k"
        )
        assert job == {"job_id": JOB, "queue": "mail", "state": "pending"}
        assert client.session_id == "mock_1"
    (request,) = transport.requests
    assert (request.method, request.key, request.session_id) == ("job.enqueue", "k", "mock_1")
    assert request.data == {"name": "send-email", "payload": {"to": "user@example.com"}, "queue": "mail"}
    assert request.answered
    assert transport.asked("job.enqueue") == [request.data]
    assert transport.logins == ["dk_1"]
    assert transport.connections == 0


async def test_what_a_server_always_says_is_filled_in(transport: MockTransport, connect: Connect) -> None:
    for method in (
        "job.enqueue job.enqueue_many job.get job.cancel job.list job.wait workflow.start workflow.get workflow.event"
        " workflow.cancel workflow.wait cron.list cron.pause cron.resume cron.trigger dlq.list dlq.replay"
    ).split():
        transport.answer(method)
    async with connect(transport=transport) as client:
        job = await client.enqueue("send-email", queue="mail")
        assert (job.queue, job.state) == ("mail", "pending")
        assert len((await client.enqueue_many([{"name": "a"}, {"name": "b"}])).jobs) == 2
        assert (await client.get_job(JOB)).job_id == JOB
        assert await client.cancel_job(JOB) == {"status": "cancelled"}
        assert (await client.list_jobs()).jobs == []
        assert (await client.wait(JOB)).state == "completed"
        run = await client.start_workflow("order", {})
        assert (run.name, run.state) == ("order", "running")
        assert (await client.get_workflow(RUN)).run_id == RUN
        assert (await client.wait(RUN)).state == "completed"
        assert (await client.publish_event("paid"))["name"] == "paid"
        await client.cancel_workflow(RUN)
        assert await client.list_crons() == {"crons": []}
        assert not (await client.pause_cron("nightly")).enabled
        assert (await client.resume_cron("nightly")).enabled
        assert (await client.trigger_cron("nightly"))["name"] == "nightly"
        assert (await client.list_dead_letters()).entries == []
        assert await client.replay_dead_letter(new_id("dlq"))


async def test_answers_are_given_as_a_program_sees_them(transport: MockTransport, connect: Connect) -> None:
    """Not as base64 of JSON text, which is how payloads, inputs, outputs and step results travel."""
    job = {"payload": {"to": "a"}, "output": [1, None], "state": "completed"}
    transport.answer("job.get", job, {"output": b"\xff"}, {"output": None})
    transport.answer("job.list", {"jobs": [job]})
    transport.answer("job.wait", {"output": "text that is base64"})
    transport.answer("workflow.get", {"input": 1, "output": {"x": 2}})
    transport.answer("workflow.timeline", [{"step_name": "charge", "data": {"paid": True}}])
    transport.answer("dlq.list", {"entries": [{"payload": 7}]})
    async with connect(transport=transport) as client:
        got = await client.get_job(JOB)
        assert (got.payload, got.output) == ({"to": "a"}, [1, None])
        assert got.raw["output"] == "WzEsbnVsbF0="
        assert (await client.get_job(JOB)).output == b"\xff"
        assert (await client.get_job(JOB)).output is None
        assert (await client.list_jobs()).jobs[0].payload == {"to": "a"}
        assert (await client.wait(JOB)).output == "text that is base64"
        assert (await client.get_workflow(RUN)).input == 1
        assert (await client.workflow_timeline(RUN))[0].data == {"paid": True}
        assert (await client.list_dead_letters()).entries[0]["payload"] == 7


async def test_answers_come_one_after_the_other_and_the_last_one_stays(
    transport: MockTransport, connect: Connect
) -> None:
    transport.answer("job.get", NotFoundError("not yet"), {"state": "running"}, {"state": "completed"})
    async with connect(transport=transport) as client:
        with pytest.raises(NotFoundError, match="not yet"):
            await client.get_job(JOB)
        states = [(await client.get_job(JOB)).state for _ in range(3)]
    assert states == ["running", "completed", "completed"]


async def test_a_function_answers_from_the_data_of_the_request(
    transport: MockTransport, connect: Connect
) -> None:
    def get(data: dict[str, Any]) -> Any:
        if data["job_id"] != JOB:
            raise NotFoundError(f"no job {data['job_id']}")
        return {"state": "running"}

    transport.answer("job.get", get)
    async with connect(transport=transport) as client:
        assert (await client.get_job(JOB)).state == "running"
        with pytest.raises(NotFoundError, match="no job job_"):
            await client.get_job(new_id("job"))


async def test_a_function_may_publish_what_follows_from_the_request(
    transport: MockTransport, connect: Connect
) -> None:
    """So a test has a server on which jobs end by themselves; the events come before the answer, as they may."""

    def enqueue(data: dict[str, Any]) -> Any:
        for kind in ("job.enqueued", "job.started", "job.completed"):
            transport.publish(kind, job_id=JOB, job_name=data["name"])
        return {"job_id": JOB}

    transport.answer("job.enqueue", enqueue)
    async with connect(transport=transport) as client:
        jobs = await client.subscribe("jobs")
        assert (await client.enqueue("send-email")).job_id == JOB
        assert [(await jobs.__anext__())["data"]["state"] for _ in range(3)] == [
            "pending",
            "running",
            "completed",
        ]


async def test_errors_reach_the_program_as_a_server_sends_them(
    transport: MockTransport, connect: Connect
) -> None:
    transport.answer("stats", DispatchError("too many at once", code=429, details="try later"))
    async with connect(transport=transport) as client:
        with pytest.raises(DispatchError, match="too many at once") as refused:
            await client.stats()
    assert (refused.value.code, refused.value.details) == (429, "try later")


async def test_what_a_server_refuses_because_it_goes_away_is_asked_again(
    transport: MockTransport, connect: Connect
) -> None:
    transport.answer("job.cancel", ConnectionError("going away"), {})
    async with connect(transport=transport) as client:
        assert await client.cancel_job(JOB) == {"status": "cancelled"}
        assert client.session_id == "mock_2"
    assert len(transport.asked("job.cancel")) == 2


async def test_a_function_that_fails_is_named_in_the_error_of_the_call(
    transport: MockTransport, connect: Connect
) -> None:
    transport.answer("stats", lambda data: data["missing"])
    async with connect(transport=transport) as client:
        with pytest.raises(DispatchError, match="scripted for stats raised KeyError: 'missing'") as refused:
            await client.stats()
    assert refused.value.code == 500


async def test_a_function_whose_answer_is_no_json_says_where(
    transport: MockTransport, connect: Connect
) -> None:
    transport.answer("stats", lambda data: {"when": object()})
    async with connect(transport=transport) as client:
        with pytest.raises(InvalidRequest, match=r"the answer to stats\.when: object is not JSON"):
            await client.stats()


async def test_what_was_not_scripted_is_refused_with_a_hint(
    transport: MockTransport, connect: Connect
) -> None:
    transport.answer("stats")
    async with connect(transport=transport) as client:
        with pytest.raises(UnsupportedError, match="no answer was scripted for job") as refused:
            await client.enqueue("send-email")
        assert 'transport.answer("job.enqueue", ...); there are answers for stats' in str(refused.value)
        with pytest.raises(UnsupportedError, match=r"unknown method: job\.enqeue"):
            await client.call("job.enqeue")
        assert refused.value.code == 405


async def test_the_server_judges_requests_as_the_real_one_does(
    transport: MockTransport, connect: Connect
) -> None:
    transport.answer("job.enqueue")
    async with connect(transport=transport) as client:
        with pytest.raises(InvalidRequest, match="priority must be an integer"):
            await client.enqueue("send-email", priority="high")
    assert transport.requests == []


# Answers that wait.


async def test_answers_are_held_back_until_they_are_released(
    transport: MockTransport, connect: Connect
) -> None:
    transport.answer("job.get", {"state": "running"})
    transport.answer("stats", {"connections": 1})
    transport.hold("job.get")

    async with connect(transport=transport) as client:

        async def meanwhile() -> None:
            request = await transport.next_request("job.get")
            assert not request.answered
            assert transport.held == [request]
            assert (await client.stats())["connections"] == 1
            transport.release()

        (job,) = await at_once(lambda: client.get_job(JOB), meanwhile=meanwhile)
        assert job.state == "running"
        assert (await client.get_job(JOB)).state == "running"
    assert transport.held == []


async def test_answers_come_in_another_order(transport: MockTransport, connect: Connect) -> None:
    transport.answer("job.get", lambda data: {"state": "running"})
    transport.hold()
    order: list[str] = []

    async with connect(transport=transport) as client:

        async def get(name: str, id: str) -> str:
            state: str = (await client.get_job(id)).state
            order.append(name)
            return state

        async def meanwhile() -> None:
            requests = [await transport.next_request(), await transport.next_request()]
            other = next(request for request in requests if request.data["job_id"] != JOB)
            other.answer({"state": "completed"})
            with anyio.fail_after(10):
                while not order:
                    await anyio.lowlevel.checkpoint()
            requests.remove(other)
            requests[0].answer()

        other_id = new_id("job")
        states = await at_once(
            lambda: get("first", JOB), lambda: get("second", other_id), meanwhile=meanwhile
        )
    assert order == ["second", "first"]
    assert states == ["running", "completed"]


async def test_a_request_is_answered_once(transport: MockTransport, connect: Connect) -> None:
    transport.hold("stats")
    async with connect(transport=transport) as client:

        async def meanwhile() -> None:
            request = await transport.next_request("stats")
            with pytest.raises(InvalidRequest, match="a JSON value, a function, or a DispatchError"):
                request.answer(ValueError("no"))
            request.answer(NotFoundError("none"))
            with pytest.raises(InvalidRequest, match="this stats is answered already"):
                request.answer({})

        async def ask() -> None:
            with pytest.raises(NotFoundError):
                await client.stats()

        await at_once(ask, meanwhile=meanwhile)


async def test_a_request_that_does_not_come_is_said_to_be_missing(
    transport: MockTransport, connect: Connect
) -> None:
    transport.answer("stats")
    async with connect(transport=transport) as client:
        await client.stats()
        with pytest.raises(TimeoutError, match=r"no job\.get came within 0\.01 s; what came: stats"):
            await transport.next_request("job.get", timeout=0.01)
        assert (await transport.next_request()).method == "stats"
        with pytest.raises(TimeoutError, match="no request came"):
            await transport.next_request(timeout=0.01)
    with pytest.raises(TimeoutError, match="no request came"):
        transport.next_request_blocking(timeout=0.01)


async def test_giving_up_on_a_request_leaves_it_to_the_next_who_asks(
    transport: MockTransport, connect: Connect
) -> None:
    transport.answer("stats")
    async with connect(transport=transport) as client:
        with anyio.move_on_after(0.01):
            await transport.next_request("stats")
        await client.stats()
        assert (await transport.next_request("stats", timeout=1.0)).answered


async def test_a_call_that_runs_out_of_time_is_one_that_a_real_server_did_not_answer(
    transport: MockTransport, connect: Connect
) -> None:
    transport.hold("stats")
    async with connect(transport=transport) as client:
        with pytest.raises(TimeoutError):
            await client.stats(timeout=0.01)
        transport.answer("job.get")
        transport.release()  # to nobody
        assert await client.get_job(JOB)


# Events.


async def test_published_events_reach_their_subscribers(transport: MockTransport, connect: Connect) -> None:
    async with connect(transport=transport) as client:
        jobs, one, queue = [
            await client.subscribe(channel) for channel in ("jobs", f"job:{JOB}", "queue:mail")
        ]
        transport.publish("job.started", job_id=new_id("job"), job_name="noop")
        transport.publish("workflow.started", run_id=RUN, name="order")
        transport.publish("job.completed", job_id=JOB, job_name="send-email", queue="mail", elapsed_ms=3)
        event = await one.__anext__()
        assert (event.kind, event.seq, event.topic) == ("job.completed", 3, f"job:{JOB}")
        assert event["data"] == {
            "job_id": JOB,
            "job_name": "send-email",
            "queue": "mail",
            "elapsed_ms": 3,
            "state": "completed",
        }
        assert [(await jobs.__anext__()).kind for _ in range(2)] == ["job.started", "job.completed"]
        assert (await queue.__anext__()).kind == "job.completed"
    assert transport.asked("subscribe")[0]["channel"] == "jobs"


async def test_events_from_before_are_there_for_those_who_ask(
    transport: MockTransport, connect: Connect
) -> None:
    assert [transport.publish("job.started", job_id=JOB), transport.publish("job.completed", job_id=JOB)] == [
        1,
        2,
    ]
    async with connect(transport=transport) as client:
        sub = await client.subscribe("jobs", since="start")
        assert [(await sub.__anext__()).kind for _ in range(2)] == ["job.started", "job.completed"]
        later = await client.subscribe("firehose", since=1)
        assert (await later.__anext__()).seq == 2


async def test_many_events_keep_to_the_credit_and_none_is_lost(
    transport: MockTransport, connect: Connect
) -> None:
    count = 5_000
    async with connect(transport=transport) as client:
        sub = await client.subscribe("jobs")
        for _ in range(count):
            transport.publish("job.started", job_id=JOB)
        seqs = [(await sub.__anext__()).seq for _ in range(count)]
    assert seqs == list(range(1, count + 1))


async def test_an_event_that_does_not_say_what_it_is_about_is_refused(transport: MockTransport) -> None:
    with pytest.raises(InvalidRequest, match=r"job\.completed must say what it is about: give job_id="):
        transport.publish("job.completed")
    with pytest.raises(InvalidRequest, match="run_id="):
        transport.publish("workflow.completed", run_id=7)
    with pytest.raises(PayloadError, match=r"the data of job\.completed\.x: object is not JSON"):
        transport.publish("job.completed", job_id=JOB, x=object())
    assert transport.publish("cron.fired", entry_name="nightly") == 1


async def test_watching_a_job_ends_with_it(transport: MockTransport, connect: Connect) -> None:
    transport.answer("job.get", {"state": "running"})
    async with connect(transport=transport) as client:
        events = await client.watch(JOB)
        transport.publish("job.completed", job_id=JOB)
        assert [event.kind async for event in events] == ["job.completed"]


async def test_a_subscription_can_be_refused(transport: MockTransport, connect: Connect) -> None:
    transport.answer("subscribe", AuthError("insufficient permissions", code=403), {})
    async with connect(transport=transport) as client:
        with pytest.raises(AuthError, match="insufficient permissions"):
            await client.subscribe("jobs")
        sub = await client.subscribe("jobs")
        transport.publish("job.started", job_id=JOB)
        assert (await sub.__anext__()).kind == "job.started"


# Trouble.


async def test_a_login_can_fail(transport: MockTransport, connect: Connect) -> None:
    transport.fail_login()
    with pytest.raises(AuthError, match="authentication failed"):
        await connect(token="dk_wrong", transport=transport).connect()
    transport.fail_login(AuthError("the key has expired"), times=1)
    with pytest.raises(AuthError, match="the key has expired"):
        await connect(transport=transport).connect()
    async with connect(transport=transport):
        pass
    assert transport.logins == ["dk_wrong", "", ""]


async def test_a_connection_can_be_refused(transport: MockTransport, connect: Connect) -> None:
    transport.refuse(2)
    with pytest.raises(ConnectionError, match="Connection refused"):
        await connect(transport=transport).connect()
    async with connect(transport=transport, wait_for_server=10.0) as client:
        assert client.state == "ready"
    assert len(transport.logins) == 1


async def test_a_server_that_stays_away_is_given_up_in_no_time(
    transport: MockTransport, connect: Connect
) -> None:
    transport.hold()
    async with connect(transport=transport, max_retries=5) as client:

        async def ask() -> None:
            with pytest.raises(ConnectionError):
                await client.get_job(JOB)

        async def meanwhile() -> None:
            await transport.next_request("job.get")
            transport.refuse()
            transport.drop()

        await at_once(ask, meanwhile=meanwhile)
        assert client.state == "closed"


async def test_a_dropped_connection_is_made_again_with_its_subscriptions(
    transport: MockTransport, connect: Connect
) -> None:
    async with connect(transport=transport) as client:
        sub = await client.subscribe("jobs")
        transport.publish("job.enqueued", job_id=JOB)
        assert (await sub.__anext__()).kind == "job.enqueued"
        transport.drop()
        transport.publish("job.completed", job_id=JOB)
        assert (await sub.__anext__()).kind == "job.completed"
        assert client.session_id == "mock_2"
    assert [request.data.get("since") for request in transport.requests] == [None, 1]


async def test_what_was_asked_when_the_connection_broke_is_asked_again_or_unknown(
    transport: MockTransport, connect: Connect
) -> None:
    """An enqueue has a key, and is carried out once; cancelling a job has none."""
    transport.answer("job.enqueue", {"job_id": JOB}, DispatchError("asked twice"))
    transport.answer("job.cancel")
    transport.hold()
    async with connect(transport=transport) as client:

        async def cancel() -> None:
            with pytest.raises(OutcomeUnknown):
                await client.cancel_job(JOB)

        async def meanwhile() -> None:
            requests = [await transport.next_request(), await transport.next_request()]
            transport.drop()
            next(request for request in requests if request.method == "job.enqueue").answer()  # lost
            again = await transport.next_request("job.enqueue")
            assert (again.session_id, len(again.key)) == ("mock_2", 32)
            transport.release()

        job, _ = await at_once(lambda: client.enqueue("send-email"), cancel, meanwhile=meanwhile)
    assert (job.job_id, job.duplicate) == (JOB, True)


async def test_a_key_that_was_used_for_something_else_is_a_conflict(
    transport: MockTransport, connect: Connect
) -> None:
    transport.answer("job.enqueue")
    async with connect(transport=transport) as client:
        first = await client.enqueue("send-email", 1, idempotency_key="k")
        again = await client.enqueue("send-email", 1, idempotency_key="k")
        assert (again.job_id, again.duplicate) == (first.job_id, True)
        with pytest.raises(ConflictError, match='idempotency_key "k" was used with other data'):
            await client.enqueue("send-email", 2, idempotency_key="k")


async def test_who_comes_back_too_late_is_told_of_a_gap(transport: MockTransport, connect: Connect) -> None:
    async with connect(transport=transport) as client:
        sub = await client.subscribe("jobs")
        transport.publish("job.enqueued", job_id=JOB)
        await sub.__anext__()
        transport.drop()
        for _ in range(5):
            transport.publish("job.started", job_id=JOB)
        transport.retain(events=2)
        gap = await sub.__anext__()
        assert gap.is_gap
        assert gap["data"] == {"from": 2, "to": 4, "dropped": 0}
        assert [(await sub.__anext__()).seq for _ in range(2)] == [5, 6]


async def test_a_server_goes_away_in_good_order(transport: MockTransport, connect: Connect) -> None:
    transport.answer("job.get", {"state": "running"})
    async with connect(transport=transport) as client:
        sub = await client.subscribe("jobs")
        transport.drain()
        assert (await client.get_job(JOB)).state == "running"
        transport.publish("job.started", job_id=JOB)
        assert (await sub.__anext__()).kind == "job.started"
        assert client.session_id == "mock_2"


# Servers.


async def test_a_base_server_is_one_without_features(connect: Connect) -> None:
    transport = MockTransport(ServerConfig(features=frozenset()))
    transport.answer("job.enqueue")
    async with connect(transport=transport) as client:
        with pytest.raises(UnsupportedError, match='does not have "options"'):
            await client.enqueue("send-email", delay=60)
        first = await client.enqueue("send-email", idempotency_key="k")
        again = await client.enqueue("send-email", idempotency_key="k")
        assert first.job_id != again.job_id
        sub = await client.subscribe("jobs")
        transport.publish("job.completed", job_id=JOB)
        event = await sub.__anext__()
        assert (event.kind, event.seq) == ("job.completed", None)


async def test_a_server_without_one_feature(connect: Connect) -> None:
    config = ServerConfig()
    transport = MockTransport(ServerConfig(features=config.features - {RESUME}))
    async with connect(transport=transport) as client:
        sub = await client.subscribe("jobs")
        transport.publish("job.completed", job_id=JOB)
        assert (await sub.__anext__()).seq is None


async def test_one_transport_serves_several_clients(transport: MockTransport, connect: Connect) -> None:
    transport.answer("stats", {"n": 1})
    async with connect(transport=transport, token="a") as one, connect(transport=transport, token="b") as two:
        assert transport.connections == 2
        subs = [await client.subscribe("jobs") for client in (one, two)]
        transport.publish("job.started", job_id=JOB)
        assert [(await sub.__anext__()).seq for sub in subs] == [1, 1]
        assert (await one.stats(), await two.stats()) == ({"n": 1}, {"n": 1})
    assert transport.logins == ["a", "b"]
    assert [request.session_id for request in transport.requests] == ["mock_1", "mock_2"] * 2


async def test_the_url_may_be_any_and_tls_and_proxies_do_not_matter(
    transport: MockTransport, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("wss_proxy", "https://proxy.invalid")
    transport.answer("stats")
    for url in (
        "wss://example.invalid/dwp",
        "unix:/nowhere.sock",
        "ws://[::1]:1/other",
        "https://example.invalid/dwp/rpc",
    ):
        async with connect(url=url, transport=transport) as client:
            await client.stats()


# Mistakes of tests.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("job.enqueu",), "the protocol has no method 'job.enqueu'; did you mean \"job.enqueue\"?"),
        (("frobnicate",), "there are job.enqueue, "),
        (("stats", ValueError("x")), "a DispatchError such as NotFoundError"),
        (("stats", NotFoundError), "a DispatchError such as NotFoundError"),
        (("subscribe", {"channel": "jobs"}), "subscribe is answered by the transport itself"),
        (("job.get", {"output": {"when": object()}}), "output.when: object is not JSON"),
    ],
)
def test_a_script_that_cannot_be_meant_is_refused_where_it_is_written(
    arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        MockTransport().answer(*arguments)
    assert message in str(refused.value)


def test_methods_that_do_not_exist_are_not_waited_for() -> None:
    transport = MockTransport()
    for call in (transport.asked, transport.hold, transport.next_request_blocking):
        with pytest.raises(InvalidRequest, match="did you mean"):
            call("job.gett")


def test_reprs_say_what_is_there() -> None:
    assert repr(MockTransport()) == "<MockTransport with 0 connections, 0 requests>"
    request = Request("stats", {"idempotency_key": "k"}, session_id="mock_1", answer=lambda *_: None)
    assert repr(request) == "<Request stats {}, not answered>"
