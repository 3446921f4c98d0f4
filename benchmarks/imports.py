"""I1: what `import dispatch` costs, in fresh interpreters, beside imports that no such client can avoid."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.harness import ROOT, Candidate, Costs, Effort, Figures, interleave


def measure(effort: Effort) -> Figures:
    candidates = {"ours": _importing("dispatch"), "usual": _importing("asyncio, json, websockets.client")}
    rounds = interleave(candidates, effort, counts={"ours": 1, "usual": 1}, at_least_rounds=5)
    return {("I1", ""): rounds.ratio("ours", "usual")}


def _importing(modules: str) -> Candidate:
    """CPU of these imports in a fresh interpreter; its own start is not counted."""
    clock = "time.process_time_ns()"
    code = f"import time; start = {clock}; import {modules}; print({clock} - start)"
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
