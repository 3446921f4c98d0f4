"""What the contract suite promises, read from it: `python -m tests.contract.scenarios` writes README.md anew."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
README = HERE / "README.md"
_LIST = "<!-- scenarios: python -m tests.contract.scenarios -->\n"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One promise.

    Attributes:
        name: of the test, without `test_`.
        promise: its docstring, "" for none.
        decorators: what is said above it, e.g. "with_cancellation".
    """

    name: str
    promise: str
    decorators: frozenset[str]


def scenarios(path: Path) -> tuple[str, list[Scenario]]:
    """What a file of the suite is about, and its scenarios, in order."""
    tree = ast.parse(path.read_text())
    found = [
        Scenario(
            node.name.removeprefix("test_"),
            ast.get_docstring(node) or "",
            frozenset(ast.unparse(decorator) for decorator in node.decorator_list),
        )
        for node in tree.body
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef) and node.name.startswith("test_")
    ]
    return ast.get_docstring(tree) or "", found


def files() -> list[Path]:
    """The files of the suite."""
    return sorted(HERE.glob("test_*.py"))


def renewed(text: str) -> str:
    """The document with its list as it should be."""
    before, mark, _ = text.partition(_LIST)
    return before + mark + "".join(_section(path) for path in files())


def _section(path: Path) -> str:
    about, found = scenarios(path)
    lines = [f"\n## {path.stem.removeprefix('test_').replace('_', ' ')}\n", f"{_joined(about)}\n"]
    for each in found:
        awaited = " *Where calls are awaited.*" if "with_cancellation" in each.decorators else ""
        over_http = each.decorators & {"over_http_too", "ours_over_http_too"}
        http = " *Over HTTP too.*" if over_http else ""
        lines.append(f"- **{each.name.replace('_', ' ')}**: {_joined(each.promise)}{awaited}{http}")
    return "\n".join(lines) + "\n"


def _joined(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    README.write_text(renewed(README.read_text()))
