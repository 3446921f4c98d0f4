"""Dispatch for anyio: `Dispatch` makes the client of whatever event loop runs, for code that does not know which."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, ParamSpec

from dispatch.client import AwaitedClient
from dwp_core.errors import InvalidRequest

if TYPE_CHECKING:
    import dispatch.asyncio
    import dispatch.trio

__all__ = ["Dispatch"]

P = ParamSpec("P")


def _for_running_loop(
    like: Callable[P, object],
) -> Callable[P, dispatch.asyncio.Dispatch | dispatch.trio.Dispatch]:
    """What takes the arguments of a client and makes it."""

    def make(*args: P.args, **kwargs: P.kwargs) -> dispatch.asyncio.Dispatch | dispatch.trio.Dispatch:
        client: dispatch.asyncio.Dispatch | dispatch.trio.Dispatch = _client_of_running_loop()(
            *args, **kwargs
        )
        return client

    make.__name__ = make.__qualname__ = "Dispatch"
    make.__doc__ = AwaitedClient.__init__.__doc__
    make.__signature__ = inspect.signature(AwaitedClient)  # type: ignore[attr-defined]  # inspect reads it
    return make


def _client_of_running_loop() -> type[Any]:
    trio: Any = sys.modules.get("trio")  # one that runs was imported
    if trio is not None and trio.lowlevel.in_trio_task():
        return _client_of("dispatch.trio")
    try:
        import_module("asyncio").get_running_loop()
    except RuntimeError:
        raise InvalidRequest(
            "dispatch.anyio: no event loop runs here; make the client inside a coroutine, or take dispatch.sync"
        ) from None
    return _client_of("dispatch.asyncio")


def _client_of(binding: str) -> type[Any]:
    client: type[Any] = import_module(binding).Dispatch
    return client


Dispatch = _for_running_loop(AwaitedClient)
"""Make the client of the running event loop: `dispatch.asyncio.Dispatch` or `dispatch.trio.Dispatch`.

Takes their arguments (`dispatch.client.Client`).

Raises:
    InvalidRequest: no event loop runs here, or an argument cannot be used.

Example:
    >>> import anyio
    >>> async def main():
    ...     async with Dispatch(url="ws://127.0.0.1:8080/dwp") as client:
    ...         return await client.ping()
"""
