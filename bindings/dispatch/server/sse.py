"""`GET /dwp/sse`: events as a stream of server-sent events (PROTOCOL.md section 8).

Who may have which is decided by `dwp_core.http_events`. A reader that is slow has a cursor into the log, as on a
WebSocket; what waits for it here is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote_plus

from dispatch.server.asgi_connection import Message, Receive, Scope, Send
from dispatch.server.http_request import LOG_HEADER, HttpConnection, header
from dwp_core.http_events import FEATURES, STREAM_TYPE, EventStreamSession
from dwp_core.http_rpc import JSON_TYPE
from dwp_core.http_session import STATUS_OK, bearer_token

if TYPE_CHECKING:
    from dispatch.server.server import DispatchServer

UNSENT_BYTES = 256 * 1024
"""What may wait for one reader here; beyond that its events stay in the log."""

PIECE = 64 * 1024
"""Bytes that are handed over at once, about: an ASGI server takes what it is given, and waits only before the next."""

_HIDDEN = b"***"


class EventStreamConnection(HttpConnection):
    """One stream and its reader."""

    __slots__ = ()

    def __init__(self, server: DispatchServer, query: list[tuple[str, str]], scope: Scope) -> None:
        values = dict(query)
        session = EventStreamSession(
            **server.session_settings("sse"),
            token=values.get("token") or bearer_token(header(scope, b"authorization")),
            channels=[value for name, value in query if name == "channel"],
            since=values.get("since", ""),
            last_event_id=header(scope, b"last-event-id"),
        )
        super().__init__(server, scope, session, "GET")

    def send(self, messages: list[bytes], *, binary: bool) -> None:
        if self._closing:
            return
        streaming = self._http.status == STATUS_OK
        if not self._started:
            # Nothing on the way is to keep it, and nginx is not to collect it.
            more = [
                (b"cache-control", b"no-cache" if streaming else b"no-store"),
                (b"x-accel-buffering", b"no"),
                (LOG_HEADER, self.server.hub.log.encode()),
            ]
            self._start(STREAM_TYPE if streaming else JSON_TYPE, self.server.config.features & FEATURES, more)
        # Not joined yet: until they are handed over, the events are the same bytes for all readers.
        for message in messages:
            self._put(message, more=streaming)

    def close_transport(self, code: int, reason: str) -> None:
        if not self._closing:
            self._put(b"", more=False)

    async def read(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    def _is_full(self) -> bool:
        return super()._is_full() or self._unsent > UNSENT_BYTES

    def _joined(self, messages: list[Message]) -> Iterable[Message]:
        """Events in pieces of some size: not many small ones, and none that an ASGI server would have to keep."""
        events: list[bytes] = []
        size = 0
        for message in messages:
            if message.get("more_body"):
                events.append(message["body"])
                size += len(message["body"])
                if size < PIECE:
                    continue
            if events:
                yield {"type": "http.response.body", "body": b"".join(events), "more_body": True}
                events.clear()
                size = 0
            if not message.get("more_body"):
                yield message
        if events:
            yield {"type": "http.response.body", "body": b"".join(events), "more_body": True}


async def stream(server: DispatchServer, scope: Scope, receive: Receive, send: Send) -> None:
    """A request to the address of event streams."""
    query: bytes = scope.get("query_string", b"")
    # An ASGI server that keeps a log of requests writes what stands in the scope when the answer begins.
    scope["query_string"] = without_token(query)
    named = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    await EventStreamConnection(server, named, scope).carry(receive, send)


def without_token(query: bytes) -> bytes:
    """The query string of a request as a log may have it.

    Example:
        >>> without_token(b"channel=jobs&token=dk_secret")
        b'channel=jobs&token=***'
    """
    fields = query.split(b"&")
    for index, field in enumerate(fields):
        name, equals, _ = field.partition(b"=")
        if equals and unquote_plus(name.decode("latin-1")) == "token":
            fields[index] = name + equals + _HIDDEN
    return b"&".join(fields)
