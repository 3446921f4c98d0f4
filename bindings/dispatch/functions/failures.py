"""What a raised exception means for a job: the words that are stored, and whether trying again can help.

One table for everything that runs. Not retried are what is wrong with the request (invalid argument, permission, not
found) and what is wrong with the program (TypeError, NameError, AttributeError, AssertionError and their like); every
other exception is.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from dispatch.functions.payload import BindingError
from dwp_core.errors import (
    BAD_REQUEST,
    FORBIDDEN,
    NOT_FOUND,
    TOO_LARGE,
    UNAUTHENTICATED,
    UNKNOWN_METHOD,
    DispatchError,
)

MAX_MESSAGE = 2_000
MAX_TRACEBACK = 8_000
MAX_FRAMES = 20

PROGRAMMING_ERRORS: tuple[type[BaseException], ...] = (
    TypeError,
    NameError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    SyntaxError,
    PermissionError,
)
PERMANENT_CODES = frozenset((BAD_REQUEST, UNAUTHENTICATED, FORBIDDEN, NOT_FOUND, UNKNOWN_METHOD, TOO_LARGE))

# Frames of ours between the engine and the user's function tell the user nothing.
_OUR_FOLDERS = tuple(str(Path(__file__).resolve().parent.parent / name) for name in ("functions", "server"))


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run ended without a result.

    Attributes:
        type: the exception's class, e.g. "ValueError".
        message: its text; bounded.
        traceback: the user's frames, innermost last; bounded; "" where there are none.
        permanent: trying again cannot help.
    """

    type: str
    message: str
    traceback: str = ""
    permanent: bool = False

    @property
    def text(self) -> str:
        """As it is stored with the job: `ValueError: no such address`."""
        return f"{self.type}: {self.message}" if self.message else self.type


def failure_of(error: BaseException, *, permanent: bool | None = None) -> Failure:
    """The failure an exception stands for. Never raises, whatever the exception does when it is looked at.

    Args:
        error: what was raised.
        permanent: what the caller knows better than the table.

    Example:
        >>> failure_of(TypeError("expected str")).permanent, failure_of(OSError("connection reset")).permanent
        (True, False)
    """
    return Failure(
        type=_type_of(error),
        message=_text_of(error),
        traceback=_traceback_of(error),
        permanent=is_permanent(error) if permanent is None else permanent,
    )


def is_permanent(error: BaseException) -> bool:
    """Whether trying again cannot help.

    Example:
        >>> is_permanent(ValueError("of the moment")), is_permanent(NameError("name 'x' is not defined"))
        (False, True)
    """
    try:
        if isinstance(error, DispatchError):
            return error.code in PERMANENT_CODES
        return isinstance(error, PROGRAMMING_ERRORS)
    except BaseException:  # noqa: BLE001 - the user's __class__, or a code that is no number
        return False


def _type_of(error: BaseException) -> str:
    try:
        return _plain(type(error).__name__)
    except BaseException:  # noqa: BLE001 - the user's metaclass
        return "Exception"


def _text_of(error: BaseException) -> str:
    try:
        text = _plain(str(error))
    except BaseException as second:  # noqa: BLE001 - the user's __str__; the job must still fail with something
        text = f"<its text could not be had: {_type_of(second)} in __str__>"
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}… ({len(text)} characters)"


def _plain(text: str) -> str:
    """The same text as valid Unicode, and as a `str` of Python's own: a subclass of the user's may do anything."""
    return str.encode(text, "utf-8", "replace").decode()


def _traceback_of(error: BaseException) -> str:
    if type(error) is BindingError:
        return ""
    try:
        formatted = traceback.TracebackException(
            type(error), error, _first_frame_of_the_user(error.__traceback__), limit=-MAX_FRAMES, compact=True
        )
        text = _plain("".join(formatted.format()))
    except BaseException:  # noqa: BLE001 - an exception that cannot be formatted; its type and message are kept
        return ""
    if len(text) <= MAX_TRACEBACK:
        return text
    half = MAX_TRACEBACK // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def _first_frame_of_the_user(trace: TracebackType | None) -> TracebackType | None:
    first = trace
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_OUR_FOLDERS):
        first = first.tb_next
    return first if first is not None else trace
