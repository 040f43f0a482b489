"""Every column of a space, priced, and what fits on servers: for `tests.multisets`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.candidates.combinations import all_combinations, with_weights
from planner.candidates.goal import Goal, Limits
from planner.candidates.points import Points, Search
from planner.candidates.pool_points import pool_points
from planner.candidates.serving_points import aggregated_points
from planner.request import Cluster
from planner.search.exhaustive import _engines, _runnable
from planner.search.ties import formats_of

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_BLOCK = 400_000


@dataclass(frozen=True)
class Priced:
    """Columns that keep every limit by themselves, ``(column,)`` each."""

    gpus: Ints
    rate: Floats
    """Interactions per hour."""
    users: Floats
    worst: Floats
    """The goal's value where the worst column counts; 0 where it adds up."""
    service: Bools
    """Nothing stands beside it."""
    kinds: Ints
    engine: Ints
    """Index into the space's engines."""
    stages: Ints
    techniques: Ints
    warm_s: Floats
    row: Ints
    """Which point with which combination, for whoever looks."""

    def __len__(self) -> int:
        return len(self.gpus)

    def take(self, rows: Any) -> Priced:
        return Priced(*(getattr(self, f.name)[rows] for f in fields(self)))

    @staticmethod
    def joined(parts: list[Priced]) -> Priced:
        return Priced(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Priced)))


def priced_columns(search: Search, goal: Goal, limits: Limits) -> Priced | None:
    """Every column of a search: each point, with each combination, where an engine runs it and the limits hold."""
    problem, space = search.problem, search.space
    found = all_combinations(problem, space)
    points = _points(search)
    points = points.take(_placed(search, points))
    owner, parts = search.weights_of(points), []
    for w, weights in enumerate(space.weights):
        combinations, rows = with_weights(problem, space, found, weights), np.flatnonzero(owner == w)
        if not len(combinations) or not len(rows):
            continue
        table, losses = combinations.table(space), combinations.loss_at(problem.request.confidence)
        options = [combinations.chosen(space, column) for column in range(len(combinations))]
        named = np.array([sum(o.point is not None for o in chosen) for chosen in options]) + formats_of(space)[w]
        each = max(1, _BLOCK // len(combinations))
        for start, throttled in itertools.product(range(0, len(rows), each), (True, False)):
            block = rows[start : start + each]
            keep = _runnable(search, points, block, options, throttled).reshape(-1)
            column = np.tile(np.arange(len(combinations)), len(block))[keep]
            trial = points.take(np.repeat(block, len(combinations))[keep])
            if len(trial):
                parts.append(price_some(search, goal, limits, trial, table, column, losses, options, named, throttled))
    return Priced.joined(parts) if parts else None


def price_some(
    search: Search,
    goal: Goal,
    limits: Limits,
    points: Points,
    table: Any,
    column: Ints,
    losses: Floats,
    options: list[Any],
    named: Ints,
    throttled: bool,
) -> Priced:
    priced = search.price(points, table, column, np.full(len(points), throttled))
    # One session at a time for want of room is another point, which is alone.
    held = limits.hold(priced, users=False) & (points.alone | (priced.resident > 1.0))
    held = np.flatnonzero(held & (priced.interactions_per_hour > 0))
    pp = np.array([unit.split.pp for unit in search.units], dtype=np.int64)
    worst = np.zeros(len(points)) if goal.adds_up else np.asarray(goal.value(priced, losses[column]))
    paired, later = points.pool_unit >= 0, search.problem.request.rounds > 1
    return Priced(
        gpus=search.gpus_of(points)[held],
        rate=priced.interactions_per_hour[held],
        users=priced.users[held],
        worst=worst[held],
        service=search.taken_by(points).services[held],
        kinds=(1 + paired.astype(np.int64))[held],
        engine=_engine_of(search, points.take(held), [options[c] for c in column[held].tolist()], throttled),
        stages=(pp[points.unit] + np.where(paired, pp[points.pool_unit], 0))[held],
        techniques=named[column[held]],
        warm_s=np.where(later & np.isfinite(priced.ttft_warm_s), priced.ttft_warm_s, 0.0)[held],
        row=held,
    )


def _points(search: Search) -> Points:
    """One replica of every kind, or a pinned number of them, or a pair of pools in every number."""
    alone = aggregated_points(search)
    pinned = search.space.pins.wanted("replicas", "serve")
    steps = search.replica_steps[alone.unit] if pinned is None else np.full(len(alone), pinned)
    alone = replace(alone, replicas=steps)
    pools = pool_points(search, None, Goal("cost", 1), Limits(), None) if search.units else None
    return alone if pools is None else Points.joined([alone, pools])


def _placed(search: Search, points: Points) -> Bools:
    """Points whose replicas find room on the servers together."""
    servers, each = servers_of(search.problem.cluster), [unit.split.gpus for unit in search.units]
    step = search.replica_steps
    keep = search.gpus_of(points) <= search.problem.most_gpus
    for row in np.flatnonzero(keep).tolist():
        unit, pool = int(points.unit[row]), int(points.pool_unit[row])
        block = each[unit] * int(step[unit]) if pool < 0 else each[unit]
        counts = [(block, int(points.replicas[row]) * each[unit] // block)]
        if pool >= 0:
            counts.append((each[pool], int(points.pool_replicas[row])))
        keep[row] = fits(tuple(sorted(counts, reverse=True)), servers)
    return np.asarray(keep)


def _engine_of(search: Search, points: Points, options: list[Any], throttled: bool) -> Ints:
    """The most capable engine that runs each and throttles, or doesn't."""
    places = {engine.id: place for place, engine in enumerate(search.space.engines)}
    known: dict[tuple[Any, ...], int] = {}
    found = []
    keys = zip(points.unit.tolist(), points.policy.tolist(), points.pool_unit.tolist(), map(id, options), strict=True)
    for row, key in enumerate(keys):
        if key not in known:
            able = _engines(search, points.take(np.array([row])), options[row])
            known[key] = next(places[e.id] for e in able if (e.long_prefill_throttle is not None) == throttled)
        found.append(known[key])
    return np.array(found, dtype=np.int64)


# ------------------------------------------------------------- what fits

Counts = tuple[tuple[int, int], ...]
"""GPUs of a replica and how many of them there are, the larger ones first."""


def servers_of(cluster: Cluster) -> tuple[int, ...]:
    """GPUs of each server, the larger ones first."""
    each = cluster.gpus_per_node
    return tuple(min(each, cluster.gpus - first) for first in range(0, cluster.gpus, each))


@cache
def fits(counts: Counts, servers: tuple[int, ...]) -> bool:
    """Whether replicas find room: each inside a server, or on as many whole ones as it takes.

    >>> fits(((4, 1), (2, 2), (3, 2), (2, 1)), (8, 8)), fits(((2, 4),), (3, 3, 3)), fits(((12, 1), (4, 1)), (8, 8, 4))
    (True, False, True)
    """
    full = servers[0]
    over = sum(-(-size // full) * count for size, count in counts if size > full)
    left = servers.count(full) - over
    if left < 0:
        return False
    small = tuple((size, count) for size, count in counts if size <= full and count)
    return _inside(small, tuple([full] * left + [s for s in servers if s != full]))


@cache
def _inside(counts: Counts, free: tuple[int, ...]) -> bool:
    if not counts:
        return True
    (size, count), rest = counts[0], counts[1:]
    left = ((size, count - 1), *rest) if count > 1 else rest
    return any(
        _inside(left, tuple(sorted((*free[:at], room - size, *free[at + 1 :]), reverse=True)))
        for at, room in enumerate(free)
        if room >= size and room not in free[:at]
    )


def fillings(sizes: list[int], servers: tuple[int, ...], most: int) -> Iterator[Counts]:
    """Every way to have some replicas of some sizes."""

    def fill(rest: list[int], left: int) -> Iterator[Counts]:
        if not rest:
            yield ()
            return
        for count in range(left // rest[0] + 1):
            for others in fill(rest[1:], left - count * rest[0]):
                yield ((rest[0], count), *others) if count else others

    for counts in fill(sorted(sizes, reverse=True), most):
        if counts and fits(counts, servers):
            yield counts
