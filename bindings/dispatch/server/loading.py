"""Loads the program whose functions a server runs: a file, a module, an attribute of a module, or nothing.

What goes wrong here is a user's mistake in most cases, so each has a message that shows the user's own line and not
the import machinery between.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType, TracebackType

from dispatch import functions
from dispatch.functions.registry import REGISTRY, Function, Registry

DEFAULT_APP = "app.py"

_OURS = str(Path(__file__).resolve().parent)
_DECLARING = str(Path(functions.__file__).resolve().parent)
_MACHINERY = ("<frozen importlib", _OURS, _DECLARING, str(Path(importlib.__file__ or "").parent))


class LoadError(Exception):
    """The program cannot be loaded; the message says why and what would help."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was loaded.

    Attributes:
        registry: its functions.
        origin: where they come from, for people: a path, or a module's name; "" when there was nothing to load.
    """

    registry: Registry
    origin: str


def load(target: str | None, *, folder: Path) -> Loaded:
    """Load a program and find its functions.

    Args:
        target: `app.py`, `package.module`, `package.module:attribute`; None looks for `app.py` in the folder, and
            takes nothing when there is none.
        folder: where relative paths start and modules are looked for first.

    Raises:
        LoadError: it cannot be found, does not import, or declares no function.

    Example:
        load("app.py", folder=Path.cwd())
        load("shop.jobs:registry", folder=Path.cwd())
    """
    if target is None:
        if not (folder / DEFAULT_APP).is_file():
            return Loaded(Registry(), "")
        target = DEFAULT_APP
    path, attribute = _split(target, folder)
    if path is not None:
        module, origin = _import_file(path), str(path)
    else:
        name = target.partition(":")[0]
        module, origin = _import_module(name, folder), name
    registry = REGISTRY if not attribute else _registry_at(module, attribute, origin)
    if not len(registry):
        raise LoadError(
            f"{origin} declares no functions; declare one with a decorator:\n\n"
            "    import dispatch\n\n"
            "    @dispatch.function\n"
            "    def send_email(to: str): ...\n"
        )
    return Loaded(registry, f"{origin}:{attribute}" if attribute else origin)


def _split(target: str, folder: Path) -> tuple[Path | None, str]:
    """A file's path (None when the target is a module) and the attribute ("" for none)."""
    if not target or target.startswith(":"):
        raise LoadError(
            f'"{target}" names nothing to load: expected a file (app.py), a module, or module:attribute'
        )
    head, colon, attribute = target.rpartition(":")
    if colon and not attribute:
        raise LoadError(f'"{target}" ends in a colon: expected module:attribute')
    for text, name in ((target, ""), (head, attribute)):
        path = Path(text)
        if text.endswith(".py") or (text and len(path.parts) > 1):
            return _existing(folder / path, text), name
    return None, attribute if colon else ""


def _existing(path: Path, given: str) -> Path:
    if path.is_dir():
        raise LoadError(f"{given} is a directory: expected a file, or a module as package.module")
    if not path.is_file():
        files = sorted(file.name for file in path.parent.glob("*.py")) if path.parent.is_dir() else []
        close = get_close_matches(path.name, files, n=1, cutoff=0.75)
        hint = f"; did you mean {path.with_name(close[0])}?" if close else ""
        raise LoadError(f"there is no file {given} (looked for {path}){hint}")
    return path.resolve()


def _import_file(path: Path) -> ModuleType:
    """The file as the module that it is: inside its package when it is in one, else by its own name."""
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    if parts[-1] == "__init__":
        parts.pop()
    name = ".".join(parts)
    _put_first_on_path(root)
    known = sys.modules.get(name)
    if known is not None and not _is_file_of(known, path):
        raise LoadError(
            f"{path} would be imported as {name}, but that is the name of {_file_of(known)}: rename the file"
        )
    if len(parts) > 1:
        return _import(name, str(path))
    if known is not None:
        return known
    return _execute(name, path)


def _execute(name: str, path: Path) -> ModuleType:
    """As `import name` would, but this very file, whatever else on the path has the name."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        raise _does_not_import(str(path), error) from error
    return module


def _import_module(name: str, folder: Path) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise LoadError(
            f'"{name}" is no module name: expected a file (app.py), a module, or module:attribute'
        )
    _put_first_on_path(folder)
    return _import(name, name)


def _import(name: str, origin: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A missing module that the program imports is the program's error, and is shown as such below.
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            file = Path(*name.split(".")).with_suffix(".py")
            hint = f"; for the file say {file}" if file.is_file() else ""
            raise LoadError(
                f"there is no module {error.name} (looked in {sys.path[0]} and where Python looks for modules){hint}"
            ) from error
        raise _does_not_import(origin, error) from error
    except BaseException as error:
        raise _does_not_import(origin, error) from error


def _does_not_import(origin: str, error: BaseException) -> BaseException:
    """The user's own frames and the error, without the machinery of importing."""
    if isinstance(error, KeyboardInterrupt):
        return error
    if isinstance(error, SystemExit):
        shown = "".join(_user_frames(error.__traceback__))
        return LoadError(
            f"{origin} ends the program while it is imported (SystemExit: {error.code}):\n{shown}"
            'put what only a script does under: if __name__ == "__main__":'
        )
    summary = traceback.TracebackException(type(error), error, None, compact=True)
    shown = "".join((*_user_frames(error.__traceback__), *summary.format_exception_only()))
    return LoadError(f"{origin} does not import:\n{shown.rstrip()}")


def _user_frames(trace: TracebackType | None) -> Iterable[str]:
    frames = [frame for frame in traceback.extract_tb(trace) if not frame.filename.startswith(_MACHINERY)]
    return traceback.format_list(frames[-5:])


def _registry_at(module: ModuleType, attribute: str, origin: str) -> Registry:
    value: object = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            close = get_close_matches(part, dir(value), n=1)
            hint = f'; did you mean "{close[0]}"?' if close else ""
            raise LoadError(f'{origin} has no attribute "{attribute}"{hint}')
        value = getattr(value, part)
    if isinstance(value, Registry):
        return value
    functions = [value] if isinstance(value, Function) else value
    if isinstance(functions, list | tuple | set | frozenset) and all(
        isinstance(f, Function) for f in functions
    ):
        registry = Registry()
        for function in functions:
            registry.add(function)
        return registry
    raise LoadError(
        f"{origin}:{attribute} is {type(value).__name__} {value!r:.80}: expected a Registry, a function decorated"
        " with @dispatch.function, or a list of those"
    )


def _put_first_on_path(folder: Path) -> None:
    text = str(folder)
    if sys.path[:1] != [text]:
        sys.path.insert(0, text)


def _is_file_of(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve() == path


def _file_of(module: ModuleType) -> str:
    return str(getattr(module, "__file__", None) or "a module of Python itself")
