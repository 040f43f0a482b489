"""Columns: what serves by itself, priced exactly, of which a cluster is composed.

A column is one replica of one kind, a group of replicas over which experts spread, or a whole service of a
prefill and a decode pool with its counts. Every limit on times holds in each column by itself; users and GPUs
add up.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from planner.candidates.cells import engines_able, forbidding_conditions
from planner.candidates.combinations import losses_with, table_of
from planner.candidates.each_once import each_once
from planner.candidates.engines import Surroundings
from planner.candidates.goal import Goal, Limits
from planner.candidates.points import Points, Search, Taken
from planner.cost.price import Priced
from planner.service import DIMENSIONS
from planner.space import Option

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, repr=False)
class Columns:
    """Columns as struct of arrays, ``(column,)`` each."""

    points: Points
    """With the replicas of one column."""
    options: Ints
    """Index of the option of each dimension ``(dimension, column)``."""
    engines: Ints
    """Those that may serve it, a bit each in the order of the space; all throttle or none does."""
    throttled: Bools
    services: Bools
    """Which are a whole service, that nothing stands beside: see `planner.candidates.points.Taken`."""
    gpus: Ints
    reserve: Ints
    """GPUs in reserve beside a column's replicas, once."""
    rate: Floats
    """Interactions per hour, or users where the goal is to have many."""
    users: Floats
    worst: Floats
    """What the goal is, where the worst column counts; 0 where the goal adds up."""
    warm_s: Floats
    """Time to the first token of a later question; infinite where there is none."""
    loss: Floats
    """Mean loss, weights included, a fraction."""

    def __len__(self) -> int:
        return len(self.gpus)

    @property
    def taken(self) -> Taken:
        """What they take of a cluster."""
        return Taken(self.gpus, self.reserve, self.services)

    def take(self, rows: Ints | Bools) -> Columns:
        """Some of the columns."""
        rest = {f.name: getattr(self, f.name)[..., rows] for f in fields(self) if f.name != "points"}
        return Columns(points=self.points.take(rows), **rest)

    @staticmethod
    def joined(parts: list[Columns]) -> Columns:
        """Several sets, one after the other."""
        rest = {
            f.name: np.concatenate([getattr(part, f.name) for part in parts], axis=-1)
            for f in fields(Columns)
            if f.name != "points"
        }
        return Columns(points=Points.joined([part.points for part in parts]), **rest)

    @staticmethod
    def none() -> Columns:
        """No columns."""
        whole, real, flags = np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0, dtype=np.bool_)
        options = np.zeros((len(DIMENSIONS), 0), dtype=np.int64)
        return Columns(Points.none(), options, whole, flags, flags, whole, whole, real, real, real, real, real)

    def chosen(self, search: Search, row: int) -> tuple[Option, ...]:
        """Options of a column."""
        return tuple(search.space.options[name][int(self.options[d, row])] for d, name in enumerate(DIMENSIONS))


class Pricer:
    """Prices columns of one search, on the engines that would serve them."""

    def __init__(self, search: Search, goal: Goal, limits: Limits) -> None:
        self.search, self.goal, self.limits = search, goal, limits
        self._surroundings = Surroundings(search)
        engines = search.space.engines
        self._throttling = sum(1 << bit for bit, engine in enumerate(engines) if engine.long_prefill_throttle)

    def runnable(self, points: Points, able: Ints, forbids: Ints) -> Ints:
        """Engines that run points with combinations, a bit each."""
        engines, holds = self._surroundings.of(points)
        return np.where(forbids & holds, 0, able & engines)

    def columns(self, points: Points, options: Ints) -> Columns:
        """Price points with combinations; those that no engine runs or that break a limit are left out.

        Throttling is good for whoever waits and costs nobody else, so where it is to be had nothing else is
        tried; but for a floor on users, since service that makes users wait has more of them.
        """
        search, space = self.search, self.search.space
        owner = search.weights_of(points)
        distinct, column = np.unique(options, axis=1, return_inverse=True)
        column = column.reshape(-1)
        able = np.zeros(len(points), dtype=np.int64)
        mean, at_confidence = np.zeros(len(points)), np.zeros(len(points))
        for w in each_once(owner).tolist():
            mine = owner == w
            able[mine] = engines_able(space, distinct, space.weights[w])[column[mine]]
            of_mean, of_confidence = losses_with(search.problem, space, distinct, space.weights[w])
            mean[mine], at_confidence[mine] = of_mean[column[mine]], of_confidence[column[mine]]
        engines = self.runnable(points, able, forbidding_conditions(space, distinct)[column])
        yielding = engines & self._throttling
        others = engines & ~self._throttling
        others = others if self.goal.counts_users(self.limits) else np.where(yielding, 0, others)
        parts = []
        for some, yields in ((yielding, True), (others, False)):
            rows = np.flatnonzero(some)
            parts.append((rows, some[rows], np.full(len(rows), yields)))
        rows, bits, throttled = (np.concatenate(part) for part in zip(*parts, strict=True))
        if not len(rows):
            return Columns.none()
        trial = points.take(rows)
        priced = search.price(trial, table_of(space, distinct), column[rows], throttled)
        keep = self.limits.hold(priced, users=False) & reached_otherwise(priced, trial)
        keep &= priced.interactions_per_hour > 0
        found = self._found(trial, options[:, rows], bits, throttled, priced, mean[rows], at_confidence[rows])
        return found.take(np.flatnonzero(keep))

    def _found(
        self, points: Points, options: Ints, engines: Ints, throttled: Bools, priced: Priced, mean: Floats, loss: Floats
    ) -> Columns:
        taken = self.search.taken_by(points)
        return Columns(
            points=points,
            options=options,
            engines=engines,
            throttled=throttled,
            services=taken.services,
            gpus=taken.gpus,
            reserve=taken.reserve,
            rate=self.goal.rate(priced),
            users=priced.users,
            worst=np.zeros(len(points)) if self.goal.adds_up else np.array(self.goal.value(priced, loss)),
            warm_s=priced.ttft_warm_s,
            loss=mean,
        )


def reached_otherwise(priced: Priced, points: Points) -> Bools:
    """False where sessions are served one at a time for want of room: a point of its own stands for that."""
    return points.alone | (priced.resident > 1.0)
