"""Dispatch for trio: `Dispatch`, the client, and `Subscription`, what it subscribes with."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("trio") is None:
    raise ModuleNotFoundError(
        "dispatch.trio needs trio, which is not installed; install it with: pip install 'dispatch-sdk[trio]'",
        name="trio",
    )

from dispatch.trio.client import Dispatch
from dispatch.trio.subscription import Subscription

__all__ = ["Dispatch", "Subscription"]
