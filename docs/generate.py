"""Writes the generated parts of the documentation anew: `make docs`. With `--check` it only says which are out of date.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->` in any of `docs/*.md`. What is generated
comes from the objects that the code runs on, so the two cannot disagree: state diagrams from the transition tables,
the list of methods from `dwp_core.methods`, errors and exit codes from their classes.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import dwp_core
from dwp_core import errors
from dwp_core.methods import METHODS, Field, Method
from dwp_core.requests import Retry
from dwp_core.transitions import Table, mermaid

DOCS = Path(__file__).parent
PART = re.compile(r"(<!-- generated: (?P<name>.+?) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)

_RETRY = {
    Retry.READ: "always",
    Retry.IDEMPOTENT: "with its key",
    Retry.NEVER: "never",
}


def tables() -> dict[str, Table[str]]:
    """Every transition table of the core, by `module:NAME`."""
    found: dict[int, tuple[str, Table[str]]] = {}
    for info in walk_packages(dwp_core.__path__, "dwp_core."):
        module = import_module(info.name)
        for name, value in vars(module).items():
            if isinstance(value, Table):
                home = f"{info.name}:{name}"
                # Where it is made, not where it is imported: the module whose source assigns it.
                if re.search(rf"^{name}\b.*=", inspect.getsource(module), re.MULTILINE):
                    found.setdefault(id(value), (home, value))
    return dict(found.values())


def diagram(reference: str) -> str:
    """A state diagram."""
    return f"```mermaid\n{mermaid(tables()[reference])}\n```\n"


def methods() -> str:
    """Every method, its scope, when a client may send it again, its fields, and whether our server has it."""
    from dispatch.server.handlers import SERVED

    head = ("method", "scope", "our server", "sent again", "extension", "data")
    rows = [
        (
            f"`{method.name}`",
            f"`{method.scope}`",
            "has it" if method.name in SERVED else "405",
            _RETRY[method.retry],
            _feature(method),
            _fields(method),
        )
        for method in METHODS.values()
    ]
    return _table(head, rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _feature(method: Method) -> str:
    return f"`{method.feature}`" if method.feature else ""


def _fields(method: Method) -> str:
    return ", ".join(map(_field, method.fields)) or "–"


def _field(field: Field) -> str:
    return f"`{field.name}{'' if field.required else '?'}`"


def error_table() -> str:
    """Every class of `dispatch.errors`, its code, what it is as well, and when it is raised."""
    rows: list[tuple[str, str, str, str]] = []
    for name, kind in _error_classes():
        parents = [
            f"`{base.__name__}`" if base.__module__ == errors.__name__ else f"builtin `{base.__name__}`"
            for base in kind.__bases__
            if base not in (errors.DispatchError, Exception)
        ]
        when = _first_paragraph(inspect.getdoc(kind) or "")
        rows.append((f"`{name}`", str(kind.default_code), ", ".join(parents) or "–", when))
    return _table(("class", "code", "is also", "when"), rows)


def _error_classes() -> Iterator[tuple[str, type[errors.DispatchError]]]:
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.DispatchError):
            yield name, value


def _first_paragraph(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split()).replace("|", "\\|")


def exit_codes() -> str:
    """The exit codes of the command line, with the comments that stand beside them."""
    from dispatch.cli.exits import Exit

    rows = re.findall(r"^    ([A-Z_]+) = (\d+)  # (.+)$", inspect.getsource(Exit), re.MULTILINE)
    return _table(("code", "name", "says"), [(code, name, says) for name, code, says in rows])


GENERATORS: dict[str, Callable[[], str]] = {
    "methods": methods,
    "errors": error_table,
    "exit-codes": exit_codes,
}


def generated(name: str) -> str:
    """The text of a generated part."""
    if name.startswith("diagram "):
        return diagram(name.removeprefix("diagram "))
    return GENERATORS[name]()


def renewed(text: str) -> str:
    """A document with its generated parts as they should be."""
    return PART.sub(lambda part: part[1] + generated(part["name"]) + part[4], text)


def documents() -> list[Path]:
    """All documents, the README included."""
    return [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]


def main() -> int:
    check = "--check" in sys.argv[1:]
    stale = [path for path in documents() if renewed(path.read_text()) != path.read_text()]
    for path in stale:
        if not check:
            path.write_text(renewed(path.read_text()))
        print(
            f"{path.relative_to(DOCS.parent)}: {'out of date; run: make docs' if check else 'written anew'}"
        )
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
