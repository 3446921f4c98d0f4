"""The server: `DispatchServer` puts store, engine, hub and connections together; uvicorn or any ASGI server listens.

`ws` is the fast WebSocket path, `asgi` the one that mounts anywhere (with HTTP), `serve` what `dispatch serve` does.
"""

from dispatch.server.auth import Key, Keys, parse_key
from dispatch.server.engine import EngineOptions
from dispatch.server.server import DispatchServer

__all__ = ["DispatchServer", "EngineOptions", "Key", "Keys", "parse_key"]
