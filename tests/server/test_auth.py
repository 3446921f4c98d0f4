"""Keys and who has them (`dispatch.server.auth`)."""

from __future__ import annotations

import pytest

from dispatch.server.auth import EVERYTHING, Key, Keys, is_loopback, parse_key
from dwp_core.errors import InvalidRequest
from dwp_core.server_events import Identity


def test_a_token_is_its_key_and_nothing_else_is() -> None:
    keys = Keys([Key("dk_a", frozenset(("job:read",)), "app", "org", "ops"), Key("dk_b")])
    assert len(keys) == 2
    assert keys.identify("dk_a") == Identity("ops", "app", "org", frozenset(("job:read",)))
    assert keys.identify("dk_b") == Identity("key 2", scopes=EVERYTHING)
    for guess in ("", "dk_", "dk_A", "dk_a ", "\ud800"):
        assert keys.identify(guess) is None


def test_no_key_is_kept_or_shown() -> None:
    keys = Keys([Key("dk_secret")])
    assert "dk_secret" not in repr(vars(keys))
    assert "dk_secret" not in repr(keys.identify("dk_secret"))
    assert "dk_secret" not in repr(Key("dk_secret"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([Key("")], "key 1 is empty; give a text that cannot be guessed"),
        ([Key("a"), Key("a")], "key 2 is there twice"),
        (
            [Key("a", frozenset(("job:raed",)), name="ops")],
            "ops has the unknown scope 'job:raed'; scopes are ",
        ),
        (
            [parse_key("dk_first:dk_second_half")],
            "key 1 has after its first colon something that is no scope (a key itself has no colon); scopes are ",
        ),
    ],
)
def test_a_key_that_cannot_be_meant_is_refused(keys: list[Key], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Keys(keys)
    assert str(caught.value).startswith(message)


def test_a_key_is_read_from_a_text() -> None:
    assert parse_key("dk_a") == Key("dk_a")
    assert parse_key("dk_a:job:read, subscribe,") == Key("dk_a", frozenset(("job:read", "subscribe")))


@pytest.mark.parametrize("text", ["dk_a:", "dk_a: ,"])
def test_a_key_whose_scopes_are_left_blank_is_not_a_key_to_everything(text: str) -> None:
    with pytest.raises(InvalidRequest, match="a colon and no scope") as caught:
        parse_key(text)
    assert "dk_a" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("", True),
        ("localhost", True),
        ("fe80::1%eth0", False),
        ("10.0.0.1", False),
        ("example.com", False),
    ],
)
def test_a_machine_knows_its_own_addresses(host: str, own: bool) -> None:
    assert is_loopback(host) is own
