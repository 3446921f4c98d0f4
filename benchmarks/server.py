"""S1, S2, S3 and E1: what our server costs, beside bare `websockets` servers under the same load."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.harness import Candidate, Child, Costs, Effort, Figure, Figures, interleave
from benchmarks.peer import event_text
from benchmarks.served import NAME

LISTENERS = 200
IDLE = 500
IN_FLIGHT = 64
ENQUEUES_IN_FLIGHT = 256
_MANY_CREDITS = 2**31 - 1
_JOB = {"name": NAME, "payload": {"to": "user@example.com", "subject": "Welcome!"}}


def measure_requests(effort: Effort) -> Figures:
    """S1. The request is `stats`, which takes the whole way and then does next to nothing."""
    with ExitStack() as stack:
        ours, bare, load = _servers(stack)
        load.ask("connect", name="ours", url=ours.ready["url"], token="dk")
        load.ask("connect", name="bare", url=bare.ready["url"] + "/echo")
        rounds = interleave(
            {
                "ours": ours.served_by(
                    load, "pipelined", name="ours", method="stats", data=None, width=IN_FLIGHT
                ),
                "bare": bare.served_by(load, "pipelined", name="bare", method="", data=None, width=IN_FLIGHT),
            },
            effort.shared(2, round_ms=12),
            step=IN_FLIGHT * 4,
        )
    return {("S1", ""): rounds.ratio("ours", "bare")}


def measure_fan_out(effort: Effort) -> Figures:
    """S2. Deliveries are counted when the listeners have them."""
    message = event_text(1)
    with ExitStack() as stack:
        ours, bare, load = _servers(stack)
        load.ask("connect", name="ours", url=ours.ready["url"], token="dk", count=LISTENERS)
        load.ask("listen", name="ours", channel="jobs", credits=_MANY_CREDITS)
        load.ask("connect", name="bare", url=bare.ready["url"] + "/listen", count=LISTENERS)
        load.ask("listen", name="bare")

        def delivering(server: Child, name: str, burst: int, **arguments: str) -> Candidate:
            def run(count: int) -> Costs:
                before = server.cpu()
                server.ask("publish", count=count, burst=burst, **arguments)
                load.ask("received", name=name, count=count)
                return {"cpu": (server.cpu() - before) / count / LISTENERS}

            return run

        figures: Figures = {}
        for part, burst in (("single", 1), ("bursts of 8", 8)):
            rounds = interleave(
                {
                    "ours": delivering(ours, "ours", burst),
                    "bare": delivering(bare, "bare", burst, message=message),
                },
                effort.shared(3, round_ms=12),
                step=burst * 4,
            )
            figures["S2", part] = rounds.ratio("ours", "bare")
    return figures


def measure_memory(effort: Effort) -> Figures:
    """S3. Private memory; connections come in portions, so that every portion gives a ratio."""
    portions = 4 if effort.full else 2
    ratios: list[float] = []
    with ExitStack() as stack:
        ours, bare, load = _servers(stack)

        def grow(server: Child, url: str, token: str | None) -> int:
            before = server.memory()
            load.ask("connect", name=server.name, url=url, token=token, count=IDLE)
            return server.memory() - before

        for portion in range(portions + 1):
            our_growth = grow(ours, ours.ready["url"], "dk")
            bare_growth = grow(bare, bare.ready["url"] + "/echo", None)
            if portion:  # the first one also pays for what is loaded on first use
                ratios.append(our_growth / bare_growth)
    return {("S3", ""): Figure.median(ratios)}


def measure_enqueue(effort: Effort) -> Figures:
    """E1. Rates, so wall time: an enqueue also waits for the disk.

    Once as programs do it, with the asyncio client, which then takes a good part of the time of a no-op; and once
    with bare load, whose requests cost next to nothing.
    """
    figures: Figures = {}
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="dispatch-bench-"))
        database = str(Path(directory) / "jobs.db")
        ours = stack.enter_context(Child("benchmarks.served", database, name="ours"))
        url = ours.ready["url"]
        client = stack.enter_context(Child("benchmarks.clients", "ours", url, name="client"))
        load = stack.enter_context(Child("benchmarks.load", name="load"))
        load.ask("connect", name="ours", url=url, token="dk")
        for part, asker, more in (("with the client", client, {}), ("bare load", load, {"name": "ours"})):
            rounds = interleave(
                {
                    name: asker.candidate(
                        "pipelined", method=method, data=data, width=ENQUEUES_IN_FLIGHT, **more
                    )
                    for name, method, data in (("enqueue", "job.enqueue", _JOB), ("no-op", "stats", None))
                },
                effort.shared(2, round_ms=40),
                step=ENQUEUES_IN_FLIGHT,
            )
            figures["E1", part] = rounds.ratio("no-op", "enqueue", "wall")
    return figures


def _servers(stack: ExitStack) -> tuple[Child, Child, Child]:
    return (
        stack.enter_context(Child("benchmarks.served", ":memory:", name="ours")),
        stack.enter_context(Child("benchmarks.baselines.echo", name="bare")),
        stack.enter_context(Child("benchmarks.load", name="load")),
    )
