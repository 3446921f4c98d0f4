"""Several clients and one server under troubles that a seed decides on, with everything the sessions promise checked.

One source of chance is one run: the same seed gives the same history, byte for byte. A run has three parts: troubles,
then a calm in which everybody must come back and see everything, then an end after which nothing may move.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from dwp_core.peer import RESUME
from dwp_core.testing.calls import Listener
from dwp_core.testing.client import SimulatedClient
from dwp_core.testing.clock import VirtualClock
from dwp_core.testing.faults import FAULTS, MOST_BUSY, mend
from dwp_core.testing.history import History, InvariantBroken
from dwp_core.testing.invariants import (
    check_answers,
    check_ends,
    check_listener,
    check_made_once,
    check_outcomes,
    has_seen_all,
)
from dwp_core.testing.ledger import Ledger
from dwp_core.testing.network import Network
from dwp_core.testing.plan import Plan, draw_plan
from dwp_core.testing.server import SimulatedServer
from dwp_core.testing.users import User
from dwp_core.testing.weather import Rng

_TENANTS = (("", ""), ("", ""), ("app-1", ""))
_MOST_STEPS = 2_000_000
_MOST_UNSENT = 1_000_000
_AFTERMATH = 40.0
_KEEPALIVE = 120.0


@dataclass(frozen=True, slots=True)
class Report:
    """How a run went that broke nothing.

    Attributes:
        digest: stands for the whole history; the same for the same seed.
        steps: things that happened.
        seconds: virtual time that passed.
        calls: requests of all clients.
        unknown: of those, with an unknown outcome.
        events: events that subscribers were given.
        gaps: gaps that they were told of.
        connections: connections that were made.
        troubles: how often each trouble happened.
    """

    digest: str
    steps: int
    seconds: float
    calls: int
    unknown: int
    events: int
    gaps: int
    connections: int
    troubles: dict[str, int]


class Simulation:
    """One run.

    Args:
        rng: where chance comes from, e.g. `random.Random(seed)`.
        plan: what the run is made of; drawn from `rng` when it is not given.
        seed: for the message when something breaks.
        keep: how many entries of the history are kept for that message.

    Example:
        >>> from random import Random
        >>> report = Simulation(Random(7), seed=7).run()
        >>> again = Simulation(Random(7), seed=7).run()
        >>> report == again
        True
    """

    def __init__(self, rng: Rng, *, plan: Plan | None = None, seed: object = None, keep: int = 200) -> None:
        self.rng = rng
        self.plan = plan = plan or draw_plan(rng)
        self.seed = seed
        self.clock = clock = VirtualClock(rng.choice((0.0, 1000.0)))
        self.history = history = History(keep=keep)
        self.network = network = Network(clock, rng)
        network.to_server = network.to_client = plan.weather
        self.ledger = Ledger(clock, rng)
        self.server = network.server = SimulatedServer(
            clock,
            rng,
            history,
            self.ledger,
            config=rng.choice(plan.servers),
            pace=plan.pace,
            form=plan.server_form,
            ring=plan.ring,
        )
        self._marks = count(1)
        self.users = [self._user(number) for number in range(1, plan.clients + 1)]
        self._steps = 0
        self._troubles: dict[str, int] = {}

    def run(self) -> Report:
        """Run it to its end.

        Raises:
            InvariantBroken: with the promise, the seed, and what happened last.
        """
        began = self.clock.now
        try:
            self._live_through_troubles()
            self._become_calm()
            self._close_all()
        except Exception as error:
            raise InvariantBroken(
                f"seed {self.seed}, at {self.clock.now:.6f} s: {type(error).__name__}: {error}\n\n"
                f"{self.plan}\n\nWhat happened last:\n{self.history}\n\n"
                f"seed {self.seed}: {type(error).__name__}: {error}"
            ) from error
        return self._report(self.clock.now - began)

    def start_server_later(self, seconds: float) -> None:
        """Bring the server up again, perhaps as another one."""

        def start() -> None:
            if not self.server.listening:
                self.server.config = self.rng.choice(self.plan.servers)
                self.server.start()

        self.clock.call_later(seconds, start)

    # The three parts.

    def _live_through_troubles(self) -> None:
        for user in self.users:
            user.begin()
        until = self.clock.now + self.plan.troubled
        while self.clock.now < until:
            self._pass(self.rng.random() * 2 * self.plan.between)
            if self.plan.troubles:
                trouble = self.rng.choice(self.plan.troubles)
                self._troubles[trouble] = self._troubles.get(trouble, 0) + 1
                self.history.note(self.clock.now, "trouble", trouble)
                FAULTS[trouble](self)
            self._check_while_running()

    def _become_calm(self) -> None:
        self.history.note(self.clock.now, "calm", "begins")
        mend(self)
        self.start_server_later(0.0)
        for user in self.users:
            user.retire()
        until = self.clock.now + self.plan.calm
        while wrong := self._what_is_wrong():
            if self.clock.now >= until:
                raise InvariantBroken(f"all is not well {self.plan.calm:g} s after the troubles: {wrong}")
            self._pass(1.0)
            mend(self)
            if self.clock.now > until - self.plan.calm + _KEEPALIVE:
                self._cut_dead_links()
            for user in self.users:
                user.read_all()
        self._check_that_events_still_come()
        self._check_at_the_end()

    def _close_all(self) -> None:
        self.history.note(self.clock.now, "end", "everybody closes")
        for user in self.users:
            user.client.close(drain=self.rng.choice((0.0, 1.0)))
        self._pass(_AFTERMATH)
        for user in self.users:
            if not user.client.closed or user.client.session.next_deadline is not None:
                raise InvariantBroken(
                    f"{user.client.name} was closed and is not: {user.client.session.state}"
                )
        self._cut_dead_links()
        hub = self.server.hub
        if self.server.connections or hub.subscribers or hub.channels:
            raise InvariantBroken(
                f"everybody has left, and the server has {len(self.server.connections)} connections,"
                f" {hub.subscribers} subscribers, {hub.channels} channels"
            )
        if self.clock.next is not None:
            raise InvariantBroken(f"everybody has left, and something is to happen at {self.clock.next}")

    def _check_that_events_still_come(self) -> None:
        """Nobody is forgotten: whoever listens gets what happens now, from any kind of server."""
        # Whatever comes in this time comes too late or twice.
        self._pass_reading(_AFTERMATH)
        listening = [
            (user.client, listener, len(listener.entries), user.client.session.generation)
            for user in self.users
            for listener in user.client.listeners
            if listener.started and not listener.ended and not listener.channel.startswith("job:")
        ]
        for tenant in sorted({user.tenant for user in self.users}):
            for kind, queue in (("job", "mail"), ("job", "default"), ("workflow", "")):
                self.ledger.end(self.ledger.create(kind, "last", "last word", queue=queue, tenant=tenant))
        self.server.publish_soon()
        self._pass_reading(_AFTERMATH)
        for client, listener, before, generation in listening:
            # A base server does not send again what a connection lost that died meanwhile.
            same = client.session.generation == generation or self.plan.always_resumes
            if len(listener.entries) == before and same and not listener.ended:
                raise InvariantBroken(f"{client.name}: {listener.channel} gets no events any more")

    def _pass_reading(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self._pass(1.0)
            for user in self.users:
                user.read_all()

    # Inside.

    def _cut_dead_links(self) -> None:
        """The operating system finds out what base peers, and those that wait for one to answer, do not ask."""
        for link in self.network.links:
            if link.to_server.dead or link.to_client.dead:
                link.cut()

    def _user(self, number: int) -> User:
        plan, rng = self.plan, self.rng
        tenant = rng.choice(_TENANTS)
        client = SimulatedClient(
            f"client {number}",
            self.network,
            clock=self.clock,
            rng=rng,
            history=self.history,
            config=rng.choice(plan.client_configs),
            token=f"{tenant[0]}/{number}",
            lateness=plan.lateness,
        )
        return User(
            client,
            self.ledger,
            clock=self.clock,
            rng=rng,
            marks=self._marks,
            acting=plan.acting,
            tenant=tenant,
        )

    def _pass(self, seconds: float) -> None:
        clock = self.clock
        until = clock.now + seconds
        while (at := clock.next) is not None and at <= until:
            clock.step()
            self._steps += 1
            if self._steps > _MOST_STEPS:
                raise InvariantBroken(f"{_MOST_STEPS} steps without an end: something goes round in circles")
        clock.run_until(until)

    def _check_while_running(self) -> None:
        check_outcomes(
            self._clients, slack=self._slack, keys_honoured=self.plan.always_honours_keys, all_of_them=False
        )
        for link in self.network.links:
            for pipe in (link.to_server, link.to_client):
                if len(pipe.unsent) > _MOST_UNSENT:
                    raise InvariantBroken(f"{len(pipe.unsent)} bytes wait to be sent, and more are written")

    def _check_at_the_end(self) -> None:
        clients = self._clients
        check_outcomes(
            clients, slack=self._slack, keys_honoured=self.plan.always_honours_keys, all_of_them=True
        )
        check_made_once(clients, self.ledger)
        check_answers(clients, self.ledger)
        check_ends(clients)
        if self.plan.always_resumes:
            for user in self.users:
                for listener in user.client.listeners:
                    if listener.started:
                        complete = not listener.ended
                        check_listener(user.client, listener, self.ledger, user.tenant, complete=complete)

    def _what_is_wrong(self) -> str:
        """What is still to come about after the troubles; "" for nothing."""
        for user in self.users:
            client = user.client
            if not client.ready and not client.closed:
                return f"{client.name} is {client.session.state}"
            for call in client.calls:
                if not call.done and not call.cancelled:
                    return f"{client.name}: {call} is open"
            for listener in client.listeners:
                if not listener.ended and not listener.subscription.confirmed:
                    return f"{client.name}: {listener.channel} is not confirmed"
                if not listener.ended and (listener.unread or not self._has_seen_all(listener, user)):
                    return f"{client.name}: {listener.channel} has not seen everything"
        if any(not record.ended for record in self.ledger.records.values()):
            return "jobs are running"
        return ""

    def _has_seen_all(self, listener: Listener, user: User) -> bool:
        """Towards a server that sends again; from others comes what comes."""
        peer = user.client.session.peer
        return peer is None or RESUME not in peer.features or has_seen_all(listener, self.ledger, user.tenant)

    @property
    def _clients(self) -> list[SimulatedClient]:
        return [user.client for user in self.users]

    @property
    def _slack(self) -> float:
        return self.plan.lateness + MOST_BUSY + 0.001

    def _report(self, seconds: float) -> Report:
        calls = [call for client in self._clients for call in client.calls]
        listeners = [listener for client in self._clients for listener in client.listeners]
        return Report(
            digest=self.history.digest,
            steps=self._steps,
            seconds=seconds,
            calls=len(calls),
            unknown=sum(call.unknown for call in calls),
            events=sum(len(listener.events) for listener in listeners),
            gaps=sum(len(listener.gaps) for listener in listeners),
            connections=sum(client.session.generation for client in self._clients),
            troubles=self._troubles,
        )
