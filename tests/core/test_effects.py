from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from dwp_core.effects import AbortTransport, CloseTransport, Connect, SendMessage


def test_an_effect_cannot_be_changed_once_it_was_asked_for() -> None:
    for effect in (Connect(1, 1), CloseTransport(1, 1000), AbortTransport(1)):
        with pytest.raises(FrozenInstanceError):
            effect.generation = 2  # type: ignore[misc]


def test_a_message_says_its_opcode_and_whose_it_is() -> None:
    assert SendMessage(b"{}", binary=False).request_id == ""
    assert SendMessage(b"\x80", binary=True, request_id="c1") == SendMessage(b"\x80", True, "c1")
