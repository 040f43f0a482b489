"""Which part of a space can still hold the best plan: bounds, a first good plan, and what is left.

Every operating point is priced with a combination that doesn't exist, the best of every effect at
once. A point that breaks a limit even so, or can't beat a plan that is already known, can't be part
of a better one. What is left goes to CP-SAT, whose proof therefore covers the whole space.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.cost.compression import CompressionTable
from planner.cost.quality import LogLoss
from planner.problem import Problem
from planner.service import DIMENSIONS
from planner.solve.cells import MOST_LISTED, Cells
from planner.solve.classes import Classes, classes_of
from planner.solve.combinations import all_combinations, count_combinations, within_budget
from planner.solve.goal import Goal, Limits
from planner.solve.halves import Halves
from planner.solve.narrowing import TIE, Incumbent, Narrowing
from planner.solve.points import Points, Search
from planner.solve.trying import try_plans
from planner.space import Option, Space

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MOST_MODELLED = 5_000
"""Points that CP-SAT is given; where bounds leave more in the time, the best known plan stays unproved."""


@dataclass(frozen=True)
class Scope:
    """What is left of a space."""

    search: Search
    """Of a space without the options that can't be part of a better plan."""
    goal: Goal
    limits: Limits
    points: Points
    """Operating points that may still be part of the best plan."""
    classes: Classes
    possible: Bools | None
    """Classes that may still be part of the best plan ``(point, class)``; None: any."""
    incumbent: Incumbent | None
    bound: float
    """No plan of the whole space has a lower value of the goal."""
    complete: bool
    """Nothing was left out that could be better than the plan that is known."""
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


def scope_of(
    search: Search, points: Points, goal: Goal, limits: Limits, *, first: bool = False, ends_s: float = math.inf
) -> Scope:
    """Bound every point, find a first good plan, and drop what can't be better.

    Parameters
    ----------
    search, points
        The space, and its points without pools.
    goal, limits
        What is minimised, and what must hold.
    first
        Any plan is enough: once one is found nothing is narrowed further.
    ends_s
        When to stop narrowing, on the monotonic clock [s].
    """
    problem, space = search.problem, search.space
    found = all_combinations(problem, space) if count_combinations(space) <= MOST_LISTED else None
    cells = Cells(problem, space, found)
    table = cells.by_weights()
    narrowing = Narrowing(search, cells, goal, limits, None, ends_s, first=first)
    considered = len(points)
    narrowing.add(points.take(roomy(search, points, table)))
    try_plans(narrowing)
    if not (first and narrowing.incumbent):
        narrowing.narrow()
    if space.disaggregated and not (first and narrowing.incumbent):
        considered += _add_pools(narrowing)
    narrowing.spread()
    return _scope(narrowing, considered)


def _add_pools(narrowing: Narrowing) -> int:
    """Add what can be better of points with two pools, and narrow again; returns how many there are."""
    n = narrowing
    halves = Halves(n.search, n.cells, n.goal, n.limits, n.incumbent, n.ends_s, first=n.first)
    count = halves.begin()
    if count:
        halves.narrow()
        n.incumbent = halves.incumbent
        n.drop()
        halves.expand(n)
        n.narrow()
    return count


def _scope(narrowing: Narrowing, considered: int) -> Scope:
    """What narrowing left, with the options and the classes that are left."""
    search, cells, pairs = narrowing.search, narrowing.cells, narrowing.pairs
    used, row = np.unique(pairs.point, return_inverse=True)
    points = narrowing.points.take(used)
    known = narrowing.incumbent
    complete = narrowing.open_value >= (np.inf if known is None else known.value * (1.0 - TIE))
    if len(points) > MOST_MODELLED:
        classes = classes_of(search.space.options)
        return Scope(
            *(search, narrowing.goal, narrowing.limits, points, classes, None, known),
            *(narrowing.bound, complete, considered),
        )
    indices, cell = np.unique(pairs.cell, return_inverse=True)
    left = cells.options(indices.tolist()) if len(indices) else [{0} for _ in DIMENSIONS]
    options = {
        name: tuple(
            option
            for o, option in enumerate(search.space.options[name])
            if o in left[d] or option.point is None or (known is not None and option is known.options[d])
        )
        for d, name in enumerate(DIMENSIONS)
    }
    narrowed = replace(search, space=replace(search.space, options=options))
    classes = classes_of(options)
    possible = None
    if cells.listed and len(indices):
        columns = [_renumbered(search.space, options, cells.found.options[:, cells.cells[i].members]) for i in indices]
        of_cell = np.zeros((len(indices), len(classes.rows)), dtype=np.bool_)
        for at, chosen in enumerate(columns):
            of_cell[at, np.unique(classes.of(chosen))] = True
        possible = np.zeros((len(points), len(classes.rows)), dtype=np.bool_)
        for at in range(len(indices)):
            possible[row[cell == at]] |= of_cell[at]
    if known is not None:
        points, possible = _with_known(points, possible, known, classes, options)
    return Scope(
        *(narrowed, narrowing.goal, narrowing.limits, points, classes, possible, known),
        *(narrowing.bound, complete, considered),
    )


def _renumbered(space: Space, options: dict[str, tuple[Option, ...]], columns: Ints) -> Ints:
    """Columns of option indices in a space with fewer options."""
    rows = []
    for d, name in enumerate(DIMENSIONS):
        place = {option.id: o for o, option in enumerate(options[name])}
        rows.append(np.array([place.get(option.id, 0) for option in space.options[name]])[columns[d]])
    return np.stack(rows)


def _with_known(
    points: Points,
    possible: Bools | None,
    known: Incumbent,
    classes: Classes,
    options: dict[str, tuple[Option, ...]],
) -> tuple[Points, Bools | None]:
    """The points with the one of the plan that is known among them, and its class possible there."""
    at = known.place(points)
    if at is None:
        points, at = Points.joined([points, known.row]), len(points)
        if possible is not None:
            possible = np.concatenate([possible, np.zeros((1, possible.shape[1]), dtype=np.bool_)])
    if possible is not None:
        column = [[options[name].index(o)] for name, o in zip(DIMENSIONS, known.options, strict=True)]
        possible[at, classes.of(np.array(column))] = True
    return points, possible


def roomy(search: Search, points: Points, table: CompressionTable) -> Bools:
    """Points whose sessions fit HBM with the row of their weights, before anything is priced."""
    most = np.zeros(len(search.units))
    for unit in np.unique(np.concatenate([points.unit, points.pool_unit[points.pool_unit >= 0]])):
        known = search.units[int(unit)]
        most[unit] = search.pools(known.view, table)[int(unit)].fit[known.weights]
    pp = np.array([unit.split.pp for unit in search.units], dtype=np.int64)
    sequences = np.where(points.alone, 1, points.micro * pp[points.unit])
    fits = most[points.unit] >= np.where(sequences > 1, sequences + 1, 1)
    return fits & ((points.pool_unit < 0) | (most[np.maximum(points.pool_unit, 0)] >= 1))
