"""Servers for HTTP clients: ours under uvicorn, and one that answers as the existing server was recorded to."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from dispatch.server import DispatchServer, Keys
from dispatch.server.asgi import app
from dispatch.server.server import default_config
from tests.contract.our_server import KEYS, OurServer
from tests.contract.threads import LoopThread
from tests.server.http_serving import Uvicorn

RECORDINGS = Path(__file__).parents[1] / "vectors" / "http"


class OurHttpServer(OurServer):
    """A `DispatchServer` as an ASGI application, on a thread of this process and always on the same port."""

    _port = 0

    async def _start(self) -> None:
        config = replace(default_config(), **self._settings)
        self._server = DispatchServer(self._store, registry=self._functions(), keys=Keys(KEYS), config=config)
        await self._server.start()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", self._port))
        self._port = self._socket.getsockname()[1]
        self._http = Uvicorn(app(self._server), lifespan="off")
        self._task = asyncio.get_running_loop().create_task(self._http._serve(sockets=[self._socket]))
        await self._http.ready.wait()
        self.url = f"http://127.0.0.1:{self._port}/dwp/rpc"

    async def _stop(self) -> None:
        await self._server.stop(0.0)
        self._http.should_exit = True
        await self._task
        self._socket.close()


def recorded(name: str) -> list[dict[str, Any]]:
    """The recorded exchanges of this file."""
    return [json.loads(line) for line in (RECORDINGS / f"{name}.jsonl").read_text().splitlines()]


class RecordedServer:
    """The existing server over HTTP, as far as the recordings tell: its answers, to the requests that they answer.

    A request is answered as the recorded one with the same method, token and data; with its own id.

    Args:
        secure: to speak TLS with.
    """

    def __init__(self, secure: ssl.SSLContext | None = None) -> None:
        self._secure = secure
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        """Target, headers and body of each, in order."""
        self.lost_answers = 0
        """So many requests get no answer: the connection ends."""
        self._rpc = recorded("rpc")
        self._sse = recorded("sse")
        self._thread = LoopThread()
        self._streams: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Self:
        self._thread.__enter__()
        serving = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._secure)
        self._server = self._thread.run(serving)
        scheme = "https" if self._secure is not None else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/dwp/rpc"
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.call(self._server.close)
        self._thread.call(self._drop_streams)
        self._thread.__exit__()

    @property
    def methods(self) -> list[str]:
        """The methods that were asked for, in order; types where there is none."""
        frames = [json.loads(body) for _, _, body in self.requests if body]
        return [frame.get("method", frame["type"]) for frame in frames]

    def cut_streams(self) -> None:
        """End every stream of events without a word."""
        self._thread.call(self._drop_streams)

    def _drop_streams(self) -> None:
        for writer in self._streams:
            writer.transport.abort()
        self._streams.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                pairs = (line.partition(":") for line in head[1:] if line)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                target = head[0].split(" ")[1]
                self.requests.append((target, headers, body))
                if body and self.lost_answers and b'"ping"' not in body:
                    self.lost_answers -= 1
                    break
                if not self._answer(writer, target, headers, body):
                    return
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if writer not in self._streams:
                writer.close()

    def _answer(
        self, writer: asyncio.StreamWriter, target: str, headers: dict[str, str], body: bytes
    ) -> bool:
        """Answer; whether the connection is still good for another request."""
        if body:
            response = self._recorded_call(headers, json.loads(body))
            text = response["body"]["text"].replace(
                '"correl_id":"1"', f'"correl_id":{json.dumps(json.loads(body)["id"])}'
            )
            lines = [f"HTTP/1.1 {response['status']} Recorded", "Content-Type: application/json"]
            lines += [f"Content-Length: {len(text.encode())}", "", text]
            writer.write("\r\n".join(lines).encode())
            return True
        response = self._recorded_stream(target)
        lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in response["headers"]), "", ""]
        writer.write("\r\n".join(lines).encode() + response["body"]["text"].encode())
        over: bool = response["body"]["text"].endswith("0\r\n\r\n")
        if not over:
            self._streams.add(writer)
        return over

    def _recorded_call(self, headers: dict[str, str], frame: dict[str, Any]) -> Any:
        assert headers["content-type"] == "application/json", "it takes nothing else"
        asked = [frame["type"], frame.get("method"), frame.get("token"), frame.get("data")]
        for exchange in self._rpc:
            try:
                known = json.loads(exchange["request"]["body"]["text"])
            except (KeyError, ValueError):
                continue
            if asked == [known["type"], known.get("method"), known.get("token"), known.get("data")]:
                return exchange["response"]
        titles = {exchange["title"]: exchange["response"] for exchange in self._rpc}
        return titles["wrong token" if frame.get("token") != "dk_full" else "scope missing"]

    def _recorded_stream(self, target: str) -> Any:
        query = parse_qs(urlsplit(target).query)
        query.pop("key", None)  # of somebody in front of it
        for exchange in self._sse:
            if parse_qs(urlsplit(exchange["request"]["path"]).query) == query:
                return exchange["response"]
        return next(e["response"] for e in self._sse if e["title"] == "wrong token")
