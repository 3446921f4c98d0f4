"""The pytest plugin: its fixtures serve tests of every kind, and who does not use them pays nothing for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.documents import ROOT

PLUGIN = "dispatch.testing.plugin"

SUITE = """
import asyncio
import threading

import pytest
import trio

import dispatch
from dispatch.sync import Dispatch


@dispatch.function(name="double")
def double(number: int) -> int:
    return 2 * number


def test_blocking(dispatch_server, dispatch_client):
    job = dispatch_client.enqueue("double", {"number": 21})
    dispatch_server.until_idle_blocking()
    assert dispatch_client.get_job(job.job_id).output == 42
    assert len(dispatch_server.jobs()) == 1


def test_asyncio(dispatch_server, dispatch_asyncio_client):
    async def main():
        async with dispatch_asyncio_client(format="msgpack") as client:
            await client.enqueue("double", {"number": 21})
            await dispatch_server.until_idle()

    asyncio.run(main())
    assert [job.output for job in dispatch_server.jobs()] == [42]


def test_trio(dispatch_server, dispatch_trio_client):
    async def main():
        async with dispatch_trio_client() as client:
            await client.enqueue("double", {"number": 21})
            await dispatch_server.until_idle()

    trio.run(main)
    assert [job.output for job in dispatch_server.jobs()] == [42]


@pytest.mark.anyio
async def test_anyio(dispatch_server, anyio_backend_name, request):
    make = request.getfixturevalue(f"dispatch_{anyio_backend_name}_client")
    async with make() as client:
        job = await client.enqueue("double", {"number": 21})
        assert (await client.wait(job.job_id)).output == 42


def test_transport(dispatch_transport):
    dispatch_transport.answer("job.enqueue")
    with Dispatch(url="ws://test/dwp", transport=dispatch_transport) as client:
        client.enqueue("double", {"number": 21})
    assert dispatch_transport.asked("job.enqueue")[0]["payload"] == {"number": 21}


class TestOverridden:
    @pytest.fixture
    def dispatch_app(self):
        from dispatch.functions.registry import Registry

        registry = Registry()

        @registry.function(name="triple")
        def triple(number: int) -> int:
            return 3 * number

        return registry

    @pytest.fixture
    def dispatch_settings(self):
        return {"concurrency": 1}

    def test_functions_and_settings(self, dispatch_client):
        job = dispatch_client.enqueue("triple", {"number": 14})
        assert dispatch_client.wait(job.job_id).output == 42
        with pytest.raises(dispatch.errors.NotFoundError):
            dispatch_client.enqueue("double", {"number": 21})


def test_everything_of_the_tests_before_has_ended():
    assert [thread.name for thread in threading.enumerate() if "testing" in thread.name] == []
"""


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTEST_PLUGINS": PLUGIN,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "bindings"), os.environ.get("PYTHONPATH", ""))),
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_fixtures_serve_tests_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    result = run("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", folder=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "8 passed" in result.stdout


def test_every_fixture_is_explained(tmp_path: Path) -> None:
    result = run("-m", "pytest", "--fixtures", "-p", "no:cacheprovider", folder=tmp_path)
    for name in "app settings server client asyncio_client trio_client transport".split():
        _, found, explained = result.stdout.partition(f"dispatch_{name} -- ")
        assert found, f"there is no fixture dispatch_{name}"
        assert explained.splitlines()[1].strip() not in ("", "no docstring available")


def test_the_plugin_imports_nothing_but_pytest(tmp_path: Path) -> None:
    """Neither a client nor a server, nor the packages that they need."""
    code = (
        "import sys, pytest; before = set(sys.modules); import dispatch.testing.plugin;"
        " print(*sorted(set(sys.modules) - before))"
    )
    result = run("-c", code, folder=tmp_path)
    assert result.stdout.split() == ["dispatch", "dispatch.testing", "dispatch.testing.plugin"], result.stderr


def test_a_run_that_does_not_use_it_loads_nothing_for_it(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text(
        "import sys\n\n"
        "def test_nothing():\n"
        "    ours = [each for each in sys.modules if each.partition('.')[0] in ('dispatch', 'dwp_core')]\n"
        "    assert sorted(ours) == ['dispatch', 'dispatch.testing', 'dispatch.testing.plugin']\n"
    )
    result = run("-m", "pytest", "-q", "-p", "no:cacheprovider", folder=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_kit_needs_nothing_but_the_client(tmp_path: Path) -> None:
    code = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("typer", "rich", "uvicorn", "starlette", "anyio", "trio", "uvloop", "pytest"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())

import dispatch
from dispatch.sync import Dispatch
from dispatch.testing import MockTransport, server

@dispatch.function(name="double")
def double(number: int) -> int:
    return 2 * number

with server() as running, Dispatch(running.url, running.token) as client:
    client.enqueue("double", {"number": 21})
    running.until_idle_blocking()
    print(running.jobs()[0].output)
transport = MockTransport()
transport.answer("stats", {"connections": 7})
with Dispatch("ws://test/dwp", transport=transport) as client:
    print(client.stats()["connections"])
"""
    result = run("-W", "error", "-c", code, folder=tmp_path)
    assert result.stdout.split() == ["42", "7"], result.stderr


def test_pytest_finds_the_plugin_where_the_package_is_installed() -> None:
    """It goes by the module's own name, so that `-p dispatch.testing.plugin` does no harm where it is found already."""
    text = (ROOT / "pyproject.toml").read_text()
    assert f'[project.entry-points.pytest11]\n"{PLUGIN}" = "{PLUGIN}"\n' in text


@pytest.mark.parametrize("name", ["MockTransport", "MemoryServer", "Request", "new_id", "server"])
def test_what_the_package_names_is_there(name: str) -> None:
    import dispatch.testing

    assert getattr(dispatch.testing, name).__name__ in (name, "new")
    assert name in dir(dispatch.testing)


def test_a_misspelt_name_is_an_attribute_error() -> None:
    import dispatch.testing

    with pytest.raises(AttributeError, match=r"'dispatch\.testing' has no attribute 'MockTransprt'"):
        _ = dispatch.testing.MockTransprt  # type: ignore[attr-defined]
