"""What a session asks its driver to do. The driver does it and decides nothing (DESIGN.md, rules of the core).

Effects are pulled in batches with `take_effects()`, in order. Each belongs to one connection attempt (`generation`);
a driver that has moved on to another attempt drops it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dwp_core.client import ClientSession


@dataclass(slots=True)  # not frozen: made once per message, and freezing doubles the cost of making it
class SendMessage:
    """Write one WebSocket message.

    Attributes:
        data: the bytes of the frame.
        binary: the opcode: binary for MessagePack, text for JSON (PROTOCOL.md section 2).
        request_id: id of the request that it carries, "" for other frames.
    """

    data: bytes
    binary: bool
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a transport to the server, then say `transport_opened` or `transport_failed` with this generation.

    The driver asks for the token anew for each attempt and passes it to `transport_opened`.
    """

    generation: int
    attempt: int


@dataclass(frozen=True, slots=True)
class CloseTransport:
    """Start the closing handshake (RFC 6455 section 7.1.2); `transport_closed` follows."""

    generation: int
    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AbortTransport:
    """Drop the connection at once, without waiting for anything; `transport_closed` need not follow."""

    generation: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Delegate:
    """Drive this session too, over a connection of its own, until it says `Closed`.

    Its events go where those of its parent go: the tags are the caller's. Used towards base servers, where
    `workflow.start` occupies a connection until the run ends (PROTOCOL.md section 4).
    """

    session: ClientSession


Effect = SendMessage | Connect | CloseTransport | AbortTransport | Delegate
