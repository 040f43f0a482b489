"""Which part of a space can still hold the best plan: bounds, a first good plan, and what is left.

Every operating point is priced with a combination that doesn't exist, the best of every effect at
once. A point that breaks a limit even so, or can't beat a plan that is already known, can't be part
of a better one. What is left goes to CP-SAT, whose proof therefore covers the whole space.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from catalog.schema import Engine
from planner.cost.compression import CompressionTable
from planner.cost.quality import LogLoss
from planner.problem import Problem
from planner.solve.bounds import Bounds, by_class, by_weights
from planner.solve.classes import Classes, classes_of
from planner.solve.combinations import (
    Combinations,
    all_combinations,
    count_combinations,
    filtered,
    neighbours,
    with_weights,
    within_budget,
)
from planner.solve.goal import Goal, Limits
from planner.solve.points import Points, Search
from planner.solve.pools import pool_points
from planner.space import Option, Space

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MARGIN = 1e-6
"""Relative: points whose bound is this close to the known plan stay, so that ties are decided by rule."""
TRIED_POINTS, MOST_TRIED = 24, 2400
"""Points priced in full at a time, and at most."""
TRIED_COMBINATIONS, SAMPLED = 800, 50_000
MOST_LISTED = 1_000_000
"""Combinations that are looked at one by one for bounds."""
MOST_BOUNDED = 300_000
"""Pairs of a point and a class that are bounded."""
MOST_CHECKED, KEPT_COMBINATIONS, MOST_ROUNDS = 200, 12, 4


@dataclass(frozen=True)
class Incumbent:
    """A plan that is known to be possible."""

    value: float
    point: int
    """Row of `Scope.points`."""
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Scope:
    """What is left of a space."""

    search: Search
    goal: Goal
    limits: Limits
    points: Points
    """Operating points that may still be part of the best plan."""
    bounds: Floats
    """No combination reaches a lower value of the goal at that point."""
    classes: Classes
    possible: Bools | None
    """Classes that may still be part of the best plan ``(point, class)``; None: any."""
    incumbent: Incumbent | None
    considered: int
    """Operating points before any was dropped."""


def affordable(problem: Problem, space: Space) -> Space:
    """The space without options and weights that exceed the quality budget on their own."""

    def within(loss: LogLoss) -> bool:
        return bool(within_budget(problem, np.array([loss.mean]), np.array([loss.variance]))[0])

    return replace(
        space,
        options={name: tuple(o for o in options if within(o.loss)) for name, options in space.options.items()},
        weights=tuple(w for w in space.weights if within(w.loss)),
    )


def scope_of(search: Search, points: Points, goal: Goal, limits: Limits, *, first: bool = False) -> Scope:
    """Bound every point, find a first good plan, and drop what can't be better; ``first``: that plan is enough."""
    problem, space = search.problem, search.space
    considered = len(points)
    classes = classes_of(space.options)
    found = all_combinations(problem, space) if count_combinations(space) <= MOST_LISTED else None
    rows = by_weights(problem, space, classes, found)
    points, bounds = _bounded(search, points, rows, goal, limits)
    incumbent = first_plan(search, points, bounds, goal, limits, found)
    if first and incumbent is not None:
        return Scope(search, goal, limits, points, bounds, classes, None, incumbent, considered)
    split = pool_points(search, rows.table, goal, limits, incumbent.value if incumbent else None)
    if split is not None:
        considered += len(split)
        more, more_bounds = _bounded(search, split, rows, goal, limits)
        rival = first_plan(search, more, more_bounds, goal, limits, found)
        if rival is not None and (incumbent is None or rival.value < incumbent.value):
            incumbent = replace(rival, point=len(points) + rival.point)
        points, bounds = Points.joined([points, more]), np.concatenate([bounds, more_bounds])
    if incumbent is None:
        return Scope(search, goal, limits, points, bounds, classes, None, None, considered)
    keep = bounds <= incumbent.value * (1.0 + MARGIN)
    incumbent = replace(incumbent, point=int(np.count_nonzero(keep[: incumbent.point])))
    points, bounds = points.take(keep), bounds[keep]
    possible = _by_class(search, points, by_class(problem, space, classes, found), goal, limits, incumbent.value)
    if possible is not None:
        keep = np.asarray(possible.any(axis=1))
        keep[incumbent.point] = True
        incumbent = replace(incumbent, point=int(np.count_nonzero(keep[: incumbent.point])))
        points, bounds, possible = points.take(keep), bounds[keep], possible[keep]
    return Scope(search, goal, limits, points, bounds, classes, possible, incumbent, considered)


def _bounded(search: Search, points: Points, rows: Bounds, goal: Goal, limits: Limits) -> tuple[Points, Floats]:
    """Points that their bound leaves possible, with the goal's bound."""
    points = points.take(roomy(search, points, rows.table))
    if not len(points):
        return points, np.zeros(0)
    priced = search.price(points, rows.table, weights_of(search, points), can_throttle(search, points))
    keep = limits.hold(priced, users=False)
    losses = np.array([weights.loss.loss_at(search.problem.request.confidence) for weights in search.space.weights])
    return points.take(keep), goal.value(priced, losses[weights_of(search, points)])[keep]


def roomy(search: Search, points: Points, table: CompressionTable) -> Bools:
    """Points whose sessions fit HBM with the row of their weights, before anything is priced."""
    most = np.zeros(len(search.units))
    for unit in np.unique(np.concatenate([points.unit, points.pool_unit[points.pool_unit >= 0]])):
        known = search.units[int(unit)]
        most[unit] = search.pools(known.view, table)[int(unit)].fit[known.weights]
    pp = np.array([unit.split.pp for unit in search.units], dtype=np.int64)
    sequences = np.where(points.alone, 1, points.micro * pp[points.unit])
    fits = most[points.unit] >= np.where(sequences > 1, sequences + 1, 1)
    return fits & ((points.pool_unit < 0) | (most[points.pool_unit] >= 1))


def _by_class(search: Search, points: Points, rows: Bounds, goal: Goal, limits: Limits, known: float) -> Bools | None:
    """Which classes may still be part of the best plan at a point ``(point, class)``; None: too many to look at."""
    owner = weights_of(search, points)
    mine = [np.flatnonzero(rows.weights == w) for w in range(len(search.space.weights))]
    if sum(int(np.count_nonzero(owner == w)) * len(r) for w, r in enumerate(mine)) > MOST_BOUNDED:
        return None
    possible = np.zeros((len(points), int(rows.classes.max(initial=-1)) + 1), dtype=np.bool_)
    point = np.concatenate([np.repeat(np.flatnonzero(owner == w), len(r)) for w, r in enumerate(mine)])
    row = np.concatenate([np.tile(r, int(np.count_nonzero(owner == w))) for w, r in enumerate(mine)])
    trial = points.take(point)
    priced = search.price(trial, rows.table, row, can_throttle(search, trial))
    losses = np.array([weights.loss.loss_at(search.problem.request.confidence) for weights in search.space.weights])
    keep = limits.hold(priced, users=False)
    keep &= goal.value(priced, losses[owner[point]]) <= known * (1.0 + MARGIN)
    possible[point[keep], rows.classes[row[keep]]] = True
    return possible


def can_throttle(search: Search, points: Points) -> Bools:
    """Whether any engine that runs a point yields to short prefills, which is good for whoever waits."""
    able = [
        [any(e.long_prefill_throttle for e in search.engines(u, p, ())) for p in range(len(search.space.policies))]
        for u in range(len(search.units))
    ]
    return np.array(able, dtype=np.bool_).reshape(len(search.units), -1)[points.unit, points.policy]


def first_plan(
    search: Search, points: Points, bounds: Floats, goal: Goal, limits: Limits, found: Combinations | None
) -> Incumbent | None:
    """Price the most promising points with many combinations, then search around the best."""
    trial = _Trial(search, points, goal, limits)
    tried = _tried(search.problem, search.space, found)
    order = _interleaved(weights_of(search, points), np.argsort(bounds, kind="stable"))
    good: list[Incumbent] = []
    for start in range(0, min(len(order), MOST_TRIED), TRIED_POINTS):
        if good and start >= 2 * TRIED_POINTS:
            break
        good = _best(good + trial.of(order[start : start + TRIED_POINTS], tried))
    promising = np.argsort(bounds, kind="stable")[:MOST_TRIED]
    for _ in range(MOST_ROUNDS):
        if not good:
            return None
        before = good[0].value
        good = _best(good + trial.of(promising, trial.combinations(good)))
        around = filtered(search.problem, search.space, neighbours(search.space, good[0].options))
        good = _best(good + trial.of(np.array([good[0].point]), around))
        if good[0].value >= before * (1.0 - MARGIN):
            break
    return good[0] if good else None


def _best(plans: list[Incumbent]) -> list[Incumbent]:
    """The best plan with each combination of options, the best of them first, not too many."""
    found: dict[tuple[str, ...], Incumbent] = {}
    for plan in sorted(plans, key=lambda plan: plan.value):
        found.setdefault(tuple(option.id for option in plan.options), plan)
    return list(found.values())[:KEPT_COMBINATIONS]


def weights_of(search: Search, points: Points) -> Ints:
    """Index of each point's weights."""
    return np.array([unit.weights for unit in search.units], dtype=np.int64)[points.unit]


def _interleaved(weights: Ints, order: Ints) -> Ints:
    """The order again, but with the best point of every weight precision first, then every second best, ..."""
    rank = np.empty(len(order), dtype=np.int64)
    for w in np.unique(weights):
        mine = order[weights[order] == w]
        rank[mine] = np.arange(len(mine))
    return order[np.argsort(rank[order], kind="stable")]


def _tried(problem: Problem, space: Space, found: Combinations | None) -> Combinations:
    """Combinations to try: all if they are few, else those that keep, read or compute the least."""
    if found is None:
        found = filtered(problem, space, _sample(space))
    if len(found) <= TRIED_COMBINATIONS:
        return found
    table = found.table(space)
    length = float(problem.workload.decode_tokens)
    merits = (
        table.stored_tokens(length, length),
        table.read_tokens(length, length),
        table.prefill_attention * table.prefill_linear,
        table.prefill_attention * table.stored_tokens(length, length),
    )
    best = [np.argsort(merit, kind="stable")[: TRIED_COMBINATIONS // len(merits)] for merit in merits]
    return found.take(np.unique(np.concatenate(best)))


def _sample(space: Space) -> Ints:
    """Columns of option indices drawn evenly, always the same ones."""
    generator = np.random.default_rng(0)
    sizes = [len(options) for options in space.options.values()]
    return np.stack([generator.integers(0, size, SAMPLED) for size in sizes])


class _Trial:
    """Prices points with combinations and keeps those that are possible."""

    def __init__(self, search: Search, points: Points, goal: Goal, limits: Limits) -> None:
        self.search, self.points, self.goal, self.limits = search, points, goal, limits
        self.weights = weights_of(search, points)

    def combinations(self, plans: list[Incumbent]) -> Combinations:
        """The combinations of some plans."""
        space = self.search.space
        columns = [[space.options[n].index(o) for n, o in zip(space.options, p.options, strict=True)] for p in plans]
        return filtered(self.search.problem, space, np.array(columns, dtype=np.int64).T)

    def of(self, rows: Ints, found: Combinations) -> list[Incumbent]:
        """The best plans of some points with some combinations, the best first."""
        space, problem = self.search.space, self.search.problem
        columns, owners, losses, tables = [], [], [], []
        base = 0
        for w in np.unique(self.weights[rows]):
            allowed = with_weights(problem, space, found, space.weights[int(w)])
            mine = rows[self.weights[rows] == w]
            columns.append(base + np.tile(np.arange(len(allowed)), len(mine)))
            owners.append(np.repeat(mine, len(allowed)))
            losses.append(np.tile(allowed.loss_at(problem.request.confidence), len(mine)))
            tables.append(allowed)
            base += len(allowed)
        if base == 0 or not len(rows):
            return []
        joined = Combinations.joined(tables)
        column, owner, loss = np.concatenate(columns), np.concatenate(owners), np.concatenate(losses)
        trial = self.points.take(owner)
        table, throttled = joined.table(space), can_throttle(self.search, trial)
        value = self._value(trial, table, column, throttled, loss)
        good: list[Incumbent] = []
        for row in np.argsort(value, kind="stable")[:MOST_CHECKED]:
            if not np.isfinite(value[row]) or len(good) >= KEPT_COMBINATIONS:
                break
            options = joined.chosen(space, int(column[row]))
            engines = engines_of(self.search, trial, int(row), options)
            reached = float(value[row])
            if engines and throttled[row] and not engines[0].long_prefill_throttle:
                # None of the engines that run these options yields to short prefills.
                one = np.array([row])
                reached = float(
                    self._value(trial.take(one), table, column[one], np.zeros(1, dtype=np.bool_), loss[one])[0]
                )
            if engines and np.isfinite(reached):
                good.append(Incumbent(reached, int(owner[row]), options))
        return good

    def _value(self, points: Points, table: CompressionTable, column: Ints, throttled: Bools, loss: Floats) -> Floats:
        """The goal's value, infinite where a limit is broken."""
        priced = self.search.price(points, table, column, throttled)
        return np.where(self.limits.hold(priced), self.goal.value(priced, loss), np.inf)


def engines_of(search: Search, points: Points, row: int, options: tuple[Option, ...]) -> tuple[Engine, ...]:
    """Engines that run a point with these options, the most capable first; those that throttle alone if any does."""
    unit, policy, pool = int(points.unit[row]), int(points.policy[row]), int(points.pool_unit[row])
    holds = conditions_of(search, unit, policy, pool)
    forbidden = search.space.compatibility.conditions
    if any((option.id, condition) in forbidden for option in options for condition in holds):
        return ()
    found = search.engines(unit, policy, options, pools=pool >= 0)
    if pool >= 0:
        also = search.engines(pool, policy, options, pools=True)
        found = tuple(engine for engine in found if engine in also)
    throttling = tuple(engine for engine in found if engine.long_prefill_throttle)
    return throttling or found


def conditions_of(search: Search, unit: int, policy: int, pool: int) -> set[str]:
    """Which of the conditions that rules speak of hold for a point."""
    holds = set()
    if search.units[unit].split.tp > 1 or (pool >= 0 and search.units[pool].split.tp > 1):
        holds.add("tensor_parallel")
    if search.space.policies[policy].policy == "swap":
        holds.add("offload")
    if pool >= 0:
        holds.add("disaggregated")
    return holds
