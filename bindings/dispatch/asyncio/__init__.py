"""Dispatch for asyncio: `Dispatch`, the client, and `Subscription`, what it subscribes with."""

from __future__ import annotations

from dispatch.asyncio.client import Dispatch
from dispatch.asyncio.subscription import Subscription

__all__ = ["Dispatch", "Subscription"]
