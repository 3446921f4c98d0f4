"""A simulated client: a session, the line that drives it, and the application that calls it.

Calls and subscriptions are objects that remember what they were told (`dwp_core.testing.calls`). That a call is told
its outcome once, that nothing comes after the end, and that what is unread stays bounded is checked as it happens.
"""

from __future__ import annotations

from typing import Any

from dwp_core import client_states as states
from dwp_core.client import ClientSession, frame_ids
from dwp_core.client_events import (
    ClientConfig,
    ClientEvent,
    Closed,
    Connected,
    Disconnected,
    RequestFailed,
    RequestOutcomeUnknown,
    RequestSucceeded,
    SubscriptionEnded,
    SubscriptionGap,
    SubscriptionItem,
    SubscriptionStarted,
)
from dwp_core.codec.payload import encode_payload
from dwp_core.errors import DispatchError
from dwp_core.frames import EventHead
from dwp_core.methods import METHODS
from dwp_core.requests import Retry
from dwp_core.subscriptions import Gap, Since
from dwp_core.testing.calls import Call, Listener
from dwp_core.testing.clock import VirtualClock
from dwp_core.testing.history import History, InvariantBroken
from dwp_core.testing.line import Line
from dwp_core.testing.network import Network
from dwp_core.testing.weather import Rng


class SimulatedClient:
    """One client application.

    Args:
        name: for the history.
        config: how its session behaves.
        token: its credentials; may be changed, the next attempt uses what is there then.
        lateness: seconds by which its timers are late at most.

    Attributes:
        session: the `ClientSession`.
        line: what drives it.
        calls: every call, in order.
        listeners: every subscription, in order.
        states: `Connected`, `Disconnected`, `Closed` and `Discarded` events, in order.
    """

    def __init__(
        self,
        name: str,
        network: Network,
        *,
        clock: VirtualClock,
        rng: Rng,
        history: History,
        config: ClientConfig,
        token: str = "",
        lateness: float = 0.0,
    ) -> None:
        self.name = name
        self.token = token
        self.calls: list[Call] = []
        self.listeners: list[Listener] = []
        self.states: list[ClientEvent] = []
        self._clock = clock
        self._rng = rng
        self._history = history
        self._network = network
        self._lateness = lateness
        self._log = ""
        self._granted = 0
        self._fresh: dict[Listener, None] = {}
        self._delegates: list[Line] = []
        self.session = ClientSession(
            config, epoch_ns=clock.epoch_ns, jitter=rng.random, ids=frame_ids(f"{name.replace(' ', '')}-")
        )
        self.line = self._line(self.session, name)

    # What the application asks.

    def start(self) -> None:
        """Begin to connect."""
        self.session.start(now=self._clock.now)
        self.line.pump()

    def call(self, method: str, value: Any = None, *, key: str = "", timeout: float | None = None) -> Call:
        """Ask the server; the outcome is in the call when it is there.

        Raises:
            DispatchError: the session refuses it (closed, too many).
        """
        known = METHODS.get(method)
        call = Call(method, value, key=key, asked_at=self._clock.now, expires=self._until(timeout))
        data = b"" if value is None else encode_payload(value)
        call.request = self.session.request(
            method,
            data,
            tag=call,
            now=self._clock.now,
            timeout=timeout,
            retry=Retry.NEVER if known is None else known.retry,
            key=key,
            feature="batch" if method == "job.enqueue_many" else "",
        )
        return self._asked(call)

    def wait(self, method: str, value: Any, *, timeout: float | None = None) -> Call:
        """Ask until a job or run has ended: "job.wait" or "workflow.wait"."""
        call = Call(method, value, asked_at=self._clock.now, expires=self._until(timeout))
        data = encode_payload(value)
        call.request = self.session.wait(method, data, tag=call, now=self._clock.now, timeout=timeout)
        return self._asked(call)

    def ping(self, *, timeout: float | None = None) -> Call:
        """Ask for a sign of life."""
        call = Call("", None, asked_at=self._clock.now, expires=self._until(timeout))
        call.request = self.session.ping(tag=call, now=self._clock.now, timeout=timeout)
        return self._asked(call)

    def cancel(self, call: Call) -> None:
        """Nobody waits for this call any more."""
        assert call.request is not None
        call.cancelled = True
        self.session.cancel_request(call.request, now=self._clock.now)
        self._pump_all()

    def subscribe(self, channel: str, *, since: Since = None) -> Listener:
        """Listen to a channel.

        Raises:
            DispatchError: the session refuses it.
        """
        listener = Listener(channel, since)
        listener.subscription = self.session.subscribe(
            channel, tag=listener, now=self._clock.now, since=since
        )
        self.listeners.append(listener)
        self.line.pump()
        return listener

    def unsubscribe(self, listener: Listener) -> None:
        """Stop listening."""
        self.session.unsubscribe(listener.subscription, now=self._clock.now)
        self.line.pump()

    def read(self, listener: Listener) -> None:
        """Consume all that has come for it."""
        count, listener.unread = listener.unread, 0
        if count:
            self.session.consumed(listener.subscription, count, now=self._clock.now)
            self.line.pump()

    def close(self, *, drain: float = 0.0) -> None:
        """End it."""
        self.session.close(now=self._clock.now, drain=drain)
        self._pump_all()

    # What a test asks.

    @property
    def ready(self) -> bool:
        """Whether it is connected, with its subscriptions restored."""
        return self.session.state == states.READY

    @property
    def closed(self) -> bool:
        """Whether it has ended, for good."""
        return any(isinstance(event, Closed) for event in self.states)

    @property
    def last_error(self) -> DispatchError | None:
        """Why it was last disconnected or closed."""
        for event in reversed(self.states):
            if isinstance(event, Disconnected | Closed):
                return event.cause
        return None

    @property
    def handed(self) -> set[str]:
        """Ids of the requests that were handed to a transport of this client."""
        return self.line.handed.union(*(line.handed for line in self._delegates))

    # Inside.

    def _pump_all(self) -> None:
        """What is said to a session may concern its delegates too (`dwp_core.effects.Delegate`)."""
        self.line.pump()
        for line in self._delegates:
            line.pump()

    def _until(self, timeout: float | None) -> float | None:
        return None if timeout is None else self._clock.now + timeout

    def _asked(self, call: Call) -> Call:
        self.calls.append(call)
        self.line.pump()
        return call

    def _line(self, session: ClientSession, name: str) -> Line:
        return Line(
            name,
            session,
            self._network,
            clock=self._clock,
            rng=self._rng,
            history=self._history,
            token=lambda: self.token,
            deliver=self._deliver if name == self.name else self._deliver_of_delegate,
            delegated=self._delegated,
            lateness=self._lateness,
        )

    def _delegated(self, session: ClientSession) -> None:
        line = self._line(session, f"{self.name}/{len(self._delegates) + 1}")
        self._delegates.append(line)
        line.pump()

    def _deliver(self, events: list[ClientEvent]) -> None:
        if self.closed:
            raise InvariantBroken(f"{self.name}: {events!r} after it was closed")
        peer = self.session.peer
        if peer is not None:
            self._log = peer.log
            self._granted = max(self._granted, peer.credits if peer.log else 0)
        for event in events:
            if isinstance(event, RequestSucceeded | RequestFailed | RequestOutcomeUnknown):
                self._settle(event)
            elif isinstance(
                event, SubscriptionItem | SubscriptionGap | SubscriptionStarted | SubscriptionEnded
            ):
                self._tell(event)
            else:
                self._note(event)
        self._check_bounds()
        fresh, self._fresh = self._fresh, {}
        for listener in fresh:
            if listener.reading:
                count, listener.unread = listener.unread, 0
                self.session.consumed(listener.subscription, count, now=self._clock.now)

    def _deliver_of_delegate(self, events: list[ClientEvent]) -> None:
        """A delegate's calls are this client's; when it comes and goes is its own business."""
        for event in events:
            if isinstance(event, RequestSucceeded | RequestFailed | RequestOutcomeUnknown):
                self._settle(event)

    def _settle(self, event: RequestSucceeded | RequestFailed | RequestOutcomeUnknown) -> None:
        call = event.tag
        assert isinstance(call, Call)
        if call.outcomes or call.cancelled:
            raise InvariantBroken(f"{self.name}: {call} gets {event!r} after it was settled or cancelled")
        call.told(event, self._clock.now)
        error = call.error
        how = "succeeded" if error is None else f"failed: {type(error).__name__}: {error}"
        self._history.note(self._clock.now, self.name, f"{call.method or 'ping'} {how}")

    def _tell(
        self, event: SubscriptionItem | SubscriptionGap | SubscriptionStarted | SubscriptionEnded
    ) -> None:
        listener = event.tag
        assert isinstance(listener, Listener)
        if listener.ended:
            raise InvariantBroken(f"{self.name}: {listener.channel} gets {event!r} after its end")
        if isinstance(event, SubscriptionItem):
            self._keep(listener, event.event)
            listener.unread += 1
            self._fresh[listener] = None
        elif isinstance(event, SubscriptionGap):
            self._note(event)
            self._keep(listener, event.gap)
        elif isinstance(event, SubscriptionStarted):
            listener.started, listener.started_in = True, self._log
            listener.started_at = listener.subscription.position
        else:
            listener.ended, listener.error = True, event.error
            self._note(event)

    def _keep(self, listener: Listener, entry: EventHead | Gap) -> None:
        listener.entries.append((self._log, entry))

    def _note(self, event: ClientEvent) -> None:
        if isinstance(event, SubscriptionGap | SubscriptionEnded):
            listener = event.tag
            assert isinstance(listener, Listener)
            what = event.gap if isinstance(event, SubscriptionGap) else event.error
            text = f"{listener.channel}: {type(event).__name__} {what!r}"
        else:
            self.states.append(event)
            text = "Connected" if isinstance(event, Connected) else repr(event)
        self._history.note(self._clock.now, self.name, text)

    def _check_bounds(self) -> None:
        config = self.session.config
        # Half a window may be unread when a connection is lost; the next server may send what it grants itself.
        bound = max(config.event_window * 3 // 2 + self._granted + 1, config.event_buffer)
        for listener in self.listeners:
            if listener.unread > bound:
                raise InvariantBroken(
                    f"{self.name}: {listener.channel} holds {listener.unread} unread events, over its bound {bound}"
                )
