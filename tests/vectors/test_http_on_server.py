"""Every recorded HTTP exchange with the existing Go server, sent to ours and compared by shape (PROTOCOL.md section 8).

A refusal must have the same status and code; an answer the same keys, with values of the same kind; a stream the same
events. Where we differ on purpose, `RPC_DIFFERENCES` and `SSE_DIFFERENCES` say so, and why: those are the whole lists.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.server.http_serving import ServedOverHttp, Stream, serving_http

HERE = Path(__file__).parent / "http"
PATIENCE = 20.0


class Difference(NamedTuple):
    """What our server answers otherwise than Go: the status, and why."""

    status: int
    why: str


RPC_DIFFERENCES = {
    "token in Authorization, Bearer": Difference(200, "Bearer is taken off"),
    "token in data only": Difference(200, "the data may hold the token, as in the auth frame"),
    "content type with charset": Difference(200, "parameters are allowed"),
    "content type msgpack": Difference(200, "MessagePack by Content-Type"),
    "bad ts": Difference(200, "no frame is refused for its ts (section 2)"),
    "ping": Difference(200, "a ping is answered with a pong"),
    "subscribe": Difference(400, "it would do nothing; events come over WebSocket or SSE"),
    "workflow.start": Difference(405, "durable functions are not served yet"),
    "workflow unknown": Difference(405, "durable functions are not served yet"),
}
"""By title; every other exchange has the status of the recording."""

SSE_DIFFERENCES = {
    "unknown channel": Difference(400, "channels are validated before the stream"),
    "no channel": Difference(400, "channels are validated before the stream"),
    "wrong token": Difference(401, "authentication comes before the stream; Go ends it silently"),
    "no token": Difference(401, "authentication comes before the stream; Go ends it silently"),
    "scope missing": Difference(403, "scopes are judged before the stream; Go ends it silently"),
    "token in header": Difference(200, "the header counts; Go ends the stream silently"),
}
"""By title; every other exchange is the stream of the recording."""

OURS_IN_EVENTS = {
    "seq": "the place in the log (section 9)",
    "state": "the state that the type tells of (section 5)",
    "elapsed_ms": "optional where it is zero (section 5)",
}
"""Keys that our events may have besides."""

OTHER_FIGURES = {"broker": "of another server", "connections": "Go says 0 whatever is true"}
"""Values that are not compared."""

_OURS = frozenset(("jobs_running", "store_waiting", "queues", "dead_letters"))
"""What only our `stats` tells."""

_ID = re.compile(r"\bjob_[0-9a-hjkmnp-tv-z]{26}\b")


def recordings(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / f"{name}.jsonl").read_text().splitlines()]


def run(program: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(program(), PATIENCE)

    asyncio.run(main())


async def send(served: ServedOverHttp, request: dict[str, Any]) -> httpx.Response:
    """The recorded request, to our server."""
    body = request.get("body", {})
    content = body["text"].encode() if "text" in body else base64.b64decode(body.get("base64", ""))
    return await served.client.request(
        request["method"], request["path"], content=content, headers=request["headers"]
    )


def test_the_tables_name_recorded_exchanges_only() -> None:
    assert RPC_DIFFERENCES.keys() <= {each["title"] for each in recordings("rpc")}
    assert SSE_DIFFERENCES.keys() <= {each["title"] for each in recordings("sse")}


@pytest.mark.parametrize("recorded", recordings("rpc"), ids=lambda each: each["title"])
def test_an_rpc_is_answered_as_recorded_but_for_the_differences(recorded: dict[str, Any]) -> None:
    async def program() -> None:
        async with serving_http() as served:
            response = await send(served, recorded["request"])
        theirs = recorded["response"]
        difference = RPC_DIFFERENCES.get(recorded["title"])
        if difference is not None:
            assert response.status_code == difference.status != theirs["status"], difference.why
            return
        assert response.status_code == theirs["status"]
        if theirs["body"]["text"]:
            compare(json.loads(theirs["body"]["text"]), response.json())

    run(program)


def compare(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Two frames: the same keys, the same kind, the same request, the same data but for ids; errors by their code."""
    assert theirs.keys() == ours.keys()
    assert (theirs["type"], theirs.get("correl_id")) == (ours["type"], ours.get("correl_id"))
    if "error" in theirs:
        assert theirs["error"]["code"] == ours["error"]["code"]
        assert ours["error"]["message"]
    compare_data(theirs.get("data", {}), ours.get("data", {}), _OURS)


def compare_data(theirs: dict[str, Any], ours: dict[str, Any], more: frozenset[str]) -> None:
    assert theirs.keys() <= ours.keys()
    assert ours.keys() - theirs.keys() <= more
    for key, value in theirs.items():
        if key in OTHER_FIGURES:
            assert type(ours[key]) is type(value)
        elif isinstance(value, dict):
            compare_data(value, ours[key], more)
        elif key != "ts":
            assert _ID.sub("job", str(ours[key])) == _ID.sub("job", str(value))


def events_of(body: str) -> list[dict[str, str]]:
    """The events in a recorded body, its chunk framing taken off."""
    text = ""
    while body:
        size, _, rest = body.partition("\r\n")
        text += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    blocks = [block.split("\n") for block in text.split("\n\n")[:-1]]
    return [dict(line.split(": ", 1) for line in block) for block in blocks]


@pytest.mark.parametrize("recorded", recordings("sse"), ids=lambda each: each["title"])
def test_a_stream_is_as_recorded_but_for_the_differences(recorded: dict[str, Any]) -> None:
    async def program() -> None:
        request, theirs = recorded["request"], recorded["response"]
        difference = SSE_DIFFERENCES.get(recorded["title"])
        async with (
            serving_http() as served,
            served.client.stream("GET", request["path"], headers=request["headers"]) as response,
        ):
            if difference is not None:
                assert response.status_code == difference.status, difference.why
            if response.status_code != 200:
                return
            for name in ("content-type", "cache-control", "x-accel-buffering", "transfer-encoding"):
                assert response.headers[name] == dict(theirs["headers"]).get(
                    name.title(), response.headers[name]
                )
            beginning, *expected = events_of(theirs["body"]["text"])
            stream = Stream(response)
            first = await stream.block()
            assert first.pop("id") == "0"
            assert first == beginning
            if expected:
                await served.ask("job.enqueue", {"name": "noop", "payload": {"n": 1}})
            # "firehose" has heard of jobs of other recordings, too, which were tried again meanwhile.
            topic = json.loads(expected[0]["data"])["topic"] if expected else ""
            for block in [each for each in expected if topic in each["data"]]:
                ours = await stream.block()
                assert ours.keys() == block.keys() | {"id"}
                assert ours["event"] == block["event"]
                compare_data(json.loads(block["data"]), json.loads(ours["data"]), frozenset(OURS_IN_EVENTS))

    run(program)
