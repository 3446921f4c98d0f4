"""What is generated in the documents is what the code has, and every link in them leads somewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.docs.documents import ROOT, documents

GENERATE: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "generate.py"))


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_the_generated_parts_are_up_to_date(path: Path) -> None:
    assert GENERATE["renewed"](path.read_text()) == path.read_text(), "run: make docs"


def test_every_transition_table_of_the_core_is_drawn_somewhere() -> None:
    text = "".join(path.read_text() for path in documents())
    for reference in GENERATE["tables"]():
        assert f"<!-- generated: diagram {reference} -->" in text, f"nobody draws {reference}"


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{path.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {_anchor(heading) for heading in headings}, f"{path.name} links to {target}"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_no_document_of_the_project_points_outside_of_it() -> None:
    for path in documents():
        assert "../" not in path.read_text().replace("](../", ""), path.name
