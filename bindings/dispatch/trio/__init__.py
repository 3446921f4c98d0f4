"""Dispatch for trio: `Dispatch`, the client, and `Subscription`, what it subscribes with."""

from __future__ import annotations

try:
    import trio as _trio  # noqa: F401  # to say what is missing
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "dispatch.trio needs trio, which is not installed; install it with: pip install 'dispatch-sdk[trio]'",
        name="trio",
    ) from None

from dispatch.trio.client import Dispatch
from dispatch.trio.subscription import Subscription

__all__ = ["Dispatch", "Subscription"]
