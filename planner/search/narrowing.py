"""Points with cells of combinations, split until few are left: what both kinds of service share."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from planner.candidates.cells import Cells
from planner.candidates.goal import Goal, Limits
from planner.candidates.points import Points, Search
from planner.cost.compression import CompressionTable
from planner.search.columns import Pricer

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

WAVE = 30_000
"""Pairs that are priced at a time."""


@dataclass(frozen=True, eq=False, repr=False)
class Pairs:
    """Points with cells, ``(pair,)`` each, and what none of their members exceeds."""

    point: Ints
    cell: Ints
    rate: Floats
    """Interactions per hour, or users where the goal is to have many, at most."""
    users: Floats
    """At most."""
    value: Floats
    """Of the goal at least, where the worst column counts."""
    used: Floats
    """Share of the tightest limit at least."""

    @staticmethod
    def of(point: Ints, cell: Ints) -> Pairs:
        """Pairs of which nothing is known yet."""
        return Pairs(point, cell, *(np.zeros(len(point)) for _ in range(4)))

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
    """Points with cells, split until few are left: what both kinds of service share."""

    def __init__(self, search: Search, cells: Cells, goal: Goal, limits: Limits, stops: tuple[float, int]) -> None:
        self.search, self.cells, self.goal, self.limits = search, cells, goal, limits
        self.ends_s, self.most_pairs = stops
        self.points = Points.none()
        self.taken = search.taken_by(self.points)
        self.pairs = Pairs.of(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
        self.priced = self.waves = 0

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
        self.taken = self.search.taken_by(self.points)
        self.pairs = Pairs.joined([self.pairs, self._bounded(Pairs.of(base + row, cell))])
        self.drop()

    def drop(self) -> None:
        """Forget pairs that can't be part of a plan that is wanted."""
        raise NotImplementedError

    def _bounded(self, pairs: Pairs) -> Pairs:
        """Pairs that keep the limits at best, with their bounds."""
        raise NotImplementedError

    def _split(self, order: Ints) -> None:
        """Split pairs, the first ones first, as many as a wave takes."""
        self.waves += 1
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
        # What is split counts in bounds until its parts are bounded.
        fresh = self._bounded(Pairs.of(point, cell))
        self.pairs = Pairs.joined([self.pairs.take(rest), fresh])
        self.drop()

    def splittable(self) -> Bools:
        """Which pairs have smaller cells in them."""
        return np.array([len(cell.members) > 1 for cell in self.cells.cells], dtype=np.bool_)[self.pairs.cell]

    def runnable(self, pairs: Pairs, pricer: Pricer) -> Pairs:
        """Pairs that an engine runs."""
        cells = self.cells.cells
        indices, row = np.unique(pairs.cell, return_inverse=True)
        able = np.array([cells[i].able for i in indices], dtype=np.int64)[row]
        forbids = np.array([cells[i].forbids for i in indices], dtype=np.int64)[row]
        return pairs.take(pricer.runnable(self.points.take(pairs.point), able, forbids) != 0)

    def rows_of(self, indices: list[int]) -> tuple[CompressionTable, int | None]:
        """Best rows of cells, then, where users are counted, their worst rows; and where those begin."""
        best = self.cells.rows(indices, worst=False)
        if not self.goal.counts_users(self.limits):
            return best, None
        return CompressionTable.joined([best, self.cells.rows(indices, worst=True)]), len(indices)

    def losses_of(self, indices: Ints) -> Floats:
        """The least loss of cells."""
        return np.array([self.cells.cells[i].loss for i in indices])

    def members_of(self, cell: Ints) -> Ints:
        """Options of the single members of cells ``(dimension, pair)``."""
        return self.cells.found.options[:, [int(self.cells.cells[i].members[0]) for i in cell]]
