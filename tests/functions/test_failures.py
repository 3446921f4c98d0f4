"""What an exception means for the job that raised it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dispatch.functions.failures import MAX_MESSAGE, MAX_TRACEBACK, failure_of, is_permanent
from dispatch.functions.payload import BindingError
from dwp_core import errors


@pytest.mark.parametrize(
    "error",
    [
        TypeError("x"),
        NameError("x"),
        UnboundLocalError("x"),
        AttributeError("x"),
        AssertionError("x"),
        NotImplementedError("x"),
        SyntaxError("x"),
        PermissionError("x"),
        BindingError("x"),
        errors.InvalidRequest("x"),
        errors.NotFoundError("x"),
        errors.AuthError("x"),
        errors.PayloadError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_programming_errors_and_wrong_requests_are_not_retried(error: BaseException) -> None:
    assert is_permanent(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        KeyError("x"),
        OSError("x"),
        ConnectionResetError("x"),
        TimeoutError("x"),
        RuntimeError("x"),
        ZeroDivisionError("x"),
        FileNotFoundError("x"),
        MemoryError("x"),
        SystemExit(1),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
        errors.TimeoutError("x"),
        errors.ConnectionError("x"),
        errors.ConflictError("x"),
        errors.LimitError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_other_exception_is_retried(error: BaseException) -> None:
    assert not is_permanent(error)


def _raise(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as raised:
        return raised


def test_a_failure_tells_type_message_and_place() -> None:
    failure = failure_of(_raise(ValueError("no such address")))

    assert failure.text == "ValueError: no such address"
    assert "in _raise" in failure.traceback
    assert failure.traceback.endswith("ValueError: no such address\n")


def test_a_failure_without_a_message_is_its_type() -> None:
    assert failure_of(ValueError()).text == "ValueError"


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit("from __str__")

    __repr__ = __str__


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__(lambda: None)

    def __reduce__(self) -> str:
        raise TypeError("cannot be pickled")


@pytest.mark.parametrize(
    "error", [Unprintable(), Unpicklable(), ValueError("\ud800"), ValueError("x" * 10**6)]
)
def test_whatever_the_exception_does_there_is_a_failure_of_bounded_size(error: BaseException) -> None:
    failure = failure_of(_raise(error))

    assert failure.type == type(error).__name__
    assert len(failure.message) < MAX_MESSAGE + 100
    assert len(failure.traceback) < MAX_TRACEBACK + 200
    failure.text.encode()
    failure.traceback.encode()


class _NamelessKind(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise SystemExit("from __name__")


class _Nameless(Exception, metaclass=_NamelessKind):
    pass


class _Classless(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise SystemExit("from __class__")


class _CodeOfNoKind(errors.DispatchError):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code: Any = []


class _Text(str):
    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        raise SystemExit("from encode")


class _OddText(Exception):
    def __str__(self) -> str:
        return _Text("odd")


# Made inside the test: pytest looks at its parameters, and would be the first victim.
_HOSTILE = {"name": _Nameless, "class": _Classless, "code": _CodeOfNoKind, "text": _OddText}


@pytest.mark.parametrize("kind", _HOSTILE)
def test_an_exception_that_turns_on_whoever_looks_at_it_is_still_a_failure(kind: str) -> None:
    failure = failure_of(_HOSTILE[kind]("odd"))

    assert type(failure.type) is str
    assert failure.message == "odd"
    assert not failure.permanent


def test_an_endless_recursion_has_a_bounded_traceback() -> None:
    def forever(n: int) -> int:
        return forever(n + 1) + 1

    with pytest.raises(RecursionError) as e:
        forever(0)
    assert len(failure_of(e.value).traceback) < MAX_TRACEBACK + 200


def test_a_chain_of_large_causes_has_a_bounded_traceback() -> None:
    error: BaseException = ValueError("first")
    for number in range(50):
        try:
            raise ValueError("x" * 1000, number) from error
        except ValueError as raised:
            error = raised

    traceback = failure_of(error).traceback
    assert len(traceback) < MAX_TRACEBACK + 200
    assert "characters left out" in traceback


def test_a_payload_that_does_not_fit_needs_no_traceback() -> None:
    assert failure_of(_raise(BindingError("send-email() cannot take this payload"))).traceback == ""
