"""A connection that can be late, stuck, half dead or cut between any two bytes, and that says when it is full.

A `Link` joins two ends by two pipes, one for each direction. What is written travels as bytes in the order of writing;
each pipe has its own weather and its own troubles. An end behaves like a WebSocket transport: messages go in and come
out whole, it closes by a handshake (RFC 6455 section 7.1), and what is left of a connection that was cut is code 1006.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from dwp_core.testing.clock import Appointment, VirtualClock
from dwp_core.testing.framing import BINARY, CLOSE, TEXT, Unpacker, pack, pack_close, read_close
from dwp_core.testing.weather import FAIR, Rng, Weather

ABNORMAL = 1006
"""RFC 6455 section 7.4.1: the connection ended without a closing handshake."""


class Handler(Protocol):
    """Whoever sits at an end of a link: it is told what happens on its transport."""

    def message(self, data: bytes, /) -> None:
        """A message has come."""
        ...

    def closed(self, code: int, reason: str, /) -> None:
        """The connection is over; nothing follows."""
        ...

    def write_blocked(self) -> None:
        """More was written than the transport takes at the moment."""
        ...

    def write_progress(self) -> None:
        """Still blocked, but some of it has left."""
        ...

    def write_resumed(self) -> None:
        """The transport takes more again."""
        ...


class Pipe:
    """One direction of a link: bytes in, the same bytes out, later and in other pieces.

    Args:
        receive: takes the bytes at the other end.
        ended: told after the last byte, when the writer has ended the connection.
        spill: told when as many bytes have arrived as `cut_after` allows.
    """

    __slots__ = (
        "_arrivals",
        "_blocked",
        "_clock",
        "_departure",
        "_ended",
        "_last_arrival",
        "_paused",
        "_receive",
        "_rng",
        "_spill",
        "_stalled_until",
        "_travelling",
        "_unread",
        "cut_after",
        "dead",
        "delivered",
        "unsent",
        "weather",
        "writer",
    )

    def __init__(
        self,
        clock: VirtualClock,
        rng: Rng,
        weather: Weather,
        *,
        receive: Callable[[bytes], None],
        ended: Callable[[], None],
        spill: Callable[[], None],
    ) -> None:
        self.weather = weather
        self.writer: Handler | None = None
        """Who is told of back-pressure."""
        self.unsent = bytearray()
        self.dead = False
        """Nothing arrives any more and nobody is told: the other side of a half-open connection."""
        self.delivered = 0
        """Bytes that have arrived so far."""
        self.cut_after: int | None = None
        """The connection breaks when so many bytes have arrived in all; None for never."""
        self._clock = clock
        self._rng = rng
        self._receive = receive
        self._ended = ended
        self._spill = spill
        self._departure: Appointment | None = None
        self._arrivals: set[Appointment] = set()
        self._last_arrival = 0.0
        self._travelling = 0
        self._unread = bytearray()
        self._paused = False
        self._blocked = False
        self._stalled_until = 0.0

    def write(self, data: bytes) -> None:
        """Send bytes. What is written at one moment travels together, unless the weather cuts it up."""
        self.unsent += data
        if len(self.unsent) > self.weather.buffer and not self._blocked:
            self._blocked = True
            if self.writer is not None:
                self.writer.write_blocked()
        self._leave_at(self._clock.now)

    def end(self) -> None:
        """The writer ends the connection: what has left arrives, what has not is lost."""
        self.unsent.clear()
        when = max(self._last_arrival, self._clock.now + self._latency())
        self._last_arrival = when
        self._clock.call_at(when, self._arrive_end)

    def stall(self, seconds: float) -> None:
        """Nothing leaves for so long."""
        self._stalled_until = max(self._stalled_until, self._clock.now + seconds)

    def pause(self) -> None:
        """The receiver does not read."""
        self._paused = True

    def resume(self) -> None:
        """The receiver reads again."""
        self._paused = False
        if self._unread:
            unread, self._unread = bytes(self._unread), bytearray()
            self._receive(unread)
        self._leave_at(self._clock.now)

    def drop(self) -> None:
        """Nothing of what is under way arrives."""
        self.unsent.clear()
        self._unread.clear()
        for arrival in self._arrivals:
            arrival.cancel()
        self._arrivals.clear()

    # Inside.

    def _leave_at(self, when: float) -> None:
        if self._departure is None and self.unsent:
            self._departure = self._clock.call_at(max(when, self._stalled_until), self._leave)

    def _leave(self) -> None:
        self._departure = None
        if self._clock.now < self._stalled_until:
            self._leave_at(self._stalled_until)
            return
        before = len(self.unsent)
        while self.unsent and not self.dead and self._travelling + len(self._unread) < self.weather.window:
            self._send_piece()
        if self._blocked and len(self.unsent) < before:
            self._tell_progress()

    def _send_piece(self) -> None:
        weather = self.weather
        most = min(len(self.unsent), weather.window - self._travelling - len(self._unread))
        if weather.chunk:
            most = min(most, self._rng.randrange(1, weather.chunk + 1))
        piece = bytes(self.unsent[:most])
        del self.unsent[:most]
        self._travelling += most
        when = max(self._last_arrival, self._clock.now + self._latency())
        self._last_arrival = when
        arrival = self._clock.call_at(when, lambda: self._arrive(piece, arrival))
        self._arrivals.add(arrival)

    def _tell_progress(self) -> None:
        writer = self.writer
        if len(self.unsent) * 2 <= self.weather.buffer:
            self._blocked = False
            if writer is not None:
                writer.write_resumed()
        elif writer is not None:
            writer.write_progress()

    def _arrive(self, piece: bytes, arrival: Appointment) -> None:
        self._arrivals.discard(arrival)
        self._travelling -= len(piece)
        if self.dead:
            return
        broken = self.cut_after is not None and self.delivered + len(piece) >= self.cut_after
        if self.cut_after is not None and broken:
            piece = piece[: self.cut_after - self.delivered]
        self.delivered += len(piece)
        if self._paused:
            self._unread += piece
        else:
            self._receive(piece)
        if broken:
            self._spill()
        self._leave_at(self._clock.now)

    def _arrive_end(self) -> None:
        if not self.dead:
            self._ended()

    def _latency(self) -> float:
        jitter = self.weather.jitter
        return self.weather.latency + (self._rng.random() * jitter if jitter else 0.0)


class End:
    """One end of a link: a transport for whole messages.

    Attributes:
        over: nothing more comes, and what is sent goes nowhere.
    """

    __slots__ = ("_close_sent", "_handler", "_incoming", "_outgoing", "_paused", "_unpacker", "over")

    def __init__(self) -> None:
        self.over = False
        self._handler: Handler | None = None
        self._unpacker = Unpacker()
        self._paused = False
        self._close_sent: tuple[int, str] | None = None
        self._outgoing: Pipe
        self._incoming: Pipe

    def attach(self, handler: Handler) -> None:
        """Have this handler told of what happens here; what came before it was there comes now."""
        self._handler = handler
        self._outgoing.writer = handler
        self._take_out()

    def send(self, data: bytes, *, binary: bool = False) -> None:
        """Send one message; after a close it goes nowhere."""
        if not self.over and self._close_sent is None:
            self._outgoing.write(pack(BINARY if binary else TEXT, data))

    def close(self, code: int, reason: str = "") -> None:
        """Start the closing handshake, after what was sent."""
        if not self.over and self._close_sent is None:
            self._close_sent = (code, reason)
            self._outgoing.write(pack_close(code, reason))

    def abort(self) -> None:
        """Drop the connection. This side is told nothing more, the other learns of it."""
        if not self.over:
            self._finish()
            self._outgoing.end()

    def pause_reading(self) -> None:
        """Take nothing more from the network, as a busy program does; the writer feels it in time."""
        self._paused = True
        self._incoming.pause()

    def resume_reading(self) -> None:
        """Read again."""
        self._paused = False
        self._take_out()
        if not self._paused:
            self._incoming.resume()

    # Inside: the link calls these.

    def join(self, outgoing: Pipe, incoming: Pipe) -> None:
        """Make it the end of these pipes."""
        self._outgoing, self._incoming = outgoing, incoming

    def receive(self, data: bytes) -> None:
        """Bytes have arrived."""
        self._unpacker.feed(data)
        self._take_out()

    def lost(self) -> None:
        """The connection has ended under it."""
        if not self.over:
            code, reason = self._close_sent or (ABNORMAL, "the connection was lost")
            self._finish()
            if self._handler is not None:
                self._handler.closed(code, reason)

    def _take_out(self) -> None:
        while self._handler is not None and not self.over and not self._paused:
            unit = self._unpacker.next()
            if unit is None:
                return
            kind, content = unit
            if kind != CLOSE:
                self._handler.message(content)
                continue
            code, reason = read_close(content)
            if self._close_sent is None:
                self.close(code, reason)  # RFC 6455 section 5.5.1: a close is answered by a close
            self._finish()
            self._handler.closed(code, reason)

    def _finish(self) -> None:
        """What still comes is read by nobody."""
        self.over = True
        self._outgoing.writer = None
        self._incoming.dead = True
        self._incoming.drop()


class Link:
    """A simulated connection between a client and a server.

    Args:
        clock: the time it lives in.
        rng: decides how long and in which pieces bytes travel.
        to_server: the weather from the client to the server.
        to_client: the weather from the server to the client.

    Example:
        >>> from random import Random
        >>> clock = VirtualClock()
        >>> link = Link(clock, Random(1), to_server=Weather(latency=0.5, chunk=3))
        >>> class Printer:
        ...     def message(self, data): print(clock.now, data)
        ...     def closed(self, code, reason): print(clock.now, "closed", code)
        >>> link.server.attach(Printer())
        >>> link.client.send(b"hello")
        >>> link.client.close(1000)
        >>> clock.run_for(1.0)
        0.5 b'hello'
        0.5 closed 1000
    """

    __slots__ = ("client", "server", "to_client", "to_server")

    def __init__(
        self, clock: VirtualClock, rng: Rng, *, to_server: Weather = FAIR, to_client: Weather = FAIR
    ) -> None:
        self.client = client = End()
        """The client's end."""
        self.server = server = End()
        """The server's end."""
        self.to_server = Pipe(
            clock, rng, to_server, receive=server.receive, ended=server.lost, spill=self.cut
        )
        self.to_client = Pipe(
            clock, rng, to_client, receive=client.receive, ended=client.lost, spill=self.cut
        )
        client.join(self.to_server, self.to_client)
        server.join(self.to_client, self.to_server)

    @property
    def over(self) -> bool:
        """Whether both ends know that it is over."""
        return self.client.over and self.server.over

    def cut(self) -> None:
        """Break it now: what is under way is lost, and both ends learn of it at once."""
        self.to_server.drop()
        self.to_client.drop()
        self.client.lost()
        self.server.lost()

    def vanish(self, *, to_server: bool = True, to_client: bool = True) -> None:
        """Let one direction or both go dead without anybody being told: a half-open connection."""
        self.to_server.dead = self.to_server.dead or to_server
        self.to_client.dead = self.to_client.dead or to_client

    def stall(self, seconds: float) -> None:
        """Let nothing leave for so long, in either direction."""
        self.to_server.stall(seconds)
        self.to_client.stall(seconds)

    def change(self, **settings: float) -> None:
        """Change the weather of both directions, e.g. `latency=2.0`."""
        for pipe in (self.to_server, self.to_client):
            pipe.weather = replace(pipe.weather, **settings)  # type: ignore[arg-type]
