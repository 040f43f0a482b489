"""Of clusters as good as the best the simplest, where users are asked for: what bounds left out is looked at once more.

Bounds count users, also more of them than are asked for, so that a column with fewer stages, fewer techniques or
sooner answers may be left out for one that serves more. Where the objective is another, a cluster of one kind is
sought anew among all columns of its size, the simplest first.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from planner.candidates.combinations import filtered, with_weights
from planner.candidates.points import Points, Search
from planner.candidates.serving_points import aggregated_points, column_points
from planner.limits import SLACK
from planner.search.columns import Columns, Pricer
from planner.search.columns_found import Found
from planner.search.compose import Composed, allowed
from planner.search.known import TIE, Composition, composition_of
from planner.search.ties import Ties, formats_of
from planner.service import DIMENSIONS

Ints = NDArray[np.int64]

MOST_ALIKE = 60_000
"""Columns with as many stages and techniques that are priced; where there are more they are passed over."""


def simplest(found: Found, composed: Composed, tolerance: float, ends_s: float) -> Composed:
    """Take the simplest of clusters of one kind with as many replicas of as many GPUs that are as good.

    Parameters
    ----------
    found, composed
        What was composed, and of what.
    tolerance
        How much worse than the best it may be [fraction].
    ends_s
        When to stop, on the monotonic clock [s].
    """
    shown, floor = composed.composition, found.limits.users
    one_kind = len(shown.counts) == 1 and shown.columns.points.pool_unit[0] < 0
    if floor is None or found.goal.name == "throughput" or not one_kind:
        return composed
    count = int(shown.counts[0])
    most = composed.best + allowed(found.goal.name, composed.best, max(tolerance, TIE))
    pricer = Pricer(found.search, found.goal, found.limits)
    for points, options in _levels(found.search, shown):
        if time.monotonic() >= ends_s:
            break
        columns = pricer.columns(points, options)
        good = columns.users * count >= floor * (1.0 - SLACK)
        if not found.goal.adds_up:
            good &= columns.worst <= most
        columns = columns.take(good)
        if len(columns):
            level = Ties.of(found.search, columns)
            first = np.lexsort((level.order, level.late))[:1]
            return replace(composed, composition=composition_of(columns, first, np.array([count]), found.goal))
    return composed


def _levels(search: Search, shown: Composition) -> Iterator[tuple[Points, Ints]]:
    """Columns of as many GPUs with no more stages and techniques: those of each number of both, the least first."""
    ties = Ties.of(search, shown.columns)
    points = _alike(search, shown.columns)
    pp = np.array([unit.split.pp for unit in search.units], dtype=np.int64)[points.unit]
    owner, formats = search.weights_of(points), formats_of(search.space)
    for stages in np.unique(pp[pp <= ties.stages[0]]).tolist():
        for techniques in range(int(ties.techniques[0]) + 1):
            parts = []
            for w in np.unique(owner[pp == stages]).tolist():
                options = _with_techniques(search, w, techniques - int(formats[w]))
                rows = np.flatnonzero((owner == w) & (pp == stages))
                parts.append((np.repeat(rows, options.shape[1]), np.tile(options, len(rows))))
            rows = np.concatenate([part[0] for part in parts])
            if 0 < len(rows) <= MOST_ALIKE:
                yield points.take(rows), np.concatenate([part[1] for part in parts], axis=1)


def _alike(search: Search, columns: Columns) -> Points:
    """Points of one column that takes as many GPUs."""
    points = column_points(search, aggregated_points(search))
    taken = search.taken_by(points)
    return points.take((taken.gpus == columns.gpus[0]) & (taken.reserve == columns.reserve[0]))


def _with_techniques(search: Search, w: int, count: int) -> Ints:
    """Combinations of so many techniques with some weights ``(dimension, combination)``."""
    problem, space = search.problem, search.space
    grid, used = np.zeros((0, 1), dtype=np.int64), np.zeros(1, dtype=np.int64)
    for name in DIMENSIONS:
        some = np.array([option.point is not None for option in space.options[name]], dtype=np.int64)
        grid = np.concatenate([np.repeat(grid, len(some), axis=1), np.tile(np.arange(len(some)), grid.shape[1])[None]])
        used = np.repeat(used, len(some)) + np.tile(some, len(used))
        grid, used = grid[:, used <= count], used[used <= count]
    found = filtered(problem, space, grid[:, used == count])
    return with_weights(problem, space, found, space.weights[w]).options
