"""The figures of a server as Prometheus reads them (text exposition format 0.0.4), for `GET /metrics`.

Nothing is kept here: the parts of the server count what they do anyway, and a scrape writes it down. That is why there
is no metrics library: one with counters of its own would lock on every request, and count two servers of one process
together. Labels are queues, methods, codes and outcomes; never a tenant, a key, a job's id or a payload.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dispatch.store.values import QueueDepth

if TYPE_CHECKING:
    from dispatch.server.server import DispatchServer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_OUTCOMES = {
    "job.completed": "completed",
    "job.failed": "failed",
    "job.cancelled": "cancelled",
    "job.retrying": "retried",
}


@dataclass(frozen=True, slots=True)
class Backlog:
    """What the store has for a scrape.

    Attributes:
        queues: unfinished jobs by queue.
        dead_letters: how many there are.
    """

    queues: list[QueueDepth] = field(default_factory=list[QueueDepth])
    dead_letters: int = 0


def exposition(server: DispatchServer, backlog: Backlog | None) -> str:
    """Every figure of the server.

    Args:
        server: which has started.
        backlog: from its store; None where that did not answer.
    """
    hub = server.hub
    page = _Page()
    page.gauge("dispatch_info", "What runs here.", {"version": server.config.version}, 1)
    page.gauge("dispatch_start_time_seconds", "When it began, since 1970.", {}, server.started_at)
    page.gauge(
        "dispatch_draining", "1 while it finishes what runs and takes nothing new.", {}, server.draining
    )
    page.gauge("dispatch_store_up", "1 if the store answered this scrape.", {}, backlog is not None)
    if backlog is not None:
        _add_backlog(page, backlog)
    logged = server.events_logged
    page.family(
        "dispatch_jobs_total", "counter", "Attempts and jobs that ended since this server began, by outcome."
    )
    for kind, outcome in _OUTCOMES.items():
        page.sample("dispatch_jobs_total", {"outcome": outcome}, logged[kind])
    page.counter("dispatch_jobs_enqueued_total", "Jobs that were taken in.", logged["job.enqueued"])
    page.counter("dispatch_jobs_started_total", "Attempts that were begun.", logged["job.started"])
    page.gauge("dispatch_jobs_running", "Jobs that run in this process.", {}, server.engine.running)
    page.gauge("dispatch_connections", "Open connections and HTTP requests.", {}, server.connections)
    page.gauge("dispatch_subscribers", "Connections that have subscribed to events.", {}, hub.subscribers)
    page.gauge("dispatch_subscribed_channels", "Channels with a subscription.", {}, hub.channels)
    page.counter("dispatch_events_logged_total", "Events that were committed.", logged.total())
    page.gauge("dispatch_event_log_events", "Events that the log holds.", {}, hub.head - hub.oldest + 1)
    page.family("dispatch_requests_total", "counter", "Requests that were answered, by method and code.")
    for (method, code), count in sorted(hub.answers.items()):
        page.sample("dispatch_requests_total", {"method": method or "unknown", "code": str(code)}, count)
    page.gauge(
        "dispatch_store_waiting_operations",
        "Operations that wait for the writer.",
        {},
        server.committer.waiting,
    )
    batches = server.committer.batches
    page.histogram(
        "dispatch_commit_operations",
        "Operations in one transaction of the writer.",
        {2**place: count for place, count in enumerate(batches.counts)},
        batches.operations,
    )
    return page.text()


def _add_backlog(page: _Page, backlog: Backlog) -> None:
    page.family(
        "dispatch_queue_jobs",
        "gauge",
        "Unfinished jobs: ready to run, scheduled for later, or running anywhere.",
    )
    for depth in backlog.queues:
        for state in ("ready", "scheduled", "running"):
            page.sample("dispatch_queue_jobs", {"queue": depth.queue, "state": state}, getattr(depth, state))
    page.gauge("dispatch_dead_letters", "Dead letters that are kept.", {}, backlog.dead_letters)


class _Page:
    """Lines of the exposition format."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(self, name: str, kind: str, help: str) -> None:
        """What the samples that follow are."""
        self._lines += [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]

    def sample(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """One line."""
        shown = _labels(labels.items())
        self._lines.append(
            f"{name}{shown} {float(value):.3f}" if value % 1 else f"{name}{shown} {int(value)}"
        )

    def gauge(self, name: str, help: str, labels: Mapping[str, str], value: float) -> None:
        """A family of one sample."""
        self.family(name, "gauge", help)
        self.sample(name, labels, value)

    def counter(self, name: str, help: str, value: int) -> None:
        """A family of one sample, which only grows."""
        self.family(name, "counter", help)
        self.sample(name, {}, value)

    def histogram(self, name: str, help: str, counts: Mapping[int, int], total: int) -> None:
        """How many values there were up to each bound, and above the one before it; and all values together."""
        self.family(name, "histogram", help)
        so_far = 0
        for bound, count in counts.items():
            so_far += count
            self.sample(f"{name}_bucket", {"le": str(bound)}, so_far)
        self.sample(f"{name}_bucket", {"le": "+Inf"}, so_far)
        self.sample(f"{name}_sum", {}, total)
        self.sample(f"{name}_count", {}, so_far)

    def text(self) -> str:
        """All of it."""
        return "\n".join(self._lines) + "\n"


def _labels(pairs: Iterable[tuple[str, str]]) -> str:
    """Labels as they are written, or nothing.

    Example:
        >>> _labels([("queue", 'a"b')])
        '{queue="a\\\\"b"}'
    """
    shown = ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs)
    return f"{{{shown}}}" if shown else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
