"""Ask for a job, wait for it, look at it, without an event loop. Needs a server: dispatch serve examples/app.py"""

import os

from dispatch.sync import Dispatch

URL = os.environ.get("DISPATCH_URL", "ws://127.0.0.1:8080/dwp")
TOKEN = os.environ.get("DISPATCH_TOKEN", "")


def main() -> None:
    with Dispatch(url=URL, token=TOKEN) as client:
        job = client.enqueue("send-email", {"to": "user@example.com", "subject": "Welcome!"})
        print("enqueued", job["job_id"])

        outcome = client.wait(job["job_id"])
        print(outcome["state"], outcome["output"])

        print(client.get_job(job["job_id"]))


if __name__ == "__main__":
    main()
