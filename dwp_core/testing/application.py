"""A simple server application: the methods of PROTOCOL.md section 4 over a `Ledger`, as slow as a test wants it.

Jobs run by themselves and complete. A request is carried out some time after it came, answered some time after that,
and its events are published in between, so that answers come in any order and a server can die at any moment of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dwp_core.codec.payload import encode_payload
from dwp_core.errors import DispatchError, NotFoundError
from dwp_core.peer import IDEMPOTENCY
from dwp_core.server_events import RequestReceived
from dwp_core.testing.ledger import Ledger, Record

if TYPE_CHECKING:
    from dwp_core.testing.server import Connection, SimulatedServer

Answerer = Callable[[dict[str, Any], tuple[str, str]], Any]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take on the server, in seconds, each drawn between nothing and this.

    Attributes:
        login: to judge a token.
        work: to carry out a request.
        answer: from there to its answer.
        publish: from a change to the publication of its events.
        read: to read a page of the log.
        run: to run a job or a workflow.
    """

    login: float = 0.0
    work: float = 0.0
    answer: float = 0.0
    publish: float = 0.0
    read: float = 0.0
    run: float = 0.0


class Application:
    """Answers the requests of one simulated server.

    Attributes:
        methods: what answers each method: a function of its fields and the tenant. A test may replace them; one that
            raises a `DispatchError` is answered with that.

    Example:
        >>> # pair.server.application.methods["stats"] = lambda params, tenant: {"connections": 7}
    """

    def __init__(self, server: SimulatedServer, ledger: Ledger, pace: Pace) -> None:
        self.pace = pace
        self.ledger = ledger
        self._server = server
        self._waits: dict[str, list[tuple[Connection, str]]] = {}
        self._waiting_for: dict[tuple[Connection, str], str] = {}
        self.methods: dict[str, Answerer] = {
            "job.enqueue": self._enqueue,
            "job.enqueue_many": self._enqueue_many,
            "job.get": self._get_job,
            "job.cancel": self._cancel_job,
            "workflow.start": self._start,
            "workflow.get": self._get_run,
            "workflow.event": lambda params, tenant: self._signal(params["name"], tenant),
            "stats": lambda params, tenant: {"connections": len(server.connections)},
        }

    def start(self) -> None:
        """Take up the jobs and runs that are not over, after a start of the server."""
        for record in self.ledger.records.values():
            if not record.ended:
                self._run(record)

    def handle(self, connection: Connection, request: RequestReceived) -> None:
        """A request has come."""
        if request.method in ("job.wait", "workflow.wait"):
            self._wait(connection, request)
        else:
            self._server.later(self.pace.work, lambda: self._carry_out(connection, request))

    def wait_expired(self, connection: Connection, request_id: str) -> None:
        """A wait has lasted long enough."""
        id = self._waiting_for.pop((connection, request_id))
        self._waits[id].remove((connection, request_id))
        self._answer_wait(connection, request_id, self.ledger.records[id])

    def expire_waits(self) -> None:
        """The server is going away: who waits is told to ask again."""
        for connection, request_id in list(self._waiting_for):
            self.wait_expired(connection, request_id)

    def forget(self, connection: Connection) -> None:
        """A connection is over."""
        for waiting in [each for each in self._waiting_for if each[0] is connection]:
            self._waits[self._waiting_for.pop(waiting)].remove(waiting)

    # Inside.

    def _carry_out(self, connection: Connection, request: RequestReceived) -> None:
        """Do what is asked, once for each idempotency key that counts, and answer later."""
        identity = connection.session.identity
        assert identity is not None
        tenant = (identity.app_id, identity.org_id)
        params, key = request.params, request.params.get("idempotency_key", "")
        key = key if IDEMPOTENCY in connection.session.features else ""
        try:
            answer = self.ledger.kept(tenant, request.method, key, request.data) if key else None
            if answer is None:
                answerer = self.methods.get(request.method)
                if answerer is None:
                    raise NotFoundError(f"this application has no {request.method}")
                answer = answerer(params, tenant)
                if key:
                    self.ledger.keep(tenant, request.method, key, request.data, answer)
        except DispatchError as error:
            failure = error
            self._server.later(self.pace.answer, lambda: connection.fail(request.id, failure))
            return
        self._server.publish_soon()
        if request.method == "workflow.start" and not connection.session.features:
            # A base server runs the whole workflow before it answers (PROTOCOL.md section 4).
            self._waiting_for[connection, request.id] = answer["run_id"]
            self._waits.setdefault(answer["run_id"], []).append((connection, request.id))
            return
        data = encode_payload(answer)
        self._server.later(self.pace.answer, lambda: connection.respond(request.id, data))

    def _enqueue(self, params: dict[str, Any], tenant: tuple[str, str]) -> Any:
        queue = params.get("queue") or "default"
        job = self.ledger.create("job", params["name"], params.get("payload"), queue=queue, tenant=tenant)
        self._run(job)
        return {"job_id": job.id, "queue": queue, "state": job.state}

    def _enqueue_many(self, params: dict[str, Any], tenant: tuple[str, str]) -> Any:
        return {"jobs": [self._enqueue(each, tenant) for each in params["jobs"]]}

    def _get_job(self, params: dict[str, Any], tenant: tuple[str, str]) -> Any:
        job = self.ledger.record(params["job_id"], tenant)
        return {"id": job.id, "name": job.name, "queue": job.queue, "state": job.state}

    def _cancel_job(self, params: dict[str, Any], tenant: tuple[str, str]) -> Any:
        job = self.ledger.record(params["job_id"], tenant)
        self.ledger.cancel(job)
        self._ended(job)
        return {"status": "cancelled"}

    def _start(self, params: dict[str, Any], tenant: tuple[str, str]) -> Any:
        run = self.ledger.create("workflow", params["name"], params.get("input"), tenant=tenant)
        self._run(run)
        return {"run_id": run.id, "name": run.name, "state": run.state}

    def _get_run(self, params: dict[str, Any], tenant: tuple[str, str]) -> Any:
        run = self.ledger.record(params["run_id"], tenant)
        return {"id": run.id, "name": run.name, "state": run.state}

    def _signal(self, name: str, tenant: tuple[str, str]) -> Any:
        event = self.ledger.append("cron.fired", data={"entry_name": name}, tenant=tenant)
        return {"event_id": f"evt-{event.seq}", "name": name}

    def _run(self, record: Record) -> None:
        """It is begun and ended some time from now, if this server lives so long."""

        def begin() -> None:
            self.ledger.run(record)
            self._server.publish_soon()
            self._server.later(self.pace.run, end)

        def end() -> None:
            self.ledger.end(record)
            self._ended(record)
            self._server.publish_soon()

        self._server.later(self.pace.run, begin, at_least=0.000_001)

    def _wait(self, connection: Connection, request: RequestReceived) -> None:
        identity = connection.session.identity
        assert identity is not None
        id = request.params["job_id"] if request.method == "job.wait" else request.params["run_id"]
        try:
            record = self.ledger.record(id, (identity.app_id, identity.org_id))
        except NotFoundError as error:
            connection.fail(request.id, error)
            return
        if record.ended:
            self._answer_wait(connection, request.id, record)
        else:
            self._waiting_for[connection, request.id] = id
            self._waits.setdefault(id, []).append((connection, request.id))

    def _ended(self, record: Record) -> None:
        for connection, request_id in self._waits.pop(record.id, ()):
            del self._waiting_for[connection, request_id]
            self._answer_wait(connection, request_id, record)

    def _answer_wait(self, connection: Connection, request_id: str, record: Record) -> None:
        name = "job_id" if record.kind == "job" else "run_id"
        answer: dict[str, Any] = {name: record.id, "name": record.name, "state": record.state}
        if not record.ended:
            answer["timed_out"] = True
        connection.respond(request_id, encode_payload(answer))
