"""Enqueue a few jobs and watch all of them live until the last one has ended. Needs: dispatch serve examples/app.py"""

import asyncio
import os

from dispatch import Dispatch

URL = os.environ.get("DISPATCH_URL", "ws://127.0.0.1:8080/dwp")
TOKEN = os.environ.get("DISPATCH_TOKEN", "")

ENDED = {"completed", "failed", "cancelled"}


async def main() -> None:
    async with Dispatch(url=URL, token=TOKEN) as client:
        # Subscribed first, so that no event of these jobs is missed.
        subscription = await client.subscribe("jobs")
        jobs = [
            await client.enqueue("resize-image", {"image": "cat.png", "width": 640}),
            await client.enqueue("charge-card", {"order_id": "ORD-001", "amount": 4200}),
            await client.enqueue("send-email", {"to": "user@example.com"}, priority=10),
        ]
        waiting = {job["job_id"] for job in jobs}
        async for event in subscription:
            data = event["data"]
            print(f"{event.seq:>6} {event.kind:<14} {data['job_name']:<14} {data['state']}")
            if data["state"] in ENDED:
                waiting.discard(data["job_id"])
            if not waiting:
                break


if __name__ == "__main__":
    asyncio.run(main())
