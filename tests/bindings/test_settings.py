"""The arguments of a client: what cannot be used is refused when it is made, by name."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from dispatch import Dispatch
from dispatch.errors import InvalidRequest
from dispatch.settings import check_seconds
from dwp_core.frames import DEFAULT_LIMITS

URL = "ws://127.0.0.1:8080/dwp"


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [
        *[("format", wrong) for wrong in ("JSON", "", None, 5, ["json"])],
        *[("codec", wrong) for wrong in ("slow", 5, ["fast"])],
        *[("max_retries", wrong) for wrong in (-1, 1.5, True, None, "3")],
        *[("event_buffer", wrong) for wrong in (0, -1, 1.5, None)],
        *[("timeout", wrong) for wrong in (0, -1, "5", True, float("nan"), float("inf"), 10**400)],
        *[("wait_for_server", wrong) for wrong in (-1, None, "5")],
        *[("connect_timeout", wrong) for wrong in (0, None, "5")],
        *[("token", wrong) for wrong in (None, 5, b"dk_1")],
        *[("ssl", wrong) for wrong in (True, ssl.create_default_context())],
        *[("headers", wrong) for wrong in ("X: y", {"X": "\n"})],
        *[("url", wrong) for wrong in (None, "http://127.0.0.1")],
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_argument_that_cannot_be_used_is_named(argument: str, wrong: Any) -> None:
    arguments = {"url": URL, argument: wrong}
    with pytest.raises(InvalidRequest, match=argument) as caught:
        Dispatch(**arguments)
    assert len(str(caught.value)) < 300


def test_what_can_be_used_is_taken() -> None:
    client = Dispatch(
        "wss://example.com/dwp?key=dk_secret",
        lambda: "dk_secret",
        format="msgpack",
        max_retries=0,
        timeout=None,
        ssl=ssl.create_default_context(),
        headers={"X": "y"},
        codec="portable",
    )
    assert client.state == "idle"
    assert repr(client) == "<Dispatch wss://example.com/dwp idle>"
    config = client._driver.config
    assert (config.format, config.form, config.max_retries) == ("msgpack", "portable", 0)
    assert config.where == "wss://example.com/dwp"
    assert "dk_secret" not in f"{client._driver.dialer!r} {config!r}"


def test_an_answer_may_hold_the_largest_payload_in_base64() -> None:
    limits = Dispatch(URL)._driver.config.limits
    assert limits.payload > DEFAULT_LIMITS.payload * 4 / 3
    assert limits.payload < limits.message == DEFAULT_LIMITS.message


def test_times_are_numbers_of_seconds() -> None:
    for right in (0.001, 1, 1e9, None):
        check_seconds("timeout", right)
    with pytest.raises(InvalidRequest, match=r"timeout must be a number of seconds from 0\.001, or None"):
        check_seconds("timeout", 0)
    with pytest.raises(InvalidRequest, match="drain must be a number of seconds from 0, got None"):
        check_seconds("drain", None, least=0.0, or_none=False)
