"""Frames: the types that everything else stands on."""

from __future__ import annotations

import dataclasses

import pytest

from dwp_core import frames
from dwp_core.frames import DEFAULT_LIMITS, FRAME_TYPES, ErrorDetail, Limits


def test_the_frame_types_are_those_of_the_protocol() -> None:
    assert {"request", "response", "event", "error", "ping", "pong"} == FRAME_TYPES
    assert frames.REQUEST in FRAME_TYPES


def test_the_default_limits_are_those_of_the_protocol() -> None:
    assert (
        Limits(message=16 * 2**20, payload=8 * 2**20, depth=128, id=256, method=128, channel=512)
        == DEFAULT_LIMITS
    )


@pytest.mark.parametrize("value", [DEFAULT_LIMITS, ErrorDetail(404, "not found")])
def test_they_are_data_that_does_not_change(value: Limits | ErrorDetail) -> None:
    name = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, 1)
    assert value == dataclasses.replace(value)
    assert not hasattr(value, "__dict__")


def test_an_error_detail_may_lack_everything() -> None:
    assert ErrorDetail() == ErrorDetail(code=0, message="", details="")
