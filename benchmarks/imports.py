"""I1: what `import dispatch` costs, in fresh interpreters, beside imports that no such client can avoid."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.harness import ROOT, Candidate, Costs, Effort, Figures, interleave


def measure(effort: Effort) -> Figures:
    """`import dispatch` loads nothing that is not used, so what the client itself takes is looked at as well."""
    candidates = {
        "ours": _importing("import dispatch"),
        "client": _importing("from dispatch import Dispatch"),
        "usual": _importing("import asyncio, json, websockets.client"),
        "trio": _importing("from dispatch.trio import Dispatch"),
        "usual with trio": _importing("import trio, json, websockets.trio.client"),
        "sync": _importing("from dispatch.sync import Dispatch"),
        "usual with threads": _importing("import json, websockets.sync.client"),
    }
    rounds = interleave(candidates, effort, counts=dict.fromkeys(candidates, 1), at_least_rounds=5)
    return {
        ("I1", "import dispatch"): rounds.ratio("ours", "usual"),
        ("I1", "with the client"): rounds.ratio("client", "usual"),
        ("I1", "trio client"): rounds.ratio("trio", "usual with trio"),
        ("I1", "sync client"): rounds.ratio("sync", "usual with threads"),
    }


def _importing(statement: str) -> Candidate:
    """CPU of these imports in a fresh interpreter; its own start is not counted."""
    clock = "time.process_time_ns()"
    code = f"import time; start = {clock}; {statement}; print({clock} - start)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "bindings")))}

    def run(count: int) -> Costs:
        spent = 0
        for _ in range(count):
            done = subprocess.run(
                [sys.executable, "-c", code],
                capture_output=True,
                check=True,
                env=environment,
                timeout=30,
            )
            spent += int(done.stdout)
        return {"cpu": spent / count}

    return run
