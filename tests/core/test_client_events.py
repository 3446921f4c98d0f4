from __future__ import annotations

from typing import Any

import pytest

from dwp_core.client_events import ClientConfig


@pytest.mark.parametrize(
    "name", ["connect_timeout", "heartbeat", "stall_timeout", "close_timeout", "ask_timeout", "poll_interval"]
)
def test_a_time_that_never_passes_is_refused(name: str) -> None:
    wrong: dict[str, Any] = {name: 0.0}
    with pytest.raises(ValueError, match=f"{name} must be more than 0 seconds, got 0.0"):
        ClientConfig(**wrong)


@pytest.mark.parametrize("name", ["max_requests", "event_window", "event_buffer"])
def test_a_bound_that_lets_nothing_through_is_refused(name: str) -> None:
    wrong: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        ClientConfig(**wrong)
