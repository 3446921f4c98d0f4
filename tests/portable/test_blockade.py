"""The blockade itself: a check that cannot fail proves nothing. And what of `dispatch` works behind it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.live import Live, serving
from tests.portable.__main__ import PROOF, ROOT, behind_blockade, judge
from tests.portable.tally import Tally

FOREIGN = ("import msgspec", "import msgpack._cmsgpack", "import websockets.speedups")


def python(program: str, *arguments: str, blocked: bool = True) -> subprocess.CompletedProcess[str]:
    """What comes of a program in a Python of its own."""
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "bindings")))}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env=behind_blockade(paths) if blocked else paths,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_behind_the_blockade_there_is_no_msgspec_and_no_extension_of_others() -> None:
    done = python(PROOF)
    assert done.returncode == 0, done.stderr
    assert python(PROOF, blocked=False).returncode != 0


@pytest.mark.parametrize("line", FOREIGN)
def test_what_is_blocked_is_there_in_an_ordinary_python_and_missing_behind_the_blockade(line: str) -> None:
    assert python(line, blocked=False).returncode == 0
    done = python(line)
    assert f"ModuleNotFoundError: No module named '{line.removeprefix('import ')}'" in done.stderr


def test_extensions_of_the_standard_library_stay() -> None:
    assert python("import _json, _ssl, _struct, math, select, zlib").returncode == 0


def test_processes_started_behind_the_blockade_are_behind_it() -> None:
    done = python(
        "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', 'import msgspec']))"
    )
    assert done.returncode == 1
    assert "No module named 'msgspec'" in done.stderr


# --- a core that would not do


TESTS = """
import pytest
from dwp_core.codec import get_codec, pieces
from tests.portable.forms import FORMS

@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["json", "msgpack"])
def test_a_codec_has_its_name(name, form):
    assert get_codec(name, form).name == name
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The core and a file of tests, to be spoilt."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "dwp_core", tmp_path / "dwp_core", ignore=ignored)
    shutil.copytree(ROOT / "tests" / "portable", tmp_path / "tests" / "portable", ignore=ignored)
    (tmp_path / "tests" / "core").mkdir()
    (tmp_path / "tests" / "core" / "test_names.py").write_text(TESTS)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "tests" / "__init__.py", tmp_path / "tests")
    return tmp_path


def job(root: Path) -> subprocess.CompletedProcess[str]:
    """`python -m tests.portable` over one file of tests in that tree."""
    program = "import sys; from tests.portable.__main__ import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, "--root", str(root), "-n", "0", "tests/core/test_names.py"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_job_says_how_many_tests_ran_and_that_none_is_missing(copy: Path) -> None:
    done = job(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 tests passed of the 2 that had to; 2 of the fast form failed for want of it" in done.stdout


@pytest.mark.parametrize("file", ["codec/pieces.py", "frames.py"])
def test_the_job_fails_when_the_core_imports_msgspec_outside_the_fast_files(copy: Path, file: str) -> None:
    spoilt = copy / "dwp_core" / file
    spoilt.write_text(
        spoilt.read_text().replace(
            "from __future__ import annotations\n", "from __future__ import annotations\nimport msgspec\n", 1
        )
    )
    assert "import msgspec" in spoilt.read_text()
    done = job(copy)
    assert done.returncode != 0
    assert "No module named 'msgspec'" in done.stdout + done.stderr


def test_the_job_fails_when_a_test_runs_only_where_msgspec_is(copy: Path) -> None:
    """Whichever way it gets out of running: the list it is held to was made where msgspec is."""
    ways = {
        "never ran without msgspec": "import importlib.util\nif importlib.util.find_spec('msgspec'):\n"
        "    def test_1() -> None: ...\n",
        "skipped without msgspec, but not with it": "def test_2() -> None:\n    pytest.importorskip('msgspec')\n",
        "failed without msgspec": "def test_3() -> None:\n    import msgspec\n",
        "marked fast_form, but not refused without msgspec": "@pytest.mark.fast_form\ndef test_4() -> None: ...\n",
    }
    with (copy / "tests" / "core" / "test_names.py").open("a") as file:
        file.writelines(ways.values())
    done = job(copy)
    assert done.returncode == 1
    for number, complaint in enumerate(ways, 1):
        assert f"{complaint}: tests/core/test_names.py::test_{number}" in done.stdout


def test_no_tests_at_all_prove_nothing() -> None:
    assert judge(Tally(), Tally(), set()) == ["there is no test that has to run"]
    half = Tally(here=["a", "b"], outcomes={"a": "passed"})
    assert judge(Tally(here=["a", "b"]), half, set()) == ["never ran without msgspec: b"]


# --- the clients


@pytest.mark.parametrize(
    "module",
    [
        "dispatch",
        "dispatch.errors",
        "dispatch.asyncio",
        "dispatch.trio",
        "dispatch.sync",
        "dispatch.functions",
        "dispatch.server",
        "dispatch.store",
    ],
)
def test_a_package_imports_without_msgspec(module: str) -> None:
    done = python(f"import {module}, sys; assert 'msgspec' not in sys.modules")
    assert done.returncode == 0, done.stderr


ALONE = """
loaded = {name.partition(".")[0] for name in sys.modules if name.endswith(("speedups", "_cmsgpack", "_core"))}
assert not loaded & {"msgspec", "msgpack", "websockets"}, loaded
"""
AWAITED = """
import sys
from dispatch.LOOP import Dispatch

async def main():
    async with Dispatch(url=sys.argv[1], format=sys.argv[2]) as client:
        events = await client.subscribe("jobs")
        job = await client.enqueue("resize-image", {"image": "caf\\u00e9.png", "width": 640})
        async for event in events:
            assert event["data"]["job_id"] == job["job_id"]
            if event.kind == "job.completed":
                break
        assert (await client.wait(job["job_id"]))["state"] == "completed"
"""
TALKS = {
    "asyncio": AWAITED.replace("LOOP", "asyncio") + "import asyncio; asyncio.run(main())" + ALONE,
    "trio": AWAITED.replace("LOOP", "trio") + "import trio; trio.run(main)" + ALONE,
    "sync": re.sub("async |await ", "", AWAITED).replace("LOOP", "sync") + "main()" + ALONE,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Live]:
    with serving("dispatch.cli.demo_app", db=tmp_path_factory.mktemp("db") / "d.db") as live:
        yield live


@pytest.mark.parametrize("format", ["json", "msgpack"])
@pytest.mark.parametrize("binding", TALKS)
def test_a_client_without_msgspec_talks_to_a_server_that_has_it(
    server: Live, binding: str, format: str
) -> None:
    done = python(TALKS[binding], server.url, format)
    assert done.returncode == 0, done.stderr
