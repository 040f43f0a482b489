"""What bounds leave, priced decision by decision: the best of it is the best of the whole space.

Exact, in the cost model's own floats, and nothing that it rests on can fail: where few enough decisions
are left it is all that choosing takes, ties included.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.service import DIMENSIONS
from planner.solve.cells import MOST_LISTED, engines_able, forbidding_conditions
from planner.solve.combinations import Combinations, all_combinations, count_combinations, with_weights
from planner.solve.engines import Surroundings
from planner.solve.narrowing import MARGIN
from planner.solve.points import Points
from planner.solve.preference import Preference
from planner.solve.scope import Scope
from planner.space import Option

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MOST_PRICED = 200_000
"""Decisions that are priced; more are left to CP-SAT."""
BLOCK = 50_000
"""Decisions that are priced at a time."""


@dataclass(frozen=True)
class Chosen:
    """The best of what was left."""

    points: Points
    """One row."""
    options: tuple[Option, ...]
    engine: str
    value: float
    """Of the goal."""
    best: float
    """No decision that was left has a lower value; of those within `MARGIN` the preferred one is chosen."""


@dataclass(frozen=True)
class Remaining:
    """What came of pricing what was left."""

    complete: bool
    """False: the decisions are too many, or the time was too short; nothing is known then."""
    chosen: Chosen | None
    """None where complete: no decision keeps the limits."""


@dataclass(frozen=True)
class _Decisions:
    """Points with combinations, and engines that yield to long prefills or don't, ``(decision,)`` each."""

    point: Ints
    combination: Ints
    engines: Ints
    """Those that may serve it, a bit each in the order of the space; all throttle or none does."""
    throttled: Bools

    def __len__(self) -> int:
        return len(self.point)


def price_remaining(scope: Scope, most: int = MOST_PRICED, ends_s: float = np.inf) -> Remaining:
    """Price every decision of a scope, and choose the best.

    Parameters
    ----------
    scope
        What bounds left.
    most
        Decisions that are priced at most.
    ends_s
        When to stop, on the monotonic clock [s].
    """
    space = scope.search.space
    if count_combinations(space) > MOST_LISTED:
        return Remaining(False, None)
    found = all_combinations(scope.search.problem, space)
    by_weights = [with_weights(scope.search.problem, space, found, weights) for weights in space.weights]
    owner = scope.search.weights_of(scope.points)
    if sum(int(np.count_nonzero(owner == w)) * len(c) for w, c in enumerate(by_weights)) > most:
        return Remaining(False, None)
    joined, decisions = _listed(scope, owner, by_weights)
    value = np.full(len(decisions), np.inf)
    table, losses = joined.table(space), joined.loss_at(scope.search.problem.request.confidence)
    for start in range(0, len(decisions), BLOCK):
        if time.monotonic() >= ends_s:
            return Remaining(False, None)
        rows = slice(start, start + BLOCK)
        column = decisions.combination[rows]
        trial = scope.points.take(decisions.point[rows])
        priced = scope.search.price(trial, table, column, decisions.throttled[rows])
        value[rows] = np.where(scope.limits.hold(priced), scope.goal.value(priced, losses[column]), np.inf)
    best = float(value.min(initial=np.inf))
    if not np.isfinite(best):
        return Remaining(True, None)
    tied = np.flatnonzero(value <= best * (1.0 + MARGIN) + 1e-15)
    return Remaining(True, _preferred(scope, decisions, joined, tied, value))


def _listed(scope: Scope, owner: Ints, by_weights: list[Combinations]) -> tuple[Combinations, _Decisions]:
    """Every decision of a scope: what an engine runs, and what bounds didn't rule out."""
    space = scope.search.space
    engines, holds = Surroundings(scope.search).of(scope.points)
    throttling = sum(1 << bit for bit, engine in enumerate(space.engines) if engine.long_prefill_throttle)
    parts: list[tuple[Ints, Ints, Ints, Bools]] = []
    base = 0
    for w, combinations in enumerate(by_weights):
        rows = np.flatnonzero(owner == w)
        able = engines_able(space, combinations.options, space.weights[w])
        forbids = forbidding_conditions(space, combinations.options)
        common = np.where(forbids & holds[rows, None], 0, able & engines[rows, None])
        if scope.possible is not None and len(combinations):
            common = np.where(scope.possible[rows[:, None], scope.classes.of(combinations.options)], common, 0)
        for throttled in (True, False):
            some = common & throttling if throttled else common & ~throttling
            at, column = np.nonzero(some)
            parts.append((rows[at], base + column, some[at, column], np.full(len(at), throttled)))
        base += len(combinations)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Combinations.joined(by_weights), _Decisions(*columns)


def _preferred(scope: Scope, decisions: _Decisions, joined: Combinations, tied: Ints, value: Floats) -> Chosen:
    """Of decisions that are equally good the preferred one."""
    search, space = scope.search, scope.search.space
    preference = Preference(search)
    points, columns = scope.points.take(decisions.point[tied]), joined.options[:, decisions.combination[tied]]
    ranked = sorted(space.engines, key=lambda engine: preference.engine(engine.id))
    bits = {engine.id: 1 << bit for bit, engine in enumerate(space.engines)}
    sets = decisions.engines[tied].tolist()
    first = {able: next(engine.id for engine in ranked if able & bits[engine.id]) for able in set(sets)}
    key = np.array([preference.engine(first[able]) for able in sets], dtype=np.int64)
    for d, name in enumerate(DIMENSIONS):
        key += np.array([preference.option(option) for option in space.options[name]], dtype=np.int64)[columns[d]]
    key += np.array([preference.weights(w) for w in range(len(space.weights))])[search.weights_of(points)]
    key += np.array([preference.policy(p) for p in range(len(space.policies))])[points.policy]
    key += preference.micro(points.micro) + preference.chunk(points.chunk)
    key += preference.alone(points.alone.astype(np.int64))
    places = np.stack([points.unit, points.replicas, points.pool_unit, points.pool_replicas], axis=1)
    distinct, which = np.unique(places, axis=0, return_inverse=True)
    key += np.array([preference.deployment(*map(int, place)) for place in distinct])[which.reshape(-1)]
    at = int(np.lexsort((value[tied], key))[0])
    options = tuple(space.options[name][int(columns[d, at])] for d, name in enumerate(DIMENSIONS))
    best, reached = float(value.min()), float(value[tied[at]])
    return Chosen(points.take(np.array([at])), options, first[sets[at]], reached, best)
