"""The server as an ASGI application: mounts anywhere and runs under any ASGI server.

`/dwp` speaks the protocol over the ASGI server's own WebSocket, `/dwp/rpc` answers single frames, `/dwp/sse` streams
events; the other addresses, for whoever runs it, are in `dispatch.server.operations`. Paths are those below the place
where the application is mounted. Who mounts it into another application starts and stops the `DispatchServer` in that
application's lifespan; alone, its own lifespan does it.

A stream of events ends with its reader, or with the `DispatchServer`. An ASGI server that first waits for its requests
and then says that the lifespan is over (uvicorn does) needs a limit for the first: `timeout_graceful_shutdown`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch.server.asgi_connection import App, Receive, Scope, Send
from dispatch.server.asgi_websocket import websocket
from dispatch.server.http_request import RPC_PATH, SSE_PATH
from dispatch.server.http_rpc import rpc
from dispatch.server.operations import Operations
from dispatch.server.sse import stream
from dwp_core.http_rpc import RpcLoad

if TYPE_CHECKING:
    from dispatch.server.server import DispatchServer


def app(server: DispatchServer) -> App:
    """The ASGI application of a server.

    Example:
        >>> # Starlette(routes=[Mount("/jobs", app=dispatch.server.asgi.app(server))])
    """
    load, operations = RpcLoad(), Operations(server)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await _lifespan(server, receive, send)
            return
        path = _path(scope)
        if kind == "websocket":
            await websocket(server, path, scope, receive, send)
        elif path == server.path + RPC_PATH:
            await rpc(server, load, scope, receive, send)
        elif path == server.path + SSE_PATH:
            await stream(server, scope, receive, send)
        else:
            await operations.respond(path, scope, send)

    return application


async def _lifespan(server: DispatchServer, receive: Receive, send: Send) -> None:
    """Alone under an ASGI server: start and stop with it."""
    await receive()  # lifespan.startup
    try:
        await server.start()
    except Exception as error:  # noqa: BLE001 - the ASGI server shows it and ends
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    await server.stop()
    await send({"type": "lifespan.shutdown.complete"})


def _path(scope: Scope) -> str:
    """The path below the place where the application is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if root else path
