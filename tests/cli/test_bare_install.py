"""A bare install is a client: `import dispatch` stays cheap, and the command line says what it lacks."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

# importlib.util.find_spec says None of a module that is not installed.
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {absent!r} else real(name, package)
sys.meta_path.insert(0, Absent())
"""


def run(code: str, *, absent: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(absent=absent) + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("absent", [("typer",), ("rich",), ("typer", "rich")])
def test_without_its_packages_the_command_line_says_how_to_get_them(absent: tuple[str, ...]) -> None:
    result = run("from dispatch.cli import main; sys.exit(main(['--help']))", absent=absent)
    assert result.returncode == 2
    assert "pip install 'dispatch-sdk[cli]'" in result.stderr
    assert all(name in result.stderr for name in absent)
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(("command", "extra"), [(["serve"], "server"), (["demo"], "all")])
def test_without_their_packages_serve_and_demo_say_how_to_get_them(command: list[str], extra: str) -> None:
    result = run(f"from dispatch.cli import main; sys.exit(main({command!r}))", absent=("uvicorn",))
    assert result.returncode == 2
    assert "uvicorn" in result.stderr
    assert f"dispatch-sdk[{extra}]" in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr


def test_importing_dispatch_loads_neither_a_client_nor_a_server() -> None:
    result = run(
        "import dispatch;"
        "print([m for m in ('asyncio', 'websockets', 'msgspec', 'uvicorn', 'typer') if m in sys.modules])"
    )
    assert result.stdout.strip() == "[]", result.stderr


def test_the_client_needs_no_extra() -> None:
    absent = ("typer", "rich", "uvicorn", "starlette", "anyio", "trio", "uvloop")
    result = run("from dispatch import Dispatch; print(Dispatch.__name__)", absent=absent)
    assert result.stdout.strip() == "Dispatch", result.stderr


def test_what_dispatch_exports_is_there_and_listed() -> None:
    result = run(
        "import dispatch; print(all(hasattr(dispatch, n) and n in dir(dispatch) for n in dispatch.__all__))"
    )
    assert result.stdout.strip() == "True", result.stderr


def test_a_misspelt_name_is_an_attribute_error() -> None:
    result = run("import dispatch; dispatch.Dispath")
    assert "module 'dispatch' has no attribute 'Dispath'" in result.stderr


def test_without_trio_its_client_says_how_to_get_it() -> None:
    result = run("import dispatch.trio", absent=("trio",))
    assert "ModuleNotFoundError: dispatch.trio needs trio" in result.stderr
    assert "pip install 'dispatch-sdk[trio]'" in result.stderr
