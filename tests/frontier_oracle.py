"""The frontier against every decision of the same space, on one request.

Both directions: whatever decision no other beats is on the frontier to a small share of every objective, and no plan
of the frontier is beaten by any decision.

Run as a module, it compares random requests: ``python -m tests.frontier_oracle 0 100 --most 300000``.
"""

from __future__ import annotations

import argparse
import random
import time

import numpy as np

from catalog.load import open_catalog
from planner.candidates.combinations import affordable, all_combinations, with_weights
from planner.candidates.goal import Limits
from planner.candidates.points import open_search
from planner.candidates.pool_points import all_points
from planner.price import evaluate
from planner.problem import Problem
from planner.request import Request
from planner.search.exhaustive import _runnable
from planner.search.frontier import AXES, Axis, Frontier, frontier, solution_of
from planner.search.services import services_of
from planner.space import Space
from planner.verify import broken_limits, unavailable
from tests.requests import count_decisions, opened, random_request

TOLERANCE = 1e-3
_PAIRS = 400_000


def every_vector(problem: Problem, space: Space, axes: tuple[Axis, ...]) -> np.ndarray:
    """Objectives of unbeaten decisions, and the least hours per interaction with each ``(decision, objective + 1)``."""
    space = affordable(problem, space)
    search = open_search(problem, space)
    points = all_points(search)
    limits = Limits.of(problem.request)
    found = all_combinations(problem, space)
    owner = search.weights_of(points)
    best = [np.zeros((0, len(axes) + 1))]
    for w, weights in enumerate(space.weights):
        every, rows = with_weights(problem, space, found, weights), np.flatnonzero(owner == w)
        if not len(every) or not len(rows):
            continue
        table, losses = every.table(space), every.loss_at(problem.request.confidence)
        options = [every.chosen(space, column) for column in range(len(every))]
        each = max(1, _PAIRS // len(every))
        for start in range(0, len(rows), each):
            block = rows[start : start + each]
            for throttled in (True, False):
                keep = _runnable(search, points, block, options, throttled).reshape(-1)
                column = np.tile(np.arange(len(every)), len(block))[keep]
                trial = points.take(np.repeat(block, len(every))[keep])
                if not len(trial):
                    continue
                priced = search.price(trial, table, column, np.full(len(trial), throttled))
                hours = np.where(
                    priced.interactions_per_hour > 0, 1.0 / np.maximum(priced.interactions_per_hour, 1e-300), np.inf
                )
                values = {
                    "throughput": hours,
                    "cost": hours * priced.gpus,
                    "tpot": priced.tpot_s,
                    "ttft": priced.ttft_cold_s,
                    "quality": losses[column],
                    "gpus": priced.gpus,
                }
                vectors = np.stack([values[axis] for axis in (*axes, "throughput")], axis=1)
                held = limits.hold(priced) & np.isfinite(vectors).all(axis=1)
                best.append(_unbeaten(np.concatenate([best.pop(), vectors[held]])))
    return best[0]


def _unbeaten(vectors: np.ndarray) -> np.ndarray:
    """By definition, one row after the other: rows whose objectives no other's are as small as in all.

    Of rows with the same objectives the one with the least hours, the last component, stays.
    """
    vectors = vectors[np.lexsort(vectors.T[::-1])]
    kept = np.ones(len(vectors), dtype=bool)
    for row in range(len(vectors)):
        if kept[row]:
            beaten = (vectors[row, :-1] <= vectors[:, :-1]).all(axis=1)
            beaten[row] = False
            kept &= ~beaten
    return vectors[kept]


def compare(problem: Problem, space: Space, axes: tuple[Axis, ...]) -> tuple[Frontier, list[str]]:
    """The frontier of a space, and everything that is wrong with it."""
    found = frontier(problem, space, axes)
    expected = every_vector(problem, space, axes)
    problems = []
    mine = []
    for plan in found.plans:
        evaluation = evaluate(problem, services_of(solution_of(found, plan)))
        problems += broken_limits(evaluation) + unavailable(problem, space, evaluation)
        metrics = evaluation.metrics
        hours = 1.0 / metrics.interactions_per_hour if metrics.interactions_per_hour else np.inf
        values = {
            "throughput": hours,
            "cost": hours * metrics.gpus_used,
            "tpot": evaluation.largest.figures.itl_full_s,  # a plan of one-token answers tells none
            "ttft": metrics.named("ttft_full_s"),
            "quality": metrics.quality_loss_at_confidence,
            "gpus": metrics.gpus_used,
        }
        mine.append([values[axis] for axis in (*axes, "throughput")])
    have = np.array(mine).reshape(-1, len(axes) + 1)
    for row in have:
        same = np.isclose(expected[:, :-1], row[:-1], rtol=1e-7, atol=1e-9).all(axis=1)
        if (expected[same, -1] < row[-1] * (1.0 - TOLERANCE)).any():
            problems.append(f"slow: {row.tolist()}, {expected[same].tolist()}")
    have, expected = have[:, :-1], expected[:, :-1]
    for vector in expected:
        if not len(have) or not (have <= vector * (1.0 + TOLERANCE) + 1e-9).all(axis=1).any():
            problems.append(f"missing: {dict(zip(axes, vector.tolist(), strict=True))}")
    for vector in have:
        better = (expected <= vector).all(axis=1) & (expected < vector * (1.0 - TOLERANCE) - 1e-9).any(axis=1)
        if better.any():
            rival = expected[int(np.argmax(better))]
            problems.append(f"dominated: {vector.tolist()} by {rival.tolist()}")
    if not found.complete:
        problems.append("incomplete")
    return found, problems


def random_axes(seed: int) -> tuple[Axis, ...]:
    """Two or three objectives."""
    draw = random.Random(seed)
    return tuple(draw.sample(AXES, draw.choice((2, 2, 3))))


def asked(seed: int, efficiency: str = "peak") -> Request:
    """The random request of a seed, without an objective, which a frontier doesn't have."""
    return random_request(seed, efficiency).model_copy(update={"objective": "throughput"})


def main() -> None:
    """Compare the random requests of a range of seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    parser.add_argument("--most", type=int, default=300_000, help="decisions")
    parser.add_argument("--efficiency", default="peak")
    arguments = parser.parse_args()
    catalog = open_catalog()
    compared, wrong, plans = 0, 0, 0
    for seed in range(arguments.first, arguments.last):
        found = opened(asked(seed, arguments.efficiency), catalog)
        if found is None or (count := count_decisions(*found)) > arguments.most:
            continue
        axes = random_axes(seed)
        start = time.process_time()
        result, problems = compare(*found, axes)
        compared, wrong, plans = compared + 1, wrong + bool(problems), plans + len(result.plans)
        said = f"{seed} {count} {axes} {len(result.plans)} plans {time.process_time() - start:.1f}s"
        print(said, *problems[:4], flush=True)
    print(f"{compared} compared, {plans} plans, {wrong} wrong")


if __name__ == "__main__":
    main()
