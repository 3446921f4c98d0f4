"""Functions to serve: dispatch serve examples/app.py

Then, in another terminal: python examples/quickstart.py
"""

import asyncio
import time

import dispatch


@dispatch.function(name="send-email")
def send_email(to: str, subject: str = "Hello") -> dict[str, str]:
    """A plain function: it may block, it has a thread to itself."""
    time.sleep(1)
    return {"sent_to": to, "subject": subject}


@dispatch.function(name="resize-image", queue="images", timeout=60)
async def resize_image(image: str, width: int) -> str:
    """An async function: thousands of them wait at the same time."""
    await asyncio.sleep(0.2)
    return f"{image} at {width} pixels"


@dispatch.function(name="charge-card", max_retries=5)
def charge_card(order_id: str, amount: int) -> dict[str, object]:
    """What raises is tried again, after a pause that grows."""
    if dispatch.current().attempt == 1:
        raise ConnectionError("the payment provider hung up")
    return {"order_id": order_id, "charged": amount}
