"""What the cron methods do: list the entries, pause one, resume it, run it now (PROTOCOL.md section 4)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dispatch.functions.schedules import next_after
from dispatch.server.connection import PAGE_WEIGHT, Connection
from dwp_core.codec.payload import encode_payload
from dwp_core.crons import Cron, cron_to_wire
from dwp_core.frames import ANSWER_LIMITS

if TYPE_CHECKING:
    from dispatch.server.handlers import Handler
    from dwp_core.server_events import RequestReceived


def list_crons(connection: Connection, request: RequestReceived) -> None:
    """`cron.list`."""
    tenant = connection.tenant
    connection.read_store(
        lambda store: store.list_crons(tenant=tenant),
        connection.answering(request.id, _crons),
        weight=PAGE_WEIGHT,
    )


def pause(connection: Connection, request: RequestReceived) -> None:
    """`cron.pause`."""
    name, tenant, now_ns = request.params["name"], connection.tenant, time.time_ns()
    connection.server.submit(
        lambda store: store.pause_cron(name, tenant=tenant, now_ns=now_ns),
        connection.answering(request.id, _cron),
    )


def resume(connection: Connection, request: RequestReceived) -> None:
    """`cron.resume`."""
    name, tenant, now_ns = request.params["name"], connection.tenant, time.time_ns()
    server = connection.server

    def resumed(cron: Cron) -> bytes:
        server.crons.look()
        return _cron(cron)

    server.submit(
        lambda store: store.resume_cron(name, tenant=tenant, now_ns=now_ns, next_after=next_after),
        connection.answering(request.id, resumed),
    )


def trigger(connection: Connection, request: RequestReceived) -> None:
    """`cron.trigger`: its job, now."""
    name, tenant, now_ns = request.params["name"], connection.tenant, time.time_ns()
    server = connection.server

    def triggered(job_id: str) -> bytes:
        server.engine.notify()
        return encode_payload({"name": name, "job_id": job_id}, what="the answer", limits=ANSWER_LIMITS)

    server.submit(
        lambda store: store.trigger_cron(name, tenant=tenant, now_ns=now_ns),
        connection.answering(request.id, triggered),
    )


CRON_HANDLERS: Mapping[str, Handler] = {
    "cron.list": list_crons,
    "cron.pause": pause,
    "cron.resume": resume,
    "cron.trigger": trigger,
}


def _cron(cron: Cron) -> bytes:
    return encode_payload(cron_to_wire(cron), what="the answer", limits=ANSWER_LIMITS)


def _crons(crons: list[Cron]) -> bytes:
    return encode_payload(
        {"crons": [cron_to_wire(cron) for cron in crons]}, what="the answer", limits=ANSWER_LIMITS
    )
