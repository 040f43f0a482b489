"""How fast plans are made. Run with ``pytest -m benchmark -s`` to see the tables."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catalog.load import open_catalog
from planner.problem import resolve
from planner.request import read_request
from planner.search.solver import Settings, solve
from planner.space import open_space
from tests.requests import opened, random_request

ROOT = Path(__file__).parents[2]
COMMAND = ("--ctx", "1M", "--gpus", "8xA100", "--max-latency", "200ms")
RUNS = 7
REQUESTS = 120
LARGE = (
    {"ctx": "1M", "gpus": "8x8xH100", "techniques": "published", "max_latency": "200ms"},
    {"ctx": "128K", "gpus": "8x8xH100", "techniques": "published", "model": "llama-3.1-70b"},
    {"ctx": "50K", "gpus": "8x8xA100", "techniques": "published", "model": "llama-3.1-8b", "max_latency": "50ms"},
)
"""Published techniques in every strength on 64 GPUs."""

pytestmark = pytest.mark.benchmark


def processor_s(*more: str) -> tuple[float, float]:
    """Time of one run of the command, on the clock and of the processor [s]."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "cli", *COMMAND, *more], cwd=ROOT, check=True, capture_output=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, used


@pytest.mark.parametrize(("more", "limit_s"), [(("--no-gains",), 1.2), ((), 2.5)])
def test_the_command_from_start_to_the_verified_plan(more: tuple[str, ...], limit_s: float) -> None:
    processor_s(*more)  # Compiles the catalog, and plans the parity base.
    runs = [processor_s(*more) for _ in range(RUNS)]
    clock, used = (statistics.median(column) for column in zip(*runs, strict=True))
    print(f"plan {' '.join([*COMMAND, *more])}: median {clock:.2f} s on the clock, {used:.2f} s of the processor")
    assert used < limit_s


@pytest.mark.parametrize("efficiency", ["peak", "measured"])
def test_random_requests(efficiency: str) -> None:
    catalog, rows = open_catalog(), []
    for seed in range(REQUESTS):
        found = opened(random_request(seed, efficiency), catalog)
        if found is not None:
            start, used = time.perf_counter(), time.process_time()
            status = solve(*found, settings=Settings(60.0)).status
            rows.append((time.process_time() - used, time.perf_counter() - start, seed, status))
    for name, column in (("processor", 0), ("clock", 1)):
        ordered = sorted(row[column] for row in rows)
        shares = [ordered[min(int(q * len(ordered)), len(ordered) - 1)] for q in (0.5, 0.95, 0.99)]
        print(
            f"{efficiency}, {name}: " + ", ".join(f"{s:.2f} s" for s in (*shares, ordered[-1])) + " (50, 95, 99, 100 %)"
        )
    undecided = [(seed, status) for *_, seed, status in rows if status not in ("optimal", "infeasible")]
    print(f"{len(rows)} requests; undecided: {undecided}; slowest: {sorted(rows)[-5:]}")
    used_s = sorted(row[0] for row in rows)
    assert used_s[int(0.95 * len(used_s))] < 1.0
    assert used_s[int(0.99 * len(used_s))] < 5.0


@pytest.mark.parametrize("asked", LARGE)
def test_large_spaces_are_proved(asked: dict[str, str]) -> None:
    problem = resolve(read_request(asked), open_catalog())
    space, used = open_space(problem), time.process_time()
    solution = solve(problem, space, settings=Settings(120.0))
    used = time.process_time() - used
    print(f"{asked}: {solution.status}, {solution.size} of {solution.considered:,} points, {used:.1f} s")
    assert solution.status == "optimal"
