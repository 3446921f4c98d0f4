"""Ask for a job, wait for it, look at it, with trio. Needs a server: dispatch serve examples/app.py"""

import os

import trio

from dispatch.trio import Dispatch

URL = os.environ.get("DISPATCH_URL", "ws://127.0.0.1:8080/dwp")
TOKEN = os.environ.get("DISPATCH_TOKEN", "")


async def main() -> None:
    async with Dispatch(url=URL, token=TOKEN) as client:
        job = await client.enqueue("send-email", {"to": "user@example.com", "subject": "Welcome!"})
        print("enqueued", job["job_id"])

        outcome = await client.wait(job["job_id"])
        print(outcome["state"], outcome["output"])

        print(await client.get_job(job["job_id"]))


if __name__ == "__main__":
    trio.run(main)
