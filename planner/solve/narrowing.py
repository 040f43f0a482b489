"""Branch and bound over operating points and cells of combinations: what can still hold the best plan.

Pairs of a point and a cell are priced with the best of every effect in the cell. A pair that breaks a
limit even so, or can't beat a plan that is known, is dropped; the most promising others are split. It
ends when what is left is small enough for CP-SAT, which then chooses, and proves, among it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from planner.cost.compression import CompressionTable
from planner.cost.price import Priced
from planner.solve.cells import Cells
from planner.solve.engines import Surroundings, engines_of
from planner.solve.goal import Goal, Limits
from planner.solve.points import Points, Search
from planner.space import Option

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MARGIN = 1e-6
"""Relative: points whose bound is this close to the known plan stay, so that ties are decided by rule."""
TIE = 1e-9
"""Relative: values that differ by less are equal, and the one with fewer GPUs is better."""
WAVE = 30_000
"""Pairs that are priced at a time."""
MOST_PAIRS = 2_000_000
"""Pairs that are priced in all."""
FEW_POINTS, FEW_COMBINATIONS = 40, 300
"""What is left to CP-SAT without narrowing it further."""
MOST_SPREAD = 200_000
"""Pairs of points with every number of replicas that are listed."""
MOST_ASKED = 64
"""Lone combinations of a wave whose engines are looked up."""


@dataclass(frozen=True)
class Incumbent:
    """A plan that is known to be possible."""

    value: float
    gpus: int
    row: Points
    options: tuple[Option, ...]

    def place(self, points: Points) -> int | None:
        """Which of some points it is; None where it isn't among them."""
        same = np.ones(len(points), dtype=np.bool_)
        for f in fields(Points):
            same &= getattr(points, f.name) == getattr(self.row, f.name)[0]
        found = np.flatnonzero(same)
        return int(found[0]) if len(found) else None

    def beats(self, other: Incumbent | None) -> bool:
        """Whether it is better, or as good with fewer GPUs."""
        if other is None:
            return True
        if self.value < other.value * (1.0 - TIE) - 1e-15:
            return True
        return self.value <= other.value * (1.0 + TIE) + 1e-15 and self.gpus < other.gpus


@dataclass(frozen=True)
class Pairs:
    """Points with cells, ``(pair,)`` each."""

    point: Ints
    cell: Ints
    value: Floats
    """No member has a lower value of the goal."""
    used: Floats
    """No member uses less of its tightest limit."""

    @staticmethod
    def of(point: Ints, cell: Ints) -> Pairs:
        """Pairs of which nothing is known yet."""
        return Pairs(point, cell, np.zeros(len(point)), np.zeros(len(point)))

    def __len__(self) -> int:
        return len(self.point)

    def take(self, rows: Ints | Bools) -> Pairs:
        """Some of the pairs."""
        return Pairs(*(getattr(self, f.name)[rows] for f in fields(self)))

    @staticmethod
    def joined(parts: list[Pairs]) -> Pairs:
        """Several sets, one after the other."""
        return Pairs(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Pairs)))


class Narrowing:
    """The pairs that are left of some points, and the best plan that is known."""

    def __init__(
        self,
        search: Search,
        cells: Cells,
        goal: Goal,
        limits: Limits,
        incumbent: Incumbent | None,
        ends_s: float = np.inf,
        *,
        first: bool = False,
    ) -> None:
        self.search, self.cells, self.goal, self.limits = search, cells, goal, limits
        self.surroundings = Surroundings(search)
        self.incumbent = incumbent
        self.ends_s = ends_s
        self.first = first
        self.fewest = goal.name == "cost"
        """Points stand for any number of their replicas: what a session costs doesn't depend on it."""
        self.points = Points.none()
        self.gpus = np.zeros(0, dtype=np.int64)
        self.pairs = Pairs.of(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
        self.open_value = np.inf
        """No plan that was too much to look at has a lower value."""
        self.priced = self.waves = 0

    # ------------------------------------------------------------- what is left

    def add(self, points: Points) -> None:
        """Add points, each with the cell of all combinations that its weights leave."""
        owner = self.search.weights_of(points)
        roots = np.array([-1 if root is None else root for root in self.cells.roots], dtype=np.int64)[owner]
        points, roots = points.take(roots >= 0), roots[roots >= 0]
        self.add_pairs(points, np.arange(len(points)), roots)

    def add_pairs(self, points: Points, row: Ints, cell: Ints) -> None:
        """Add points, and pairs of a row of them with a cell."""
        if not len(points):
            return
        base = len(self.points)
        self.points = Points.joined([self.points, points]) if base else points
        self.gpus = self.search.gpus_of(self._with_fewest() if self.fewest else self.points)
        fresh = self._bounded(Pairs.of(base + row, cell))
        self.pairs = Pairs.joined([self.pairs, fresh])
        self.drop()

    def _with_fewest(self) -> Points:
        """The points with as few replicas as make sense; pools stay as they are."""
        one = self.search.replica_steps[self.points.unit]
        return replace(self.points, replicas=np.where(self.points.pool_unit >= 0, self.points.replicas, one))

    def spread(self) -> None:
        """Replace points by themselves with every number of replicas, of which the cheapest is asked for."""
        if not self.fewest or self.open_value < np.inf:
            return
        pairs, points = self.pairs, self.points.take(self.pairs.point)
        step = self.search.replica_steps[points.unit]
        counts = np.where(points.pool_unit >= 0, 1, points.replicas // step)
        if counts.sum() > MOST_SPREAD:
            return
        rows = np.repeat(np.arange(len(points)), counts)
        nth = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows] + 1
        every = points.take(rows)
        every = replace(every, replicas=np.where(every.pool_unit >= 0, every.replicas, nth * step[rows]))
        self.fewest, self.points, self.pairs = False, Points.none(), pairs.take(np.zeros(0, dtype=np.int64))
        every, row = every.distinct()
        self.add_pairs(every, row, pairs.cell[rows])

    def drop(self) -> None:
        """Forget pairs that can't be part of a better plan than the one that is known."""
        self.pairs = self.pairs.take(self._promising(self.pairs))

    def _promising(self, pairs: Pairs) -> Bools:
        known = self.incumbent
        if known is None:
            return np.ones(len(pairs), dtype=np.bool_)
        better = pairs.value < known.value * (1.0 - TIE) - 1e-15
        tied = pairs.value <= known.value * (1.0 + MARGIN) + 1e-15
        return better | (tied & (self.gpus[pairs.point] <= known.gpus))

    @property
    def bound(self) -> float:
        """No plan has a lower value."""
        known = np.inf if self.incumbent is None else self.incumbent.value
        return float(min(known, self.open_value, self.pairs.value.min(initial=np.inf)))

    # ------------------------------------------------------------- narrowing

    def narrow(self) -> None:
        """Split the most promising pairs until few are left, or the time is over."""
        while not self._few():
            ready = np.array([self.cells.splits(cell) for cell in range(len(self.cells.cells))])[self.pairs.cell]
            if not ready.any() or self.priced >= MOST_PAIRS or time.monotonic() >= self.ends_s:
                break
            self._split(np.flatnonzero(ready))
            if self.first and self.incumbent is not None:
                break

    def _few(self) -> bool:
        if not len(self.pairs):
            return True
        if len(np.unique(self.pairs.point)) > FEW_POINTS:
            return False
        return sum(len(self.cells.cells[i].members) for i in np.unique(self.pairs.cell)) <= FEW_COMBINATIONS

    def _split(self, ready: Ints) -> None:
        self.waves += 1
        # Where no plan is known, what keeps the limits most easily is looked at as well.
        easiest = self.incumbent is None and (self.first or self.waves % 2 == 0)
        order = ready[np.argsort((self.pairs.used if easiest else self.pairs.value)[ready], kind="stable")]
        chosen: list[int] = []
        children: list[list[int]] = []
        count = 0
        for row in order.tolist():
            below = self.cells.children(int(self.pairs.cell[row]))
            if chosen and count + len(below) > WAVE:
                break
            chosen.append(row)
            children.append(below)
            count += len(below)
        point = np.repeat(self.pairs.point[chosen], [len(below) for below in children])
        cell = np.array([index for below in children for index in below], dtype=np.int64)
        rest = np.ones(len(self.pairs), dtype=np.bool_)
        rest[chosen] = False
        # What a cell's members reach, its parts can't beat.
        fresh = self._bounded(Pairs.of(point, cell))
        self.pairs = Pairs.joined([self.pairs.take(rest), fresh])
        self.drop()

    def _runnable(self, pairs: Pairs) -> Pairs:
        """Pairs that an engine runs."""
        points, cells = self.points.take(pairs.point), self.cells.cells
        indices, row = np.unique(pairs.cell, return_inverse=True)
        able = np.array([cells[i].able for i in indices], dtype=np.int64)[row]
        forbids = np.array([cells[i].forbids for i in indices], dtype=np.int64)[row]
        engines, holds = self.surroundings.of(points)
        return pairs.take(((able & engines) != 0) & ((forbids & holds) == 0))

    def _bounded(self, pairs: Pairs) -> Pairs:
        """Pairs that keep the limits at best, with their bounds; lone ones may become the plan that is known."""
        pairs = self._runnable(pairs)
        if not len(pairs):
            return pairs
        self.priced += len(pairs)
        points = self.points.take(pairs.point)
        indices, row = np.unique(pairs.cell, return_inverse=True)
        table, slowest = self._table(indices.tolist())
        throttled = self.search.throttling[points.unit, points.policy]
        priced = self.search.price(points, table, row, throttled, None if slowest is None else row + slowest)
        keep = self.limits.hold(priced) & reached_otherwise(priced, points)
        losses = np.array([self.cells.cells[i].loss for i in indices])
        pairs = replace(pairs, value=self.goal.value(priced, losses[row]), used=self.limits.used(priced))
        self._learn(pairs.take(keep))
        return pairs.take(keep & self._promising(pairs))

    def _table(self, indices: list[int]) -> tuple[CompressionTable, int | None]:
        """Best rows of cells, then, where users are counted, their worst rows; and where those begin."""
        best = self.cells.rows(indices, worst=False)
        if self.limits.users is None:
            return best, None
        return CompressionTable.joined([best, self.cells.rows(indices, worst=True)]), len(indices)

    # ------------------------------------------------------------- plans that are possible

    def _learn(self, pairs: Pairs) -> None:
        """Lone pairs that beat the known plan: their price is exact but for the engine that serves them."""
        lone = np.array([cell.lone for cell in self.cells.cells])[pairs.cell]
        rows = np.flatnonzero(lone)
        order = rows[np.lexsort((self.gpus[pairs.point[rows]], pairs.value[rows]))]
        for at in order[:MOST_ASKED].tolist():
            known = self.incumbent
            if known is not None and pairs.value[at] > known.value * (1.0 + TIE) + 1e-15:
                break
            found = self.priced_alone(int(pairs.point[at]), int(pairs.cell[at]))
            if found is not None and found.beats(known):
                self.incumbent = found

    def priced_alone(self, point: int, cell: int) -> Incumbent | None:
        """A point with a lone combination on the engine that would serve it.

        None where no engine does, or where it breaks a limit.
        """
        members = self.cells.cells[cell].members
        row = self.points.take(np.array([point]))
        options = self.cells.found.chosen(self.search.space, int(members[0]))
        engines = engines_of(self.search, row, 0, options)
        if not engines:
            return None
        throttled = np.array([engines[0].long_prefill_throttle is not None])
        table = self.cells.rows([cell], worst=False)
        priced = self.search.price(row, table, np.zeros(1, dtype=np.int64), throttled)
        if not self.limits.hold(priced)[0]:
            return None
        value = float(self.goal.value(priced, np.array([self.cells.cells[cell].loss]))[0])
        return Incumbent(value, int(self.search.gpus_of(row)[0]), row, options)


def reached_otherwise(priced: Priced, points: Points) -> Bools:
    """False where sessions are served one at a time for want of room: a point of its own stands for that."""
    return points.alone | (priced.resident > 1.0)
