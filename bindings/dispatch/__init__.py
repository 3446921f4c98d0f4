"""Dispatch: background jobs over the Dispatch Wire Protocol.

A client is `Dispatch`, a job is a call of a `function`, errors are in `dispatch.errors`:

    from dispatch import Dispatch

    async with Dispatch(url="ws://127.0.0.1:8080/dwp") as client:
        job = await client.enqueue("send-email", {"to": "user@example.com"})

What is named here is loaded when it is first used, so that `import dispatch` alone costs next to nothing: a module that
only declares functions pays for no client, and a client pays for no server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatch import errors as errors
    from dispatch.asyncio import Dispatch as Dispatch
    from dispatch.errors import DispatchError as DispatchError
    from dispatch.functions.context import RunContext as RunContext
    from dispatch.functions.context import current as current
    from dispatch.functions.registry import cron as cron
    from dispatch.functions.registry import function as function

__version__ = "0.1.0"

__all__ = ["Dispatch", "DispatchError", "RunContext", "__version__", "cron", "current", "errors", "function"]

_HOME = {
    "Dispatch": "dispatch.asyncio",
    "DispatchError": "dispatch.errors",
    "RunContext": "dispatch.functions.context",
    "cron": "dispatch.functions.registry",
    "current": "dispatch.functions.context",
    "function": "dispatch.functions.registry",
}
_SUBMODULES = frozenset(("errors",))


if not TYPE_CHECKING:  # else a type checker would take every misspelt name for something that is there

    def __getattr__(name: str) -> object:
        if name in _SUBMODULES:
            return import_module(f"{__name__}.{name}")
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
