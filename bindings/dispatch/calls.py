"""Every call of a client, once for all bindings: its arguments, its documentation, and the operation that it means.

The body of a call here builds an `Operation`; how its answer is waited for is the binding's. So the signature that a
user sees is written once, and a type checker knows that `dispatch.asyncio` and `dispatch.trio` give something to await
where `dispatch.sync` gives the result itself.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from dispatch import operations, results
from dispatch.operations import Operation
from dwp_core.codec.payload import encode_payload
from dwp_core.methods import METHODS
from dwp_core.requests import Retry

P = ParamSpec("P")
T = TypeVar("T")

if TYPE_CHECKING:

    class operation(Generic[P, T]):  # noqa: N801  # a decorator
        """Make a call of the function that builds its operation."""

        __wrapped__: Callable[..., Operation[Any]]

        def __init__(self, build: Callable[Concatenate[Any, P], Operation[T]]) -> None: ...
        @overload
        def __get__(self, client: AwaitedCalls, owner: Any = None) -> Callable[P, Coroutine[Any, Any, T]]: ...
        @overload
        def __get__(self, client: BlockingCalls, owner: Any = None) -> Callable[P, T]: ...
        @overload
        def __get__(self, client: None, owner: Any) -> Callable[..., Any]: ...
        def __get__(self, client: Any, owner: Any = None) -> Any: ...

else:

    def operation(build):
        """Make a call of the function that builds its operation: the client runs it, and knows how to wait."""
        build.__qualname__ = f"Dispatch.{build.__name__}"  # so that errors name what users call
        return _method(build)

    def _method(build):
        @wraps(build)
        def call(self, *args, **kwargs):
            return self._run(build, self, *args, **kwargs)

        signature = inspect.signature(build)
        returns = signature.return_annotation.removeprefix("Operation[").removesuffix("]")
        call.__signature__ = signature.replace(return_annotation=returns)
        call.__annotations__ = {**build.__annotations__, "return": returns}
        return call


class Calls:
    """What a client can be asked for, apart from connecting and from live events.

    Every call takes `timeout`: seconds to wait for the answer instead of the client's own. Every call may raise:

    Raises:
        TimeoutError: no answer in time; it may have been carried out.
        OutcomeUnknown: the connection was lost under way, and asking again could do it twice.
        ClosedError: the client is closed, or was never connected.
        ConnectionError: the server cannot be reached any more, or answered what cannot be read.
        DispatchError: whatever else the server answered; `code` is its number.
    """

    # Jobs.

    @operation
    def enqueue(
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
    ) -> Operation[results.EnqueuedJob]:
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
        options = operations.job_options(delay, run_at, max_retries, job_timeout, unique_key, unique_for)
        return operations.enqueue(name, payload, queue, priority, options, idempotency_key, timeout)

    @operation
    def enqueue_many(
        self,
        jobs: Iterable[Mapping[str, Any]],
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Operation[results.EnqueuedJobs]:
        """Ask for several jobs, all or none.

        Args:
            jobs: mappings of the arguments of `enqueue`: name, payload, queue, priority, delay, …

        Example:
            >>> async def two(client):
            ...     answer = await client.enqueue_many([{"name": "a"}, {"name": "b", "delay": 60}])
            ...     return [job.job_id for job in answer.jobs]
        """
        return operations.enqueue_many(jobs, idempotency_key, timeout)

    @operation
    def get_job(self, job_id: str, *, timeout: float | None = None) -> Operation[results.Job]:
        """A job as it is now.

        Raises:
            NotFoundError: there is none of that id.
            InvalidRequest: that is no job id.
        """
        return operations.simple("job.get", results.read_job, timeout, job_id=job_id)

    @operation
    def cancel_job(self, job_id: str, *, timeout: float | None = None) -> Operation[results.Result]:
        """Cancel a job: one that waits at once, one that runs as soon as its function lets itself be stopped.

        Raises:
            ConflictError: it has ended.
        """
        return operations.simple("job.cancel", results.read_mapping, timeout, job_id=job_id)

    @operation
    def list_jobs(
        self,
        *,
        state: str | None = None,
        queue: str | None = None,
        name: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        timeout: float | None = None,
    ) -> Operation[results.Jobs]:
        """One page of jobs, newest first; `cursor` of the answer asks for the next page."""
        chosen = {"state": state, "queue": queue, "name": name, "limit": limit, "cursor": cursor}
        return operations.simple("job.list", results.read_jobs, timeout, **chosen)

    @operation
    def wait(self, id: str, *, timeout: float | None = None) -> Operation[results.Outcome]:
        """Wait until a job or a workflow run has ended. A failure is an answer too: look at `state`.

        Args:
            id: a job id or a run id.
            timeout: seconds to wait for that; None waits as long as it takes.

        Raises:
            TimeoutError: it has not ended in time; it goes on.
            NotFoundError: there is none of that id.
        """
        return operations.wait(id, timeout)

    @operation
    def list_dead_letters(
        self,
        *,
        queue: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
        timeout: float | None = None,
    ) -> Operation[results.DeadLetters]:
        """One page of dead letters: jobs that have failed for good."""
        chosen = {"queue": queue, "limit": limit, "cursor": cursor}
        return operations.simple("dlq.list", results.read_dead_letters, timeout, **chosen)

    @operation
    def replay_dead_letter(self, dlq_id: str, *, timeout: float | None = None) -> Operation[results.Result]:
        """Run a dead letter again, as a new job; the answer has its `job_id`."""
        return operations.simple("dlq.replay", results.read_mapping, timeout, dlq_id=dlq_id)

    @operation
    def list_crons(self, *, timeout: float | None = None) -> Operation[results.Crons]:
        """The server's cron entries, as `crons`."""
        return operations.simple("cron.list", results.read_crons, timeout)

    @operation
    def pause_cron(self, name: str, *, timeout: float | None = None) -> Operation[results.Cron]:
        """Let a cron entry fire no more until it is resumed; the entry as it is then.

        Raises:
            NotFoundError: there is none of that name.
        """
        return operations.simple("cron.pause", results.read_cron, timeout, name=name)

    @operation
    def resume_cron(self, name: str, *, timeout: float | None = None) -> Operation[results.Cron]:
        """Let a paused cron entry fire again, from now on; the entry as it is then. Errors as for `pause_cron`."""
        return operations.simple("cron.resume", results.read_cron, timeout, name=name)

    @operation
    def trigger_cron(self, name: str, *, timeout: float | None = None) -> Operation[results.Result]:
        """Run a cron entry's job now, also while it is paused; the answer has its `job_id`.

        Raises:
            NotFoundError: there is none of that name.
        """
        return operations.simple("cron.trigger", results.read_mapping, timeout, name=name)

    # Workflows.

    @operation
    def start_workflow(
        self,
        name: str,
        input: Any = None,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Operation[results.Run]:
        """Start a workflow run. Servers of ours answer at once; the existing Go server when the run has ended."""
        return operations.start_workflow(name, input, idempotency_key, timeout)

    @operation
    def get_workflow(self, run_id: str, *, timeout: float | None = None) -> Operation[results.Run]:
        """A workflow run as it is now."""
        return operations.simple("workflow.get", results.read_run, timeout, run_id=run_id)

    @operation
    def cancel_workflow(self, run_id: str, *, timeout: float | None = None) -> Operation[results.Result]:
        """Cancel a workflow run."""
        return operations.simple("workflow.cancel", results.read_mapping, timeout, run_id=run_id)

    @operation
    def replay_workflow(
        self, run_id: str, *, from_step: str | None = None, timeout: float | None = None
    ) -> Operation[results.Run]:
        """Run a workflow run again, from its beginning or from one of its steps."""
        run = {"run_id": run_id, "from_step": from_step}
        return operations.simple("workflow.replay", results.read_run, timeout, **run)

    @operation
    def workflow_timeline(
        self, run_id: str, *, timeout: float | None = None
    ) -> Operation[list[results.TimelineEntry]]:
        """The recorded steps of a workflow run, in order."""
        return operations.simple("workflow.timeline", results.read_timeline, timeout, run_id=run_id)

    @operation
    def publish_event(
        self,
        name: str,
        payload: Any = None,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Operation[results.Result]:
        """Publish an event for which workflow runs may be waiting; the answer has its `event_id`."""
        return operations.publish_event(name, payload, idempotency_key, timeout)

    # Anything else.

    @operation
    def stats(self, *, timeout: float | None = None) -> Operation[results.Result]:
        """The server's figures. What this client itself counts is in `counters`."""
        return operations.simple("stats", results.read_mapping, timeout)

    @operation
    def ping(self, *, timeout: float | None = None) -> Operation[float]:
        """The seconds that a round trip to the server takes."""
        return operations.ping(timeout)

    @operation
    def call(self, method: str, data: Any = None, *, timeout: float | None = None) -> Operation[Any]:
        """Ask for any method by its name; the answer is its `data` as it is.

        Raises:
            UnsupportedError: the server does not know the method.
        """
        if type(method) is not str or not method:
            operations.check_text("call: method", method)
        retry = Retry.READ if method in METHODS and METHODS[method].retry is Retry.READ else Retry.NEVER
        payload = b"" if data is None else encode_payload(data, what=method)
        return Operation(method, payload, None, retry, timeout=timeout)


class AwaitedCalls(Calls):
    """Calls that are awaited: asyncio and trio."""


# Older Pythons know coroutine functions by their code only.
if not TYPE_CHECKING and sys.version_info >= (3, 12):

    def _mark_awaited() -> None:
        """Let `inspect.iscoroutinefunction` know, and so mocks and frameworks that ask it how to call."""
        for name, call in vars(Calls).items():
            build = getattr(call, "__wrapped__", None)
            if build is not None:
                method = _method(build)
                del method.__wrapped__  # whoever asks looks at the innermost one
                setattr(AwaitedCalls, name, inspect.markcoroutinefunction(method))

    _mark_awaited()


class BlockingCalls(Calls):
    """Calls that return when they are done."""
