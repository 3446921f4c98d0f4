"""What whoever runs a server asks of it over HTTP: is it alive, may requests be sent to it, how much does it do.

`/healthz` and `/readyz` answer anybody and tell nothing that a stranger may not know. `/metrics` is for this machine,
or, at a server with keys, for who has one with the scope `stats:read`; a key that belongs to a tenant gets the queues
of that tenant only.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from dispatch.server.asgi_connection import Scope, Send
from dispatch.server.http_request import RETRY_AFTER, RPC_PATH, SSE_PATH, header, is_foreign
from dispatch.server.metrics import CONTENT_TYPE, Backlog, exposition
from dispatch.store.port import ReadableStore
from dispatch.store.values import NO_TENANT, Tenant
from dwp_core.errors import DispatchError
from dwp_core.http_session import bearer_token
from dwp_core.methods import has_scope

if TYPE_CHECKING:
    from dispatch.server.server import DispatchServer
    from dwp_core.server_events import Identity

T = TypeVar("T")

logger = logging.getLogger("dispatch.server")

STORE_SECONDS = 2.0
"""How long the store may take to answer before it counts as not answering."""

SCOPE = "stats:read"
"""What a key needs for `/metrics`, as for the method `stats`."""

_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"

Answer = tuple[int, str, str]
"""Status, content type, body."""


class Operations:
    """The addresses beside the protocol's.

    Args:
        server: of which they tell.
    """

    def __init__(self, server: DispatchServer) -> None:
        self._server = server
        self._probe: asyncio.Future[str] | None = None

    async def respond(self, path: str, scope: Scope, send: Send) -> None:
        """Answer a request for anything that is not the protocol's."""
        if scope["method"] not in ("GET", "HEAD"):
            await _respond(
                send, scope, _problem(405, f"GET is what this address answers, not {scope['method'][:16]}")
            )
        elif path in ("", "/"):
            await _respond(send, scope, self._about(scope.get("root_path", "")))
        elif path == "/healthz":
            await _respond(send, scope, _json(200, {"status": "ok"}))
        elif path == "/readyz":
            await _respond(send, scope, await self._ready())
        elif path == "/metrics":
            await _respond(send, scope, await self._metrics(scope))
        else:
            elsewhere = f"there is nothing at {path}; WebSocket clients connect to {self._server.path}"
            await _respond(send, scope, _problem(404, elsewhere))

    def _about(self, root: str) -> Answer:
        server = self._server
        path = root + server.path
        what = {
            "name": server.config.name,
            "version": server.config.version,
            "websocket": path,
            "rpc": path + RPC_PATH,
            "sse": path + SSE_PATH,
        }
        checks = {name: f"{root}/{name}" for name in ("healthz", "readyz", "metrics")}
        docs = "docs/ of the source of dispatch-sdk; `dispatch --help`"
        return _json(200, {"dispatch": what, **checks, "docs": docs})

    # ── ready ──

    async def _ready(self) -> Answer:
        server = self._server
        if server.draining:
            return _json(503, {"status": "unready", "reason": "draining: the server takes nothing new"})
        if not server.serving:
            return _json(503, {"status": "unready", "reason": "the server has not started"})
        if self._probe is None or self._probe.done():
            # However many ask at once, the store is asked once.
            self._probe = asyncio.ensure_future(self._ask_store())
        reason = await asyncio.shield(self._probe)
        return (
            _json(503, {"status": "unready", "reason": reason}) if reason else _json(200, {"status": "ready"})
        )

    async def _ask_store(self) -> str:
        """Why the store cannot be written; "" if it can."""
        try:
            async with asyncio.timeout(STORE_SECONDS):
                # A transaction of nothing: it takes the write lock, and waits for no disk.
                await self._done(lambda done: self._server.committer.submit(_nothing, done))
        except TimeoutError:
            logger.warning("the store did not answer within %g s", STORE_SECONDS)
            return f"the store did not answer within {STORE_SECONDS:g} s"
        except Exception as error:  # noqa: BLE001 - whatever it is, requests would meet it as well
            logger.warning("the store does not answer: %s", error)
            return "the store does not answer; the server's log says why"
        return ""

    async def _done(
        self, submit: Callable[[Callable[[T | None, BaseException | None], None]], object]
    ) -> T | None:
        """What an operation on the store gives."""
        future: asyncio.Future[T | None] = self._server.loop.create_future()

        def done(value: T | None, error: BaseException | None) -> None:
            if future.done():
                return  # nobody waits any more
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        submit(done)
        return await future

    # ── metrics ──

    async def _metrics(self, scope: Scope) -> Answer:
        server = self._server
        if not server.started_at:
            return _problem(503, "the server has not started")
        if is_foreign(server, scope):
            return _problem(403, "without keys, only this machine may see this")
        client = scope.get("client")
        identity = server.identify(bearer_token(header(scope, b"authorization")), client[0] if client else "")
        if identity is None:
            return _problem(401, f"give a key with the scope {SCOPE}: Authorization: Bearer KEY")
        if not has_scope(identity.scopes, SCOPE):
            return _problem(403, f"this key lacks the scope {SCOPE}")
        return 200, CONTENT_TYPE, exposition(server, await self._backlog(identity))

    async def _backlog(self, identity: Identity) -> Backlog | None:
        tenant: Tenant | None = Tenant(identity.app_id, identity.org_id)
        if tenant == NO_TENANT:
            tenant = None

        def operation(store: ReadableStore) -> Backlog:
            return Backlog(
                store.queue_depths(tenant=tenant, now_ns=time.time_ns()),
                store.count_dead_letters(tenant=tenant),
            )

        try:
            async with asyncio.timeout(STORE_SECONDS):
                return await self._done(lambda done: self._server.committer.read(operation, done))
        except (TimeoutError, DispatchError) as error:
            logger.warning("the store had no figures: %s", str(error) or "no answer in time")
            return None


def _nothing(store: ReadableStore) -> None:
    """Begins and ends a transaction."""


def _json(status: int, body: dict[str, Any]) -> Answer:
    return status, _JSON, json.dumps(body)


def _problem(status: int, message: str) -> Answer:
    return _json(status, {"error": message})


async def _respond(send: Send, scope: Scope, answer: Answer) -> None:
    status, content_type, body = answer
    data = body.encode()
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", b"%d" % len(data)),
        (b"cache-control", b"no-store"),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    elif status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    elif status == 503:
        headers.append((b"retry-after", b"%d" % RETRY_AFTER))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else data})
