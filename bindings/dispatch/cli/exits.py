"""The exit codes of the command line, and which error ends with which.

Scripts rely on these numbers: they only grow.
"""

from __future__ import annotations

from enum import IntEnum

from dispatch.errors import AuthError, ConnectionError, DispatchError, OutcomeUnknown, TimeoutError
from dwp_core.errors import FORBIDDEN


class Exit(IntEnum):
    """What the exit code says."""

    OK = 0  # done
    FAILED = 1  # the server answered: it did not happen (not found, conflict, the job failed, ...)
    USAGE = 2  # the command line is wrong, or something it needs is missing; nothing was asked of a server
    UNREACHABLE = 3  # no connection, or it was lost before anything could have happened
    DENIED = 4  # the key is wrong, or lacks the scope
    TIMED_OUT = 5  # no answer in time
    UNKNOWN = 6  # the connection was lost after the request may have arrived: look before you repeat it
    INTERRUPTED = 130  # Ctrl-C, as shells have it


class UsageError(Exception):
    """The command line asks for something that cannot be asked for; nothing was sent."""


class CommandFailed(Exception):
    """The command was right and did what it could, and it did not come about."""


_BY_ERROR: tuple[tuple[type[DispatchError], Exit], ...] = (
    # The first that matches counts: the narrower before the wider.
    (AuthError, Exit.DENIED),
    (OutcomeUnknown, Exit.UNKNOWN),
    (ConnectionError, Exit.UNREACHABLE),
    (TimeoutError, Exit.TIMED_OUT),
)

_HINTS = {
    Exit.UNREACHABLE: "is a server running there? start one with: dispatch serve app.py; say where with --url",
    Exit.UNKNOWN: "it may have been carried out; look before you repeat it",
}


def exit_for(error: DispatchError) -> Exit:
    """The exit code for an error of the client.

    Example:
        >>> exit_for(AuthError("authentication failed"))
        <Exit.DENIED: 4>
    """
    for kind, code in _BY_ERROR:
        if isinstance(error, kind):
            return code
    return Exit.FAILED


def hint_for(error: DispatchError) -> str:
    """What to try next; "" where the message says it all."""
    if isinstance(error, AuthError):
        if error.code == FORBIDDEN:
            return "give a key that may do this with --token or DISPATCH_TOKEN"
        return "give a key that the server knows with --token or DISPATCH_TOKEN"
    return _HINTS.get(exit_for(error), "")
