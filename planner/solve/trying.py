"""A first good plan: promising points with many combinations, then around the best of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planner.problem import Problem
from planner.solve.combinations import Combinations, filtered, neighbours, with_weights
from planner.solve.engines import engines_of
from planner.solve.narrowing import TIE, Incumbent, Narrowing, reached_otherwise
from planner.space import Space

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

TRIED_POINTS, MOST_TRIED = 24, 480
"""Points priced in full at a time, and at most."""
TRIED_COMBINATIONS = 400
MOST_ALIKE = 3_000
"""Points that are tried with the combination of a plan that is known."""
MOST_CHECKED = 100
"""Priced rows whose engines are looked up."""


def try_plans(narrowing: Narrowing) -> None:
    """Price promising points with many combinations; what is found becomes the plan that is known."""
    if not len(narrowing.pairs):
        return
    problem, space = narrowing.search.problem, narrowing.search.space
    tried = to_try(problem, space, narrowing.cells.found)
    before = narrowing.incumbent
    weights = narrowing.search.weights_of(narrowing.points)[narrowing.pairs.point]
    order = interleaved(weights, np.argsort(narrowing.pairs.value, kind="stable"))
    for start in range(0, min(len(order), MOST_TRIED), TRIED_POINTS):
        if start and narrowing.incumbent is not None:
            break
        _try(narrowing, narrowing.pairs.point[order[start : start + TRIED_POINTS]], tried)
    known = narrowing.incumbent
    if known is None or known is before:
        return
    narrowing.drop()
    promising = np.unique(narrowing.pairs.point[np.argsort(narrowing.pairs.value, kind="stable")[:MOST_ALIKE]])
    _try(narrowing, promising, filtered(problem, space, _columns(space, known)))
    known = narrowing.incumbent
    at = None if known is None else known.place(narrowing.points)
    if known is not None and at is not None:
        _try(narrowing, np.array([at]), filtered(problem, space, neighbours(space, known.options)))
    narrowing.drop()


def _columns(space: Space, known: Incumbent) -> Ints:
    """A plan's combination as a column of option indices."""
    return np.array([[options.index(o)] for options, o in zip(space.options.values(), known.options, strict=True)])


def interleaved(kinds: Ints, order: Ints) -> Ints:
    """The order again, but with the best of every kind first, then every second best, ..."""
    rank = np.empty(len(order), dtype=np.int64)
    for kind in np.unique(kinds):
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
    return found.take(np.unique(np.concatenate(best)))


def _try(narrowing: Narrowing, rows: Ints, found: Combinations) -> None:
    """Price some points with some combinations, and keep the best plan."""
    search, space, problem = narrowing.search, narrowing.search.space, narrowing.search.problem
    weights = search.weights_of(narrowing.points)
    columns, owners, losses, tables = [], [], [], []
    base = 0
    for w in np.unique(weights[rows]):
        allowed = with_weights(problem, space, found, space.weights[int(w)])
        mine = rows[weights[rows] == w]
        columns.append(base + np.tile(np.arange(len(allowed)), len(mine)))
        owners.append(np.repeat(mine, len(allowed)))
        losses.append(np.tile(allowed.loss_at(problem.request.confidence), len(mine)))
        tables.append(allowed)
        base += len(allowed)
    if base == 0 or not len(rows):
        return
    joined = Combinations.joined(tables)
    column, owner, loss = np.concatenate(columns), np.concatenate(owners), np.concatenate(losses)
    trial = narrowing.points.take(owner)
    table, throttled = joined.table(space), search.throttling[trial.unit, trial.policy]
    priced = search.price(trial, table, column, throttled)
    keep = narrowing.limits.hold(priced) & reached_otherwise(priced, trial)
    value = np.where(keep, narrowing.goal.value(priced, loss), np.inf)
    gpus = search.gpus_of(trial)
    for row in np.lexsort((gpus, value))[:MOST_CHECKED].tolist():
        known = narrowing.incumbent
        if not np.isfinite(value[row]) or (known is not None and value[row] > known.value * (1.0 + TIE) + 1e-15):
            break
        one = np.array([row])
        options = joined.chosen(space, int(column[row]))
        engines = engines_of(search, trial, row, options)
        reached = float(value[row])
        if engines and throttled[row] and not engines[0].long_prefill_throttle:
            # None of the engines that run these options yields to short prefills.
            alone = search.price(trial.take(one), table, column[one], np.zeros(1, dtype=np.bool_))
            kept = narrowing.limits.hold(alone)[0]
            reached = float(narrowing.goal.value(alone, loss[one])[0]) if kept else np.inf
        if engines and np.isfinite(reached):
            plan = Incumbent(reached, int(gpus[row]), trial.take(one), options)
            if plan.beats(known):
                narrowing.incumbent = plan
