"""What was committed becomes what is sent: events to subscribers, and the end of a job to those who wait for it.

The hub decides who gets what; here its fan-outs are framed once and put into the connections' output. Nothing polls: a
`job.wait` is answered by the very event that tells of the job's end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dispatch.server.connection import Connection, Outbox
from dispatch.server.ws import frame_all
from dwp_core.codec.payload import encode_payload
from dwp_core.errors import DispatchError
from dwp_core.events import LoggedEvent
from dwp_core.frames import ANSWER_LIMITS
from dwp_core.hub import Hub
from dwp_core.jobs import FINISHED, Job, job_to_wire
from dwp_core.topics import JOB_PREFIX

_ENDS = frozenset(("job.completed", "job.failed", "job.cancelled"))


class Waits:
    """Who waits for the end of which job (PROTOCOL.md section 9, `wait`)."""

    def __init__(self) -> None:
        self._by_job: dict[str, dict[tuple[Connection, str], None]] = {}
        self._by_connection: dict[Connection, dict[str, str]] = {}

    def wait(self, connection: Connection, request_id: str, job_id: str) -> None:
        """Answer the request when the job has ended; the session says when it has waited long enough."""
        # Listening begins before the look, so that no end falls between the two.
        self._by_job.setdefault(job_id, {})[connection, request_id] = None
        self._by_connection.setdefault(connection, {})[request_id] = job_id
        self._look(connection, request_id, job_id, expired=False)

    def expired(self, connection: Connection, request_id: str) -> None:
        """It has waited long enough: the answer says so, unless the job has ended meanwhile."""
        job_id = self._by_connection.get(connection, {}).get(request_id)
        if job_id is not None:
            self._look(connection, request_id, job_id, expired=True)

    def expire_all(self) -> None:
        """The server is going away: everybody is told to ask again, elsewhere."""
        for connection, waiting in list(self._by_connection.items()):
            for request_id in list(waiting):
                self.expired(connection, request_id)

    def forget(self, connection: Connection) -> None:
        """The connection is over."""
        for request_id, job_id in self._by_connection.pop(connection, {}).items():
            self._unlist(connection, request_id, job_id)

    def ended(self, job_id: str) -> None:
        """An event says that the job has ended."""
        for connection, request_id in list(self._by_job.get(job_id, ())):
            self._look(connection, request_id, job_id, expired=False)

    @property
    def by_job(self) -> dict[str, dict[tuple[Connection, str], None]]:
        """The jobs that somebody waits for."""
        return self._by_job

    def _look(self, connection: Connection, request_id: str, job_id: str, *, expired: bool) -> None:
        tenant = connection.tenant

        def done(job: Job | None, error: BaseException | None) -> None:
            if self._by_connection.get(connection, {}).get(request_id) != job_id:
                return  # answered or gone meanwhile
            if job is None:
                self._settle(connection, request_id, job_id)
                connection.fail(request_id, error or DispatchError("the store gave no answer"))
            elif job.state in FINISHED or expired:
                self._settle(connection, request_id, job_id)
                connection.answer(request_id, _wait_answer(job))

        connection.read_store(lambda store: store.get_job(job_id, tenant=tenant), done)

    def _settle(self, connection: Connection, request_id: str, job_id: str) -> None:
        waiting = self._by_connection[connection]
        del waiting[request_id]
        if not waiting:
            del self._by_connection[connection]
        self._unlist(connection, request_id, job_id)

    def _unlist(self, connection: Connection, request_id: str, job_id: str) -> None:
        waiting = self._by_job[job_id]
        del waiting[connection, request_id]
        if not waiting:
            del self._by_job[job_id]


class Broker:
    """Publishes what was committed.

    Args:
        hub: decides who gets what.
        outbox: where output is collected until the turn ends.
        waits: who waits for the end of a job.
        now: monotonic seconds.
    """

    def __init__(self, hub: Hub, outbox: Outbox, waits: Waits, now: Callable[[], float]) -> None:
        self._hub = hub
        self._outbox = outbox
        self._waits = waits
        self._now = now

    def publish(self, events: list[LoggedEvent]) -> None:
        """The committer has committed these, in this order."""
        now = self._now()
        for fanout in self._hub.publish(events, now=now):
            wire = frame_all(fanout.messages, binary=fanout.binary)
            writes = self._outbox.writes
            for connection in fanout.to:
                connection.send_fanout(fanout, wire, writes)
            self._outbox.arm()
        for connection in self._hub.take_behind():
            connection.session.pump(now=now)
            connection.touch()
        awaited = self._waits.by_job
        if awaited:
            for event in events:
                job_id = event.topic.removeprefix(JOB_PREFIX)
                if job_id in awaited and event.type in _ENDS:
                    self._waits.ended(job_id)


def _wait_answer(job: Job) -> bytes:
    """`{job_id, state, output?, error?}`, or with `timed_out` where the job has not ended; output as in a Job."""
    answer: dict[str, Any] = {"job_id": job.id, "state": job.state}
    wire = job_to_wire(job)
    answer |= {name: wire[name] for name in ("output", "error") if name in wire}
    if job.state not in FINISHED:
        answer["timed_out"] = True
    return encode_payload(answer, what="the answer", limits=ANSWER_LIMITS)
