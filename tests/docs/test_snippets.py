"""Every snippet of the documents runs, in order, against a real server: what readers copy works."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from dwp_core.codec import get_codec
from dwp_core.frames import DEFAULT_LIMITS
from tests.docs.documents import Block, blocks_of, commands_of, documents, matches, run_program
from tests.live import Live, serving

USUAL_URL = "ws://127.0.0.1:8080/dwp"
SECONDS = 60


class Reader:
    """Somebody who reads a document and does what it says, in an empty folder.

    Args:
        folder: where it happens.
        stack: closes the servers that were started.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.live: Live | None = None

    def do(self, block: Block) -> None:
        if block.directive == "not run":
            assert block.argument, "a block that is not run says why"
        elif block.directive == "file":
            (self.folder / block.argument).write_text(block.text)
            self.shell(f"python -c 'import {block.argument.removesuffix('.py')}'")
        elif block.directive == "server":
            self.serve(block)
        elif block.info == "python":
            self.python(block)
        elif block.info == "console":
            self.console(block)
        elif block.info == "json frame":
            get_codec("json").decode(block.text.strip().encode(), DEFAULT_LIMITS)

    def serve(self, block: Block) -> None:
        ((command, _),) = commands_of(block)
        words = shlex.split(command)
        assert words[:2] == ["dispatch", "serve"], command
        self.live = self.stack.enter_context(
            serving(*words[2:], db=self.folder / "dispatch.db", cwd=self.folder)
        )

    def python(self, block: Block) -> None:
        if self.live is None:
            self.live = self.stack.enter_context(
                serving("dispatch.cli.demo_app", db=self.folder / "dispatch.db", cwd=self.folder)
            )
        setup = block.argument if block.directive == "setup" else ""
        text = f"{setup}\n{block.text}".replace(USUAL_URL, self.live.url)
        run_program(text, f"snippet at line {block.line}")

    def console(self, block: Block) -> None:
        for command, expected in commands_of(block):
            output = self.shell(command)
            if expected:
                assert matches(expected, output), f"$ {command}\nshown:\n{expected}\nprinted:\n{output}"

    def shell(self, command: str) -> str:
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        environment["COLUMNS"] = "200"
        environment["PYTEST_PLUGINS"] = "dispatch.testing.plugin"  # as where the project is installed
        if self.live is not None:
            environment["DISPATCH_URL"] = self.live.url
        result = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert result.returncode == 0, f"$ {command}\n{result.stdout}{result.stderr}"
        return result.stdout


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_every_snippet_of_the_document_runs(path: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        reader = Reader(tmp_path, stack)
        for block in blocks_of(path):
            try:
                reader.do(block)
            except Exception as error:
                error.add_note(f"in the block at {path.name}:{block.line}")
                raise


def test_the_documents_have_no_block_that_is_neither_run_nor_known() -> None:
    known = {"python", "console", "json frame", "mermaid", ""}
    for path in documents():
        for block in blocks_of(path):
            assert block.info in known, f"{path.name}:{block.line}: {block.info}"
