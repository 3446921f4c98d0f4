"""What a client has asked a `MockTransport`: to look at, and to answer by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Request:
    """One request as the server got it.

    Attributes:
        method: e.g. "job.enqueue".
        data: its data, decoded; {} where there was none. Without the idempotency key, which the client makes up.
        key: the idempotency key; "" for none.
        session_id: the server's name for the connection that it came over, e.g. "mock_1".
        answered: whether it was, with an answer or an error. Subscriptions are confirmed at once.
    """

    __slots__ = ("_answer", "answered", "data", "key", "method", "session_id")

    def __init__(
        self,
        method: str,
        data: dict[str, Any],
        *,
        session_id: str,
        answer: Callable[[Request, tuple[Any, ...]], None],
    ) -> None:
        self.method = method
        self.key = str(data.pop("idempotency_key", ""))
        self.data = data
        self.session_id = session_id
        self.answered = False
        self._answer = answer

    def answer(self, *answer: Any) -> None:
        """Answer it now, whatever else is held back (`MockTransport.hold`).

        Args:
            answer: one answer, as for `MockTransport.answer`; nothing for what was scripted.

        Raises:
            InvalidRequest: it is answered already, or that can be no answer.

        Example:
            >>> def newest_first(transport):
            ...     first, second = transport.held
            ...     second.answer({"state": "running"})
            ...     first.answer()
        """
        self._answer(self, answer)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.data!r:.200}{'' if self.answered else ', not answered'}>"
