"""Every error that Dispatch raises; see `dwp_core.errors`, where they are defined.

Example:
    >>> from dispatch.errors import AuthError, ConnectionError, DispatchError, TimeoutError
    >>> issubclass(AuthError, DispatchError)
    True
"""

from __future__ import annotations

from dwp_core.errors import (
    AuthError,
    ClosedError,
    ConflictError,
    ConnectionError,
    DispatchError,
    FrameError,
    InvalidRequest,
    LimitError,
    NotFoundError,
    OutcomeUnknown,
    PayloadError,
    TimeoutError,
    UnsupportedError,
)

__all__ = [
    "AuthError",
    "ClosedError",
    "ConflictError",
    "ConnectionError",
    "DispatchError",
    "FrameError",
    "InvalidRequest",
    "LimitError",
    "NotFoundError",
    "OutcomeUnknown",
    "PayloadError",
    "TimeoutError",
    "UnsupportedError",
]
