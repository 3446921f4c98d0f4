"""OpenTelemetry: a span and a measurement for each call, and the trace carried to the server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dispatch.errors import DispatchError, InvalidRequest
from dispatch.store.memory import MemoryStore
from dispatch.telemetry import OpenTelemetry
from tests.contract.bindings import BINDINGS, Binding
from tests.contract.our_server import OurServer
from tests.contract.world import World

pytestmark = pytest.mark.anyio


class Watched:
    """Telemetry whose spans and figures can be looked at."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.reader = InMemoryMetricReader()
        self.tracer = tracers.get_tracer("test")
        self.telemetry = OpenTelemetry(tracers, MeterProvider([self.reader]))

    def counts(self) -> dict[tuple[str, str], int]:
        """How many calls were measured, by method and outcome."""
        data: Any = self.reader.get_metrics_data()
        points = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
        return {(p.attributes["rpc.method"], p.attributes["outcome"]): p.count for p in points}


@pytest.fixture(params=BINDINGS, ids=lambda binding: binding.name)
def binding(request: pytest.FixtureRequest) -> Binding:
    chosen: Binding = request.param
    return chosen


@pytest.fixture
def anyio_backend(binding: Binding) -> tuple[str, dict[str, Any]]:
    return binding.backend


@pytest.fixture
def world(binding: Binding) -> Iterator[World[OurServer]]:
    with OurServer(MemoryStore()) as server:
        yield World(server, binding, "json", server.url)


async def test_each_call_is_a_span_with_its_outcome(world: World[OurServer]) -> None:
    watched = Watched()
    async with world.client(telemetry=watched.telemetry) as client:
        job = await client.enqueue("noop")
        await client.wait(job.job_id)
        with pytest.raises(DispatchError):
            await client.enqueue("unknown-job")
        await client.ping()
    enqueue, wait, failed, ping = watched.spans.get_finished_spans()
    assert [span.name for span in (enqueue, wait, failed, ping)] == [
        "job.enqueue",
        "job.wait",
        "job.enqueue",
        "ping",
    ]
    assert enqueue.attributes is not None
    assert enqueue.attributes["server.address"] == world.url
    assert failed.attributes is not None
    assert failed.attributes["rpc.dwp.error_code"] == 404
    assert failed.events[0].name == "exception"
    assert watched.counts() == {
        ("job.enqueue", "ok"): 1,
        ("job.wait", "ok"): 1,
        ("job.enqueue", "NotFoundError"): 1,
        ("ping", "ok"): 1,
    }


@pytest.mark.parametrize(
    "binding", [each for each in BINDINGS if not each.blocking], ids=lambda binding: binding.name
)
async def test_a_call_that_is_cancelled_is_measured_as_that(world: World[OurServer]) -> None:
    watched = Watched()
    async with world.client(telemetry=watched.telemetry) as client:
        job = await client.enqueue("hold")
        async with anyio.create_task_group() as group:
            group.start_soon(client.wait, job.job_id)
            await client.ping()
            group.cancel_scope.cancel()
        await client.ping()
    assert watched.counts()["job.wait", "cancelled"] == 1


def test_requests_carry_the_trace_among_their_data() -> None:
    from dispatch import operations, results

    watched = Watched()
    with watched.tracer.start_as_current_span("outer") as outer:
        trace_id = f"{outer.get_span_context().trace_id:032x}"
        for operation in (
            operations.simple("job.get", results.read_job, None, job_id="job_1"),
            operations.simple("stats", results.read_mapping, None),
        ):
            with watched.telemetry.call(operation, "here") as carried:
                data = json.loads(carried.data)
            version, trace, _, _ = data.pop("traceparent").split("-")
            assert (version, trace) == ("00", trace_id)
            assert data == json.loads(operation.data or b"{}")
        with watched.telemetry.call(operations.ping(None), "here") as carried:
            assert carried.data == b""


def test_without_opentelemetry_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] == "opentelemetry":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(InvalidRequest, match=r"dispatch-sdk\[otel\]"):
        OpenTelemetry()
