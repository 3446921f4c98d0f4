"""Simulated users: what the applications of a run ask for, at random moments, with everything they may do.

Each job and run bears a mark that is used once, so that it can be told afterwards how often it was made.
"""

from __future__ import annotations

from collections.abc import Iterator

from dwp_core.errors import DispatchError
from dwp_core.subscriptions import Since
from dwp_core.testing.calls import Call, Listener
from dwp_core.testing.client import SimulatedClient
from dwp_core.testing.clock import VirtualClock
from dwp_core.testing.ledger import Ledger
from dwp_core.testing.weather import Rng

_QUEUES = ("default", "mail")
_CHANNELS = ("jobs", "workflows", "firehose", "queue:mail", "queue:default")
_MOST_LISTENERS = 4


class User:
    """One client and who uses it.

    Args:
        marks: numbers that were never given before.
        acting: seconds between two actions, on average.
    """

    def __init__(
        self,
        client: SimulatedClient,
        ledger: Ledger,
        *,
        clock: VirtualClock,
        rng: Rng,
        marks: Iterator[int],
        acting: float,
        tenant: tuple[str, str],
    ) -> None:
        self.client = client
        self.tenant = tenant
        self.refused = 0
        """Commands that the session refused, with a reason."""
        self._ledger = ledger
        self._clock = clock
        self._rng = rng
        self._marks = marks
        self._acting = acting
        self._retired = False

    def begin(self) -> None:
        """Connect, and begin to act."""
        self.client.start()
        self._later()

    def retire(self) -> None:
        """Ask for nothing new, and read everything from now on."""
        self._retired = True
        for listener in self.client.listeners:
            listener.reading = True

    def read_all(self) -> None:
        """Consume what has come; a busy program does not."""
        if not self.client.line.is_busy:
            for listener in self.client.listeners:
                self.client.read(listener)

    # Inside.

    def _later(self) -> None:
        self._clock.call_later(self._rng.random() * 2 * self._acting, self._act)

    def _act(self) -> None:
        if self._retired or self.client.closed:
            return
        if not self.client.line.is_busy:
            try:
                self._rng.choice(_ACTIONS)(self)
            except DispatchError:
                self.refused += 1
        self._later()

    def _enqueue_with_key(self) -> None:
        mark = next(self._marks)
        self._call("job.enqueue", self._job(mark), key=f"key-{mark}")

    def _enqueue(self) -> None:
        self._call("job.enqueue", self._job(next(self._marks)))

    def _enqueue_many(self) -> None:
        jobs = [self._job(next(self._marks)) for _ in range(self._rng.randrange(1, 5))]
        key = f"key-{jobs[0]['payload']}" if self._rng.random() < 0.5 else ""
        self._call("job.enqueue_many", {"jobs": jobs}, key=key)

    def _start_run(self) -> None:
        mark = next(self._marks)
        key = f"key-{mark}" if self._rng.random() < 0.5 else ""
        self._call("workflow.start", {"name": "pipeline", "input": mark}, key=key)

    def _get(self) -> None:
        id = self._some_record("job")
        if id:
            self._call("job.get", {"job_id": id})

    def _cancel_job(self) -> None:
        id = self._some_record("job")
        if id:
            self._call("job.cancel", {"job_id": id})

    def _wait(self) -> None:
        kind = self._rng.choice(("job", "workflow"))
        id = self._some_record(kind)
        if id:
            name = "job_id" if kind == "job" else "run_id"
            self.client.wait(f"{kind}.wait", {name: id}, timeout=self._patience())

    def _ask_stats(self) -> None:
        self._call("stats", None)

    def _ask_nonsense(self) -> None:
        self._call("job.frobnicate", None)

    def _ping(self) -> None:
        self.client.ping(timeout=self._patience())

    def _lose_interest(self) -> None:
        open_calls = [call for call in self.client.calls[-50:] if not call.done and not call.cancelled]
        if open_calls:
            self.client.cancel(self._rng.choice(open_calls))

    def _subscribe(self) -> None:
        if len(self._listening()) < _MOST_LISTENERS:
            id = self._some_record("job")
            channel = self._rng.choice((*_CHANNELS, f"job:{id}" if id else "jobs"))
            self.client.subscribe(channel, since=self._since())

    def _unsubscribe(self) -> None:
        listening = self._listening()
        if listening:
            self.client.unsubscribe(self._rng.choice(listening))

    def _read_or_not(self) -> None:
        listening = self._listening()
        if listening:
            listener = self._rng.choice(listening)
            listener.reading = not listener.reading
            if listener.reading:
                self.client.read(listener)

    def _maybe_close(self) -> None:
        if self._rng.random() < 0.05:
            self.client.close(drain=self._rng.choice((0.0, 2.0)))

    def _call(self, method: str, value: object, *, key: str = "") -> Call:
        return self.client.call(method, value, key=key, timeout=self._patience())

    def _job(self, mark: int) -> dict[str, object]:
        # The padding makes some messages larger than the buffers of some links.
        padding = "x" * self._rng.choice((0, 0, 0, 100, 2_000))
        return {
            "name": "job" + padding[:100],
            "payload": mark,
            "queue": self._rng.choice(_QUEUES),
            **({"padding": padding} if padding else {}),
        }

    def _patience(self) -> float | None:
        return self._rng.choice((None, 0.5, 5.0, 20.0))

    def _since(self) -> Since:
        kind = self._rng.random()
        if kind < 0.6:
            return None
        return "start" if kind < 0.8 else self._rng.randrange(0, self._ledger.head + 2)

    def _some_record(self, kind: str) -> str:
        records = [record.id for record in self._ledger.records.values() if record.kind == kind]
        return self._rng.choice(records[-20:]) if records else ""

    def _listening(self) -> list[Listener]:
        return [listener for listener in self.client.listeners if not listener.ended]


_ACTIONS = (
    *(User._enqueue_with_key,) * 6,  # noqa: SLF001 - the table of what a user does is part of it
    *(User._enqueue,) * 4,  # noqa: SLF001
    *(User._enqueue_many,) * 2,  # noqa: SLF001
    *(User._start_run,) * 2,  # noqa: SLF001
    *(User._get,) * 3,  # noqa: SLF001
    *(User._wait,) * 2,  # noqa: SLF001
    *(User._subscribe,) * 3,  # noqa: SLF001
    *(User._read_or_not,) * 2,  # noqa: SLF001
    User._cancel_job,  # noqa: SLF001
    User._ask_stats,  # noqa: SLF001
    User._ask_nonsense,  # noqa: SLF001
    User._ping,  # noqa: SLF001
    User._lose_interest,  # noqa: SLF001
    User._unsubscribe,  # noqa: SLF001
    User._maybe_close,  # noqa: SLF001
)
