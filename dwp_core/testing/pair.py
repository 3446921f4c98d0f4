"""A client and a server joined by a simulated network, for tests: real sessions, virtual time, faults on command.

What takes a minute in the world takes a few milliseconds here, and happens the same way every time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dwp_core.client_events import ClientConfig
from dwp_core.errors import DispatchError, TimeoutError
from dwp_core.server_events import ServerConfig
from dwp_core.subscriptions import Since
from dwp_core.testing.application import Pace
from dwp_core.testing.calls import Call, Listener
from dwp_core.testing.client import SimulatedClient
from dwp_core.testing.clock import VirtualClock
from dwp_core.testing.history import History
from dwp_core.testing.ledger import Ledger
from dwp_core.testing.link import Link
from dwp_core.testing.network import Network
from dwp_core.testing.server import Connection, SimulatedServer
from dwp_core.testing.weather import FAIR, Rng, Weather


class Pair:
    """One client, one server, one network.

    Args:
        rng: where chance comes from, e.g. `random.Random(1)`.
        client: how the client's session behaves.
        server: how the server's sessions behave; `features=frozenset()` makes it a base server.
        weather: how the network behaves.
        pace: how slow the server is.
        token: the client's credentials; "wrong" is refused.

    Attributes:
        clock: the time.
        network: between them.
        client: the client; `client.session` is its `ClientSession`.
        server: the server; `server.application` answers, `server.ledger` remembers.
        history: what happened; print it.

    Example:
        >>> from random import Random
        >>> pair = Pair(Random(1))
        >>> pair.connect()
        >>> jobs = pair.subscribe("jobs")
        >>> answer = pair.ask("job.enqueue", {"name": "send-email"})
        >>> pair.cut()
        >>> pair.run_until(lambda: pair.client.ready and len(jobs.events) == 3)
        >>> jobs.kinds
        ['job.enqueued', 'job.started', 'job.completed']
    """

    def __init__(
        self,
        rng: Rng,
        *,
        client: ClientConfig | None = None,
        server: ServerConfig | None = None,
        weather: Weather = FAIR,
        pace: Pace | None = None,
        token: str = "",
    ) -> None:
        self.clock = clock = VirtualClock()
        self.history = history = History()
        self.network = network = Network(clock, rng)
        network.to_server = network.to_client = weather
        self.server = network.server = SimulatedServer(
            clock, rng, history, Ledger(clock, rng), config=server or ServerConfig(), pace=pace or Pace()
        )
        self.client = SimulatedClient(
            "client",
            network,
            clock=clock,
            rng=rng,
            history=history,
            config=client or ClientConfig(),
            token=token,
        )

    # Time.

    def run_for(self, seconds: float) -> None:
        """Let so much time pass."""
        self.clock.run_for(seconds)

    def run_until(self, condition: Callable[[], object], *, within: float = 300.0) -> None:
        """Let time pass until the condition holds.

        Raises:
            TimeoutError: it does not within so many (virtual) seconds; what happened last is in the message.
        """
        deadline = self.clock.now + within
        while not condition():
            at = self.clock.next
            if at is None or at > deadline:
                raise TimeoutError(
                    f"it did not come about within {within:g} virtual seconds:\n{self.history}"
                )
            self.clock.step()

    # The client.

    def connect(self) -> None:
        """Connect the client.

        Raises:
            DispatchError: it gave up, and why.
        """
        self.client.start()
        self.run_until(lambda: self.client.ready or self.client.closed)
        error = self.client.last_error
        if self.client.closed and error is not None:
            raise error

    def ask(self, method: str, value: Any = None, *, key: str = "", timeout: float | None = 30.0) -> Any:
        """Call a method and run until it has an outcome; the value of the answer.

        Raises:
            DispatchError: it failed, or its outcome is unknown.
        """
        call = self.call(method, value, key=key, timeout=timeout)
        self.run_until(lambda: call.done)
        return call.answer

    def call(self, method: str, value: Any = None, *, key: str = "", timeout: float | None = 30.0) -> Call:
        """Call a method; let time pass, then look at the call."""
        return self.client.call(method, value, key=key, timeout=timeout)

    def subscribe(self, channel: str, *, since: Since = None) -> Listener:
        """Subscribe, and run until the server has confirmed it.

        Raises:
            DispatchError: it was refused.
        """
        listener = self.client.subscribe(channel, since=since)
        self.run_until(lambda: listener.started or listener.ended)
        if listener.error is not None:
            raise listener.error
        return listener

    def close(self) -> None:
        """Close the client and run until it is closed."""
        self.client.close()
        self.run_until(lambda: self.client.closed)

    # Troubles.

    @property
    def link(self) -> Link:
        """The newest connection.

        Raises:
            DispatchError: there is none.
        """
        links = self.network.links
        if not links:
            raise DispatchError("there is no connection at the moment; connect first, or let time pass")
        return links[-1]

    @property
    def connection(self) -> Connection:
        """The server's side of the newest connection; `connection.session` is its `ServerSession`."""
        return next(reversed(self.server.connections))

    def cut(self) -> None:
        """Break the connection."""
        self.link.cut()

    def restart_server(self, *, down_for: float = 1.0) -> None:
        """Kill the server, and have it start again after so many seconds."""
        self.server.crash()
        self.clock.call_later(down_for, self.server.start)
