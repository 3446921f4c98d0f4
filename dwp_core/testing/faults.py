"""The troubles of a simulated run: each is one thing that goes wrong in the world, once, when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from dwp_core.testing import plan as troubles
from dwp_core.testing.network import Route
from dwp_core.testing.weather import FAIR

if TYPE_CHECKING:
    from dwp_core.testing.link import Link
    from dwp_core.testing.simulation import Simulation

MOST_BUSY = 12.0
"""Seconds for which a client does nothing, at most."""


def cut(simulation: Simulation) -> None:
    """A connection breaks."""
    link = _some_link(simulation)
    if link is not None:
        link.cut()


def cut_at_byte(simulation: Simulation) -> None:
    """A connection breaks after some more bytes, in the middle of a message as a rule."""
    link = _some_link(simulation)
    if link is not None:
        pipe = simulation.rng.choice((link.to_server, link.to_client))
        pipe.cut_after = pipe.delivered + simulation.rng.randrange(1, 400)


def half_open(simulation: Simulation) -> None:
    """Nothing arrives any more, in one direction or both, and nobody is told."""
    link = _some_link(simulation)
    if link is not None:
        to_server, to_client = simulation.rng.choice(((True, True), (True, False), (False, True)))
        link.vanish(to_server=to_server, to_client=to_client)


def stall(simulation: Simulation) -> None:
    """One direction takes nothing for a while."""
    link = _some_link(simulation)
    if link is not None:
        pipe = simulation.rng.choice((link.to_server, link.to_client))
        pipe.stall(simulation.rng.random() * 10)


def slow(simulation: Simulation) -> None:
    """A connection becomes slow."""
    link = _some_link(simulation)
    if link is not None:
        link.change(latency=simulation.rng.random() * 4, jitter=simulation.rng.random())


def crash(simulation: Simulation) -> None:
    """The server dies and comes back after a while."""
    if simulation.server.listening:
        simulation.server.crash()
        simulation.start_server_later(simulation.rng.choice((0.0, 1.0, 8.0)) * simulation.rng.random())


def drain(simulation: Simulation) -> None:
    """The server goes away in good order and comes back."""
    server, rng = simulation.server, simulation.rng
    if server.listening and not server.draining:
        seconds = rng.random() * 5
        server.drain(seconds, retry_after=rng.choice((0.0, 1.0)))
        stops_after = seconds * rng.choice((0.5, 1.5))

        def stop() -> None:
            if server.draining:
                server.crash()
                simulation.start_server_later(rng.random())

        simulation.clock.call_later(stops_after, stop)


def busy(simulation: Simulation) -> None:
    """A client does nothing for a while."""
    user = simulation.rng.choice(simulation.users)
    user.client.line.busy(simulation.rng.random() * simulation.rng.choice((0.5, 4.0, MOST_BUSY)))


def unreachable(simulation: Simulation) -> None:
    """New connections fail for a while."""
    network = simulation.network
    network.route = simulation.rng.choice((Route.REFUSED, Route.SILENT, Route.OVERLOADED))

    def mend() -> None:
        network.route = Route.OPEN

    simulation.clock.call_later(simulation.rng.random() * 6, mend)


def retention(simulation: Simulation) -> None:
    """The log loses its oldest events."""
    simulation.server.retain(simulation.rng.choice((0, 5, 50)))


def another_log(simulation: Simulation) -> None:
    """The server dies, and comes back with another log."""
    if simulation.server.listening:
        simulation.server.crash()
        simulation.ledger.begin_another_log()
        simulation.start_server_later(simulation.rng.random())


def revoke(simulation: Simulation) -> None:
    """A client's credentials are not good any more; it learns of it when it connects again. One client stays."""
    candidates = [user for user in simulation.users if user.client.token != "wrong"]
    if len(candidates) > 1 and simulation.rng.random() < 0.2:
        simulation.rng.choice(candidates).client.token = "wrong"


FAULTS: dict[str, Callable[[Simulation], None]] = {
    troubles.CUT: cut,
    troubles.CUT_AT_BYTE: cut_at_byte,
    troubles.HALF_OPEN: half_open,
    troubles.STALL: stall,
    troubles.SLOW: slow,
    troubles.CRASH: crash,
    troubles.DRAIN: drain,
    troubles.BUSY: busy,
    troubles.UNREACHABLE: unreachable,
    troubles.RETENTION: retention,
    troubles.ANOTHER_LOG: another_log,
    troubles.REVOKED: revoke,
}


def mend(simulation: Simulation) -> None:
    """Everything that can be mended is. Connections that are half dead stay so: who has one must find out."""
    network = simulation.network
    network.route = Route.OPEN
    network.to_server = network.to_client = FAIR
    for link in network.links:
        for pipe in (link.to_server, link.to_client):
            pipe.weather = replace(FAIR, buffer=pipe.weather.buffer, window=pipe.weather.window)


def _some_link(simulation: Simulation) -> Link | None:
    links = simulation.network.links
    return simulation.rng.choice(links) if links else None
