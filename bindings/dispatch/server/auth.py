"""Keys: a token that a client gives becomes the identity that the core judges by (PROTOCOL.md sections 3 and 4).

Only digests of the keys are kept, and every key is compared with every token in constant time. A server without keys is
open, but to its own machine only.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from ipaddress import ip_address
from urllib.parse import urlsplit

from dwp_core.errors import InvalidRequest
from dwp_core.methods import METHODS
from dwp_core.server_events import Identity

EVERYTHING = frozenset(("*",))
"""The scopes of a key that says nothing about scopes, and of everybody at an open server."""

_KNOWN_SCOPES = frozenset(method.scope for method in METHODS.values()) | EVERYTHING


@dataclass(frozen=True, slots=True)
class Key:
    """A key that is accepted.

    Attributes:
        token: what the client gives.
        scopes: what it may do; everything, if nothing is said.
        app_id: the tenant; "" for none.
        org_id: the tenant; "" for none.
        name: for people and logs; the key itself is never shown.
    """

    token: str = field(repr=False)
    scopes: frozenset[str] = EVERYTHING
    app_id: str = ""
    org_id: str = ""
    name: str = ""


class Keys:
    """Every key of a server.

    Raises:
        InvalidRequest: (400) a key is empty or there twice, or a scope is unknown.

    Example:
        >>> keys = Keys([Key("dk_secret", name="ops")])
        >>> keys.identify("dk_secret").subject, keys.identify("guess")
        ('ops', None)
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        self._identities: list[tuple[bytes, Identity]] = []
        for position, key in enumerate(keys, start=1):
            name = key.name or f"key {position}"
            if not key.token:
                raise InvalidRequest(f"{name} is empty; give a text that cannot be guessed")
            unknown = key.scopes - _KNOWN_SCOPES
            if unknown:
                known = ", ".join(sorted(_KNOWN_SCOPES))
                raise InvalidRequest(f"{name} has {_shown(min(unknown))}; scopes are {known}")
            if self.identify(key.token) is not None:
                raise InvalidRequest(f"{name} is there twice")
            self._identities.append((_digest(key.token), Identity(name, key.app_id, key.org_id, key.scopes)))

    def __len__(self) -> int:
        return len(self._identities)

    def identify(self, token: str) -> Identity | None:
        """Who has this token; None for nobody. Takes as long for a good token as for a bad one."""
        digest = _digest(token)
        found = None
        for known, identity in self._identities:
            if hmac.compare_digest(known, digest):
                found = identity
        return found


def parse_key(text: str) -> Key:
    """The key of a command line or an environment variable: `KEY`, or `KEY:scope,scope`.

    Example:
        >>> sorted(parse_key("dk_reader:job:read,subscribe").scopes)
        ['job:read', 'subscribe']

    Raises:
        InvalidRequest: (400) a colon with no scope behind it: what was meant to be narrow must not be everything.
    """
    token, colon, scopes = text.partition(":")
    chosen = frozenset(scope.strip() for scope in scopes.split(",") if scope.strip())
    if colon and token and not chosen:
        raise InvalidRequest(
            "a key has a colon and no scope after it; give scopes, as in KEY:job:read,subscribe, or leave the colon"
            " away for a key that may do everything"
        )
    return Key(token, chosen or EVERYTHING)


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own; a Unix socket, which has none, is.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("10.0.0.1")
        (True, True, True, False)
    """
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host in ("", "localhost")


def is_loopback_origin(origin: str) -> bool:
    """Whether the `Origin` that a browser tells of is a page which this machine served itself.

    Example:
        >>> is_loopback_origin("http://localhost:3000"), is_loopback_origin("https://evil.example")
        (True, False)
    """
    try:
        host = urlsplit(origin).hostname
    except ValueError:
        return False
    return bool(host) and is_loopback(host or "")


FOREIGN_ORIGIN = "without keys, only pages of this machine may connect; give the server keys with --token"
"""Why a browser's page is refused."""

OPEN_DOOR = Identity("anybody on this machine", scopes=EVERYTHING)
"""Who logs in at a server without keys."""


def _shown(unknown: str) -> str:
    """A misspelt scope is shown; anything else may be the second half of a key that has a colon in it."""
    if get_close_matches(unknown, _KNOWN_SCOPES, n=1):
        return f"the unknown scope {unknown!r}"
    return "after its first colon something that is no scope (a key itself has no colon)"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
