"""Documents as programs: every fenced block of a Markdown file with what stands in the comment directly above it.

What a comment may say (CONTRIBUTING.md tells writers the same):

- `<!-- file: NAME -->`       the block is written to that file of the document's folder, and imported
- `<!-- server -->`           the block is the command that serves; the test runs it in the background, on a free port
- `<!-- setup ... -->`        Python that runs before the block, not shown to readers
- `<!-- not run: WHY -->`     left out, and why

Blocks of other languages than python and console are not run; `json frame` blocks are decoded.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 60

_BLOCK = re.compile(
    r"(?:^<!--[ ]*(?P<comment>(?:file|server|setup|not[ ]run)\b.*?)-->\n)?^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    Attributes:
        line: where its text begins in the document, counted from 1.
        info: what stands behind the backticks: "python", "console", ...
        directive: "file", "server", "setup", "not run" or "".
        argument: what follows the directive.
    """

    line: int
    info: str
    text: str
    directive: str = ""
    argument: str = ""


def blocks_of(path: Path) -> list[Block]:
    """All fenced blocks of a document, in order."""
    text = path.read_text()
    blocks = []
    for match in _BLOCK.finditer(text):
        directive, argument = _directive(match["comment"] or "")
        line = text.count("\n", 0, match.start("text")) + 1
        blocks.append(Block(line, match["info"].strip(), match["text"], directive, argument))
    return blocks


def _directive(comment: str) -> tuple[str, str]:
    for word in ("file", "server", "setup", "not run"):
        if comment.startswith(word):
            return word, comment.removeprefix(word).lstrip(":").strip()
    return "", ""


def documents() -> list[Path]:
    """README.md, CONTRIBUTING.md and everything under docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands_of(block: Block) -> list[tuple[str, str]]:
    """A console block as commands, each with the output that the document shows below it."""
    commands: list[tuple[str, str]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], ""))
        elif commands:
            command, expected = commands[-1]
            commands[-1] = (command, expected + line + "\n")
    return commands


def matches(expected: str, actual: str) -> bool:
    """Whether output is as shown; "…" stands for anything, also for several lines.

    Example:
        >>> matches("job_… pending\\n", "job_01h pending\\n"), matches("a\\n", "b\\n")
        (True, False)
    """
    pattern = ".*".join(re.escape(part) for part in _tidy(expected).split("…"))
    return re.fullmatch(pattern, _tidy(actual), re.DOTALL) is not None


def _tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()


def run_program(text: str, name: str) -> None:
    """Python that may `await` at its top level, as in a REPL."""
    code = compile(text, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, {"__name__": "snippet"})
    if inspect.iscoroutine(result):
        asyncio.run(asyncio.wait_for(result, SECONDS))
