"""Decorated functions keep the types they had. Never run: `test_typing.py` has mypy and pyright check it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, assert_type

import dispatch


@dispatch.function
def plain(to: str, *, copies: int = 1) -> list[str]:
    return [to] * copies


@dispatch.function(name="send-email", queue="mail", retry=5, timeout=30)
def named(to: str) -> int:
    return len(to)


@dispatch.function
async def waits(n: int) -> float:
    assert_type(dispatch.current().attempt, int)
    assert_type(dispatch.current().cancelled, bool)
    return n / 2


@dispatch.cron("30 2 * * *", timezone="Europe/Berlin", overlap="queue", catch_up="all", payload="a")
@dispatch.function(queue="mail")
def nightly(to: str) -> int:
    return len(to)


@dispatch.cron("@daily")
async def daily() -> str:
    return "done"


async def use() -> None:
    assert_type(nightly("a"), int)
    assert_type(nightly.name, str)
    assert_type(await daily(), str)
    assert_type(plain("a", copies=2), list[str])
    assert_type(named("a"), int)
    coroutine: Coroutine[Any, Any, float] = waits(1)
    assert_type(await coroutine, float)
    assert_type(plain.name, str)
