"""The oracle: price every decision of a space and take the best.

It shares the space and the cost model with the solver, and none of the solver's arithmetic. For tests,
and for users who doubt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from catalog.schema import Engine
from planner.candidates.combinations import Combinations, affordable, all_combinations, with_weights
from planner.candidates.engines import both_run, conditions_of
from planner.candidates.goal import Goal, Limits
from planner.candidates.points import Points, Search, open_search
from planner.candidates.pool_points import all_points
from planner.errors import InputError
from planner.problem import Problem
from planner.search.solution import Kind, Solution
from planner.space import Option, Space

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MOST_CANDIDATES = 50_000_000
_BLOCK = 400_000


@dataclass(frozen=True)
class _Best:
    value: float
    point: int
    options: tuple[Option, ...]
    throttled: bool


def solve_exhaustively(problem: Problem, space: Space, goal: Goal | None = None) -> Solution:
    """Price every decision of a space.

    Raises
    ------
    InputError
        If the space holds more than `MOST_CANDIDATES` decisions.
    """
    goal = goal or Goal.of(problem.request)
    space = affordable(problem, space)
    search = open_search(problem, space)
    points = all_points(search)
    found = all_combinations(problem, space)
    by_weights = [with_weights(problem, space, found, weights) for weights in space.weights]
    owner = search.weights_of(points)
    count = sum(int(np.count_nonzero(owner == w)) * len(c) for w, c in enumerate(by_weights))
    if count > MOST_CANDIDATES:
        raise InputError(
            f"--solver exhaustive: {count:,} decisions are more than {MOST_CANDIDATES:,}; "
            "narrow the request (fewer GPUs, --engine, --weights, --techniques) or leave the solver out"
        )
    best: _Best | None = None
    for w, combinations in enumerate(by_weights):
        rows = np.flatnonzero(owner == w)
        if len(combinations) and len(rows):
            best = _best(search, points, rows, combinations, goal, Limits.of(problem.request), best)
    if best is None:
        return Solution("infeasible", search, considered=count, by="exhaustive")
    row = points.take(np.array([best.point]))
    engine = next(
        e.id for e in _engines(search, row, best.options) if (e.long_prefill_throttle is not None) == best.throttled
    )
    kind = Kind(row, best.options, engine)
    value = best.value
    return Solution("optimal", search, (kind,), value, value, value, considered=count, by="exhaustive")


def _engines(search: Search, row: Points, options: tuple[Option, ...]) -> tuple[Engine, ...]:
    unit, policy, pool = int(row.unit[0]), int(row.policy[0]), int(row.pool_unit[0])
    found = search.engines(unit, policy, options, pools=pool >= 0)
    return both_run(search, found, unit, policy, pool, options) if pool >= 0 else found


def _best(
    search: Search,
    points: Points,
    rows: Ints,
    combinations: Combinations,
    goal: Goal,
    limits: Limits,
    best: _Best | None,
) -> _Best | None:
    table = combinations.table(search.space)
    losses = combinations.loss_at(search.problem.request.confidence)
    each = max(1, _BLOCK // len(combinations))
    options = [combinations.chosen(search.space, column) for column in range(len(combinations))]
    runs = {throttled: _runnable(search, points, rows, options, throttled) for throttled in (True, False)}
    for start in range(0, len(rows), each):
        block = rows[start : start + each]
        owner = np.repeat(block, len(combinations))
        column = np.tile(np.arange(len(combinations)), len(block))
        for throttled, allowed in runs.items():
            keep = allowed[start : start + each].reshape(-1)
            if not keep.any():
                continue
            trial = points.take(owner[keep])
            priced = search.price(trial, table, column[keep], np.full(len(trial), throttled))
            value = np.where(limits.hold(priced), goal.value(priced, losses[column[keep]]), np.inf)
            at = int(np.argmin(value))
            if np.isfinite(value[at]) and (best is None or value[at] < best.value):
                best = _Best(float(value[at]), int(owner[keep][at]), options[int(column[keep][at])], throttled)
    return best


def _runnable(search: Search, points: Points, rows: Ints, options: list[tuple[Option, ...]], throttled: bool) -> Bools:
    """Whether an engine that throttles, or one that doesn't, runs a point with it ``(point, combination)``."""
    keys = list(
        zip(points.unit[rows].tolist(), points.policy[rows].tolist(), points.pool_unit[rows].tolist(), strict=True)
    )
    forbidden = search.space.compatibility.conditions
    by_key: dict[tuple[int, int, int], Bools] = {}
    for key in set(keys):
        unit, policy, pool = key
        holds = conditions_of(search, unit, policy, pool)
        able = np.zeros(len(options), dtype=np.bool_)
        for column, chosen in enumerate(options):
            if any((o.id, condition) in forbidden for o in chosen for condition in holds):
                continue
            row = replace(
                points,
                **{
                    name: getattr(points, name)[:1] for name in ("micro", "chunk", "alone", "replicas", "pool_replicas")
                },
                unit=np.array([unit]),
                policy=np.array([policy]),
                pool_unit=np.array([pool]),
            )
            found = _engines(search, row, chosen)
            able[column] = any((e.long_prefill_throttle is not None) == throttled for e in found)
        by_key[key] = able
    return np.array([by_key[key] for key in keys])
