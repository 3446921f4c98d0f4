"""What the two kinds of HTTP request have in common on the server's side (PROTOCOL.md section 8).

One request is one session: who asks is in the request itself, and a refusal is an error frame with its code as the HTTP
status. The sessions are `dwp_core.http_rpc` and `dwp_core.http_events`.
"""

from __future__ import annotations

from dwp_core import server_states as states
from dwp_core.errors import INTERNAL, UNAVAILABLE, DispatchError
from dwp_core.served_peer import ServedPeer

_BEARER = "bearer "

STATUS_OK = 200


class HttpSession(ServedPeer):
    """One HTTP request, from its head to the end of its answer. Arguments and use: `ServedPeer`.

    Attributes:
        status: of the answer; 0 until it is known. What `take_messages` gives from then on belongs to its body.
    """

    __slots__ = ("_status",)

    _status: int

    @property
    def status(self) -> int:
        """The HTTP status of the answer; 0 until it is known."""
        return self._status

    def refuse(self, error: DispatchError, *, now: float) -> None:
        """The driver itself says no, before anything else was said."""
        self._now = now
        if not self._status:
            self._send_error("", error)

    def drain(self, *, deadline: float, retry_after: float, now: float) -> None:
        """The server is going away: what is not taken up yet is refused, the rest goes on until `deadline`."""
        if self.state is states.WAITING or self.state is states.JUDGING:
            self._now = now
            self._refuse_login(UNAVAILABLE, "the server is going away; the request was not carried out")
        else:
            super().drain(deadline=deadline, retry_after=retry_after, now=now)

    # Inside.

    def _refuse_login(self, code: int, message: str, details: str = "") -> None:
        self._send_error("", DispatchError(message, code=code, details=details))

    def _send_error(self, correl_id: str, error: DispatchError) -> None:
        """The answer is an error frame, and nothing follows it."""
        super()._send_error(correl_id, error)
        self._answered(http_status(error.code))

    def _answered(self, status: int) -> None:
        self._status = status
        self._end(states.CLOSE, "it was answered")
        self._until = None


def bearer_token(authorization: str) -> str:
    """The token in an `Authorization` header, with or without `Bearer` before it.

    Example:
        >>> bearer_token("Bearer dk_1"), bearer_token("dk_1"), bearer_token("")
        ('dk_1', 'dk_1', '')
    """
    value = authorization.strip()
    return value[len(_BEARER) :].lstrip() if value[: len(_BEARER)].lower() == _BEARER else value


def http_status(code: int) -> int:
    """The HTTP status for the code of an error frame: the same, where HTTP has it as an error.

    Example:
        >>> http_status(409), http_status(7)
        (409, 500)
    """
    return code if 400 <= code <= 599 else INTERNAL
