"""Programs that users of other clients bring along run unchanged, but for address, token and codec."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.docs.documents import run_program
from tests.live import Live, serving

TOKEN = "dk_programs"

ENQUEUE_AND_WATCH = """
from dispatch import Dispatch
async with Dispatch(url="URL", token="TOKEN", format="FORMAT", reconnect=True, max_retries=10, timeout=30.0) as client:
    job = await client.enqueue("send-email", {"to": "user@example.com", "subject": "Welcome!"})
    print(job["job_id"], await client.get_job(job["job_id"]))
    async for event in await client.subscribe("jobs"):
        print(event)
        break
"""

CONNECT_AND_CLOSE = """
from dispatch import Dispatch
client = Dispatch(url="URL", token="TOKEN", format="FORMAT"); session_id = await client.connect()
print(session_id)
await client.close()
"""

LEAVE = """
from dispatch import Dispatch
should_stop = True
async with Dispatch(url="URL", token="TOKEN", format="FORMAT") as client:
    sub = await client.subscribe("jobs")
    await client.enqueue("resize-image", {"image": "a", "width": 1})
    async for event in sub:
        if should_stop:
            await sub.unsubscribe()
            break
    print("left")
"""

ERRORS = """
from dispatch import Dispatch
from dispatch.errors import AuthError, ConnectionError, TimeoutError, DispatchError
async with Dispatch(url="URL", token="TOKEN", format="FORMAT") as client:
    try:
        await client.enqueue("unknown-job", {})
    except DispatchError as e:
        print(f"Error {e.code}: {e}")
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    db = tmp_path_factory.mktemp("programs") / "dispatch.db"
    with serving("dispatch.cli.demo_app", db=db, environment={"DISPATCH_TOKENS": TOKEN}) as live:
        yield live


@pytest.mark.parametrize("format", ["json", "msgpack"])
@pytest.mark.parametrize(
    ("program", "prints"),
    [
        (
            ENQUEUE_AND_WATCH,
            r"job_\w+ \{.*'name': 'send-email'.*\}\n\{'type': 'event', 'channel': 'jobs', 'data': .*\}",
        ),
        (CONNECT_AND_CLOSE, r"\S+"),
        (LEAVE, "left"),
        (ERRORS, 'Error 404: .*"?unknown-job.*'),
    ],
    ids=["enqueue and watch", "connect and close", "leave", "errors"],
)
def test_the_program_runs_unchanged(
    program: str, prints: str, format: str, live: Live, capsys: pytest.CaptureFixture[str]
) -> None:
    text = program.replace("URL", live.url).replace("TOKEN", TOKEN).replace("FORMAT", format)
    run_program(text, "program")
    printed = capsys.readouterr().out
    assert re.fullmatch(prints, printed.strip(), re.DOTALL), printed
