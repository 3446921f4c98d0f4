"""Errors: each has its code, can be caught as what it is, and survives being sent to another process."""

from __future__ import annotations

import builtins
import pickle

import pytest

from dwp_core import errors
from dwp_core.errors import DispatchError, FrameError, error_for


@pytest.mark.parametrize(
    ("code", "kind", "builtin"),
    [
        (400, errors.InvalidRequest, ValueError),
        (401, errors.AuthError, None),
        (403, errors.AuthError, None),
        (404, errors.NotFoundError, LookupError),
        (405, errors.UnsupportedError, None),
        (408, errors.TimeoutError, builtins.TimeoutError),
        (409, errors.ConflictError, None),
        (413, errors.LimitError, None),
        (429, errors.LimitError, None),
        (500, DispatchError, None),
        (503, errors.ConnectionError, builtins.ConnectionError),
        (599, DispatchError, None),
    ],
)
def test_an_error_of_the_peer_is_what_its_code_says(code: int, kind: type, builtin: type | None) -> None:
    error = error_for(code, "what was wrong", "and more")
    assert type(error) is kind
    assert (error.code, error.message, error.details, str(error)) == (
        code,
        "what was wrong",
        "and more",
        "what was wrong (and more)",
    )
    assert builtin is None or isinstance(error, builtin)


def test_an_error_without_a_message_says_so() -> None:
    assert str(error_for(404, "")) == "the server answered error 404 without a message"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (DispatchError, 500),
        (errors.AuthError, 401),
        (errors.InvalidRequest, 400),
        (errors.PayloadError, 400),
        (errors.NotFoundError, 404),
        (errors.UnsupportedError, 405),
        (errors.ConflictError, 409),
        (errors.LimitError, 429),
        (errors.ConnectionError, 503),
        (errors.OutcomeUnknown, 503),
        (errors.ClosedError, 503),
        (errors.TimeoutError, 408),
    ],
)
def test_every_error_has_a_code_of_its_own(kind: type[DispatchError], code: int) -> None:
    assert kind("x").code == code
    assert kind("x", code=418).code == 418


def test_an_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(errors.NotFoundError("gone", details="d")))
    assert type(error) is errors.NotFoundError
    assert (error.code, error.message, error.details) == (404, "gone", "d")


def test_a_frame_error_knows_the_id_to_echo() -> None:
    error = FrameError("invalid frame: not JSON")
    assert (error.frame_id, error.code) == ("", 400)
    assert FrameError("x", code=413, frame_id="c-1").frame_id == "c-1"
