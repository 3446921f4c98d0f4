"""`dispatch.anyio.Dispatch`: one name for the client of whatever event loop runs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import dispatch.anyio
import dispatch.asyncio
import dispatch.trio
from dispatch.errors import InvalidRequest
from tests.contract.go_server import GoServer

EXPECTED = {"asyncio": dispatch.asyncio.Dispatch, "trio": dispatch.trio.Dispatch}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.anyio
async def test_it_makes_the_client_of_the_running_loop(server: GoServer, anyio_backend: str) -> None:
    async with dispatch.anyio.Dispatch(server.url, "dk_full") as client:
        assert type(client) is EXPECTED[anyio_backend]
        assert await client.ping() > 0


@pytest.mark.anyio
async def test_its_arguments_are_judged_as_those_of_the_client_are() -> None:
    with pytest.raises(InvalidRequest, match="format must be"):
        dispatch.anyio.Dispatch("ws://127.0.0.1/dwp", format="xml")


def test_outside_of_a_loop_it_says_what_to_do() -> None:
    with pytest.raises(InvalidRequest, match=r"no event loop runs here; .* dispatch\.sync"):
        dispatch.anyio.Dispatch("ws://127.0.0.1/dwp")


@pytest.mark.parametrize(("used", "absent"), [("asyncio", "trio"), ("trio", "dispatch.asyncio")])
def test_only_the_loop_that_runs_is_loaded(used: str, absent: str) -> None:
    program: dict[str, Any] = {
        "asyncio": "import asyncio; asyncio.run(main())",
        "trio": "import trio; trio.run(main)",
    }
    code = f"""
import sys
from dispatch.anyio import Dispatch
async def main():
    Dispatch("ws://127.0.0.1/dwp")
{program[used]}
assert {absent!r} not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
