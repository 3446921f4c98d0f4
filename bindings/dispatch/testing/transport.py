"""`MockTransport`: a server that a test plays, without a network. For all three bindings, in both codecs.

A client that is given one speaks to a real session of the core: handshake, codecs, features, credits, resume and
closing are those of our server. What the server answers and publishes is the test's. Bytes go to and fro in the
client's own loop or thread; nothing here sleeps, and nothing has a thread.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, TypedDict

from dispatch.testing import script
from dispatch.testing.requests import Request
from dispatch.testing.script import Answer, Script, encode_answer
from dispatch.testing.waiting import awaited, awaited_blocking
from dwp_core.backoff import Backoff
from dwp_core.codec.payload import decode_payload, encode_payload
from dwp_core.errors import (
    UNAVAILABLE,
    AuthError,
    ConflictError,
    DispatchError,
    InvalidRequest,
    TimeoutError,
)
from dwp_core.events import LoggedEvent
from dwp_core.hub import Hub
from dwp_core.peer import DRAIN, IDEMPOTENCY
from dwp_core.server_events import Identity, ServerConfig
from dwp_core.topics import JOB_PREFIX, RUN_PREFIX, state_of

if TYPE_CHECKING:
    import asyncio
    import socket

    import trio

    from dispatch.testing.peer import End, Peer
    from dwp_core.client_events import ClientConfig

_LOG = "log_mock"
_A_DAY = 86_400.0
_A_MOMENT = 1.0
_AT_ONCE = Backoff(base=0.001, cap=0.001, stable_after=0.0)
_FOREVER = 2**63


class SessionSettings(TypedDict):
    """What the session of a connection is made with."""

    config: ServerConfig
    hub: Hub
    session_id: str
    now: float
    epoch_ns: int


class MockTransport:
    """A scripted server in place of the network.

    Any number of clients may use one, one after the other or at once, of any binding; they share its script, its event
    log and its list of requests. A method without a script is answered 405, and says so.

    Args:
        config: how its sessions behave, e.g. `ServerConfig(features=frozenset())` for a base server; None for a server
            that has everything and lets a call wait for a day.

    Attributes:
        requests: everything that was asked, oldest first, also subscriptions.
        logins: the tokens of the logins, oldest first.
        config: how its sessions behave.

    Example:
        >>> from dispatch.sync import Dispatch
        >>> transport = MockTransport()
        >>> transport.answer("job.get", {"state": "completed", "output": {"sent": True}})
        >>> with Dispatch(url="ws://test/dwp", transport=transport) as client:
        ...     job = client.get_job("job_01h455vb4pex5vsknk084sn02q")
        >>> job.state, job.output, transport.requests[0].data
        ('completed', {'sent': True}, {'job_id': 'job_01h455vb4pex5vsknk084sn02q'})
    """

    def __init__(self, config: ServerConfig | None = None) -> None:
        self.config = config or ServerConfig(name="dispatch-mock", wait=_A_DAY)
        self.requests: list[Request] = []
        self.logins: list[str] = []
        self.lock = threading.RLock()
        """Guards it all; for the ends of connections."""
        self._script = Script()
        self._open: dict[Request, tuple[Peer, str]] = {}
        self._unseen: list[Request] = []
        self._expected: list[tuple[str | None, Future[Request]]] = []
        self._holds = False
        self._held_methods: set[str] = set()
        self._kept: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        self._asked: dict[Request, bytes] = {}
        self._names = count(1)
        self._peers: list[Peer] = []
        self._refusals = 0
        self._failing_logins = 0
        self._login_error: DispatchError = AuthError("authentication failed")
        self._events: list[LoggedEvent] = []
        self._oldest = 1
        self._hub: Hub | None = None
        self._epoch_ns = 0

    def __repr__(self) -> str:
        return f"<MockTransport with {len(self._peers)} connections, {len(self.requests)} requests>"

    # The script.

    def answer(self, method: str, *answers: Answer) -> None:
        """Say what requests of this method are answered with, from now on.

        Answers are given as a program sees them: `output` is a value, not base64. What a server always says and the
        answer leaves out, such as the id of a job that was enqueued, is filled in.

        Args:
            method: as on the wire, e.g. "job.enqueue" (PROTOCOL.md section 4).
            answers: one after the other, the last one for all that follow; none for what a server usually says. Each
                is a JSON value, or an error such as `NotFoundError("...")`, or a function that takes the data of the
                request and gives or raises one of these. It must answer at once, and cannot ask the client itself.
                After an error of code 503 a client asks again: it means that the server goes away.

        Raises:
            InvalidRequest: there is no such method, or that can be no answer.

        Example:
            >>> transport = MockTransport()
            >>> transport.answer("job.enqueue")
            >>> transport.answer("stats", DispatchError("too many at once", code=429), {"connections": 1})
            >>> transport.answer("job.get", lambda data: {"id": data["job_id"], "state": "running"})
        """
        with self.lock:
            self._script.set(method, answers)

    def asked(self, method: str) -> list[dict[str, Any]]:
        """The data of every request of this method, oldest first.

        Raises:
            InvalidRequest: there is no such method.
        """
        script.check_method(method)
        with self.lock:
            return [request.data for request in self.requests if request.method == method]

    # Answers that wait.

    def hold(self, *methods: str) -> None:
        """Answer requests of these methods, or of all, no more until they are released. Subscriptions are not held.

        Raises:
            InvalidRequest: there is no such method.
        """
        for method in methods:
            script.check_method(method)
        with self.lock:
            self._holds = self._holds or not methods
            self._held_methods.update(methods)

    @property
    def held(self) -> list[Request]:
        """Requests that wait for their answers, oldest first; `Request.answer` answers one, in any order."""
        with self.lock:
            return [request for request in self.requests if not request.answered]

    def release(self) -> None:
        """Answer everything that is held, oldest first, and hold back nothing more."""
        with self.lock:
            self._holds = False
            self._held_methods.clear()
            for request in self.held:
                self._settle(request, ())

    async def next_request(self, method: str | None = None, *, timeout: float = 10.0) -> Request:
        """Wait for a request: the oldest that this has not given out yet. In asyncio and in trio.

        Args:
            method: of this method; None for any.
            timeout: seconds, on the clock of the loop.

        Raises:
            TimeoutError: none came in time; the message says what did.
        """
        request = await awaited(self._expect(method), timeout)
        return self._came(method, request, timeout)

    def next_request_blocking(self, method: str | None = None, *, timeout: float = 10.0) -> Request:
        """As `next_request`, in a thread that may block."""
        return self._came(method, awaited_blocking(self._expect(method), timeout), timeout)

    # Events.

    def publish(self, kind: str, /, **data: Any) -> int:
        """Have an event happen. Clients that have subscribed get it; it stays in the log for those that come back.

        Args:
            kind: e.g. "job.completed" (PROTOCOL.md section 5).
            data: its fields; of a job `job_id` at least, of a workflow `run_id`. `state` is filled in.

        Returns:
            Its `seq`.

        Raises:
            InvalidRequest: it does not say what it is about.
            PayloadError: its data are no JSON.

        Example:
            >>> MockTransport().publish("job.completed", job_id="job_01h455vb4pex5vsknk084sn02q", job_name="noop")
            1
        """
        topic = _topic_of(kind, data)
        queue = ""
        if kind.startswith("job."):
            queue = data.setdefault("queue", "default")
        state = state_of(kind)
        if state is not None:
            data.setdefault("state", state)
        text = encode_payload(data, what=f"the data of {kind}")
        with self.lock:
            seq = len(self._events) + 1
            event = LoggedEvent(seq, kind, self._wall_ns(), topic, str(queue), "", "", text)
            self._events.append(event)
            hub = self._hub
            if hub is not None:
                for fanout in hub.publish([event], now=self._now()):
                    for peer in fanout.to:
                        peer.send(fanout.messages, binary=fanout.binary)
                for peer in hub.take_behind():
                    peer.pump()
        return seq

    def retain(self, events: int) -> None:
        """Let the log forget all but the newest events: who comes back for older ones is told of a gap."""
        with self.lock:
            self._oldest = max(self._oldest, len(self._events) + 1 - events)
            if self._hub is not None:
                self._hub.retained(self._oldest)

    # Trouble.

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._peers)

    def drop(self) -> None:
        """Break every connection, now and without a word. A client that reconnects does so at once."""
        with self.lock:
            for peer in list(self._peers):
                peer.cut()

    def drain(self, seconds: float = 0.0) -> None:
        """Go away in good order: what is in flight has so long to be answered, clients come back at once."""
        with self.lock:
            for peer in list(self._peers):
                peer.drain(seconds)

    def refuse(self, times: int | None = None) -> None:
        """Refuse the next connections: so many, or all until `refuse(0)`."""
        with self.lock:
            self._refusals = _FOREVER if times is None else times

    def fail_login(self, error: DispatchError | None = None, *, times: int | None = None) -> None:
        """Let nobody in.

        Args:
            error: what logins are refused with; None for 401.
            times: how many; None for all until `fail_login(times=0)`.
        """
        with self.lock:
            self._login_error = error or AuthError("authentication failed")
            self._failing_logins = _FOREVER if times is None else times

    # What bindings call (`dispatch.dialing.Transport`).

    def adapt(self, config: ClientConfig) -> ClientConfig:
        """A client that goes over this comes back at once: there is nobody to spare."""
        return replace(config, backoff=_AT_ONCE)

    def connect_asyncio(self, protocol: asyncio.Protocol) -> None:
        """Connect a protocol of the running loop. Raises `ConnectionRefusedError`."""
        from dispatch.testing.asyncio_end import AsyncioEnd

        self._admit()
        protocol.connection_made(AsyncioEnd(self, protocol))

    def connect_trio(self) -> trio.abc.Stream:
        """A stream of the current trio run. Raises `ConnectionRefusedError`."""
        from dispatch.testing.trio_end import TrioEnd

        self._admit()
        return TrioEnd(self)

    def connect_sync(self) -> socket.socket:
        """What a socket is to a selector and to who reads and writes. Raises `ConnectionRefusedError`."""
        from dispatch.testing.sync_end import SyncEnd

        self._admit()
        return SyncEnd(self)

    # What the ends and peers of connections call.

    def connected(self, end: End) -> Peer:
        """The far end of a new connection."""
        from dispatch.testing.peer import Peer

        with self.lock:
            if self._hub is None:
                self._epoch_ns = time.time_ns() - int(end.now() * 1e9)
                self._hub = Hub(
                    head=len(self._events), oldest=self._oldest, log=_LOG, epoch_ns=self._epoch_ns
                )
            peer = Peer(self, end)
            self._peers.append(peer)
            return peer

    def session_settings(self, now: float) -> SessionSettings:
        """What the session of a connection is made with."""
        assert self._hub is not None
        return {
            "config": self.config,
            "hub": self._hub,
            "session_id": f"mock_{next(self._names)}",
            "now": now,
            "epoch_ns": time.time_ns() - int(now * 1e9),
        }

    def log_in(self, token: str) -> Identity:
        """Who has this token. Raises what the login is refused with."""
        self.logins.append(token)
        if self._failing_logins:
            self._failing_logins -= 1
            raise self._login_error
        return Identity("the client under test", scopes=frozenset(("*",)))

    def read_log(self, after: int, limit: int) -> tuple[list[LoggedEvent], int]:
        """Events after this seq, and the seq up to which was looked."""
        page = self._events[max(after, self._oldest - 1) :][:limit]
        return page, page[-1].seq if page else len(self._events)

    def subscribing(self, peer: Peer, method: str, data: bytes) -> None:
        """A subscription is asked for or left. Raises what it is refused with."""
        request = self._note(peer, method, data)
        request.answered = True
        self._script.next(method, request.data)

    def asked_by(self, peer: Peer, request_id: str, method: str, data: bytes) -> None:
        """A request has come that the test answers."""
        request = self._note(peer, method, data)
        self._open[request] = (peer, request_id)
        self._asked[request] = data
        if not (self._holds or method in self._held_methods):
            self._settle(request, ())

    def wait_expired(self, peer: Peer, request_id: str) -> None:
        """A held `job.wait` or `workflow.wait` has lasted as long as the server lets it."""
        for request, asked in self._open.items():
            if asked == (peer, request_id):
                self._settle(request, ({"state": "running", "timed_out": True},))
                return

    def forget(self, peer: Peer) -> None:
        """A connection is over. What it has asked may still be answered, to nobody."""
        if peer in self._peers:
            self._peers.remove(peer)

    # Inside.

    def _admit(self) -> None:
        with self.lock:
            if self._refusals:
                self._refusals -= 1
                raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))

    def _note(self, peer: Peer, method: str, data: bytes) -> Request:
        fields = decode_payload(data, self.config.limits) if data else None
        request = Request(
            method,
            fields if isinstance(fields, dict) else {},
            session_id=peer.session.session_id,
            answer=self._answer_one,
        )
        self.requests.append(request)
        for place, (wanted, future) in enumerate(self._expected):
            if wanted in (None, method) and future.set_running_or_notify_cancel():
                del self._expected[place]
                future.set_result(request)
                return request
        self._unseen.append(request)
        return request

    def _answer_one(self, request: Request, answer: tuple[Any, ...]) -> None:
        with self.lock:
            if request.answered:
                raise InvalidRequest(f"this {request.method} is answered already")
            self._settle(request, answer)

    def _settle(self, request: Request, given: tuple[Any, ...]) -> None:
        """Answer a request: with what is given, or as scripted; one that was carried out before, as then."""
        peer, request_id = self._open[request]
        chosen = Script()
        if given:
            chosen.set(request.method, given)
        try:
            data = self._carry_out(request, chosen if given else self._script, peer)
        except DispatchError as error:
            self._close(request)
            if error.code == UNAVAILABLE and DRAIN in peer.session.features:
                peer.drain(_A_MOMENT)  # a server says that while it goes away, and has announced it
            peer.fail(request_id, error)
        else:
            self._close(request)
            peer.respond(request_id, data)

    def _carry_out(self, request: Request, answers: Script, peer: Peer) -> bytes:
        method, asked = request.method, self._asked[request]
        keyed = bool(request.key) and IDEMPOTENCY in peer.session.features
        kept = self._kept.get((method, request.key)) if keyed else None
        if kept is None:
            answer = encode_answer(method, answers.next(method, request.data), request.data)
            if keyed:
                self._kept[method, request.key] = (asked, answer)
            return answer
        if kept[0] != asked:
            raise ConflictError(f'{method}: idempotency_key "{request.key}" was used with other data')
        return encode_payload({**decode_payload(kept[1]), "duplicate": True})

    def _close(self, request: Request) -> None:
        request.answered = True
        del self._open[request], self._asked[request]

    def _expect(self, method: str | None) -> Future[Request]:
        if method is not None:
            script.check_method(method)
        future: Future[Request] = Future()
        with self.lock:
            self._expected = [each for each in self._expected if not each[1].cancelled()]
            for request in self._unseen:
                if method in (None, request.method):
                    self._unseen.remove(request)
                    future.set_result(request)
                    return future
            self._expected.append((method, future))
        return future

    def _came(self, method: str | None, request: Request | None, timeout: float) -> Request:
        if request is None:
            came = ", ".join(each.method for each in self.requests[-20:]) or "nothing"
            raise TimeoutError(f"no {method or 'request'} came within {timeout:g} s; what came: {came}")
        return request

    def _now(self) -> float:
        """The clock of a client that is connected."""
        return self._peers[-1].now if self._peers else 0.0

    def _wall_ns(self) -> int:
        return self._epoch_ns + int(self._now() * 1e9) if self._peers else time.time_ns()


def _topic_of(kind: str, data: dict[str, Any]) -> str:
    for group, name, prefix in (("job.", "job_id", JOB_PREFIX), ("workflow.", "run_id", RUN_PREFIX)):
        if kind.startswith(group):
            if not isinstance(data.get(name), str) or not data[name]:
                raise InvalidRequest(f"publish: {kind} must say what it is about: give {name}=")
            return prefix + str(data[name])
    return ""
