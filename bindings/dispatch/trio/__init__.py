"""Dispatch for trio: `Dispatch`, the client, and `Subscription`, what it subscribes with."""

from __future__ import annotations

from dispatch.trio.client import Dispatch
from dispatch.trio.subscription import Subscription

__all__ = ["Dispatch", "Subscription"]
