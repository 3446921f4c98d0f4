"""A server on a Unix socket: only this user gets in, what a killed server left behind is replaced, others are not."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dispatch.server.listening import CannotServe, address_of, listen
from dispatch.sync import Dispatch
from tests.live import clean_environment, serving


def test_calls_and_events_go_through_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "dispatch.sock"
    with serving("dispatch.cli.demo_app", "--unix", str(path), db=tmp_path / "dispatch.db") as live:
        assert live.url == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with Dispatch(url=live.url) as client:
            job = client.enqueue("resize-image", {"image": "cat.png", "width": 640})
            kinds = [event.kind for event in client.watch(job.job_id)]
        assert kinds[-1] == "job.completed"
        result = subprocess.run(
            [sys.executable, "-m", "dispatch", "ping", "--url", live.url],
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert f"unix:{path} answered in" in result.stdout
    assert not path.exists()


def test_what_a_killed_server_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "dispatch.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    with listen("", 0, path) as listener:
        assert address_of(listener) == f"unix:{path}"
    assert not path.exists()


def test_a_server_that_listens_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "dispatch.sock"
    with listen("", 0, path):
        with pytest.raises(CannotServe, match="another server listens on"), listen("", 0, path):
            pass
        assert path.exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(CannotServe, match="no socket; choose another path with --unix"), listen("", 0, path):
        pass
    assert path.read_text() == "mine"


def test_a_path_that_cannot_be_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "dispatch.sock", tmp_path / ("x" * 200)):
        with pytest.raises(CannotServe, match="cannot listen on"), listen("", 0, path):
            pass


def test_the_mode_of_other_files_is_as_it_was(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with listen("", 0, tmp_path / "dispatch.sock"):
            assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
