"""The asyncio client. What each call means is in `dispatch.operations`, what happens to it in `dwp_core.client`."""

from __future__ import annotations

import ssl as tls
import warnings
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from dispatch import operations, results
from dispatch.asyncio.driver import Driver
from dispatch.asyncio.line import Dialer, Token
from dispatch.asyncio.subscription import Subscription
from dispatch.settings import EVENT_BUFFER, check_token, client_config
from dispatch.wire import Address
from dwp_core.subscriptions import Since


class Dispatch:
    """A client of a Dispatch server, for asyncio.

    One client serves a whole program: any number of tasks of one event loop may use it at once. A lost connection
    is made again and everything restored; what happens to calls under way is told by their errors.

    Args:
        url: where the server is, e.g. "ws://127.0.0.1:8080/dwp" or "wss://example.com/dwp".
        token: the API key, or a function (or coroutine function) that gives it, asked anew for each attempt. If it
            raises an OSError, that attempt has failed; any other exception closes the client.
        format: "json" or "msgpack", what the frames are sent as; the server has the last word.
        reconnect: whether a lost connection is made again.
        max_retries: attempts in a row before giving up; 0 means no limit.
        timeout: seconds that a call waits for its answer, unless it says otherwise; None waits for ever.
        wait_for_server: seconds for which the first connection is tried again; 0 makes one attempt and raises.
        connect_timeout: seconds for one attempt, login and subscriptions included.
        ssl: TLS context for `wss`; None trusts the system's roots.
        headers: more headers for the opening handshake.
        event_buffer: unread events of one subscription, towards a server that cannot send them again.
        codec: "fast" or "portable"; None takes the fast one where it is there.

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
        event_buffer: int = EVENT_BUFFER,
        codec: str | None = None,
    ) -> None:
        check_token(token)
        address = Address(url, {} if headers is None else headers)
        config = client_config(
            address,
            format=format,
            codec=codec,
            reconnect=reconnect,
            max_retries=max_retries,
            timeout=timeout,
            wait_for_server=wait_for_server,
            connect_timeout=connect_timeout,
            event_buffer=event_buffer,
        )
        self._driver = Driver(config, Dialer(address, token, ssl), timeout)

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
        return await self._driver.connect()

    async def close(self, *, drain: float = 0.0) -> None:
        """Close the connection. Calls that still wait end with `ClosedError`, subscriptions just end.

        Args:
            drain: seconds to wait for the answers to calls that are under way.
        """
        await self._driver.close(drain)

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Dispatch {self._driver.config.where} {self.state}>"

    def __del__(self) -> None:
        driver: Driver | None = getattr(self, "_driver", None)  # None where __init__ has raised
        if driver is not None and driver.abandoned:
            warnings.warn(
                f"{self!r} was never closed: use `async with` or close()", ResourceWarning, stacklevel=1
            )

    @property
    def state(self) -> str:
        """Where the connection stands, e.g. "ready", "backing_off", "closed" (docs/architecture.md has them all)."""
        return self._driver.state

    @property
    def session_id(self) -> str | None:
        """The server's name for the present connection; None while there is none."""
        peer = self._driver.peer
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
            max_retries: retries before it fails; 3 unless the function says otherwise.
            job_timeout: seconds that one attempt may take; 300 unless the function says otherwise.
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
        return await self._driver.run(operation, timeout)

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
        return await self._driver.run(operations.enqueue_many(jobs, idempotency_key=idempotency_key), timeout)

    async def get_job(self, job_id: str, *, timeout: float | None = None) -> results.Job:
        """A job as it is now.

        Raises:
            NotFoundError: there is none of that id.
            InvalidRequest: that is no job id.
        """
        return await self._driver.run(operations.simple("job.get", results.read_job, job_id=job_id), timeout)

    async def cancel_job(self, job_id: str, *, timeout: float | None = None) -> results.Result:
        """Cancel a job: one that waits at once, one that runs as soon as its function lets itself be stopped.

        Raises:
            ConflictError: it has ended.
        """
        return await self._driver.run(
            operations.simple("job.cancel", results.read_mapping, job_id=job_id), timeout
        )

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
        return await self._driver.run(operation, timeout)

    async def wait(self, id: str, *, timeout: float | None = None) -> results.Outcome:
        """Wait until a job or a workflow run has ended. A failure is an answer too: look at `state`.

        Args:
            id: a job id or a run id.
            timeout: seconds; None waits for as long as it takes.

        Raises:
            TimeoutError: it has not ended in time; it goes on.
            NotFoundError: there is none of that id.
        """
        return await self._driver.run(operations.wait(id), timeout)

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
        return await self._driver.run(operation, timeout)

    async def replay_dead_letter(self, dlq_id: str, *, timeout: float | None = None) -> results.Result:
        """Run a dead letter again, as a new job; the answer has its `job_id`."""
        return await self._driver.run(
            operations.simple("dlq.replay", results.read_mapping, dlq_id=dlq_id), timeout
        )

    async def list_crons(self, *, timeout: float | None = None) -> results.Result:
        """The server's cron entries, as `crons`."""
        return await self._driver.run(operations.simple("cron.list", results.read_mapping), timeout)

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
        return await self._driver.run(operation, timeout)

    async def get_workflow(self, run_id: str, *, timeout: float | None = None) -> results.Run:
        """A workflow run as it is now."""
        return await self._driver.run(
            operations.simple("workflow.get", results.read_run, run_id=run_id), timeout
        )

    async def cancel_workflow(self, run_id: str, *, timeout: float | None = None) -> results.Result:
        """Cancel a workflow run."""
        return await self._driver.run(
            operations.simple("workflow.cancel", results.read_mapping, run_id=run_id), timeout
        )

    async def replay_workflow(
        self, run_id: str, *, from_step: str | None = None, timeout: float | None = None
    ) -> results.Run:
        """Run a workflow run again, from its beginning or from one of its steps."""
        operation = operations.simple("workflow.replay", results.read_run, run_id=run_id, from_step=from_step)
        return await self._driver.run(operation, timeout)

    async def workflow_timeline(
        self, run_id: str, *, timeout: float | None = None
    ) -> list[results.TimelineEntry]:
        """The recorded steps of a workflow run, in order."""
        return await self._driver.run(
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
        return await self._driver.run(operation, timeout)

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
        return self._driver.listen(channel, since, frozenset())

    async def watch(self, id: str) -> Subscription:
        """Listen to one job or workflow run until it ends; the iteration ends with it.

        Args:
            id: a job id or a run id.

        Raises:
            NotFoundError: there is none of that id.
        """
        look = operations.entity(id)
        subscription = self._driver.listen(look.channel, None, look.ends)
        try:
            await subscription
            entity = await self._driver.run(look.operation, None)
        except BaseException:
            await subscription.unsubscribe()
            raise
        if entity.get("state") in operations.ENDED:
            subscription.end_here()
        return subscription

    # Anything else.

    async def stats(self, *, timeout: float | None = None) -> results.Result:
        """The server's figures."""
        return await self._driver.run(operations.simple("stats", results.read_mapping), timeout)

    async def ping(self, *, timeout: float | None = None) -> float:
        """The seconds that a round trip to the server takes."""
        return await self._driver.ping(timeout)

    async def call(self, method: str, data: Any = None, *, timeout: float | None = None) -> Any:
        """Ask for any method by its name; the answer is its `data` as it is.

        Raises:
            UnsupportedError: the server does not know the method.
        """
        return await self._driver.run(operations.call(method, data), timeout)
