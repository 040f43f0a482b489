"""The search against the exhaustive oracle, on one request.

With replicas of one kind both must say the same: whether there is a plan, and the objective to nine digits.
With several kinds the search must be no worse. `tests.multisets` is the oracle of several kinds.

Run as a module, it compares random requests: ``python -m tests.oracle 0 400 --most 300000``.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace

from catalog.load import open_catalog
from planner.price import evaluate
from planner.problem import Problem
from planner.search.exhaustive import solve_exhaustively
from planner.search.services import services_of
from planner.search.solver import Settings, Solution, solve
from planner.space import Space
from planner.verify import VerificationError, verify
from tests.requests import count_decisions, opened, random_request, spare_request

TOLERANCE = 1e-9


@dataclass(frozen=True)
class Comparison:
    """What both said."""

    solved: Solution
    """With several kinds."""
    expected: Solution
    seconds: float
    """On the clock; other programs count."""
    processor_s: float
    """Of the processor, on all cores."""
    problems: tuple[str, ...]


def compare(problem: Problem, space: Space, settings: Settings | None = None) -> Comparison:
    """Solve a space in both ways, and verify what the search says."""
    start, processor = time.perf_counter(), time.process_time()
    solved = solve(problem, space, settings=settings)
    seconds, processor_s = time.perf_counter() - start, time.process_time() - processor
    alike = solve(problem, replace(space, one_kind=True), settings=settings)
    expected = solve_exhaustively(problem, space)
    problems = [*_unverified(problem, space, solved), *_unverified(problem, space, alike)]
    for one in (solved, alike):
        if one.status not in ("optimal", "infeasible"):
            problems.append(f"status: {one.status}")
    if not _same(alike.value, expected.value):
        problems.append(f"objective: the search has {alike.value}, the oracle {expected.value}")
    if expected.value is not None and (solved.value is None or solved.value > expected.value * (1.0 + TOLERANCE)):
        problems.append(f"objective: {solved.value} with several kinds, {expected.value} with one")
    return Comparison(solved, expected, seconds, processor_s, tuple(problems))


def _same(value: float | None, other: float | None) -> bool:
    if value is None or other is None:
        return value is other
    return abs(value - other) <= TOLERANCE * abs(other) + 1e-12


def _unverified(problem: Problem, space: Space, solved: Solution) -> list[str]:
    if not solved.kinds:
        return []
    try:
        verify(problem, space, evaluate(problem, services_of(solved)), solved.value)
    except VerificationError as error:
        return list(error.problems)
    return []


def shares(seconds: list[float]) -> str:
    """Median, 95th and 99th percentile, and the longest."""
    ordered = sorted(seconds)
    ranks = {f"{q:.0%}": min(int(q * len(ordered)), len(ordered) - 1) for q in (0.5, 0.95, 0.99, 1.0)}
    return ", ".join(f"{name} {ordered[rank]:.2f}s" for name, rank in ranks.items())


def main() -> None:
    """Compare the random requests of a range of seeds, and print how long the solver took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    parser.add_argument("--most", type=int, default=300_000, help="decisions")
    parser.add_argument("--efficiency", default="peak", help="peak or measured")
    parser.add_argument("--spare", action="store_true", help="requests with replicas in reserve")
    arguments = parser.parse_args()
    catalog = open_catalog()
    said: list[Comparison] = []
    wrong = 0
    for seed in range(arguments.first, arguments.last):
        asked = spare_request(seed) if arguments.spare else random_request(seed, arguments.efficiency)
        found = opened(asked, catalog)
        if found is None or (count := count_decisions(*found)) > arguments.most:
            continue
        try:
            one = compare(*found)
        except Exception as error:
            print(f"{seed} CRASH {type(error).__name__}: {error}", flush=True)
            wrong += 1
            continue
        said.append(one)
        wrong += bool(one.problems)
        if one.problems or one.processor_s > 1.0:
            times = f"{one.seconds:.2f}s, processor {one.processor_s:.2f}s"
            print(f"{seed} {count} {times}, {one.solved.size} {one.problems}", flush=True)
        if len(said) % 25 == 0:
            _report(said, wrong)
    _report(said, wrong)


def _report(said: list[Comparison], wrong: int) -> None:
    feasible = sum(s.solved.value is not None for s in said)
    print(f"{len(said)} requests, {feasible} feasible, {wrong} wrong", flush=True)
    if said:
        print(f"  on the clock: {shares([s.seconds for s in said])}")
        print(f"  of the processor: {shares([s.processor_s for s in said])}", flush=True)


if __name__ == "__main__":
    main()
