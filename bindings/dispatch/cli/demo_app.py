"""The functions of `dispatch demo`; also something to try the client on: `dispatch serve dispatch.cli.demo_app`.

Nothing is really sent, resized or charged: they take the time it would, and fail the way it would.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import dispatch

SEND_SECONDS = 1.0


@dispatch.function(name="send-email")
def send_email(to: str, subject: str = "Welcome!") -> dict[str, str]:
    """Takes a second, as mail servers do; a plain function, so it runs in a thread."""
    time.sleep(SEND_SECONDS)
    return {"sent_to": to, "subject": subject}


@dispatch.function(name="resize-image")
async def resize_image(image: str, width: int) -> dict[str, Any]:
    """An async function: it runs on a loop of its own kind, never on the server's."""
    await asyncio.sleep(0.3)
    return {"image": image, "width": width}


@dispatch.function(name="charge-card", max_retries=2)
def charge_card(order_id: str, amount: int) -> dict[str, Any]:
    """Fails at the first attempt; the retry succeeds."""
    if dispatch.current().attempt == 1:
        raise ConnectionError("the payment provider hung up")
    return {"order_id": order_id, "charged": amount}


@dispatch.function(name="import-feed", max_retries=1)
def import_feed(url: str) -> None:
    """Never succeeds: after its retry it lies with the dead letters."""
    raise OSError(f"{url} answers 503 Service Unavailable")
