"""CPU seconds of a plan's stages, beside another checkout where ``PLAN_BASELINE`` names one.

Run with ``PLAN_BASELINE=DIR pytest -m benchmark -s tests/benchmark/test_stages_speed.py``. Processes of both
alternate and the least of several counts, as other work on the machine only adds to it.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

RUNS = 5
HERE = Path(__file__).parents[2]
STAGES = {
    "command line": ["-c", "import cli"],
    "imports": ["-c", "import cli, planner.pipeline, planner.files, planner.report.plan"],
    "plan": ["cli.py", "--ctx", "1M", "--gpus", "8xA100", "--max-latency", "200ms", "--no-gains"],
    "plan, gains": ["cli.py", "--ctx", "128K", "--gpus", "8xA100", "--model", "llama-3.1-70b"],
}
"""What a process of each stage runs; a later stage does what an earlier one does, and more."""

pytestmark = pytest.mark.benchmark


@pytest.mark.parametrize("stage", STAGES)
def test_cpu_seconds_of_a_stage(stage: str, tmp_path: Path) -> None:
    trees = {"here": HERE}
    if baseline := os.environ.get("PLAN_BASELINE"):
        trees["baseline"] = Path(baseline).resolve()
    least = dict.fromkeys(trees, float("inf"))
    for run in range(RUNS + 1):
        for name, tree in trees.items():
            spent = _cpu_s(tree, STAGES[stage], tmp_path / name)
            if run:  # The first one fills the caches.
                least[name] = min(least[name], spent)
    text = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in least.items())
    ratio = f": {least['here'] / least['baseline']:.2f}" if "baseline" in least else ""
    print(f"\n{stage}: {text}{ratio}")


def _cpu_s(tree: Path, arguments: list[str], cache: Path) -> float:
    """CPU time of one process, its user's and the system's [s]."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(tree), "PLAN_CACHE": str(cache)}
    subprocess.run([sys.executable, *arguments], cwd=tree, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
