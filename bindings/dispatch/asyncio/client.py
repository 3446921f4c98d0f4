"""The asyncio client. What each call means is in `dispatch.operations`, what happens to it in `dwp_core.client`."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl as tls
import time
import warnings
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from dispatch import __version__, operations, results
from dispatch.asyncio.line import Dialer, Line, Token
from dispatch.asyncio.subscription import Subscription
from dispatch.operations import Operation
from dispatch.wire import Address
from dwp_core.client import ClientSession, frame_ids
from dwp_core.client_events import (
    ClientConfig,
    ClientEvent,
    Closed,
    Connected,
    Discarded,
    Disconnected,
    RequestFailed,
    RequestOutcomeUnknown,
    RequestSucceeded,
    SubscriptionEnded,
    SubscriptionGap,
    SubscriptionItem,
    SubscriptionStarted,
)
from dwp_core.errors import ClosedError, InvalidRequest
from dwp_core.frames import DEFAULT_LIMITS
from dwp_core.subscriptions import Since

T = TypeVar("T")

_LOGGER = logging.getLogger("dispatch.client")
_FORMATS = ("json", "msgpack")
_RUN_ENDS = frozenset(("workflow.completed", "workflow.failed", "workflow.cancelled"))
_JOB_ENDS = frozenset(("job.completed", "job.failed", "job.cancelled"))
_ENDED = frozenset(("completed", "failed", "cancelled"))


class Dispatch:
    """A client of a Dispatch server, for asyncio.

    One client serves a whole program: any number of tasks of one event loop may use it at once. A lost connection
    is made again and everything restored; what happens to calls under way is told by their errors.

    Args:
        url: where the server is, e.g. "ws://127.0.0.1:8080/dwp" or "wss://example.com/dwp".
        token: the API key, or a function (or coroutine function) that gives it, asked anew for each attempt.
        format: "json" or "msgpack", what the frames are sent as; the server has the last word.
        reconnect: whether a lost connection is made again.
        max_retries: attempts in a row before giving up; 0 means no limit.
        timeout: seconds that a call waits for its answer, unless it says otherwise; None waits for ever.
        wait_for_server: seconds for which the first connection is tried again; 0 makes one attempt and raises.
        connect_timeout: seconds for one attempt, login and subscriptions included.
        ssl: TLS context for `wss`; None trusts the system's roots.
        headers: more headers for the opening handshake.
        event_buffer: unread events of one subscription, towards a server that cannot send them again.

    Raises:
        InvalidRequest: the URL is none, or another argument cannot be used.

    Example:
        >>> async def main():
        ...     async with Dispatch(url="ws://127.0.0.1:8080/dwp", token="dk_...") as client:
        ...         job = await client.enqueue("send-email", {"to": "user@example.com"})
        ...         print(await client.wait(job["job_id"]))
    """

    def __init__(
        self,
        url: str,
        token: Token = "",
        *,
        format: str = "json",
        reconnect: bool = True,
        max_retries: int = 10,
        timeout: float | None = 30.0,
        wait_for_server: float = 0.0,
        connect_timeout: float = 10.0,
        ssl: tls.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        event_buffer: int = ClientConfig.event_buffer,
        codec: str | None = None,
    ) -> None:
        if format not in _FORMATS:
            raise InvalidRequest(f'format must be "json" or "msgpack", got {format!r}')
        if not (isinstance(token, str) or callable(token)):
            raise InvalidRequest(
                f"token must be text or a function that gives it, got {type(token).__name__}"
            )
        if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
            raise InvalidRequest(f"max_retries must be an integer from 0 (no limit), got {max_retries!r}")
        _check_seconds("timeout", timeout)
        _check_seconds("wait_for_server", wait_for_server, least=0.0)
        _check_seconds("connect_timeout", connect_timeout)
        address = Address(url, dict(headers or {}))
        self._dialer = Dialer(address, token, ssl)
        self._timeout = timeout
        self._config = ClientConfig(
            format=format,
            form=codec,
            reconnect=reconnect,
            max_retries=max_retries,
            wait_for_server=wait_for_server,
            connect_timeout=connect_timeout,
            event_buffer=event_buffer,
            version=__version__,
            where=address.url,
        )
        self._lines: dict[ClientSession, Line] = {}
        self._line: Line | None = None
        self._connected: asyncio.Future[str] | None = None
        self._closed: asyncio.Future[None] | None = None

    # Connecting.

    async def connect(self) -> str:
        """Connect and log in.

        Returns:
            The session id that the server gave.

        Raises:
            AuthError: the server refused the token.
            ConnectionError: the server cannot be reached or does not speak DWP.
            ClosedError: the client was connected before; make a new one.
        """
        if self._line is not None:
            raise ClosedError("this client was connected before; make a new one to connect again")
        loop = asyncio.get_running_loop()
        now = loop.time()
        epoch_ns = time.time_ns() - int(now * 1e9)
        session = ClientSession(self._config, epoch_ns=epoch_ns, jitter=random.random, ids=frame_ids())
        self._loop = loop
        self._session = session
        self._connected, self._closed = loop.create_future(), loop.create_future()
        self._line = self._drive(session)
        session.start(now=now)
        self._line.poke()
        try:
            return await asyncio.shield(self._connected)
        except asyncio.CancelledError:
            session.close(now=loop.time())
            self._line.pump()
            raise

    async def close(self, *, drain: float = 0.0) -> None:
        """Close the connection. Calls that still wait end with `ClosedError`, subscriptions just end.

        Args:
            drain: seconds to wait for the answers to calls that are under way.
        """
        if self._line is None or self._closed is None:
            return
        self._session.close(now=self._loop.time(), drain=drain)
        for line in list(self._lines.values()):
            line.pump()
        await asyncio.shield(self._closed)

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Dispatch {self._dialer.address.url} {self.state}>"

    def __del__(self) -> None:
        line = getattr(self, "_line", None)  # not there when the arguments were refused
        if line is not None and self.state != "closed" and not self._loop.is_closed():
            warnings.warn(
                f"{self!r} was never closed: use `async with` or close()", ResourceWarning, stacklevel=1
            )

    @property
    def state(self) -> str:
        """Where the connection stands, e.g. "ready", "backing_off", "closed" (docs/architecture.md has them all)."""
        return self._session.state if self._line is not None else "idle"

    @property
    def session_id(self) -> str | None:
        """The server's name for the present connection; None while there is none."""
        peer = self._session.peer if self._line is not None else None
        return peer.session_id if peer is not None else None

    # Jobs.

    async def enqueue(
        self,
        name: str,
        payload: Any = None,
        *,
        queue: str | None = None,
        priority: int | None = None,
        delay: float | None = None,
        run_at: datetime | str | None = None,
        max_retries: int | None = None,
        job_timeout: float | None = None,
        unique_key: str | None = None,
        unique_for: float | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> results.EnqueuedJob:
        """Ask for a job: a call of the function `name` with `payload`. It is on disk when this returns.

        Args:
            name: the function.
            payload: any JSON value; an object whose keys are the function's parameters becomes its arguments.
            queue: where it waits; "default" unless the function says otherwise.
            priority: higher goes first; 0 by default.
            delay: seconds before it may start. Not together with `run_at`.
            run_at: when it may start, a datetime with time zone or RFC 3339 text.
            max_retries: retries before it fails; 3 by default.
            job_timeout: seconds that one attempt may take; 300 by default.
            unique_key: if a job with this key has not ended, that one is returned, with `duplicate`.
            unique_for: seconds for which `unique_key` holds, even if the job has ended.
            idempotency_key: the same key and data within a day is one job; made up for each call if left out.
            timeout: seconds to wait for the answer, instead of the client's.

        Raises:
            NotFoundError: no such function was ever registered at the server.
            PayloadError: the payload is no JSON value; nothing was sent.
            TimeoutError: no answer in time; it may have been carried out.
            OutcomeUnknown: the connection was lost under way, to a server that does not honour idempotency keys.
            DispatchError: anything else that the server answered.

        Source: PROTOCOL.md sections 4 and 9.
        """
        operation = operations.enqueue(
            name,
            payload,
            queue=queue,
            priority=priority,
            delay=delay,
            run_at=run_at,
            max_retries=max_retries,
            job_timeout=job_timeout,
            unique_key=unique_key,
            unique_for=unique_for,
            idempotency_key=idempotency_key,
        )
        return await self._run(operation, timeout)

    async def enqueue_many(
        self,
        jobs: Iterable[Mapping[str, Any]],
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> results.EnqueuedJobs:
        """Ask for several jobs, all or none.

        Args:
            jobs: mappings of the arguments of `enqueue`: name, payload, queue, priority, delay, …

        Example:
            >>> async def two(client):
            ...     answer = await client.enqueue_many([{"name": "a"}, {"name": "b", "delay": 60}])
            ...     return [job.job_id for job in answer.jobs]
        """
        return await self._run(operations.enqueue_many(jobs, idempotency_key=idempotency_key), timeout)

    async def get_job(self, job_id: str, *, timeout: float | None = None) -> results.Job:
        """A job as it is now.

        Raises:
            NotFoundError: there is none of that id.
            InvalidRequest: that is no job id.
        """
        return await self._run(operations.simple("job.get", results.read_job, job_id=job_id), timeout)

    async def cancel_job(self, job_id: str, *, timeout: float | None = None) -> results.Result:
        """Cancel a job: one that waits at once, one that runs as soon as its function lets itself be stopped.

        Raises:
            ConflictError: it has ended.
        """
        return await self._run(operations.simple("job.cancel", results.read_mapping, job_id=job_id), timeout)

    async def list_jobs(
        self,
        *,
        state: str | None = None,
        queue: str | None = None,
        name: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        timeout: float | None = None,
    ) -> results.Jobs:
        """One page of jobs, newest first; `cursor` of the answer asks for the next page."""
        operation = operations.simple(
            "job.list", results.read_jobs, state=state, queue=queue, name=name, limit=limit, cursor=cursor
        )
        return await self._run(operation, timeout)

    async def wait(self, id: str, *, timeout: float | None = None) -> results.Outcome:
        """Wait until a job or a workflow run has ended. A failure is an answer too: look at `state`.

        Args:
            id: a job id or a run id.
            timeout: seconds; None waits for as long as it takes.

        Raises:
            TimeoutError: it has not ended in time; it goes on.
            NotFoundError: there is none of that id.
        """
        return await self._run(operations.wait(id), timeout, patient=True)

    async def list_dead_letters(
        self,
        *,
        queue: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        timeout: float | None = None,
    ) -> results.DeadLetters:
        """One page of dead letters: jobs that have failed for good."""
        operation = operations.simple(
            "dlq.list", results.read_dead_letters, queue=queue, limit=limit, cursor=cursor
        )
        return await self._run(operation, timeout)

    async def replay_dead_letter(self, dlq_id: str, *, timeout: float | None = None) -> results.Result:
        """Run a dead letter again, as a new job; the answer has its `job_id`."""
        return await self._run(operations.simple("dlq.replay", results.read_mapping, dlq_id=dlq_id), timeout)

    async def list_crons(self, *, timeout: float | None = None) -> results.Result:
        """The server's cron entries, as `crons`."""
        return await self._run(operations.simple("cron.list", results.read_mapping), timeout)

    # Workflows.

    async def start_workflow(
        self,
        name: str,
        input: Any = None,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> results.Run:
        """Start a workflow run. Servers of ours answer at once; the existing Go server when the run has ended."""
        operation = operations.start_workflow(name, input, idempotency_key=idempotency_key)
        return await self._run(operation, timeout)

    async def get_workflow(self, run_id: str, *, timeout: float | None = None) -> results.Run:
        """A workflow run as it is now."""
        return await self._run(operations.simple("workflow.get", results.read_run, run_id=run_id), timeout)

    async def cancel_workflow(self, run_id: str, *, timeout: float | None = None) -> results.Result:
        """Cancel a workflow run."""
        return await self._run(
            operations.simple("workflow.cancel", results.read_mapping, run_id=run_id), timeout
        )

    async def replay_workflow(
        self, run_id: str, *, from_step: str | None = None, timeout: float | None = None
    ) -> results.Run:
        """Run a workflow run again, from its beginning or from one of its steps."""
        operation = operations.simple("workflow.replay", results.read_run, run_id=run_id, from_step=from_step)
        return await self._run(operation, timeout)

    async def workflow_timeline(
        self, run_id: str, *, timeout: float | None = None
    ) -> list[results.TimelineEntry]:
        """The recorded steps of a workflow run, in order."""
        return await self._run(
            operations.simple("workflow.timeline", results.read_timeline, run_id=run_id), timeout
        )

    async def publish_event(
        self,
        name: str,
        payload: Any = None,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> results.Result:
        """Publish an event for which workflow runs may be waiting; the answer has its `event_id`."""
        operation = operations.publish_event(name, payload, idempotency_key=idempotency_key)
        return await self._run(operation, timeout)

    # Live events.

    def subscribe(self, channel: str, *, since: Since = None) -> Subscription:
        """Listen to a channel: await the subscription to have it confirmed, or iterate over it directly.

        Args:
            channel: "jobs", "workflows", "firehose", "job:<id>", "workflow:<run id>" or "queue:<name>".
            since: events after this `seq`, or all that the server still has, "start"; None means from now on.

        Raises:
            InvalidRequest: there is no such channel.
            ClosedError: the client is closed, or was never connected.

        Source: PROTOCOL.md sections 5 and 9.
        """
        return self._listen(channel, since, frozenset())

    async def watch(self, id: str) -> Subscription:
        """Listen to one job or workflow run until it ends; the iteration ends with it.

        Args:
            id: a job id or a run id.

        Raises:
            NotFoundError: there is none of that id.
        """
        waits = operations.wait(id)
        if waits.method == "job.wait":
            subscription = self._listen(f"job:{id}", None, _JOB_ENDS)
            entity: results.Result = await self._confirm_exists(subscription, self.get_job(id))
        else:
            subscription = self._listen(f"workflow:{id}", None, _RUN_ENDS)
            entity = await self._confirm_exists(subscription, self.get_workflow(id))
        if entity.get("state") in _ENDED:
            self._leave(subscription)
        return subscription

    # Anything else.

    async def stats(self, *, timeout: float | None = None) -> results.Result:
        """The server's figures."""
        return await self._run(operations.simple("stats", results.read_mapping), timeout)

    async def ping(self, *, timeout: float | None = None) -> float:
        """The seconds that a round trip to the server takes."""
        session, loop = self._ready_session(), self._loop
        begun = loop.time()
        future: asyncio.Future[RequestSucceeded] = loop.create_future()
        request = session.ping(tag=future, now=begun, timeout=self._timeout if timeout is None else timeout)
        await self._answer(session, request, future)
        return loop.time() - begun

    async def call(self, method: str, data: Any = None, *, timeout: float | None = None) -> Any:
        """Ask for any method by its name; the answer is its `data` as it is.

        Raises:
            UnsupportedError: the server does not know the method.
        """
        return await self._run(operations.call(method, data), timeout)

    # How it is done.

    async def _run(self, operation: Operation[T], timeout: float | None, *, patient: bool = False) -> T:
        session, loop = self._ready_session(), self._loop
        if timeout is None and not patient:
            timeout = self._timeout
        future: asyncio.Future[RequestSucceeded] = loop.create_future()
        now = loop.time()
        if operation.waits:
            request = session.wait(operation.method, operation.data, tag=future, now=now, timeout=timeout)
        else:
            request = session.request(
                operation.method,
                operation.data,
                tag=future,
                now=now,
                timeout=timeout,
                retry=operation.retry,
                key=operation.key,
                feature=operation.feature,
            )
        answer = await self._answer(session, request, future)
        return operation.read(answer.codec.value(answer.frame, DEFAULT_LIMITS))

    async def _answer(
        self, session: ClientSession, request: Any, future: asyncio.Future[RequestSucceeded]
    ) -> RequestSucceeded:
        line = self._line
        assert line is not None
        line.poke()
        try:
            return await future
        except asyncio.CancelledError:
            session.cancel_request(request, now=self._loop.time())
            for each in list(self._lines.values()):
                each.poke()
            raise

    async def _confirm_exists(self, subscription: Subscription, look: Any) -> Any:
        try:
            await subscription
            return await look
        except BaseException:
            self._leave(subscription)
            look.close()
            raise

    def _ready_session(self) -> ClientSession:
        if self._line is None:
            raise ClosedError(
                "the client is not connected: use `async with Dispatch(...)`, or await connect() first"
            )
        return self._session

    def _listen(self, channel: str, since: Since, until: frozenset[str]) -> Subscription:
        session = self._ready_session()
        subscription = Subscription(self, channel, until)
        subscription._position = session.subscribe(
            channel, tag=subscription, now=self._loop.time(), since=since
        )
        assert self._line is not None
        self._line.poke()
        return subscription

    def _leave(self, subscription: Subscription) -> None:
        if subscription._position is not None and self._line is not None:
            self._session.unsubscribe(subscription._position, now=self._loop.time())
            self._line.poke()

    def _consumed(self, subscription: Subscription, count: int) -> None:
        if subscription._position is not None and self._line is not None:
            self._session.consumed(subscription._position, count, now=self._loop.time())
            self._line.poke()

    def _drive(self, session: ClientSession) -> Line:
        line = Line(session, self._dialer, self._loop, deliver=self._deliver, delegated=self._delegated)
        self._lines[session] = line
        return line

    def _delegated(self, session: ClientSession) -> None:
        line = Line(session, self._dialer, self._loop, deliver=self._deliver, delegated=self._delegated)
        self._lines[session] = line
        line.poke()

    def _deliver(self, events: list[ClientEvent]) -> None:
        """Hand on what a session says. The tags are futures and subscriptions of this client."""
        for event in events:
            kind = type(event)
            if kind is RequestSucceeded:
                future: Any = event.tag  # type: ignore[union-attr]
                if not future.done():
                    future.set_result(event)
            elif isinstance(event, SubscriptionItem):
                event.tag._push(event.event)  # type: ignore[attr-defined]
            else:
                self._deliver_other(event)

    def _deliver_other(self, event: ClientEvent) -> None:
        tag: Any = getattr(event, "tag", None)
        if isinstance(event, (RequestFailed, RequestOutcomeUnknown)):
            if not tag.done():
                tag.set_exception(event.error)
        elif isinstance(event, SubscriptionGap):
            tag._push(event.gap)
        elif isinstance(event, SubscriptionStarted):
            tag._start()
        elif isinstance(event, SubscriptionEnded):
            tag._end(event.error)
        elif isinstance(event, Discarded):
            _LOGGER.warning("left out what %s sent: %s", self._config.where, event.reason)
        else:
            self._changed(event)

    def _changed(self, event: ClientEvent) -> None:
        where = self._config.where
        if isinstance(event, Connected):
            _LOGGER.info(
                "%sconnected to %s as %s", "re" if event.resumed else "", where, event.peer.session_id
            )
            if self._connected is not None and not self._connected.done():
                self._connected.set_result(event.peer.session_id)
        elif isinstance(event, Disconnected):
            wait = event.retry_at - self._loop.time()
            _LOGGER.warning("disconnected: %s; next attempt in %.1f s", event.cause, wait)
        elif isinstance(event, Closed):
            self._over(event)

    def _over(self, event: Closed) -> None:
        if self._session.state != "closed":
            return
        if event.cause is not None:
            _LOGGER.error("gave up: %s", event.cause)
        if self._connected is not None and not self._connected.done():
            self._connected.set_exception(
                event.cause or ClosedError("the client was closed while it connected")
            )
            self._connected.exception()  # seen: whoever awaits connect() gets it too
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)


def _check_seconds(name: str, value: float | None, *, least: float = 0.001) -> None:
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least
    ):
        raise InvalidRequest(f"{name} must be a number of seconds from {least:g}, got {value!r}")
