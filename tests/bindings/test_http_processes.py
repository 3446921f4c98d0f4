"""The blocking client of an HTTP address and its process: the end of the one, the fork of the other."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from tests.bindings.http_servers import RecordedServer
from tests.contract.threads import PATIENCE


def run_program(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("end", ["", "client.close()", "sys.exit()", "raise KeyboardInterrupt"])
def test_a_program_ends_while_a_stream_is_open(end: str) -> None:
    """At once, and without a word from threads that are left."""
    with RecordedServer() as server:
        program = f"""
            import sys
            sys.path[:0] = {sys.path!r}
            from dispatch.sync import Dispatch
            client = Dispatch(sys.argv[1], token="dk_full")
            client.connect()
            print(client.subscribe("jobs").next(20).kind)
            {end}
        """
        result = run_program(program, server.url)
    assert result.stdout == "job.enqueued\n"
    lines = [line for line in result.stderr.splitlines() if line]
    assert lines[-1:] == (["KeyboardInterrupt"] if "Keyboard" in end else [])
    assert "dispatch-" not in result.stderr


def test_a_client_stays_with_the_process_that_made_it() -> None:
    """In a fork of it, calls are refused; the parent's connections are left alone."""
    with RecordedServer() as server:
        program = f"""
            import os, sys
            sys.path[:0] = {sys.path!r}
            from dispatch.sync import Dispatch
            with Dispatch(sys.argv[1], token="dk_full") as client:
                events = client.subscribe("jobs")
                child = os.fork()
                if not child:
                    try:
                        client.stats()
                    except Exception as error:
                        print(error, flush=True)
                    os._exit(0)
                os.waitpid(child, 0)
                client.stats()
                print(events.next(20).kind)
        """
        result = run_program(program, server.url)
    assert result.stderr == ""
    assert "forked" in result.stdout.splitlines()[0]
    assert result.stdout.splitlines()[1] == "job.enqueued"
