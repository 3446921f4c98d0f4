"""A peer that only answers: the server side of client measurements, the same one for every candidate.

It speaks just enough of PROTOCOL.md to be connected to (sections 3 to 6): the handshake, one prepared answer
for every request, events on demand within the client's credits. All that arrived in one read is answered in
one write. With `together` = n it answers only when n requests wait: the conversation is then the same in
every run.
"""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import Future
from typing import Any

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from benchmarks.child import obey

JOB_ID = "job_01m81ahtqdet9s5sk8k67gqchq"
ANSWER = f'{{"job_id":"{JOB_ID}","queue":"default","state":"completed"}}'
TS = "2026-11-22T09:49:14.349296251Z"
FEATURES = ("resume", "idempotency", "options", "batch", "wait", "drain")
PER_WRITE = 100


def event_text(seq: int) -> str:
    """One event of a job, labelled as the existing server labels it, with the `seq` of the extension."""
    names = f'"job_id":"{JOB_ID}","job_name":"send-email","queue":"default"'
    inner = f'{{{names},"elapsed_ms":12,"state":"completed"}}'
    topic = f"job:{JOB_ID}"
    data = f'{{"type":"job.completed","ts":"{TS}","topic":"{topic}","seq":{seq},"data":{inner}}}'
    return f'{{"id":"e{seq}","type":"event","data":{data},"channel":"{topic}","ts":"{TS}"}}'


class Peer(asyncio.Protocol):
    """One connection of the answering peer."""

    def __init__(self, together: int, extended: bool) -> None:
        self._together = together
        self._extended = extended
        self._websocket = ServerProtocol()
        self._waiting: list[bytes] = []
        self._credits = 1000
        self._events = 0
        self._seq = 0
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._push()

    def data_received(self, data: bytes) -> None:
        self._websocket.receive_data(data)
        for event in self._websocket.events_received():
            if isinstance(event, Request):
                self._websocket.send_response(self._websocket.accept(event))
            elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY):
                self._receive(event)
        if self._waiting and len(self._waiting) >= self._together:
            for id in self._waiting:
                self._answer(id, ANSWER)
            self._waiting.clear()
        self._flush()
        if self._events:
            self._push()
        if self._websocket.close_expected():
            self._transport.close()

    def eof_received(self) -> None:
        self._websocket.receive_eof()

    def _receive(self, event: Frame) -> None:
        message = bytes(event.data)
        end = message.index(b'"', 7)
        if message.startswith(b'{"id":"') and message.find(b'"method":"job.get"', end) > 0:
            self._waiting.append(message[7:end])
            return
        frame = json.loads(message)
        self._credits += frame.get("credits", 0)
        method, data, id = frame.get("method"), frame.get("data") or {}, frame["id"].encode()
        if frame["type"] == "ping":
            self._send(f'{{"id":"p","type":"pong","correl_id":"{frame["id"]}","ts":"{TS}"}}')
        elif method == "auth":
            self._answer(id, self._welcome())
        elif method == "subscribe":
            seq = f',"seq":{self._seq}' if self._extended else ""
            self._answer(id, f'{{"channel":"{data["channel"]}","status":"subscribed"{seq}}}')
        elif method == "events":  # the benchmark's own: that many events of the subscribed channel
            self._answer(id, "{}")
            self._events += data["count"]
        elif method is not None:
            self._waiting.append(id)

    def _welcome(self) -> str:
        welcome: dict[str, Any] = {"format": "json", "session_id": "ws_1"}
        if self._extended:
            welcome |= {
                "server": {"name": "peer", "version": "1"},
                "features": list(FEATURES),
                "heartbeat_ms": 60_000,
                "credits": self._credits,
                "log": "log-1",
                "limits": {
                    "message": 16 << 20,
                    "payload": 8 << 20,
                    "depth": 128,
                    "in_flight": 4096,
                    "subscriptions": 1024,
                    "batch": 1000,
                    "wait_ms": 30_000,
                    "idempotency_ms": 86_400_000,
                },
            }
        return json.dumps(welcome)

    def _answer(self, id: bytes, data: str) -> None:
        self._send(f'{{"id":"r","type":"response","correl_id":"{id.decode()}","data":{data},"ts":"{TS}"}}')

    def _send(self, text: str) -> None:
        self._websocket.send_text(text.encode())

    def _flush(self) -> None:
        if output := b"".join(self._websocket.data_to_send()):
            self._transport.write(output)

    def _push(self) -> None:
        while self._events and self._credits > 0 and not self._paused:
            burst = min(self._events, self._credits, PER_WRITE)
            self._events -= burst
            self._credits -= burst
            for _ in range(burst):
                self._seq += 1
                self._send(event_text(self._seq))
            self._flush()


async def listen(together: int = 1, extended: bool = True) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Peer(together, extended), "127.0.0.1", 0)


def port_of(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


class PeerThread:
    """The peer on a loop in a thread of its own, for counts that a profiler takes on the client's thread."""

    def __init__(self, together: int = 1, extended: bool = True) -> None:
        self._ready: Future[int] = Future()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._main(together, extended),), daemon=True
        )

    async def _main(self, together: int, extended: bool) -> None:
        self._stopped = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        async with await listen(together, extended) as server:
            self._ready.set_result(port_of(server))
            await self._stopped.wait()

    def __enter__(self) -> str:
        self._thread.start()
        return f"ws://127.0.0.1:{self._ready.result(10)}/dwp"

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)


async def main() -> None:
    async with await listen() as server:
        await obey({"url": f"ws://127.0.0.1:{port_of(server)}/dwp"}, {})


if __name__ == "__main__":
    asyncio.run(main())
