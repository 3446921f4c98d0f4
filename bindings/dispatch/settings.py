"""The arguments of a client, judged once for every binding, as the configuration of its session."""

from __future__ import annotations

from typing import TypeGuard

from dispatch import __version__
from dispatch.wire import Address
from dwp_core.client_events import ClientConfig
from dwp_core.errors import InvalidRequest
from dwp_core.frames import ANSWER_LIMITS

EVENT_BUFFER = ClientConfig().event_buffer

_FORMATS = ("json", "msgpack")
_CODECS = (None, "fast", "portable")
_MOST_SECONDS = 1e9


def client_config(
    address: Address,
    *,
    format: str,
    codec: str | None,
    reconnect: bool,
    max_retries: int,
    timeout: float | None,
    wait_for_server: float,
    connect_timeout: float,
    event_buffer: int,
) -> ClientConfig:
    """The configuration that these arguments ask for.

    Raises:
        InvalidRequest: one of them cannot be used; the message names it and says what would be right.
    """
    if format not in _FORMATS:
        raise InvalidRequest(f'format must be "json" or "msgpack", got {format!r:.80}')
    if codec not in _CODECS:
        raise InvalidRequest(f'codec must be None, "fast" or "portable", got {codec!r:.80}')
    if not isinstance(reconnect, bool):
        raise InvalidRequest(f"reconnect must be True or False, got {reconnect!r:.80}")
    _check_count("max_retries", max_retries, least=0)
    _check_count("event_buffer", event_buffer, least=1)
    check_seconds("timeout", timeout)
    check_seconds("wait_for_server", wait_for_server, least=0.0, or_none=False)
    check_seconds("connect_timeout", connect_timeout, or_none=False)
    return ClientConfig(
        format=format,
        form=codec,
        reconnect=reconnect,
        max_retries=max_retries,
        wait_for_server=wait_for_server,
        connect_timeout=connect_timeout,
        event_buffer=event_buffer,
        limits=ANSWER_LIMITS,
        version=__version__,
        where=address.where,
    )


def check_seconds(name: str, value: object, *, least: float = 0.001, or_none: bool = True) -> None:
    """Refuse what can be no time.

    Raises:
        InvalidRequest: it is neither a number of seconds from `least` nor, where that is allowed, None.
    """
    if value is None and or_none:
        return
    if not _is_number(value) or not least <= value <= _MOST_SECONDS:
        forever = ", or None to wait for ever" if or_none else ""
        raise InvalidRequest(f"{name} must be a number of seconds from {least:g}{forever}, got {value!r:.80}")


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_count(name: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidRequest(f"{name} must be an integer from {least}, got {value!r:.80}")
