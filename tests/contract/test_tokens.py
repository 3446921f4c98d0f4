"""Tokens: where they come from, and where they are never seen."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from dispatch.errors import AuthError, ConnectionError
from tests.contract.bindings import inner
from tests.contract.go_server import GoServer
from tests.contract.world import World, failure_of, in_thread

pytestmark = pytest.mark.anyio


async def test_a_token_is_asked_for_anew_for_each_attempt(go: World[GoServer]) -> None:
    """Of a function, or of a coroutine function where calls are awaited."""
    asked: list[str] = []

    def plain() -> str:
        asked.append("plain")
        return "dk_full"

    async def later() -> str:
        await anyio.lowlevel.checkpoint()
        asked.append("later")
        return "dk_full"

    for token in (plain,) if go.binding.blocking else (plain, later):
        asked.clear()
        async with go.client(token=token) as client:
            await in_thread(go.server.cut_all)
            assert "broker" in await client.stats()  # a read: it is asked again
        assert len(asked) == 2


@pytest.mark.parametrize(
    ("problem", "tries"),
    [(KeyError("no token today"), 1), (OSError("the vault is away"), 3), (5, 1), (None, 1)],
)
async def test_a_token_that_cannot_be_had_is_said(go: World[GoServer], problem: Any, tries: int) -> None:
    """An OSError is an attempt that has failed, and may be tried again; anything else is fatal."""
    asked = 0

    def token() -> Any:
        nonlocal asked
        asked += 1
        if asked == 3:
            return "dk_full"
        if isinstance(problem, Exception):
            raise problem
        return problem

    client = go.client(token=token, wait_for_server=20)
    if tries == 3:
        await client.connect()
    else:
        error = await failure_of(client.connect)
        assert isinstance(error, ConnectionError)
        assert "token could not be had" in str(error)
        assert client.state == "closed"
    assert asked == tries
    await client.close()


async def test_no_log_line_and_no_repr_shows_a_token(
    world: World[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does an error, right or wrong as the token may be, in the address or beside it."""
    caplog.set_level("DEBUG")
    url = f"{world.url}?key=dk_full"
    for token in ("dk_full", "dk_wrong"):
        client = world.client(token=token, url=url if not world.server.base else world.url)
        try:
            async with client:
                await client.ping()
                shown = repr(client)
        except AuthError as error:
            shown = f"{error!r} {client!r}"
        for text in (shown, repr(vars(inner(client))), caplog.text):
            assert token not in text
    assert "connected to" in caplog.text
