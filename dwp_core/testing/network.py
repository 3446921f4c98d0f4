"""The simulated network between clients and a server: who is reached, how, and over which links."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from dwp_core.testing.clock import Appointment, VirtualClock
from dwp_core.testing.link import End, Link
from dwp_core.testing.weather import FAIR, Rng, Weather


class Route(Enum):
    """What becomes of an attempt to connect."""

    OPEN = "open"
    """It reaches the server."""
    REFUSED = "refused"
    """Nobody listens."""
    SILENT = "silent"
    """No answer comes, ever."""
    OVERLOADED = "overloaded"
    """A proxy answers HTTP 503."""


class Caller(Protocol):
    """Who dials: a client's line."""

    def opened(self, end: End, generation: int, /) -> None:
        """The connection is open; this is its client's end."""
        ...

    def failed(self, generation: int, reason: str, status: int, /) -> None:
        """There is no connection."""
        ...


class Server(Protocol):
    """Who is dialled."""

    @property
    def listening(self) -> bool:
        """Whether it takes connections."""
        ...

    def accept(self, link: Link, /) -> None:
        """A connection has come."""
        ...


class Dial:
    """One attempt to connect, under way."""

    __slots__ = ("_next", "link")

    def __init__(self) -> None:
        self._next: Appointment
        self.link: Link | None = None

    def then(self, appointment: Appointment) -> None:
        """What comes next."""
        self._next = appointment

    def cancel(self) -> None:
        """Give up; the server, if it was reached, learns of it."""
        self._next.cancel()
        if self.link is not None:
            self.link.client.abort()


class Network:
    """Connects lines with a server.

    Attributes:
        route: what becomes of attempts.
        to_server: the weather of new links, towards the server.
        to_client: the weather of new links, towards the client.
        links: those whose ends do not both know yet that they are over.
    """

    def __init__(self, clock: VirtualClock, rng: Rng) -> None:
        self.server: Server | None = None
        self.route = Route.OPEN
        self.to_server: Weather = FAIR
        self.to_client: Weather = FAIR
        self._clock = clock
        self._rng = rng
        self._links: list[Link] = []

    @property
    def links(self) -> list[Link]:
        """The links that are not over, oldest first."""
        self._links = [link for link in self._links if not link.over]
        return self._links

    def dial(self, caller: Caller, generation: int) -> Dial:
        """Try to connect; the caller is told how it went, unless the attempt is cancelled or nothing ever answers."""
        dial = Dial()
        dial.then(
            self._clock.call_later(self.to_server.latency, lambda: self._reach(dial, caller, generation))
        )
        return dial

    def _reach(self, dial: Dial, caller: Caller, generation: int) -> None:
        if self.route is Route.SILENT:
            return
        back = self.to_client.latency
        server = self.server
        if self.route is Route.OVERLOADED:
            fail = lambda: caller.failed(generation, "it answered HTTP 503", 503)  # noqa: E731
        elif self.route is Route.REFUSED or server is None or not server.listening:
            fail = lambda: caller.failed(generation, "connection refused", 0)  # noqa: E731
        else:
            link = dial.link = Link(
                self._clock, self._rng, to_server=self.to_server, to_client=self.to_client
            )
            self._links.append(link)
            server.accept(link)
            dial.then(self._clock.call_later(back, lambda: self._open(link, caller, generation)))
            return
        dial.then(self._clock.call_later(back, fail))

    def _open(self, link: Link, caller: Caller, generation: int) -> None:
        if link.client.over:
            caller.failed(generation, "it closed the connection", 0)
        else:
            caller.opened(link.client, generation)
