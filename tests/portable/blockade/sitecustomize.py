"""What a Python has that can have no extensions: this folder at the front of PYTHONPATH makes any Python one of those.

Python runs this file before anything else, in every process that is started from there. From then on msgspec is not
installed, and neither is any extension module that does not come with Python itself: msgpack and websockets take
their own pure Python. The extensions of the standard library stay; PyPy and Pyodide have those too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
from pathlib import Path
from sysconfig import get_path
from types import ModuleType

PACKAGES = frozenset(("msgspec",))
"""Missing as a whole: they are nothing without their extension."""

TOOLS = frozenset(("coverage", "hypothesis"))
"""What tests are made with may have extensions: it is not what is tested, and is not imported by it."""

_STDLIB = Path(get_path("platstdlib", vars={"platbase": sys.base_exec_prefix})).resolve()
_WITH_PYTHON = frozenset((_STDLIB, _STDLIB / "lib-dynload"))


class Blockade(PathFinder):
    """Finds what Python's own finder does, but for what is blocked: that is not there."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where a module is, or None."""
        package = fullname.partition(".")[0]
        if package in PACKAGES:
            return None
        spec = super().find_spec(fullname, path, target)
        if spec is None or package in TOOLS or not isinstance(spec.loader, ExtensionFileLoader):
            return spec
        return spec if Path(str(spec.origin)).resolve().parent in _WITH_PYTHON else None


sys.meta_path[sys.meta_path.index(PathFinder)] = Blockade
