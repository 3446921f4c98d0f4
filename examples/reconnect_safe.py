"""Enqueue so that one order is one job, whatever the network does and however often this program is started.

The client repeats by itself what may be repeated: it puts an idempotency key of its own into every enqueue. With a key
that comes from the order, it is one job even across restarts of this program. Needs: dispatch serve examples/app.py
"""

import asyncio
import os

from dispatch import Dispatch
from dispatch.errors import ConnectionError, TimeoutError

URL = os.environ.get("DISPATCH_URL", "ws://127.0.0.1:8080/dwp")
TOKEN = os.environ.get("DISPATCH_TOKEN", "")


async def charge(client: Dispatch, order_id: str, amount: int) -> str:
    """The id of the one job that charges this order."""
    while True:
        try:
            job = await client.enqueue(
                "charge-card",
                {"order_id": order_id, "amount": amount},
                idempotency_key=f"charge:{order_id}",
            )
        except TimeoutError:
            # Perhaps it was carried out, perhaps not: with the key it does no harm to ask again.
            continue
        return str(job["job_id"])


async def main() -> None:
    # max_retries=0: as long as it takes. The first connection waits for the server as well.
    async with Dispatch(url=URL, token=TOKEN, max_retries=0, wait_for_server=30, timeout=10) as client:
        try:
            first = await charge(client, "ORD-001", 4200)
            again = await charge(client, "ORD-001", 4200)
        except ConnectionError as error:
            print("gave up:", error)
            raise SystemExit(1) from None
        print("one job:", first == again, first)


if __name__ == "__main__":
    asyncio.run(main())
