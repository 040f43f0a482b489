"""A first good plan: promising points with many combinations, then around the best of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planner.candidates.combinations import Combinations, filtered, neighbours, with_weights
from planner.candidates.each_once import each_once
from planner.problem import Problem
from planner.search.branch import Branch
from planner.space import Space

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

TRIED_POINTS, MOST_TRIED = 24, 480
"""Points priced in full at a time, and at most."""
TRIED_COMBINATIONS = 400
MOST_ALIKE = 3_000
"""Points that are tried with the combination of a plan that is known."""


def try_plans(branch: Branch) -> None:
    """Price promising points with many combinations; what is found becomes the plan that is known."""
    if not len(branch.pairs):
        return
    problem, space = branch.search.problem, branch.search.space
    tried = to_try(problem, space, branch.cells.found)
    before = branch.known
    order = interleaved(_sizes(branch), branch.by_promise())
    for start in range(0, min(len(order), MOST_TRIED), TRIED_POINTS):
        if start and branch.known is not None:
            break
        _try(branch, branch.pairs.point[order[start : start + TRIED_POINTS]], tried)
    known = branch.known
    if known is None or known is before:
        return
    branch.drop()
    for kind in range(len(known.counts)):
        options = known.columns.options[:, [kind]]
        same = branch.taken.gpus[branch.pairs.point] == known.columns.gpus[kind]
        promising = branch.by_promise()
        promising = promising[same[promising]][:MOST_ALIKE]
        _try(branch, each_once(branch.pairs.point[promising]), filtered(problem, space, options))
        place = branch.place(known.columns.points.take(np.array([kind])))
        if place is not None:
            chosen = known.columns.chosen(branch.search, kind)
            _try(branch, np.array([place]), filtered(problem, space, neighbours(space, chosen)))
    branch.drop()


def _sizes(branch: Branch) -> Ints:
    """Which pairs take the same weights and the same number of GPUs."""
    points = branch.pairs.point
    weights = branch.search.weights_of(branch.points)[points]
    return np.asarray(weights * (int(branch.taken.gpus.max(initial=0)) + 1) + branch.taken.gpus[points])


def _try(branch: Branch, rows: Ints, found: Combinations) -> None:
    """Price some points with some combinations."""
    search, space, problem = branch.search, branch.search.space, branch.search.problem
    weights = search.weights_of(branch.points)
    columns, owners = [], []
    for w in each_once(weights[rows]):
        allowed = with_weights(problem, space, found, space.weights[int(w)]).options
        mine = rows[weights[rows] == w]
        columns.append(np.tile(allowed, len(mine)))
        owners.append(np.repeat(mine, allowed.shape[1]))
    if columns:
        branch.learn(branch.points.take(np.concatenate(owners)), np.concatenate(columns, axis=1))


def interleaved(kinds: Ints, order: Ints) -> Ints:
    """The order again, but with the best of every kind first, then every second best, ..."""
    rank = np.empty(len(order), dtype=np.int64)
    for kind in each_once(kinds):
        mine = order[kinds[order] == kind]
        rank[mine] = np.arange(len(mine))
    return order[np.argsort(rank[order], kind="stable")]


def to_try(problem: Problem, space: Space, found: Combinations) -> Combinations:
    """Combinations to try: all if they are few, else those that keep, read or compute the least."""
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
    return found.take(each_once(np.concatenate(best)))
