"""What the sessions promise, checked against what really happened (DESIGN: the ledger knows).

Each function raises `InvariantBroken` with the promise and the evidence. None looks into a session: only what an
application was told, what crossed the network and what the server did counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from dwp_core.client_events import RequestSucceeded
from dwp_core.errors import (
    AuthError,
    ConflictError,
    InvalidRequest,
    LimitError,
    NotFoundError,
    UnsupportedError,
)
from dwp_core.events import LoggedEvent
from dwp_core.frames import EventHead
from dwp_core.methods import METHODS
from dwp_core.requests import Retry
from dwp_core.subscriptions import Gap
from dwp_core.testing.calls import Call, Listener
from dwp_core.testing.client import SimulatedClient
from dwp_core.testing.history import InvariantBroken
from dwp_core.testing.ledger import Ledger
from dwp_core.topics import channels_of

_NOT_CARRIED_OUT = (
    AuthError,
    ConflictError,
    InvalidRequest,
    LimitError,
    NotFoundError,
    UnsupportedError,
)


def marks_of(call: Call) -> list[object]:
    """The marks of the jobs or runs that a call asks for."""
    value = call.value
    if call.method == "job.enqueue":
        return [value["payload"]]
    if call.method == "job.enqueue_many":
        return [job["payload"] for job in value["jobs"]]
    return [value["input"]] if call.method == "workflow.start" else []


def check_made_once(clients: Iterable[SimulatedClient], ledger: Ledger) -> None:
    """Nothing is made twice, with a key or without; what was acknowledged is there; what was never sent is not."""
    made = Counter(record.value for record in ledger.records.values())
    for client in clients:
        handed = client.handed
        for call in client.calls:
            for mark in marks_of(call):
                count = made[mark]
                if count > 1:
                    raise InvariantBroken(f"{client.name}: {call} was carried out {count} times")
                outcome = call.outcomes[0] if call.outcomes else None
                if isinstance(outcome, RequestSucceeded) and count != 1:
                    raise InvariantBroken(f"{client.name}: {call} was acknowledged and is lost")
                assert call.request is not None
                if count and call.request.id not in handed:
                    raise InvariantBroken(f"{client.name}: {call} was carried out, though never sent")
                if count and isinstance(call.error, _NOT_CARRIED_OUT):
                    raise InvariantBroken(f"{client.name}: {call} was refused, and still carried out")


def check_answers(clients: Iterable[SimulatedClient], ledger: Ledger) -> None:
    """Each answer belongs to its question."""
    for client in clients:
        for call in client.calls:
            if call.outcomes and isinstance(call.outcomes[0], RequestSucceeded):
                problem = _mismatch(call, ledger)
                if problem:
                    raise InvariantBroken(f"{client.name}: {call} got the answer to another call: {problem}")


def check_outcomes(
    clients: Iterable[SimulatedClient], *, slack: float, keys_honoured: bool, all_of_them: bool
) -> None:
    """Each call has one outcome, in time, and an unknown one only where nothing better could be done.

    Args:
        slack: seconds by which an outcome may be late, because timers are.
        keys_honoured: whether every server honoured idempotency keys.
        all_of_them: whether no call may be open any more.
    """
    for client in clients:
        for call in client.calls:
            if call.cancelled:
                continue
            if call.settled_at is None:
                if all_of_them:
                    raise InvariantBroken(f"{client.name}: {call} of {call.asked_at} has no outcome")
                continue
            if call.expires is not None and call.settled_at > call.expires + slack:
                raise InvariantBroken(
                    f"{client.name}: {call} ran until {call.expires} and was settled at {call.settled_at}"
                )
            if call.unknown:
                _check_may_be_unknown(client, call, keys_honoured)


def check_ends(clients: Iterable[SimulatedClient]) -> None:
    """A subscription that has begun ends when its application or its client ends it, or the server has too many."""
    for client in clients:
        for listener in client.listeners:
            error = listener.error
            refused = isinstance(error, LimitError) and "channels" in error.message
            if listener.started and error is not None and not client.closed and not refused:
                raise InvariantBroken(f"{client.name}: {listener.channel} had begun and ended with {error!r}")


def check_listener(
    client: SimulatedClient, listener: Listener, ledger: Ledger, tenant: tuple[str, str], *, complete: bool
) -> None:
    """Events come in the order of the log, none twice, none lost but for what a gap says.

    Args:
        complete: whether everything must have come by now.
    """
    where = f"{client.name}: {listener.channel} since {listener.since!r}"
    log, last = listener.started_in, listener.started_at
    if listener.since is not None and (ledger.oldest > 1 or len(ledger.archive) > 1):
        last = None  # what the log held at that moment, and which one it was, is not known here
    for entry_log, entry in listener.entries:
        events = ledger.archive[entry_log]
        is_open = isinstance(entry, Gap) and entry.last is None
        if entry_log != log and last is not None and not is_open:
            raise InvariantBroken(f"{where}: from {log} to {entry_log} without a gap")
        log = entry_log
        if isinstance(entry, Gap):
            last = _pass_gap(where, entry, events, listener, last, tenant)
        else:
            last = _pass_event(where, entry, events, listener, last, tenant)
    if complete and last is not None:
        head = len(ledger.archive[log])
        _nothing_between(where, ledger.archive[log], listener, last, head + 1, tenant)


def has_seen_all(listener: Listener, ledger: Ledger, tenant: tuple[str, str]) -> bool:
    """Whether a listener stands behind the newest retained event that concerns it."""
    position = listener.subscription.position
    if position is None:
        return True
    begin = max(position, ledger.oldest - 1)
    return not any(_matches(event, listener, tenant) for event in ledger.events[begin:])


def _pass_event(
    where: str,
    event: EventHead,
    events: Sequence[LoggedEvent],
    listener: Listener,
    last: int | None,
    tenant: tuple[str, str],
) -> int:
    seq = event.seq
    if seq is None:
        raise InvariantBroken(f"{where}: an event without seq from a server that numbers them")
    if last is not None:
        if seq <= last:
            raise InvariantBroken(f"{where}: event {seq} after event {last}: twice, or out of order")
        _nothing_between(where, events, listener, last, seq, tenant)
    logged = events[seq - 1]
    if (logged.type, logged.topic) != (event.type, event.topic) or not _matches(logged, listener, tenant):
        raise InvariantBroken(f"{where}: event {seq} is {logged}, and {event} came")
    return seq


def _pass_gap(
    where: str,
    gap: Gap,
    events: Sequence[LoggedEvent],
    listener: Listener,
    last: int | None,
    tenant: tuple[str, str],
) -> int | None:
    """What is before a gap must have come; where an open gap ends is not known."""
    if gap.first is None:
        raise InvariantBroken(f"{where}: {gap}, though the server can send again")
    if gap.last is None:
        return None
    if last is not None:
        _nothing_between(where, events, listener, last, gap.first, tenant)
    return max(gap.last, last or 0)


def _nothing_between(
    where: str,
    events: Sequence[LoggedEvent],
    listener: Listener,
    last: int,
    until: int,
    tenant: tuple[str, str],
) -> None:
    lost = [event.seq for event in events[last : until - 1] if _matches(event, listener, tenant)]
    if lost:
        raise InvariantBroken(f"{where}: events {lost} were lost between {last} and {until}, and no gap told")


def _matches(event: LoggedEvent, listener: Listener, tenant: tuple[str, str]) -> bool:
    channels = channels_of(event.type, event.topic, event.queue)
    return (event.app_id, event.org_id) == tenant and listener.channel in channels


def _check_may_be_unknown(client: SimulatedClient, call: Call, keys_honoured: bool) -> None:
    assert call.request is not None
    if call.request.id not in client.handed:
        raise InvariantBroken(f"{client.name}: {call} was never sent, so its outcome is known")
    retry = METHODS[call.method].retry if call.method in METHODS else Retry.NEVER
    if not call.method or retry is Retry.READ:
        raise InvariantBroken(f"{client.name}: {call} changes nothing, so it can be asked again")
    if retry is Retry.IDEMPOTENT and call.key and keys_honoured and not client.closed:
        raise InvariantBroken(f"{client.name}: {call} has a key, so it can be asked again")


def _mismatch(call: Call, ledger: Ledger) -> str:
    """How an answer that succeeded does not fit to its question; "" when it does."""
    answer = call.answer
    if call.method == "job.enqueue_many":
        pairs = zip(answer["jobs"], marks_of(call), strict=True)
        return next((f"{got} for {mark}" for got, mark in pairs if _value(got, ledger) != mark), "")
    if call.method in ("job.enqueue", "workflow.start"):
        return "" if [_value(answer, ledger)] == marks_of(call) else f"{answer}"
    if call.method in ("job.get", "job.wait", "workflow.wait"):
        asked = call.value.get("job_id", call.value.get("run_id"))
        given = answer.get("id") or answer.get("job_id") or answer.get("run_id")
        return "" if asked == given else f"{answer}"
    return ""


def _value(answer: dict[str, str], ledger: Ledger) -> object:
    return ledger.records[answer.get("job_id") or answer["run_id"]].value
