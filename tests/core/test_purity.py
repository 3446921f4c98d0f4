"""The core decides and never does: no sockets, clocks, threads, loops, randomness, logs or files in `dwp_core`.

Two checks that do not rely on each other. The syntax trees say what the core's own modules import and that none of them
has an `async def`. A subprocess then imports every module of the core with those things blocked: the import system
refuses the modules when the core asks for them, and the functions that tell the time, draw or connect raise.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "dwp_core"
MODULES = sorted(CORE.rglob("*.py"))

# Modules that touch the outside world, or wait for it. "concurrent" is futures; "io" and "os" are files.
FORBIDDEN = frozenset(
    "anyio asyncio concurrent ctypes fcntl ftplib getpass glob http io logging mmap multiprocessing os pathlib pickle"
    " platform pty queue random resource sched secrets select selectors shutil signal smtplib socket socketserver"
    " sqlite3 ssl subprocess tempfile threading time trio urllib uvicorn uvloop starlette websockets"
    " warnings".split()
)
# The fast codec is chosen where msgspec is there; nobody else may know of it (DESIGN.md, Frames).
MSGSPEC_ALLOWED = "_fast.py"
MSGPACK_ALLOWED = "codec"
THIRD_PARTY = frozenset(("msgspec", "msgpack"))


def name_of(path: Path) -> str:
    return path.relative_to(CORE.parent).as_posix()


def imported_by(tree: ast.AST) -> set[str]:
    """Top-level packages that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0] if not node.level else "dwp_core")
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_core_module_imports_only_what_decides(path: Path) -> None:
    imports = imported_by(ast.parse(path.read_text()))
    assert not imports & FORBIDDEN, f"{name_of(path)} imports {sorted(imports & FORBIDDEN)}"
    strangers = imports - set(sys.stdlib_module_names) - THIRD_PARTY - {"dwp_core"}
    assert not strangers, f"{name_of(path)} imports {sorted(strangers)}: not one of the core's dependencies"
    assert "dispatch" not in imports
    if not path.name.endswith(MSGSPEC_ALLOWED):
        assert "msgspec" not in imports, (
            f"{name_of(path)} imports msgspec, and is not called *{MSGSPEC_ALLOWED}"
        )
    if MSGPACK_ALLOWED not in path.relative_to(CORE).parts:
        assert not imports & THIRD_PARTY, f"{name_of(path)} imports {sorted(imports & THIRD_PARTY)}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_core_module_never_waits(path: Path) -> None:
    waiting = [
        f"line {node.lineno}: {type(node).__name__}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
    ]
    assert not waiting, f"{name_of(path)}: {waiting}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_core_module_calls_neither_print_nor_open_nor_input(path: Path) -> None:
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"print", "open", "input", "breakpoint", "exec", "eval"}, name_of(path)


BLOCKED_IMPORT = textwrap.dedent(
    """
    import builtins, dataclasses, importlib, sys

    forbidden = frozenset(sys.argv[1].split())
    modules = sys.argv[2].split()

    # Dependencies do as they like while they are imported; what counts is the core.
    import json, json.decoder, re, enum, typing, heapq, base64, struct, datetime, collections.abc, functools, itertools
    import msgpack
    try:
        import msgspec, msgspec.json, msgspec.msgpack
    except ImportError:
        pass
    import logging, os, random, select, socket, threading, time, _thread

    def refuse(what):
        def refused(*args, **kwargs):
            raise AssertionError(f"the core called {what}")
        return refused

    for module, names in {
        time: "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns sleep localtime gmtime process_time",
        random: "random randint randrange choice choices shuffle uniform getrandbits Random SystemRandom",
        socket: "socket socketpair create_connection getaddrinfo",
        threading: "Thread Lock RLock Condition Event Timer",
        _thread: "start_new_thread",
        os: "urandom getenv open fork",
        select: "select poll epoll",
        logging: "getLogger debug info warning error",
    }.items():
        for name in names.split():
            if hasattr(module, name):
                setattr(module, name, refuse(f"{module.__name__}.{name}"))
    # The import system itself opens files and compiles; it is left alone. open() from the core is not.
    builtins.print = refuse("print")

    real_import = builtins.__import__

    def guarded(name, globals=None, locals=None, fromlist=(), level=0):
        importer = (globals or {}).get("__name__", "")
        if importer.startswith("dwp_core") and level == 0 and name.partition(".")[0] in forbidden:
            raise ImportError(f"{importer} imports {name}")
        return real_import(name, globals, locals, fromlist, level)

    builtins.__import__ = guarded
    for name in modules:
        importlib.import_module(name)
    loaded = {name for name in sys.modules if name.startswith("dwp_core")}
    sys.stdout.write(str(len(loaded)))
    """
)


def test_the_core_imports_with_the_outside_world_blocked() -> None:
    dotted = [
        ".".join(path.relative_to(CORE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if find_spec("msgspec") or not path.name.endswith(MSGSPEC_ALLOWED)
    ]
    result = subprocess.run(
        [sys.executable, "-c", BLOCKED_IMPORT, " ".join(sorted(FORBIDDEN)), " ".join(dotted)],
        cwd=CORE.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) >= len(set(dotted))


def test_the_blockade_itself_works() -> None:
    """A check that cannot fail proves nothing: with a forbidden name that the core does import, it must fail."""
    result = subprocess.run(
        [sys.executable, "-c", BLOCKED_IMPORT, "builtins", "dwp_core.errors"],
        cwd=CORE.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode != 0
    assert "dwp_core.errors imports builtins" in result.stderr
