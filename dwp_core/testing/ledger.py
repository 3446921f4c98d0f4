"""What a server remembers: jobs, runs, answers kept under idempotency keys, and the durable log of events.

A model of a store, in memory and without transactions: each operation happens at once, with its events (PROTOCOL.md
section 9). It outlives the simulated server that uses it, as a database does. What retention removes is no longer given
out, but stays here, so that a test can compare what clients saw with what happened.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from dwp_core.codec.payload import encode_payload
from dwp_core.errors import ConflictError, NotFoundError
from dwp_core.events import LoggedEvent
from dwp_core.ids import JOB, RUN, IdSource
from dwp_core.testing.clock import VirtualClock
from dwp_core.testing.weather import Rng

ENDED = frozenset(("completed", "failed", "cancelled"))


class Record:
    """A job or a run.

    Attributes:
        topic: its own topic, e.g. "job:job_01…".
        value: what it was given: the payload of a job, the input of a run.
        tenant: app and org that it belongs to.
    """

    __slots__ = ("id", "kind", "name", "queue", "state", "tenant", "topic", "value")

    def __init__(
        self, kind: str, id: str, name: str, queue: str, value: Any, tenant: tuple[str, str]
    ) -> None:
        self.kind = kind
        self.id = id
        self.name = name
        self.queue = queue
        self.value = value
        self.tenant = tenant
        self.topic = f"{kind}:{id}"
        self.state = "pending" if kind == "job" else "running"

    @property
    def ended(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.state in ENDED


class Ledger:
    """The memory of a simulated server.

    Attributes:
        log: id of the present log.
        oldest: the first seq of it that is retained.
        records: every job and run there ever was, by id.
        archive: every event there ever was, by the id of its log.
    """

    def __init__(self, clock: VirtualClock, rng: Rng) -> None:
        self._clock = clock
        self._ids = IdSource(
            random_bytes=lambda n: bytes(rng.randrange(0, 256) for _ in range(n)),
            now_ns=lambda: clock.wall_ns,
        )
        self.log = "log-1"
        self.oldest = 1
        self.records: dict[str, Record] = {}
        self.archive: dict[str, list[LoggedEvent]] = {self.log: []}
        self._kept: dict[tuple[tuple[str, str], str, str], tuple[bytes, Any]] = {}

    # The log.

    @property
    def events(self) -> list[LoggedEvent]:
        """Every event of the present log, also those that retention has removed. The seq of the n-th is n + 1."""
        return self.archive[self.log]

    @property
    def head(self) -> int:
        """The newest seq."""
        return len(self.events)

    def append(
        self,
        type: str,
        topic: str = "",
        data: dict[str, Any] | None = None,
        *,
        queue: str = "",
        tenant: tuple[str, str] = ("", ""),
    ) -> LoggedEvent:
        """Log an event, e.g. "job.completed"."""
        app_id, org_id = tenant
        inner = encode_payload({} if data is None else data)
        event = LoggedEvent(self.head + 1, type, self._clock.wall_ns, topic, queue, app_id, org_id, inner)
        self.events.append(event)
        return event

    def page(self, after: int, limit: int, tenant: tuple[str, str]) -> tuple[list[LoggedEvent], int]:
        """Events of this tenant after this seq, at most `limit`, and the seq up to which was looked."""
        found: list[LoggedEvent] = []
        for event in self.events[max(after, self.oldest - 1) :]:
            if (event.app_id, event.org_id) == tenant:
                found.append(event)
                if len(found) == limit:
                    return found, event.seq
        return found, self.head

    def after(self, seq: int) -> list[LoggedEvent]:
        """Every event after this seq."""
        return self.events[bisect_left(self.events, seq + 1, key=lambda event: event.seq) :]

    def retain(self, count: int) -> int:
        """Let retention remove all but the newest `count` events; the oldest seq that is left."""
        self.oldest = max(self.oldest, self.head + 1 - count)
        return self.oldest

    def begin_another_log(self) -> None:
        """Another log begins, as with another database; it knows no idempotency keys of before. Jobs and runs stay."""
        self.log = f"log-{len(self.archive) + 1}"
        self.archive[self.log] = []
        self.oldest = 1
        self._kept.clear()

    # Jobs and runs.

    def create(
        self, kind: str, name: str, value: Any, *, queue: str = "", tenant: tuple[str, str] = ("", "")
    ) -> Record:
        """Enqueue a job (kind "job") or start a run (kind "workflow")."""
        id = self._ids.new(JOB if kind == "job" else RUN)
        record = self.records[id] = Record(kind, id, name, queue, value, tenant)
        self._tell(record, "enqueued" if kind == "job" else "started")
        return record

    def record(self, id: str, tenant: tuple[str, str] = ("", "")) -> Record:
        """The job or run of that id.

        Raises:
            NotFoundError: this tenant has none.
        """
        record = self.records.get(id)
        if record is None or record.tenant != tenant:
            raise NotFoundError(f"{id} not found")
        return record

    def run(self, record: Record) -> None:
        """A worker begins; nothing happens when it is too late for that."""
        if record.state == "pending":
            record.state = "running"
            self._tell(record, "started")

    def end(self, record: Record, state: str = "completed") -> None:
        """It is over; nothing happens when it was over before."""
        if not record.ended:
            record.state = state
            self._tell(record, state)

    def cancel(self, record: Record) -> None:
        """Cancel it.

        Raises:
            ConflictError: it is over.
        """
        if record.ended:
            raise ConflictError(f"{record.id} is {record.state} already")
        self.end(record, "cancelled")

    # Idempotency.

    def kept(self, tenant: tuple[str, str], method: str, key: str, data: bytes) -> Any:
        """The first answer under this key; None for the first request.

        Raises:
            ConflictError: the key was used with other data.
        """
        first = self._kept.get((tenant, method, key))
        if first is None:
            return None
        if first[0] != data:
            raise ConflictError(f'{method}: idempotency_key "{key}" was used with other data')
        return {**first[1], "duplicate": True}

    def keep(self, tenant: tuple[str, str], method: str, key: str, data: bytes, answer: Any) -> None:
        """Keep an answer under a key."""
        self._kept[tenant, method, key] = (data, answer)

    def _tell(self, record: Record, what: str) -> None:
        inner = {"name": record.name, "state": record.state}
        if record.kind == "job":
            inner = {
                "job_id": record.id,
                "job_name": record.name,
                "queue": record.queue,
                "state": record.state,
            }
        else:
            inner["run_id"] = record.id
        self.append(f"{record.kind}.{what}", record.topic, inner, queue=record.queue, tenant=record.tenant)
