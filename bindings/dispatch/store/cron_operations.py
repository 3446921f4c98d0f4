"""What operations on cron entries mean, for every store: an entry fires, its job is there, and its event is told, all
in one transaction or not at all.

`dwp_core.crons` decides what an entry does. Here the entry is looked up, claimed by the time that it was to fire at
(so of two servers one fires), and written with its jobs. A store adds the abstract methods below.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence

from dispatch.store.reading import owns
from dispatch.store.values import FiredCrons, NewJob, Tenant
from dispatch.store.writing import WritingOperations
from dwp_core import crons, ids
from dwp_core.crons import FIRES_AT_ONCE, Cron, CronDeclaration, NextAfter
from dwp_core.errors import NotFoundError
from dwp_core.jobs import FINISHED


class CronOperations(WritingOperations):
    """The cron half of the port."""

    def declare_crons(
        self,
        declarations: Sequence[CronDeclaration],
        *,
        functions: Collection[str],
        now_ns: int,
        next_after: NextAfter,
    ) -> None:
        """See `Store.declare_crons`."""
        kept: set[str] = set()
        for declaration in declarations:
            kept.add(declaration.name)
            known = self._cron(declaration.name)
            id = self._new_id(ids.CRON) if known is None else known.id
            cron = crons.declare(declaration, known, id=id, now_ns=now_ns, next_after=next_after)
            if cron is not known:
                self._writes()
                self._keep_cron(cron)
        for cron in self._crons(None):
            if cron.function in functions and cron.name not in kept:
                self._writes()
                self._forget_cron(cron.name)

    def fire_crons(
        self, *, functions: Collection[str], now_ns: int, next_after: NextAfter, limit: int = FIRES_AT_ONCE
    ) -> FiredCrons:
        """See `Store.fire_crons`."""
        job_ids: list[str] = []
        more = False
        next_fire: int | None = None
        waiting = False
        for cron in self._crons(None):
            if cron.function not in functions or cron.paused:
                continue
            after = cron
            if crons.is_due(cron, now_ns):
                if len(job_ids) >= limit:
                    more = True
                    continue
                after = self._fire(cron, now_ns, next_after, job_ids)
            waiting = waiting or after.waiting > 0
            if after.next_fire and (next_fire is None or after.next_fire < next_fire):
                next_fire = after.next_fire
        more = more or (next_fire is not None and next_fire <= now_ns)
        return FiredCrons(tuple(job_ids), next_fire, waiting, more)

    def trigger_cron(self, name: str, *, tenant: Tenant | None, now_ns: int) -> str:
        """See `Store.trigger_cron`."""
        cron = self._owned_cron(name, tenant)
        self._writes()
        job_ids: list[str] = []
        self._keep_cron(self._enqueue_for(cron, self._unfinished(cron), now_ns, job_ids))
        return job_ids[0]

    def pause_cron(self, name: str, *, tenant: Tenant | None, now_ns: int) -> Cron:
        """See `Store.pause_cron`."""
        cron = self._owned_cron(name, tenant)
        return self._replace_cron(cron, crons.pause(cron, now_ns=now_ns))

    def resume_cron(self, name: str, *, tenant: Tenant | None, now_ns: int, next_after: NextAfter) -> Cron:
        """See `Store.resume_cron`."""
        cron = self._owned_cron(name, tenant)
        return self._replace_cron(cron, crons.resume(cron, now_ns=now_ns, next_after=next_after))

    def _fire(self, cron: Cron, now_ns: int, next_after: NextAfter, job_ids: list[str]) -> Cron:
        unfinished = self._unfinished(cron)
        fired, jobs = crons.fire(cron, busy=bool(unfinished), now_ns=now_ns, next_after=next_after)
        if fired is cron:
            return cron
        self._writes()
        if not self._claim_cron(cron, fired):
            return cron
        for _ in range(jobs):
            fired = self._enqueue_for(fired, unfinished, now_ns, job_ids)
            unfinished = fired.open_jobs.split()
        if jobs:
            self._keep_cron(fired)
        return fired

    def _enqueue_for(self, cron: Cron, unfinished: Collection[str], now_ns: int, job_ids: list[str]) -> Cron:
        new = NewJob(
            cron.function,
            cron.payload,
            queue=cron.queue,
            priority=cron.priority,
            max_retries=cron.max_retries,
            timeout=cron.timeout,
        )
        job_id = self._insert(new, Tenant(cron.app_id, cron.org_id), now_ns).job_id
        job_ids.append(job_id)
        after, happening = crons.fired(cron, job_id, unfinished=unfinished, now_ns=now_ns)
        # Without a topic and a queue of its own: it is on the firehose alone (PROTOCOL.md section 5).
        self._log(happening.type, now_ns, "", "", cron.app_id, cron.org_id, happening.data)
        return after

    def _unfinished(self, cron: Cron) -> list[str]:
        unfinished: list[str] = []
        for job_id in cron.open_jobs.split():
            job = self._job_alone(job_id)
            if job is not None and job.state not in FINISHED:
                unfinished.append(job_id)
        return unfinished

    def _owned_cron(self, name: str, tenant: Tenant | None) -> Cron:
        cron = self._cron(name)
        if cron is None or not owns(tenant, cron.app_id, cron.org_id):
            raise NotFoundError(f'there is no cron entry "{name}"')
        return cron

    def _replace_cron(self, before: Cron, after: Cron) -> Cron:
        if after is not before:
            self._writes()
            self._keep_cron(after)
        return after

    # -- what a store adds

    @abstractmethod
    def _cron(self, name: str) -> Cron | None:
        """The entry of that name."""

    @abstractmethod
    def _keep_cron(self, cron: Cron) -> None:
        """Keeps an entry, in place of the one of that name."""

    @abstractmethod
    def _claim_cron(self, before: Cron, after: Cron) -> bool:
        """Keeps the entry if its next time and its waiting fires still are those of `before`; whether it was so."""

    @abstractmethod
    def _forget_cron(self, name: str) -> None:
        """Removes an entry."""
