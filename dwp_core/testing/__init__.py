"""Tests in virtual time: clocks, links and servers that fail on command, and simulations of many clients.

Everything here is public and made for users' tests too (docs/testing.md). `Pair` is where to begin: a client and a
server that talk over a simulated network. `Simulation` runs several clients under faults that a seed decides on and
checks what the sessions promise. Nothing here reads a clock or draws a random number of its own.
"""

from __future__ import annotations

from dwp_core.testing.application import Application, Pace
from dwp_core.testing.calls import Call, Listener
from dwp_core.testing.client import SimulatedClient
from dwp_core.testing.clock import Appointment, VirtualClock
from dwp_core.testing.history import History, InvariantBroken
from dwp_core.testing.ledger import Ledger
from dwp_core.testing.link import Link
from dwp_core.testing.network import Network, Route
from dwp_core.testing.pair import Pair
from dwp_core.testing.plan import TROUBLES, Plan
from dwp_core.testing.server import SimulatedServer
from dwp_core.testing.simulation import Report, Simulation
from dwp_core.testing.weather import FAIR, Rng, Weather

__all__ = [
    "FAIR",
    "TROUBLES",
    "Application",
    "Appointment",
    "Call",
    "History",
    "InvariantBroken",
    "Ledger",
    "Link",
    "Listener",
    "Network",
    "Pace",
    "Pair",
    "Plan",
    "Report",
    "Rng",
    "Route",
    "SimulatedClient",
    "SimulatedServer",
    "Simulation",
    "VirtualClock",
    "Weather",
]
