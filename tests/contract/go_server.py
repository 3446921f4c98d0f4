"""A server that behaves as the recordings of the existing Go server show (tests/vectors/conversations), over real TCP.

Base DWP: no features in the answer to the login; MessagePack in text messages; an event once per connection, labelled
with its own topic; 1,000 credits, then silence until a credits frame; requests answered one after the other, and
nothing read while a workflow runs; a refused login ends in TCP closed without a close frame.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any, Self

import msgpack
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.contract.threads import LoopThread, stop_accepting

SCOPES = {
    "dk_full": {"*"},
    "dk_reader": {"job:read", "workflow:read", "subscribe"},
    "dk_writer": {"job:write"},
}
_SCOPE_OF = {
    "job.enqueue": "job:write",
    "job.get": "job:read",
    "job.cancel": "job:write",
    "workflow.start": "workflow:write",
    "workflow.get": "workflow:read",
    "workflow.event": "workflow:write",
    "workflow.timeline": "workflow:read",
    "subscribe": "subscribe",
    "unsubscribe": "subscribe",
    "stats": "stats:read",
    "cron.list": "cron:read",
    "dlq.list": "dlq:read",
}
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_BUFFER = 256


class GoServer:
    """The existing server, as far as the recordings tell. Its state belongs to its thread.

    Args:
        credits: what a connection starts with.
    """

    base = True

    def __init__(self, *, credits: int = 1000) -> None:
        self.url = ""
        self.credits = credits
        self.heard: list[tuple[str, Any]] = []
        """Method and data of each request, over all connections, in order."""
        self.granted = 0
        """Credits that clients have sent."""
        self.before_subscribed: Callable[[str], None] | None = None
        """Called between taking up a subscription and answering it: what is published then comes first."""
        self.pauses: dict[str, float] = {}
        """Seconds that steps of workflows take, by their names."""
        self._thread = LoopThread()
        self._numbers = count(1)
        self._sessions: set[_Session] = set()
        self._logins: set[str] = set(SCOPES)
        self._jobs: dict[str, dict[str, Any]] = {}
        self._runs: dict[str, dict[str, Any]] = {}
        self._published: set[str] = set()
        self._released = asyncio.Semaphore(0)
        self._event_came = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.__enter__()
        self._server: Server = self._thread.run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.run(self._stop())
        self._thread.__exit__()

    # What a test does to it.

    def release(self, count: int = 1) -> None:
        """Let jobs end that are held, or will be."""
        for _ in range(count):
            self._thread.loop.call_soon_threadsafe(self._released.release)

    def connections(self) -> int:
        """How many are logged in."""
        return len(self._sessions)

    def forget_token(self, token: str) -> None:
        """From now on it lets nobody in."""
        self._thread.call(self._logins.discard, token)

    def cut_all(self) -> None:
        """Drop every connection without a word."""
        self._thread.call(self._cut)

    def keep_answers(self) -> None:
        """Say nothing more on the connections that there are now, though what they ask is done."""
        self._thread.call(self._keep_answers)

    def publish(self, kind: str, topic: str, data: dict[str, Any]) -> None:
        """An event, from nowhere."""
        self._thread.call(self._publish, kind, topic, data)

    # Listening.

    async def _listen(self) -> Server:
        server = await serve(
            self._serve_one,
            "127.0.0.1",
            0,
            process_request=self._route,
            compression=None,
            max_size=64 << 20,
            ping_interval=None,
        )
        self.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/dwp"
        return server

    async def _stop(self) -> None:
        await stop_accepting(self._server.sockets)
        for task in self._running:
            task.cancel()
        self._event_came.set()
        self._cut()
        self._server.close()
        await self._server.wait_closed()

    def _cut(self) -> None:
        for session in self._sessions:
            session.socket.transport.abort()

    def _keep_answers(self) -> None:
        for session in self._sessions:
            session.speaks.clear()

    def _route(self, socket: ServerConnection, request: Request) -> Response | None:
        return None if request.path == "/dwp" else socket.respond(404, "404 page not found\n")

    async def _serve_one(self, socket: ServerConnection) -> None:
        session = _Session(self, socket)
        try:
            if await session.log_in():
                self._sessions.add(session)
                await session.answer_all()
        except ConnectionClosed:
            pass
        finally:
            self._sessions.discard(session)
            session.writing.cancel()

    # What it is asked.

    async def answer(self, method: str, data: Any) -> Any:
        """The answer to a request, or `_Refused`."""
        self.heard.append((method, data))
        handler = {
            "job.enqueue": self._enqueue,
            "job.get": self._get_job,
            "job.cancel": self._cancel_job,
            "workflow.get": self._get_run,
            "workflow.event": self._take_event,
            "workflow.timeline": self._timeline,
            "stats": self._stats,
        }.get(method)
        if method == "workflow.start":
            return await self._run_workflow(data)
        if method.startswith("federation."):
            raise _Refused(405, "federation not enabled")
        if handler is None:
            raise _Refused(405, f"unknown method: {method}")
        return handler(data or {})

    def _enqueue(self, data: Any) -> Any:
        if not isinstance(data.get("name", ""), str):
            raise _Refused(400, "invalid request: json: cannot unmarshal number into Go struct field name")
        id, now = self._id("job"), _now()
        job = {
            "created_at": now,
            "updated_at": now,
            "id": id,
            "name": data.get("name", ""),
            "queue": data.get("queue") or "default",
            "payload": _base64(data.get("payload")),
            "state": "pending",
            "priority": max(data.get("priority") or 0, 0),
            "max_retries": 3,
            "retry_count": 0,
            "scope_app_id": "app-1",
            "scope_org_id": "org-1",
            "worker_id": "",
            "run_at": now,
            "timeout": 300_000_000_000,
        }
        self._jobs[id] = job
        task = asyncio.get_running_loop().create_task(self._run_job(job))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return {"job_id": id, "queue": job["queue"], "state": "pending"}

    async def _run_job(self, job: dict[str, Any]) -> None:
        self._job_event(job, "job.enqueued", "pending")
        if job["name"] not in ("noop", "send-email", "hold", "always-fails", "echo"):
            return
        self._job_event(job, "job.started", "running", started_at=_now())
        if job["name"] == "hold":
            await self._released.acquire()
        if job["state"] == "cancelled":
            return
        if job["name"] == "always-fails":
            self._job_event(job, "job.failed", "failed", last_error="as it always does")
            self._job_event(job, "job.dlq", "failed")
        else:
            self._job_event(job, "job.completed", "completed", completed_at=_now())

    def _job_event(self, job: dict[str, Any], kind: str, state: str, **fields: Any) -> None:
        job.update(fields, state=state, updated_at=_now())
        inner = {"job_id": job["id"], "job_name": job["name"], "queue": job["queue"]}
        if kind == "job.completed":
            inner["elapsed_ms"] = 30
        if state == "failed":
            inner["error"] = job["last_error"]
        self._publish(kind, f"job:{job['id']}", inner)

    def _get_job(self, data: Any) -> Any:
        id = _checked_id(data.get("job_id"), "job", "job")
        if id not in self._jobs:
            raise _Refused(404, "job not found: dispatch: job not found")
        return self._jobs[id]

    def _cancel_job(self, data: Any) -> Any:
        id = _checked_id(data.get("job_id"), "job", "job")
        if id not in self._jobs:
            raise _Refused(404, "job not found")
        self._jobs[id].update(state="cancelled", updated_at=_now())
        return {"status": "cancelled"}

    async def _run_workflow(self, data: Any) -> Any:
        """All of it, before the answer; `approval` waits for an event of the name `approved`."""
        name, input = data.get("name", ""), data.get("input")
        if name not in ("order-pipeline", "approval"):
            raise _Refused(500, f'workflow start failed: no workflow registered for "{name}"')
        id, now = self._id("wfrun"), _now()
        run = {"created_at": now, "updated_at": now, "id": id, "name": name, "state": "running"}
        run.update(input=_base64(input), started_at=now, version=1, steps=[])
        self._runs[id] = run
        topic, inner = f"workflow:{id}", {"run_id": id, "name": name}
        self._publish("workflow.started", topic, inner)
        if name == "order-pipeline" and not (isinstance(input, dict) and "order_id" in input):
            run.update(state="failed", error='workflow order-pipeline step "validate": order_id is required')
            self._publish("workflow.failed", topic, {**inner, "error": run["error"]})
            return {"run_id": id, "name": name, "state": "failed"}
        steps = ("validate", "charge", "ship") if name == "order-pipeline" else ("ask", "apply")
        for step in steps:
            if step == "apply":
                await self._event_came.wait()
            await asyncio.sleep(self.pauses.get(step, 0.0))
            entry = {"step_name": step, "created_at": _now()}
            if step == "charge":
                entry["data"] = "AwQAVA=="
            run["steps"].append(entry)
            self._publish("workflow.step_completed", topic, {**inner, "step_name": step})
        run.update(state="completed", completed_at=_now())
        self._publish("workflow.completed", topic, {**inner, "elapsed_ms": 26})
        return {"run_id": id, "name": name, "state": "completed"}

    def _get_run(self, data: Any) -> Any:
        id = _checked_id(data.get("run_id"), "wfrun", "run")
        if id not in self._runs:
            raise _Refused(404, "run not found: dispatch: run not found")
        return {name: value for name, value in self._runs[id].items() if name != "steps"}

    def _timeline(self, data: Any) -> Any:
        id = _checked_id(data.get("run_id"), "wfrun", "run")
        return self._runs.get(id, {"steps": []})["steps"]

    def _take_event(self, data: Any) -> Any:
        name = data.get("name", "")
        if name == "approved":
            self._event_came.set()
        return {"event_id": self._id("evt"), "name": name}

    def _stats(self, data: Any) -> Any:
        subscribers = sum(bool(session.channels) for session in self._sessions)
        broker = {"topic_count": 0, "subscriber_count": subscribers, "total_published": 0, "total_dropped": 0}
        return {"broker": broker, "connections": 0}

    # What it tells.

    def _publish(self, kind: str, topic: str, data: dict[str, Any]) -> None:
        event = {"type": kind, "ts": _now(), "topic": topic, "data": data}
        group = {"job": "jobs", "workflow": "workflows"}.get(kind.partition(".")[0])
        for session in self._sessions:
            if session.channels & {"firehose", group, topic}:
                session.tell(event, topic)

    def _id(self, prefix: str) -> str:
        number, text = next(self._numbers), ""
        for _ in range(16):
            number, digit = divmod(number, 32)
            text = _ALPHABET[digit] + text
        return f"{prefix}_01h455vb4p{text}"


class _Refused(Exception):
    def __init__(self, code: int, message: str) -> None:
        self.error = {"code": code, "message": message}


class _Session:
    """One connection."""

    def __init__(self, server: GoServer, socket: ServerConnection) -> None:
        self.socket = socket
        self.channels: set[str] = set()
        self._server = server
        self._credits = server.credits
        self._scopes: set[str] = set()
        self._format = "json"
        self._out: asyncio.Queue[bytes] = asyncio.Queue()
        self.speaks = asyncio.Event()
        self.speaks.set()
        self.writing = asyncio.get_running_loop().create_task(self._write())

    @property
    def _no_time(self) -> Any:
        """The year 1, which it answers to a ping without a time."""
        return "0001-01-01T00:00:00Z" if self._format == "json" else msgpack.Timestamp(-62_135_596_800)

    async def log_in(self) -> bool:
        """Read the first frame, which is always JSON; whether it was let in."""
        message = await self.socket.recv()
        frame = json.loads(message)
        data = frame.get("data") or {}
        token = data.get("token") or frame.get("token", "")
        if token not in self._server._logins:
            refusal = {"code": 401, "message": "authentication failed"}
            await self.socket.send(self._encode("error", correl_id=frame["id"], error=refusal), text=True)
            self.socket.transport.close()
            return False
        self._scopes = SCOPES[token]
        self._format = "msgpack" if data.get("format") == "msgpack" else "json"
        session_id = f"ws_179534076{next(self._server._numbers):010}"
        self._answer(frame, {"format": self._format, "session_id": session_id})
        return True

    async def answer_all(self) -> None:
        """One after the other; nothing is read while an answer is made."""
        async for message in self.socket:
            frame = self._decode(message)
            if frame["type"] == "ping":
                self._put(self._encode("pong", correl_id=frame["id"], ts=frame.get("ts", self._no_time)))
            elif frame.get("credits"):
                self._credits += frame["credits"]
                self._server.granted += frame["credits"]
            else:
                await self._answer_one(frame)

    def tell(self, event: dict[str, Any], topic: str) -> None:
        """An event, if there is credit for it; else it is gone."""
        if self._credits > 0 and self._out.qsize() < _BUFFER:
            self._credits -= 1
            self._put(self._encode("event", data=event, channel=topic))

    async def _answer_one(self, frame: dict[str, Any]) -> None:
        method = frame.get("method", "")
        data: Any = frame.get("data")
        needed = _SCOPE_OF.get(method, "admin")
        try:
            if method and not self._scopes & {"*", needed}:
                raise _Refused(403, "insufficient permissions")
            if method == "subscribe":
                self._answer(frame, self._subscribe(data["channel"]))
            elif method == "unsubscribe":
                self.channels.discard(data["channel"])
                self._answer(frame, {"channel": data["channel"], "status": "unsubscribed"})
            else:
                self._answer(frame, await self._server.answer(method, data))
        except _Refused as refused:
            self._put(self._encode("error", correl_id=frame["id"], error=refused.error))

    def _subscribe(self, channel: str) -> Any:
        self._server.heard.append(("subscribe", channel))
        prefix, colon, rest = channel.partition(":")
        if channel not in ("jobs", "workflows", "firehose") and not (colon and prefix and rest):
            raise _Refused(400, f'stream: invalid topic "{channel}"')
        self.channels.add(channel)
        if self._server.before_subscribed is not None:
            self._server.before_subscribed(channel)
        return {"channel": channel, "status": "subscribed"}

    def _answer(self, frame: dict[str, Any], data: Any) -> None:
        self._put(self._encode("response", correl_id=frame["id"], data=data))

    def _put(self, message: bytes) -> None:
        self._out.put_nowait(message)

    async def _write(self) -> None:
        try:
            while True:
                message = await self._out.get()
                await self.speaks.wait()
                await self.socket.send(message, text=True)
        except ConnectionClosed:
            pass

    def _encode(self, type: str, *, data: Any = None, **fields: Any) -> bytes:
        now = datetime.now(UTC)
        frame: dict[str, Any] = {
            "id": f"{now:%Y%m%d%H%M%S.%f}{next(self._server._numbers) % 1000:03}",
            "type": type,
        }
        frame["correl_id"] = fields.get("correl_id", "")
        frame["data"] = data
        frame["error"] = fields.get("error")
        frame["channel"] = fields.get("channel", "")
        frame = {name: value for name, value in frame.items() if value not in (None, "")}
        if self._format == "json":
            frame["ts"] = fields.get("ts") or _now()
            return json.dumps(frame, separators=(",", ":"), ensure_ascii=False).encode()
        if data is not None:
            frame["data"] = json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
        frame["ts"] = fields.get("ts") or msgpack.Timestamp.from_datetime(now)
        packed: bytes = msgpack.packb(frame)
        return packed

    def _decode(self, message: str | bytes) -> dict[str, Any]:
        if self._format == "json":
            return dict(json.loads(message))
        assert isinstance(message, bytes), "our client sends MessagePack as binary messages"
        frame: dict[str, Any] = msgpack.unpackb(message)
        if "data" in frame:
            frame["data"] = json.loads(frame["data"])
        return frame


def _checked_id(id: Any, prefix: str, what: str) -> str:
    if not isinstance(id, str) or not id:
        raise _Refused(400, f'invalid {what} ID: id: parse "": empty string')
    suffix = id.partition("_")[2]
    if len(suffix) != 26:
        raise _Refused(
            400, f'invalid {what} ID: id: parse "{id}": typeid: suffix length must be 26, got {len(suffix)}'
        )
    if id.partition("_")[0] != prefix:
        raise _Refused(
            400, f'invalid {what} ID: id: expected prefix "{prefix}", got "{id.partition("_")[0]}"'
        )
    return id


def _base64(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return "" if value is None else b64encode(text.encode()).decode()


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}789Z"
