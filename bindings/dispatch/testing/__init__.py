"""For the tests of programs that use Dispatch (docs/testing.md): no sleeps, no ports to choose, no network needed.

`MockTransport` plays a server to a client in memory; `server()` runs the functions of a program on a real server in
this process. The fixtures of both are in `plugin`, which pytest finds by itself.

What is named here is loaded when it is first used: pytest loads the plugin wherever Dispatch is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatch.testing.live_server import MemoryServer as MemoryServer
    from dispatch.testing.live_server import server as server
    from dispatch.testing.requests import Request as Request
    from dispatch.testing.script import new_id as new_id
    from dispatch.testing.transport import MockTransport as MockTransport

__all__ = ["MemoryServer", "MockTransport", "Request", "new_id", "server"]

_HOME = {
    "MemoryServer": "live_server",
    "MockTransport": "transport",
    "Request": "requests",
    "new_id": "script",
    "server": "live_server",
}


if not TYPE_CHECKING:  # else a type checker would take every misspelt name for something that is there

    def __getattr__(name: str) -> object:
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
