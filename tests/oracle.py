"""The solver against the exhaustive oracle, on one request.

Both must agree on whether there is a plan, and on the objective within `TOLERANCE`. The solver rounds
against us, so where the oracle's plan leaves a limit less than `TOLERANCE` of slack it may refuse that
plan, but no other: it must then be as good as the oracle is under limits that are so much tighter.

Run as a module, it compares random requests: ``python -m tests.oracle 0 400 --most 300000``.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace

from catalog.load import open_catalog
from planner.price import evaluate
from planner.problem import Problem
from planner.solve.decision import service_of
from planner.solve.exhaustive import solve_exhaustively
from planner.solve.solver import Settings, Solution, solve
from planner.space import Space
from planner.verify import VerificationError, verify
from tests.requests import count_decisions, opened, random_request

TOLERANCE = 1e-3


@dataclass(frozen=True)
class Comparison:
    """What both said."""

    solved: Solution
    expected: Solution
    seconds: float
    """On the clock; other programs count."""
    processor_s: float
    """Of the processor, on all cores."""
    problems: tuple[str, ...]
    excused: bool = False


def compare(problem: Problem, space: Space, settings: Settings | None = None) -> Comparison:
    """Solve a space in both ways, and verify what the solver says."""
    start, processor = time.perf_counter(), time.process_time()
    solved = solve(problem, space, settings=settings)
    seconds, processor_s = time.perf_counter() - start, time.process_time() - processor
    expected = solve_exhaustively(problem, space)
    problems = [*_unverified(problem, space, solved)]
    excused = False
    if solved.status not in ("optimal", "infeasible"):
        problems.append(f"status: {solved.status}")
    elif solved.value is not None and expected.value is None:
        problems.append(f"feasible: the solver has {solved.value:.9g}, the oracle nothing")
    elif solved.value is not None and solved.value < expected.value * (1.0 - TOLERANCE) - 1e-9:
        problems.append(f"objective: the solver has {solved.value:.9g}, below the oracle's {expected.value:.9g}")
    elif not _as_good(solved, expected):
        tightened = solve_exhaustively(replace(problem, request=tighter(problem)), space)
        excused = _as_good(solved, tightened)
        if not excused:
            problems.append(
                f"objective: the solver has {solved.value}, the oracle {expected.value}, {tightened.value} tightened"
            )
    return Comparison(solved, expected, seconds, processor_s, tuple(problems), excused)


def tighter(problem: Problem):
    """The request with every limit tighter by the tolerance."""
    request = problem.request
    times = ("max_latency", "max_ttft", "max_warm_ttft", "max_switch", "max_quality_loss")
    changed = {name: value * (1.0 - TOLERANCE) for name in times if (value := getattr(request, name)) is not None}
    if request.users is not None:
        changed["users"] = request.users * (1.0 + TOLERANCE)
    return request.model_copy(update=changed)


def _as_good(solved: Solution, expected: Solution) -> bool:
    if expected.value is None:
        return True
    return solved.value is not None and solved.value <= expected.value * (1.0 + TOLERANCE) + 1e-9


def _unverified(problem: Problem, space: Space, solved: Solution) -> list[str]:
    if solved.points is None:
        return []
    try:
        verify(problem, space, evaluate(problem, service_of(solved)), solved.value)
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
    arguments = parser.parse_args()
    catalog = open_catalog()
    said: list[Comparison] = []
    wrong = 0
    for seed in range(arguments.first, arguments.last):
        found = opened(random_request(seed, arguments.efficiency), catalog)
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
        if one.problems or one.processor_s > 1.0 or one.excused:
            left = f"{one.solved.left}/{one.solved.considered} points left"
            times = f"{one.seconds:.2f}s, processor {one.processor_s:.2f}s"
            print(f"{seed} {count} {times}, {left} {one.excused=} {one.problems}", flush=True)
        if len(said) % 25 == 0:
            _report(said, wrong)
    _report(said, wrong)


def _report(said: list[Comparison], wrong: int) -> None:
    feasible, excused = sum(s.solved.value is not None for s in said), sum(s.excused for s in said)
    print(f"{len(said)} requests, {feasible} feasible, {excused} excused, {wrong} wrong", flush=True)
    if said:
        print(f"  on the clock: {shares([s.seconds for s in said])}")
        print(f"  of the processor: {shares([s.processor_s for s in said])}", flush=True)


if __name__ == "__main__":
    main()
