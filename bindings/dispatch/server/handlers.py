"""What each method does: the request becomes an operation on the store, its outcome the answer (PROTOCOL.md section 4).

A handler is a plain function that returns at once; the store's callback answers later, when what it answers is durable.
Nothing here checks fields or scopes: the core has (`dwp_core.methods`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

from dispatch.functions.registry import Registry
from dispatch.server.connection import PAGE_WEIGHT, Connection
from dispatch.server.cron_handlers import CRON_HANDLERS
from dispatch.store.port import ReadableStore, Store
from dispatch.store.values import (
    PAGE_LIMIT,
    Cancellation,
    DeadLetterPage,
    Enqueued,
    EnqueuedJob,
    Idempotency,
    JobPage,
    NewJob,
    QueueDepth,
)
from dwp_core.codec.payload import encode_payload
from dwp_core.codec.pieces import element_texts, member_text
from dwp_core.errors import InvalidRequest, NotFoundError
from dwp_core.frames import ANSWER_LIMITS
from dwp_core.jobs import (
    DEFAULT_QUEUE,
    SECOND,
    Job,
    dead_letter_to_wire,
    job_to_wire,
)

if TYPE_CHECKING:
    from dwp_core.server_events import RequestReceived

Handler = Callable[[Connection, "RequestReceived"], None]

_MS = 1_000_000


def enqueue(connection: Connection, request: RequestReceived) -> None:
    """`job.enqueue`."""
    now_ns = time.time_ns()
    jobs = (_new_job(connection, request.params, member_text(request.data, "payload"), now_ns),)
    _submit_enqueue(connection, request, jobs, now_ns, _enqueued_one)


def enqueue_many(connection: Connection, request: RequestReceived) -> None:
    """`job.enqueue_many`: all or nothing."""
    now_ns = time.time_ns()
    wanted = request.params["jobs"]
    if any("idempotency_key" in params for params in wanted):
        raise InvalidRequest(
            "job.enqueue_many: give one idempotency_key for all jobs, beside jobs, not in them"
        )
    texts = element_texts(member_text(request.data, "jobs"))
    jobs = tuple(
        [
            _new_job(connection, params, member_text(text, "payload"), now_ns)
            for params, text in zip(wanted, texts, strict=True)
        ]
    )
    _submit_enqueue(connection, request, jobs, now_ns, _enqueued_many)


def get(connection: Connection, request: RequestReceived) -> None:
    """`job.get`."""
    job_id, tenant = request.params["job_id"], connection.tenant
    connection.read_store(
        lambda store: store.get_job(job_id, tenant=tenant), connection.answering(request.id, _job)
    )


def cancel(connection: Connection, request: RequestReceived) -> None:
    """`job.cancel`: a waiting job is over at once, the worker of a running one is told."""
    job_id, tenant, now_ns = request.params["job_id"], connection.tenant, time.time_ns()
    engine = connection.server.engine

    def cancelled(outcome: Cancellation) -> bytes:
        if outcome.state == "running":
            engine.cancel(job_id)
        return b'{"status":"cancelled"}'

    connection.server.submit(
        lambda store: store.cancel(job_id, tenant=tenant, now_ns=now_ns),
        connection.answering(request.id, cancelled),
    )


def list_jobs(connection: Connection, request: RequestReceived) -> None:
    """`job.list`."""
    params, tenant = request.params, connection.tenant
    connection.read_store(
        lambda store: store.list_jobs(
            tenant=tenant,
            state=params.get("state", ""),
            queue=params.get("queue", ""),
            name=params.get("name", ""),
            limit=params.get("limit", PAGE_LIMIT),
            cursor=params.get("cursor", ""),
        ),
        connection.answering(request.id, _job_page),
        weight=PAGE_WEIGHT,
    )


def wait(connection: Connection, request: RequestReceived) -> None:
    """`job.wait`."""
    connection.server.waits.wait(connection, request.id, request.params["job_id"])


def stats(connection: Connection, request: RequestReceived) -> None:
    """`stats`: figures of the server, and the caller's own queues and dead letters."""
    tenant, now_ns = connection.tenant, time.time_ns()

    def operation(store: ReadableStore) -> tuple[list[QueueDepth], int]:
        return store.queue_depths(tenant=tenant, now_ns=now_ns), store.count_dead_letters(tenant=tenant)

    def told(found: tuple[list[QueueDepth], int]) -> bytes:
        depths, dead_letters = found
        queues = [depth._asdict() for depth in depths]
        answer = {**connection.server.stats(), "queues": queues, "dead_letters": dead_letters}
        return encode_payload(answer, what="the answer", limits=ANSWER_LIMITS)

    connection.read_store(operation, connection.answering(request.id, told))


def list_dead_letters(connection: Connection, request: RequestReceived) -> None:
    """`dlq.list`."""
    params, tenant = request.params, connection.tenant
    connection.read_store(
        lambda store: store.list_dead_letters(
            tenant=tenant,
            queue=params.get("queue", ""),
            limit=params.get("limit", PAGE_LIMIT),
            cursor=params.get("cursor", ""),
        ),
        connection.answering(request.id, _dead_letter_page),
        weight=PAGE_WEIGHT,
    )


def replay_dead_letter(connection: Connection, request: RequestReceived) -> None:
    """`dlq.replay`."""
    dlq_id, tenant, now_ns = request.params["dlq_id"], connection.tenant, time.time_ns()
    engine = connection.server.engine

    def replayed(job: EnqueuedJob) -> bytes:
        engine.notify()
        return b'{"job_id":"%b"}' % job.job_id.encode()

    connection.server.submit(
        lambda store: store.replay_dead_letter(dlq_id, tenant=tenant, now_ns=now_ns),
        connection.answering(request.id, replayed),
    )


HANDLERS: Mapping[str, Handler] = {
    "job.enqueue": enqueue,
    "job.enqueue_many": enqueue_many,
    "job.get": get,
    "job.cancel": cancel,
    "job.list": list_jobs,
    "job.wait": wait,
    "stats": stats,
    "dlq.list": list_dead_letters,
    "dlq.replay": replay_dead_letter,
    **CRON_HANDLERS,
}

SERVED = frozenset(HANDLERS) | {"subscribe", "unsubscribe"}
"""Every method that this server has; the session itself does subscriptions."""


def _new_job(connection: Connection, params: dict[str, Any], payload: bytes, now_ns: int) -> NewJob:
    """What was asked for; where nothing was, what the function says; else the defaults."""
    name = params["name"]
    options = connection.server.engine.options_of(name)
    get = params.get
    job = NewJob(name, payload, get("queue") or options.queue or DEFAULT_QUEUE)
    priority = get("priority", options.priority)
    if priority is not None:
        job.priority = priority
    max_retries = get("max_retries", options.max_retries)
    if max_retries is not None:
        job.max_retries = max_retries
    if "timeout_ms" in params:
        job.timeout = params["timeout_ms"] * _MS
    elif options.timeout is not None:
        job.timeout = int(options.timeout * SECOND)
    if "run_at" in params:
        job.run_at = params["run_at"]
    elif "delay_ms" in params:
        job.run_at = now_ns + params["delay_ms"] * _MS
    if "unique_key" in params:
        job.unique_key = params["unique_key"]
        if "unique_for_ms" in params:
            job.unique_for = params["unique_for_ms"] * _MS
    elif "unique_for_ms" in params:
        raise InvalidRequest(
            "job.enqueue: unique_for_ms says how long unique_key is taken; give unique_key as well"
        )
    return job


def _submit_enqueue(
    connection: Connection,
    request: RequestReceived,
    jobs: tuple[NewJob, ...],
    now_ns: int,
    render: Callable[[Enqueued], bytes],
) -> None:
    server, tenant = connection.server, connection.tenant
    key = request.params.get("idempotency_key")
    idempotency = None
    if key is not None:
        keep_ns = int(server.config.idempotency * SECOND)
        idempotency = Idempotency(request.method, key, hashlib.sha256(request.data).digest(), keep_ns)
    request_id = request.id

    def operation(store: Store) -> Enqueued:
        return store.enqueue(jobs, tenant=tenant, now_ns=now_ns, idempotency=idempotency)

    def done(enqueued: Enqueued | None, error: BaseException | None) -> None:
        if enqueued is None:
            connection.fail(request_id, _with_hint(error, jobs, server.engine.registry))
        else:
            server.engine.notify()
            connection.answer(request_id, render(enqueued))

    server.submit(operation, done)


def _with_hint(error: BaseException | None, jobs: tuple[NewJob, ...], registry: Registry) -> BaseException:
    """The error; for a name that nobody ever registered, with the names that this server has and that come close."""
    if isinstance(error, NotFoundError):
        for job in jobs:
            try:
                registry.resolve(job.name)
            except NotFoundError as unknown:
                if unknown.message.endswith("?") and f'"{job.name}"' in error.message:
                    return unknown
    return error or RuntimeError("the store gave no answer")


def _enqueued_one(enqueued: Enqueued) -> bytes:
    return _enqueued_job(enqueued.jobs[0], enqueued.duplicate).encode()


def _enqueued_many(enqueued: Enqueued) -> bytes:
    jobs = ",".join([_enqueued_job(job, duplicate=False) for job in enqueued.jobs])
    more = ',"duplicate":true' if enqueued.duplicate else ""
    return f'{{"jobs":[{jobs}]{more}}}'.encode()


def _enqueued_job(job: EnqueuedJob, duplicate: bool) -> str:
    more = ',"duplicate":true' if duplicate or job.duplicate else ""
    return f'{{"job_id":"{job.job_id}","queue":{encode_basestring(job.queue)},"state":"{job.state}"{more}}}'


def _job(job: Job) -> bytes:
    return encode_payload(job_to_wire(job), what="the answer", limits=ANSWER_LIMITS)


def _job_page(page: JobPage) -> bytes:
    return _page("jobs", [job_to_wire(job) for job in page.jobs], page.cursor)


def _dead_letter_page(page: DeadLetterPage) -> bytes:
    return _page("entries", [dead_letter_to_wire(entry) for entry in page.entries], page.cursor)


def _page(name: str, entries: list[dict[str, Any]], cursor: str) -> bytes:
    answer = {name: entries, "cursor": cursor} if cursor else {name: entries}
    return encode_payload(answer, what="the answer", limits=ANSWER_LIMITS)
