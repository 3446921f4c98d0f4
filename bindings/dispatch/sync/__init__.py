"""Dispatch without an event loop: `Dispatch`, the client, and `Subscription`, what it subscribes with."""

from __future__ import annotations

from dispatch.sync.client import Dispatch
from dispatch.sync.subscription import Subscription

__all__ = ["Dispatch", "Subscription"]
