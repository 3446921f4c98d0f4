"""What RPC and event streams have in common as ASGI requests: their headers, and who is turned away unheard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch.server.asgi_connection import AsgiConnection, Message, Scope
from dispatch.server.auth import FOREIGN_ORIGIN
from dwp_core.errors import FORBIDDEN, UNAUTHENTICATED, UNAVAILABLE, UNKNOWN_METHOD, DispatchError
from dwp_core.http_session import HttpSession

if TYPE_CHECKING:
    from dispatch.server.server import DispatchServer

FEATURES_HEADER = b"dwp-features"
"""The extensions that the server honours in such a request (PROTOCOL.md section 9), as `batch, wait`."""

LOG_HEADER = b"dwp-log"
"""The id of the event log that every seq belongs to."""

RPC_PATH = "/rpc"
SSE_PATH = "/sse"
"""Below the path of the protocol."""

RETRY_AFTER = 1
"""Seconds after which a client that met a stopping server may try again."""

Headers = list[tuple[bytes, bytes]]


class HttpConnection(AsgiConnection):
    """One HTTP request. Its session says no to it at once where it is not to be heard.

    Args:
        server: whose it is.
        scope: the ASGI scope.
        session: what decides for it.
        method: the HTTP method that it must have.
    """

    __slots__ = ("_http", "_method", "_started")

    def __init__(self, server: DispatchServer, scope: Scope, session: HttpSession, method: str) -> None:
        super().__init__(server, scope, session)
        self._http = session
        self._method = method
        self._started = False
        why_not = _refusal(server, scope, method)
        if why_not is not None:
            session.refuse(why_not, now=server.now())

    def abort_transport(self, reason: str) -> None:
        self._closing = True
        self._out.clear()
        if not self.aborted.done():
            self.aborted.set_result(None)

    def _is_last(self, message: Message) -> bool:
        return message["type"] == "http.response.body" and not message.get("more_body", False)

    def _start(self, content_type: str, features: frozenset[str], more: Headers) -> None:
        """Queue the head of the answer."""
        self._started = True
        status = self._http.status
        headers = [(b"content-type", content_type.encode()), *more]
        headers.append((FEATURES_HEADER, ", ".join(sorted(features)).encode()))
        if status == UNAUTHENTICATED:
            headers.append((b"www-authenticate", b"Bearer"))
        elif status == UNKNOWN_METHOD:
            headers.append((b"allow", self._method.encode()))
        elif status == UNAVAILABLE:
            headers.append((b"retry-after", b"%d" % RETRY_AFTER))
        self._out.append({"type": "http.response.start", "status": status, "headers": headers})

    def _put(self, body: bytes, *, more: bool) -> None:
        """Queue some of its body."""
        self._unsent += len(body)
        self._closing = not more
        self._out.append({"type": "http.response.body", "body": body, "more_body": more})


def header(scope: Scope, name: bytes) -> str:
    """A header of the request, the first of that name; "" where it has none."""
    for each, value in scope.get("headers", ()):
        if each == name:
            text: str = value.decode("latin-1")
            return text
    return ""


def is_foreign(server: DispatchServer, scope: Scope) -> bool:
    """Whether the request comes from a page in a browser that may not ask anything of this server."""
    origin = header(scope, b"origin")
    # A page whose name was made to mean this machine asks without an origin, but by that name.
    host = header(scope, b"host") if scope.get("client") else ""
    return bool(
        (origin and not server.is_welcome_from(origin))
        or (host and not server.is_welcome_from(f"http://{host}"))
    )


def _refusal(server: DispatchServer, scope: Scope, method: str) -> DispatchError | None:
    if scope["method"] != method:
        return DispatchError(
            f"{method} is what this address answers, not {scope['method'][:16]}", code=UNKNOWN_METHOD
        )
    if not server.serving:
        return DispatchError("the server is going away; the request was not carried out", code=UNAVAILABLE)
    if is_foreign(server, scope):
        return DispatchError(FOREIGN_ORIGIN, code=FORBIDDEN)
    return None
