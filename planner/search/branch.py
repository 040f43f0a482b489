"""Branch and bound over operating points and cells of combinations: which columns a best cluster can hold.

Pairs of a point and a cell are priced with the best of every effect in the cell. A pair stays while, with the
best that could stand beside it, it might be part of a cluster as good as the one that is known; the most
promising are split until single combinations are left, which are priced exactly and become columns.
"""

from __future__ import annotations

import math
import time
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from planner.candidates.cells import Cells
from planner.candidates.dominance import beaten_by, undominated
from planner.candidates.goal import Goal, Limits
from planner.candidates.points import Points, Search, Taken
from planner.cost.price import Priced
from planner.search.columns import Columns, Pricer, reached_otherwise
from planner.search.known import TIE, TRADES, Composer, Composition, most_by_gpus
from planner.search.narrowing import Narrowing, Pairs
from planner.search.room import Room
from planner.search.solution import MOST_PAIRS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MOST_ALIKE = 60_000
"""Pairs that are priced for plans that are no better but perhaps simpler."""


class Branch(Narrowing):
    """The columns that a best cluster can hold, and the best cluster that is known."""

    def __init__(
        self,
        search: Search,
        cells: Cells,
        goal: Goal,
        limits: Limits,
        room: Room,
        stops: tuple[float, int] = (np.inf, MOST_PAIRS),
        *,
        first: bool = False,
        tolerance: float = 0.0,
    ) -> None:
        super().__init__(search, cells, goal, limits, stops)
        self.room, self.first, self.tolerance = room, first, tolerance
        self.alike = search.space.one_kind
        """Whether a cluster is one column, as often as it fits."""
        self.floor = limits.users
        self.pricer = Pricer(search, goal, limits)
        self.composer = Composer(goal, room, self.floor, alike=self.alike)
        self.columns = Columns.none()
        self.known: Composition | None = None
        self._trade = 0.0
        """What a user is worth in bounds [interactions per hour]."""
        self._beside = self._users_beside = self._users_fewer = np.zeros(0)
        self._rivals = np.zeros((0, 5))
        self._best = np.zeros(1)
        self.unlisted = np.inf
        """No plan that was too much to look at has a lower value."""

    # ------------------------------------------------------------- columns and the plan that is known

    def learn(self, points: Points, options: Ints) -> None:
        """Price columns; what may be part of a wanted cluster is kept, and a better cluster becomes the known one."""
        self.take(self.pricer.columns(points, options))

    def take(self, fresh: Columns) -> None:
        """Take columns in."""
        fresh = fresh.take(fresh.gpus + fresh.reserve <= self.room.most)
        if len(self._beside) and len(fresh):
            fresh = fresh.take(self._wanted(fresh.taken, fresh.rate, fresh.users, fresh.worst))
        if not len(fresh):
            return
        self.columns = Columns.joined([self.columns, fresh])
        found = self.composer.best(self.columns)
        if found is not None and found.beats(self.known):
            self.known = found

    # ------------------------------------------------------------- what is wanted

    def drop(self) -> None:
        """Forget pairs and columns that can't be part of a cluster that is wanted."""
        self._bound()
        p, c = self.pairs, self.columns
        self.columns = c.take(self._wanted(c.taken, c.rate, c.users, c.worst))
        self.pairs = p.take(self._wanted(self.taken.take(p.point), p.rate, p.users, p.value))

    def _bound(self) -> None:
        """Bring up to date what could stand beside a column, and which columns beat others."""
        p, c = self.pairs, self.columns
        alike, mine = ~self.taken.services[p.point], ~c.services
        gpus = np.concatenate([self.taken.gpus[p.point][alike], c.gpus[mine]])
        rate, users = (np.concatenate([a[alike], b[mine]]) for a, b in ((p.rate, c.rate), (p.users, c.users)))
        self._trade, self._beside = 0.0, self.room.beside(self._filled(gpus, rate))
        if self.floor is not None:
            filled = self._filled(gpus, users)
            self._users_beside = self.room.limited(self.most_gpus()).beside(filled)
            self._users_fewer = self.room.limited(self.most_gpus(better=True)).beside(filled)
            self._choose_trade(gpus, rate, users)
        rivals = _smaller(c.taken.take(mine), c.rate[mine], c.users[mine], c.worst[mine])
        self._rivals = rivals[undominated(rivals)] if self.floor is not None else rivals
        self._best = np.maximum.accumulate(most_by_gpus(c.gpus[mine], c.rate[mine]))

    def _filled(self, gpus: Ints, worth: Floats) -> Floats:
        """The most worth of each number of GPUs that anything has, this search's largest column included."""
        by_gpus = most_by_gpus(gpus, worth)
        most = int(max(self.taken.gpus.max(initial=1), self.columns.gpus.max(initial=1), self.room.size))
        return np.concatenate([by_gpus, np.zeros(max(0, most + 1 - len(by_gpus)))])

    def _choose_trade(self, gpus: Ints, rate: Floats, users: Floats) -> None:
        """Choose what a user is worth so that the bound on interactions with enough users is least."""
        assert self.floor is not None  # noqa: S101
        if self.alike or not self.goal.most or not len(gpus):
            return
        mean = float(rate.sum() / max(users.sum(), 1e-300))
        least = np.inf
        for trade in (part * mean for part in TRADES):
            worth = self._filled(gpus, rate + trade * users)
            bound = self.room.best(worth)[0] - trade * self.floor
            if bound < least:
                least, self._trade = bound, trade
        self._beside = self.room.beside(self._filled(gpus, rate + self._trade * users))

    def _wanted(self, taken: Taken, rate: Floats, users: Floats, value: Floats, *, better: bool = False) -> Bools:
        """What can be part of a cluster that is no worse than the known one by more than a share, or is better."""
        slack = TIE if better else max(self.tolerance, TIE)
        keep = taken.gpus + taken.reserve <= self.most_gpus(better=better)
        if self.floor is not None and len(self._users_beside):
            beside = self._users_fewer if better else self._users_beside
            most = self._with_others(taken, users, beside, self.most_gpus(better=better))
            keep &= most >= self.floor * (1.0 - TIE)
        known = self.known
        if known is None:
            return keep
        if not self.goal.adds_up:
            keep &= value <= known.value + self.allowed(slack)
        elif self.goal.most:
            keep &= self._most(taken, rate, users) >= (1.0 - slack) / known.value
        return keep & ~self._beaten(taken, rate, users, value, slack)

    def most_gpus(self, *, better: bool = False) -> int:
        """GPUs that a wanted cluster may take, or one that is better than the known one."""
        if self.goal.name != "gpus" or self.known is None:
            return self.room.most
        return self.known.gpus - 1 if better else math.floor(self.known.gpus * (1.0 + self.tolerance))

    def _most(self, taken: Taken, rate: Floats, users: Floats) -> Floats:
        """Interactions of a cluster with one of these columns at most, where it serves enough users."""
        traded = np.where(taken.services, rate, rate + self._trade * users)
        most = self._with_others(taken, traded, self._beside)
        return np.where(taken.services, most, most - self._trade * (self.floor or 0.0))

    def _with_others(self, taken: Taken, worth: Floats, beside: Floats, most: int | None = None) -> Floats:
        """Worth of a cluster with one of these columns at most: with its like, or with the best beside it."""
        if self.alike:
            room = self.room if most is None else self.room.limited(most)
            return np.where(taken.services, worth, worth * room.copies(taken.gpus, taken.reserve))
        return worth + np.where(taken.services, 0.0, beside[np.minimum(taken.gpus, max(len(beside) - 1, 0))])

    def allowed(self, slack: float) -> float:
        """How much worse than the known plan a value may be, where the worst column counts."""
        known = self.known.value if self.known is not None else 0.0
        if self.goal.name == "quality":
            return max(0.1 * slack, known * TIE) + 1e-15  # a point of loss is a hundredth: 1 % of it is 0.1 points
        return known * slack + 1e-15

    def _beaten(self, taken: Taken, rate: Floats, users: Floats, value: Floats, slack: float) -> Bools:
        """What a column with no more GPUs, and no more in reserve, outdoes by more than a share."""
        if not len(self._rivals):
            return np.zeros(len(rate), dtype=np.bool_)
        if self.floor is None:
            # Replicas in reserve may be more of a smaller column; the value known says enough where all are alike.
            if not self.goal.adds_up or taken.reserve.any():
                return np.zeros(len(rate), dtype=np.bool_)
            best = self._best[np.minimum(taken.gpus, len(self._best) - 1)]
            return np.asarray(rate < best * (1.0 - slack))
        mine = _smaller(taken, rate, users, value)
        columns = [0, 1, 2, 3] if self.goal.adds_up else [0, 1, 3, 4]
        mine[:, [2, 3]] *= 1.0 - slack
        return beaten_by(mine[:, columns], self._rivals[:, columns])

    @property
    def open_value(self) -> float:
        """No plan with a pair that is left has a lower value; infinite where none is left that may be better."""
        p = self._open()
        if not len(p):
            return self.unlisted
        return min(self.unlisted, self._least(p))

    def _least(self, p: Pairs) -> float:
        """No plan with one of these pairs has a lower value."""
        if not self.goal.adds_up:
            return float(p.value.min())
        taken = self.taken.take(p.point)
        if self.goal.name == "gpus":
            densest = float((p.users / np.maximum(taken.gpus, 1)).max())
            return float(math.ceil((self.floor or 0.0) * (1.0 - TIE) / max(densest, 1e-300)))
        return 1.0 / max(float(self._most(taken, p.rate, p.users).max()), 1e-300)

    def _open(self) -> Pairs:
        """Pairs that may be part of a better plan."""
        p = self.pairs
        return p.take(self._wanted(self.taken.take(p.point), p.rate, p.users, p.value, better=True))

    # ------------------------------------------------------------- narrowing

    def narrow(self) -> None:
        """Split the most promising pairs until none may be part of a better plan, or the work or the time is over."""
        while self.priced < self.most_pairs and time.monotonic() < self.ends_s:
            if self.first and self.known is not None:
                break
            p = self.pairs
            wanted = self._wanted(self.taken.take(p.point), p.rate, p.users, p.value, better=True)
            ready = self.splittable() & wanted
            rows = np.flatnonzero(ready)
            if not len(rows):
                break
            self._split(rows[np.argsort(self._promise(rows), kind="stable")])

    def simplify(self) -> None:
        """Split what is nearly as good as the best and takes as many GPUs as its kinds: it may be simpler."""
        if self.known is None or self.tolerance <= TIE or self.first:
            return
        ends = self.priced + MOST_ALIKE
        while self.priced < ends and time.monotonic() < self.ends_s:
            alike = np.isin(self.taken.gpus[self.pairs.point], self.known.columns.gpus)
            rows = np.flatnonzero(self.splittable() & alike)
            if not len(rows):
                break
            self._split(rows[np.argsort(self._promise(rows), kind="stable")])

    def by_promise(self) -> Ints:
        """Pairs, the most promising first."""
        rows = np.arange(len(self.pairs))
        return rows[np.argsort(self._promise(rows), kind="stable")]

    def place(self, points: Points) -> int | None:
        """Which of the points one is; None where it isn't among them."""
        same = np.ones(len(self.points), dtype=np.bool_)
        for f in fields(Points):
            same &= getattr(self.points, f.name) == getattr(points, f.name)[0]
        found = np.flatnonzero(same)
        return int(found[0]) if len(found) else None

    def _promise(self, rows: Ints) -> Floats:
        """Less is more promising."""
        p = self.pairs.take(rows)
        taken = self.taken.take(p.point)
        if self.known is None and self.floor is not None:
            if self.waves % 2 and not self.first:
                return p.used
            return -self._with_others(taken, p.users, self._users_beside)
        if not self.goal.adds_up:
            return p.value
        if self.goal.name == "gpus":
            return np.asarray(-p.users / taken.gpus)
        return -self._most(taken, p.rate, p.users)

    def _bounded(self, pairs: Pairs) -> Pairs:
        pairs = self.runnable(pairs, self.pricer)
        if not len(pairs):
            return pairs
        self.priced += len(pairs)
        lone = np.array([cell.lone for cell in self.cells.cells], dtype=np.bool_)[pairs.cell]
        if lone.any():
            self.learn(self.points.take(pairs.point[lone]), self.members_of(pairs.cell[lone]))
            pairs = pairs.take(~lone)
        if not len(pairs):
            return pairs
        points = self.points.take(pairs.point)
        indices, row = np.unique(pairs.cell, return_inverse=True)
        table, slowest = self.rows_of(indices.tolist())
        throttled = self.search.throttling[points.unit, points.policy]
        priced = self.search.price(points, table, row, throttled, None if slowest is None else row + slowest)
        keep = self.limits.hold(priced, users=False) & reached_otherwise(priced, points)
        return replace(
            pairs,
            rate=self.goal.rate(priced),
            users=priced.users,
            value=self._values(priced, self.losses_of(indices)[row]),
            used=self.limits.used(priced),
        ).take(keep)

    def _values(self, priced: Priced, losses: Floats) -> Floats:
        return np.zeros(len(losses)) if self.goal.adds_up else np.array(self.goal.value(priced, losses))


def _smaller(taken: Taken, rate: Floats, users: Floats, value: Floats) -> Floats:
    """GPUs, those in reserve, interactions, users, the worst value, each so that less is better ``(row, 5)``."""
    with np.errstate(divide="ignore"):
        return np.stack([taken.gpus, taken.reserve, 1.0 / rate, 1.0 / users, value], axis=1)
