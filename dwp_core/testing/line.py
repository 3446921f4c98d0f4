"""One client session driven over a simulated network, as a binding drives it over a real one (docs/architecture.md).

It carries out effects, hands on events and keeps one timer. It can be late and it can be busy, as programs are; what
the session then still promises is checked at each step.
"""

from __future__ import annotations

from collections.abc import Callable

from dwp_core import client_states as states
from dwp_core.client import ClientSession
from dwp_core.client_events import ClientEvent
from dwp_core.effects import AbortTransport, CloseTransport, Connect, Delegate, Effect, SendMessage
from dwp_core.testing.clock import Appointment, VirtualClock
from dwp_core.testing.history import History, InvariantBroken
from dwp_core.testing.link import End
from dwp_core.testing.network import Dial, Network
from dwp_core.testing.weather import Rng


class Line:
    """Drives one session until it is closed. It is the handler of the client's end of each of its links.

    Args:
        name: for the history.
        token: gives the credentials, asked for each attempt.
        deliver: takes the session's events, in order, with the time.
        delegated: told of a session that the session wants driven too.
        lateness: seconds by which the timer is late at most.
    """

    def __init__(
        self,
        name: str,
        session: ClientSession,
        network: Network,
        *,
        clock: VirtualClock,
        rng: Rng,
        history: History,
        token: Callable[[], str],
        deliver: Callable[[list[ClientEvent]], None],
        delegated: Callable[[ClientSession], None],
        lateness: float = 0.0,
    ) -> None:
        self.name = name
        self.session = session
        self.lateness = lateness
        self.handed: set[str] = set()
        """Ids of the requests that were handed to a transport."""
        self._network = network
        self._clock = clock
        self._rng = rng
        self._history = history
        self._token = token
        self._deliver = deliver
        self._delegated = delegated
        self._dial: Dial | None = None
        self._end: End | None = None
        self._generation = 0
        self._timer: Appointment | None = None
        self._timer_at: float | None = None
        self._busy = False
        self._missed: list[Callable[[], None]] = []

    # What the network says.

    def opened(self, end: End, generation: int) -> None:
        """A connection is open."""
        self._when_awake(lambda: self._opened(end, generation))

    def failed(self, generation: int, reason: str, status: int) -> None:
        """An attempt has failed."""
        self._when_awake(lambda: self._failed(generation, reason, status))

    def message(self, data: bytes) -> None:
        """`Handler`: a message has come. None does while the line is busy: its end does not read."""
        self._history.note(self._clock.now, self.name, "<", data)
        self.session.receive_message(self._generation, data, now=self._clock.now)
        self.pump()

    def closed(self, code: int, reason: str) -> None:
        """`Handler`: the connection is over."""
        generation = self._generation
        self._when_awake(lambda: self._gone(generation, code, reason))

    def write_blocked(self) -> None:
        """`Handler`: more was written than the transport takes."""
        self.session.write_blocked(self._generation, now=self._clock.now)

    def write_progress(self) -> None:
        """`Handler`: some of it has left."""
        self._when_awake(self._progress)

    def write_resumed(self) -> None:
        """`Handler`: it takes more again."""
        self._when_awake(self._resumed)

    # What the application says.

    def pump(self) -> None:
        """The session was told something: carry out its effects, hand on its events, set the timer."""
        session = self.session
        while True:
            effects, events = session.take_effects(), session.take_events()
            for effect in effects:
                self._perform(effect)
            if events:
                self._deliver(events)
            elif not effects:
                break
        self._arm()

    def busy(self, seconds: float) -> None:
        """Do nothing for so long: a blocked loop, a suspended laptop. The network and the time go on."""
        if self._busy:
            return
        self._busy = True
        if self._end is not None:
            self._end.pause_reading()
        self._clock.call_later(seconds, self._wake)

    @property
    def is_busy(self) -> bool:
        """Whether it does nothing at the moment; the application must not ask anything then."""
        return self._busy

    # Inside.

    def _when_awake(self, action: Callable[[], None]) -> None:
        if self._busy:
            self._missed.append(action)
        else:
            action()

    def _opened(self, end: End, generation: int) -> None:
        self._dial = None
        self._end, self._generation = end, generation
        self.session.transport_opened(generation, token=self._token(), now=self._clock.now)
        self.pump()
        end.attach(self)

    def _failed(self, generation: int, reason: str, status: int) -> None:
        self._dial = None
        self.session.transport_failed(generation, reason, status=status, now=self._clock.now)
        self.pump()

    def _progress(self) -> None:
        self.session.write_progress(self._generation, now=self._clock.now)
        self.pump()

    def _resumed(self) -> None:
        self.session.write_resumed(self._generation, now=self._clock.now)
        self.pump()

    def _wake(self) -> None:
        """What has come meanwhile comes now: timers before transports or after them, as chance will have it."""
        self._busy = False
        timers_first = self._rng.random() < 0.5
        if timers_first:
            self._check_timer()
        missed, self._missed = self._missed, []
        for tell in missed:
            tell()
        if self._end is not None:
            self._end.resume_reading()
        if not timers_first:
            self._check_timer()
        self._arm()

    def _gone(self, generation: int, code: int, reason: str) -> None:
        self._end = None
        self._history.note(self._clock.now, self.name, f"transport {generation} closed, {code} {reason}")
        self.session.transport_closed(generation, now=self._clock.now, code=code, reason=reason)
        self.pump()

    def _perform(self, effect: Effect) -> None:
        # Effects are carried out as soon as they are there, so none is ever about an earlier attempt.
        if isinstance(effect, SendMessage):
            assert self._end is not None, "a message for a transport that is gone"
            self._history.note(self._clock.now, self.name, ">", effect.data)
            if effect.request_id:
                self.handed.add(effect.request_id)
            self._end.send(effect.data, binary=effect.binary)
            return
        self._history.note(self._clock.now, self.name, _name_of(effect))
        if isinstance(effect, Delegate):
            self._delegated(effect.session)
        elif isinstance(effect, Connect):
            self._let_go()
            self._dial = self._network.dial(self, effect.generation)
        elif isinstance(effect, CloseTransport):
            assert self._end is not None, "a close for a transport that is gone"
            self._end.close(effect.code, effect.reason)
        else:
            self._let_go()

    def _let_go(self) -> None:
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        if self._end is not None:
            self._end.abort()
            self._end = None

    def _arm(self) -> None:
        deadline = self.session.next_deadline
        if deadline == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = deadline
        if deadline is not None:
            late = self._rng.random() * self.lateness if self.lateness else 0.0
            self._timer = self._clock.call_at(deadline + late, self._timed)

    def _timed(self) -> None:
        self._timer = self._timer_at = None
        if not self._busy:
            self._check_timer()
            self._arm()

    def _check_timer(self) -> None:
        session, now = self.session, self._clock.now
        deadline = session.next_deadline
        if deadline is None or deadline > now:
            return
        session.handle_timer(now=now)
        later = session.next_deadline
        if later is not None and later <= now:
            raise InvariantBroken(f"{self.name}: after the timer of {now} the next deadline is {later}")
        if session.state == states.CLOSED and later is not None:
            raise InvariantBroken(f"{self.name}: it is closed and still has a deadline")
        self.pump()


def _name_of(effect: Connect | CloseTransport | AbortTransport | Delegate) -> str:
    return "delegates a call" if isinstance(effect, Delegate) else repr(effect)
