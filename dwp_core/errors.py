"""Every error of Dispatch, in one place: what the peer answered, what the network did, what the caller asked wrongly.

`DispatchError` is the root, and `code` is always there: the `error.code` of PROTOCOL.md section 4 where a peer
answered, else the code that says the same (503 not connected, 408 too late, 400 asked wrongly). Nothing here decides
whether something is an error; the sessions do.
"""

from __future__ import annotations

import builtins

BAD_REQUEST = 400
UNAUTHENTICATED = 401
FORBIDDEN = 403
NOT_FOUND = 404
UNKNOWN_METHOD = 405
TIMED_OUT = 408
CONFLICT = 409
TOO_LARGE = 413
TOO_MANY = 429
INTERNAL = 500
UNAVAILABLE = 503


class DispatchError(Exception):
    """Something that was asked of Dispatch did not happen.

    Attributes:
        code: the error code of PROTOCOL.md section 4 (an HTTP-like number).
        message: one sentence: what was wrong, where, and what would be right.
        details: more, when the peer sent it; else "".

    Example:
        >>> error = DispatchError("unknown-job is not registered", code=404)
        >>> print(f"Error {error.code}: {error}")
        Error 404: unknown-job is not registered
    """

    default_code = INTERNAL

    def __init__(self, message: str, *, code: int | None = None, details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = self.default_code if code is None else code
        self.details = details

    def __str__(self) -> str:
        return f"{self.message} ({self.details})" if self.details else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.code, self.details))


class AuthError(DispatchError):
    """The server refused the credentials (401) or they lack a scope (403). Trying again does not help."""

    default_code = UNAUTHENTICATED


class InvalidRequest(DispatchError, ValueError):
    """The request is wrong as it stands (400): a missing or mistyped field, an unusable id, a bad channel or URL."""

    default_code = BAD_REQUEST


class PayloadError(InvalidRequest):
    """A payload is no JSON value that may travel (400), or larger than allowed (413); the message names the path."""


class FrameError(InvalidRequest):
    """A message from the peer is no frame. Raised by `Codec.decode` only; the sessions turn it into a 400.

    Attributes:
        frame_id: the `id` to echo, or "" when the message does not tell (PROTOCOL.md section 2).
    """

    def __init__(
        self, message: str, *, code: int | None = None, details: str = "", frame_id: str = ""
    ) -> None:
        super().__init__(message, code=code, details=details)
        self.frame_id = frame_id


class NotFoundError(DispatchError, LookupError):
    """No job, run, function or entry of that name or id (404)."""

    default_code = NOT_FOUND


class UnsupportedError(DispatchError):
    """The server does not know the method (405): an older server, or a misspelt name."""

    default_code = UNKNOWN_METHOD


class ConflictError(DispatchError):
    """The state forbids it (409): a finished job cannot be cancelled, a key was used with other data."""

    default_code = CONFLICT


class LimitError(DispatchError):
    """Too large (413) or too many (429)."""

    default_code = TOO_MANY


class ConnectionError(DispatchError, builtins.ConnectionError):
    """There is no connection, or it was lost: the server cannot be reached, closed it, or went silent (503)."""

    default_code = UNAVAILABLE


class OutcomeUnknown(ConnectionError):
    """The connection was lost after the request may have reached the server: it may have been carried out, or not.

    Never raised for reads and never for requests with an idempotency key that the server honours: those are resent.
    """


class ClosedError(ConnectionError):
    """The client was closed, before or while this was asked."""


class TimeoutError(DispatchError, builtins.TimeoutError):
    """No answer within the time that the caller gave (408). The request may still be carried out."""

    default_code = TIMED_OUT


def error_for(code: int, message: str, details: str = "") -> DispatchError:
    """The error object for an `error` frame (PROTOCOL.md section 4).

    Example:
        >>> type(error_for(404, "job not found")).__name__
        'NotFoundError'
    """
    kind = _BY_CODE.get(code, DispatchError)
    return kind(message or f"the server answered error {code} without a message", code=code, details=details)


_BY_CODE: dict[int, type[DispatchError]] = {
    BAD_REQUEST: InvalidRequest,
    UNAUTHENTICATED: AuthError,
    FORBIDDEN: AuthError,
    NOT_FOUND: NotFoundError,
    UNKNOWN_METHOD: UnsupportedError,
    TIMED_OUT: TimeoutError,
    CONFLICT: ConflictError,
    TOO_LARGE: LimitError,
    TOO_MANY: LimitError,
    UNAVAILABLE: ConnectionError,
}


def _rebuild(kind: type[DispatchError], message: str, code: int, details: str) -> DispatchError:
    return kind(message, code=code, details=details)
