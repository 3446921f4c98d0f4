"""Where jobs are kept: the port, its stores, and the writer thread that groups commits.

`SqliteStore` (dispatch.store.sqlite) is the default, `MemoryStore` (dispatch.store.memory) is for tests and for what
may be forgotten; `Committer` (dispatch.store.committer) brings many callers to one store.
"""

from dispatch.store.port import ReadableStore, Store
from dispatch.store.values import (
    DAY_NS,
    DEFAULT_IDEMPOTENCY_NS,
    NO_TENANT,
    PAGE_BYTES,
    PAGE_LIMIT,
    Cancellation,
    Completion,
    DeadLetterPage,
    Enqueued,
    EnqueuedJob,
    EventPage,
    FiredCrons,
    Idempotency,
    JobPage,
    Lease,
    LogSpan,
    NewJob,
    Purged,
    QueueDepth,
    Retention,
    Settled,
    Standing,
    Stats,
    Tenant,
)

__all__ = [
    "DAY_NS",
    "DEFAULT_IDEMPOTENCY_NS",
    "NO_TENANT",
    "PAGE_BYTES",
    "PAGE_LIMIT",
    "Cancellation",
    "Completion",
    "DeadLetterPage",
    "Enqueued",
    "EnqueuedJob",
    "EventPage",
    "FiredCrons",
    "Idempotency",
    "JobPage",
    "Lease",
    "LogSpan",
    "NewJob",
    "Purged",
    "QueueDepth",
    "ReadableStore",
    "Retention",
    "Settled",
    "Standing",
    "Stats",
    "Store",
    "Tenant",
]
