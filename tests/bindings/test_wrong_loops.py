"""A client that is used where it does not belong says so, and names the one that does."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock

import pytest
import trio

import dispatch.asyncio
import dispatch.sync
import dispatch.trio
from dispatch.errors import ClosedError, InvalidRequest

URL = "ws://127.0.0.1:1/dwp"
CLIENTS = {
    "asyncio": dispatch.asyncio.Dispatch,
    "trio": dispatch.trio.Dispatch,
    "sync": dispatch.sync.Dispatch,
}


@pytest.mark.parametrize(
    ("make", "run", "right"),
    [
        pytest.param(dispatch.asyncio.Dispatch, trio.run, "dispatch.trio", id="asyncio in trio"),
        pytest.param(
            dispatch.trio.Dispatch, lambda main: asyncio.run(main()), "dispatch.asyncio", id="trio in asyncio"
        ),
    ],
)
def test_a_client_in_the_wrong_event_loop_names_the_right_one(
    make: Callable[[str], Any], run: Callable[..., Any], right: str
) -> None:
    async def main() -> None:
        with pytest.raises(InvalidRequest, match=right):
            await make(URL).connect()
        with pytest.raises(ClosedError, match="not connected"):
            await make(URL).ping()

    run(main)


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"telemetry": True}, r"telemetry: bool is none; see dispatch\.telemetry\.OpenTelemetry"),
        ({"transport": 5}, r"transport: int is none; see dispatch\.testing\.MockTransport"),
        ({"reconnect": "yes"}, "reconnect must be True or False, got 'yes'"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused(name: str, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        CLIENTS[name](URL, **options)


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="older Pythons know coroutine functions by their code only"
)
def test_mocks_and_frameworks_know_which_calls_are_awaited() -> None:
    for client in (dispatch.asyncio.Dispatch, dispatch.trio.Dispatch):
        assert inspect.iscoroutinefunction(client.enqueue)
        assert asyncio.run(AsyncMock(spec=client).enqueue("noop"))
    assert not inspect.iscoroutinefunction(dispatch.sync.Dispatch.enqueue)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_misspelt_argument_names_the_call_as_users_know_it(name: str) -> None:
    client: Any = CLIENTS[name](URL)

    async def call() -> None:
        await client.enqueue("noop", quueue="mail")

    with pytest.raises(TypeError, match=r"Dispatch\.enqueue\(\) got an unexpected keyword argument 'quueue'"):
        client.enqueue("noop", quueue="mail") if name == "sync" else asyncio.run(call())
