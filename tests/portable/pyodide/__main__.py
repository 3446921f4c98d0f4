"""Runs the tests of the core in Pyodide, which is Python in WebAssembly: `make pyodide`.

No part of `make test`: it needs node, npm and pip or uv, takes Pyodide from npm and what tests are made with from PyPI,
and a few minutes. There are no processes, threads and servers in there, so what is about those is left out, by name.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import msgpack

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PYODIDE = "pyodide@314.0.7"
PYTHON = "3.14"
# The last Hypothesis that is pure Python; msgpack comes from here, without its extension.
WHEELS = "attrs hypothesis<6.150 iniconfig packaging pluggy pygments pytest sortedcontainers".split()
SERVERS = ("test_clients_on_server.py", "test_http_on_server.py")
PROCESSES = ("test_purity.py",)
# Started processes and threads; and the depth that an application may allow itself beyond what the protocol allows.
NOT_THERE = ("works_alone", "thread_to_thread", "as_deep_as_the_limit", "more_depth_than_this_process")


def prepare(folder: Path) -> None:
    """Everything that is run there, in that folder."""
    subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", PYODIDE], cwd=folder, check=True)
    pure = ("--only-binary=:all:", "--platform=any", f"--python-version={PYTHON}", "--no-deps", "--quiet")
    wheels = folder / "wheels"
    # An environment that uv has made has no pip, but then there is uv.
    pip = (sys.executable, "-m", "pip") if find_spec("pip") else ("uvx", "--quiet", "pip")
    subprocess.run([*pip, "download", *pure, "-d", wheels, *WHEELS], check=True)
    for wheel in wheels.iterdir():
        zipfile.ZipFile(wheel).extractall(folder)
    only_python = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
    shutil.copytree(Path(msgpack.__file__).parent, folder / "msgpack", ignore=only_python)
    for part in ("dwp_core", "tests/core", "tests/property", "tests/vectors", "tests/portable"):
        shutil.copytree(ROOT / part, folder / "src" / part, ignore=only_python)
    shutil.copy(ROOT / "tests" / "__init__.py", folder / "src" / "tests")
    shutil.copy(ROOT / "pyproject.toml", folder / "src")
    shutil.copy(HERE / "run.mjs", folder)


def main() -> int:
    """The exit code of pytest there."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            print(f"{tool} is not here: tests in Pyodide need it", file=sys.stderr)
            return 2
    with tempfile.TemporaryDirectory(prefix="dispatch-pyodide-") as name:
        folder = Path(name)
        prepare(folder)
        ignored = (f"--ignore-glob=*{file}" for file in (*SERVERS, *PROCESSES))
        # The options of pyproject.toml ask for plugins that are not there; its markers are wanted.
        options = ("-q", "-o", "addopts=--strict-markers --import-mode=importlib", "-p", "no:cacheprovider")
        chosen = ("-m", "not fast_form", "-k", " and ".join(f"not {part}" for part in NOT_THERE))
        tests = sys.argv[1:] or ("tests/core", "tests/property", "tests/vectors")
        return subprocess.run(
            ["node", "run.mjs", name, *options, *chosen, *ignored, *tests], cwd=folder, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
