"""Workflows at a base peer, which runs the whole of one before it answers, and reads nothing meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.contract.go_server import GoServer
from tests.contract.world import World, in_thread, take, take_until, until

pytestmark = pytest.mark.anyio

CONVERSATIONS = Path(__file__).parent.parent / "vectors" / "conversations"


def recorded_run() -> tuple[list[str], dict[str, float]]:
    """The kinds of the events of the run that was recorded, and the seconds for which each step took its time."""
    lines = (CONVERSATIONS / "json" / "workflow_lifecycle.jsonl").read_text().splitlines()[1:]
    kinds: list[str] = []
    pauses: dict[str, float] = {}
    last_at = 0.0
    for line in map(json.loads, lines):
        frame = json.loads(line["text"]) if "text" in line else {}
        if line["dir"] == "server" and frame.get("type") == "event":
            kinds.append(frame["data"]["type"])
            if step := frame["data"]["data"].get("step_name"):
                pauses[step] = (line["at"] - last_at) / 1000
            last_at = line["at"]
    return kinds, pauses


async def test_a_run_waits_for_an_event_that_its_own_client_publishes(go: World[GoServer]) -> None:
    """Each run has a connection of its own, so its client goes on: it reads events, asks, and publishes."""
    async with go.client() as client:
        events = await client.subscribe("workflows")
        results: list[Any] = []

        async def start() -> None:
            results.append(await client.start_workflow("approval", {"a": 1}))

        async with anyio.create_task_group() as group:
            group.start_soon(start)
            group.start_soon(start)
            for _ in range(2):
                assert [event.kind for event in await take_until(events, "workflow.step_completed")]
            assert go.server.connections() == 3
            assert await client.ping() > 0
            assert results == []
            await client.publish_event("approved", {"by": "ada"})
        assert [run.state for run in results] == ["completed", "completed"]
        await in_thread(until, lambda: go.server.connections() == 1)


async def test_a_run_waits_for_an_event_while_others_run_with_the_timing_of_the_recording(
    go: World[GoServer],
) -> None:
    """The recorded run took its time for each step. One that waits for an event holds up neither it nor the client."""
    kinds, go.server.pauses = recorded_run()
    async with go.client() as client:
        events = await client.subscribe("workflows")
        finished: list[Any] = []

        async def run(name: str) -> None:
            finished.append(await client.start_workflow(name, {"order_id": "ORD-001"}))

        async with anyio.create_task_group() as group:
            group.start_soon(run, "approval")
            await take_until(events, "workflow.step_completed")
            await run("order-pipeline")
            assert [event.kind for event in await take(events, len(kinds))] == kinds
            assert [done.name for done in finished] == ["order-pipeline"]
            timeline = await client.workflow_timeline(finished[0].run_id)
            assert [entry.step_name for entry in timeline] == list(go.server.pauses)
            await client.publish_event("approved")
        assert [done.state for done in finished] == ["completed", "completed"]
        assert (await take_until(events, "workflow.completed"))[-1]["data"]["run_id"] == finished[1].run_id
