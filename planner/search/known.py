"""A cluster composed of columns that is known to be possible: the first is found by rule, the best is OR-Tools'."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.candidates.each_once import each_once
from planner.candidates.goal import Goal
from planner.limits import SLACK as FLOAT_SLACK
from planner.search.columns import Columns
from planner.search.room import Room

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

TIE = 1e-9
"""Relative: values that differ by less are equal."""
TRADES = (0.0, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.5, 2.5, 4.0, 7.0, 15.0, 50.0)
"""What a user may be worth where users are counted, against the interactions of one [mean rate of a user]."""


@dataclass(frozen=True)
class Composition:
    """Columns with how often each is there."""

    columns: Columns
    """The kinds, each once."""
    counts: Ints
    value: float
    """Of the goal."""

    @property
    def gpus(self) -> int:
        """GPUs in all."""
        return int(np.sum(self.columns.gpus * self.counts + self.columns.reserve))

    @property
    def users(self) -> float:
        """Users in all."""
        return float(np.sum(self.columns.users * self.counts))

    def beats(self, other: Composition | None) -> bool:
        """Whether it is better, or as good with fewer GPUs."""
        if other is None or self.value < other.value * (1.0 - TIE) - 1e-15:
            return True
        return self.value <= other.value * (1.0 + TIE) + 1e-15 and self.gpus < other.gpus


def composition_of(columns: Columns, rows: Ints, counts: Ints, goal: Goal) -> Composition:
    """A composition of some columns, with its value as the cost model has it."""
    rate = float(np.sum(columns.rate[rows] * counts))
    gpus = int(np.sum(columns.gpus[rows] * counts + columns.reserve[rows]))
    value = float(columns.worst[rows].max(initial=0.0))
    if goal.adds_up:
        value = float(gpus) if goal.name == "gpus" else 1.0 / rate if rate > 0 else np.inf
    return Composition(columns.take(rows), counts, value)


class Composer:
    """Composes what is best by simple rules: exact where one worth adds up, a good start with users."""

    def __init__(self, goal: Goal, room: Room, floor: float | None, *, alike: bool) -> None:
        self.goal, self.room, self.floor, self.alike = goal, room, floor, alike

    def best(self, columns: Columns) -> Composition | None:
        """The best composition that the rules find; None where they find none."""
        found: Composition | None = None
        for rows, counts in self._tried(columns):
            one = composition_of(columns, rows, counts, self.goal)
            if self._holds(one) and one.beats(found):
                found = one
        return found

    def least(self, columns: Columns, known: Composition) -> float:
        """No composition of the columns has a lower value, as far as rules can tell."""
        if not self.goal.most:
            return known.value  # thresholds are tried one by one, and room for users is packed exactly
        alone = float(columns.rate[columns.services].max(initial=0.0))
        if self.alike:
            rest = ~columns.services
            most = float((columns.rate * self.room.copies(columns.gpus, columns.reserve))[rest].max(initial=0.0))
            return 1.0 / max(alone, most, 1e-300)
        rows, counts = self._packed(columns, np.flatnonzero(~columns.services), columns.rate)
        return 1.0 / max(alone, float(np.sum(columns.rate[rows] * counts)), 1e-300)

    def _holds(self, one: Composition) -> bool:
        return self.floor is None or one.users >= self.floor * (1.0 - FLOAT_SLACK)

    def _tried(self, columns: Columns) -> list[tuple[Ints, Ints]]:
        one = np.ones(1, dtype=np.int64)
        services = np.flatnonzero(columns.services)
        if self.floor is not None:
            services = services[columns.users[services] >= self.floor * (1.0 - FLOAT_SLACK)]
        tried = []
        if len(services):
            value = self._values(columns)
            best = services[np.lexsort((columns.gpus[services], value[services]))[:1]]
            tried.append((best, one))
        kinds = np.flatnonzero(~columns.services & (columns.gpus <= self.room.most))
        if not len(kinds):
            return tried
        if self.alike:
            return tried + self._of_one_kind(columns, kinds)
        if self.floor is None:
            return tried + self._without_floor(columns, kinds)
        if self.goal.name == "gpus":
            return tried + self._smallest(columns, kinds)
        if not self.goal.adds_up:
            return tried + self._thresholds(columns, kinds)
        return tried + self._with_floor(columns, kinds)

    def _of_one_kind(self, columns: Columns, kinds: Ints) -> list[tuple[Ints, Ints]]:
        """One column, as often as it fits or as the users take."""
        gpus, reserve, rate = columns.gpus[kinds], columns.reserve[kinds], columns.rate[kinds]
        most = self.room.copies(gpus, reserve)
        counts = most
        if not self.goal.most:
            users = np.maximum(columns.users[kinds], 1e-12)
            counts = np.ones_like(most)
            if self.floor is not None:
                counts = np.maximum(np.ceil(self.floor * (1.0 - FLOAT_SLACK) / users), 1.0).astype(np.int64)
        enough = (counts >= 1) & (counts <= most)
        if self.floor is not None:
            enough &= counts * columns.users[kinds] >= self.floor * (1.0 - FLOAT_SLACK)
        if not enough.any():
            return []
        value, used = columns.worst[kinds], gpus * counts + reserve
        if self.goal.adds_up:
            value = np.asarray(used if self.goal.name == "gpus" else 1.0 / np.maximum(counts * rate, 1e-300))
        rows = np.flatnonzero(enough)
        best = rows[np.lexsort((used[rows], value[rows]))[:1]]
        return [(kinds[best], counts[best])]

    def _without_floor(self, columns: Columns, kinds: Ints) -> list[tuple[Ints, Ints]]:
        if self.goal.most:
            return [self._packed(columns, kinds, columns.rate)]
        best = np.lexsort((columns.gpus[kinds], self._values(columns)[kinds]))[:1]
        return [(kinds[best], np.ones(1, dtype=np.int64))]

    def _thresholds(self, columns: Columns, kinds: Ints) -> list[tuple[Ints, Ints]]:
        """With the least of the worst value for which there is room for the users."""
        values = each_once(columns.worst[kinds])
        low, high = -1, len(values)  # no room at low, room at high
        found: list[tuple[Ints, Ints]] = []
        while high - low > 1:
            middle = (low + high) // 2
            packed = self._packed(columns, kinds[columns.worst[kinds] <= values[middle]], columns.users)
            if self._holds(composition_of(columns, *packed, self.goal)):
                high, found = middle, [packed]
            else:
                low = middle
        return found

    def _with_floor(self, columns: Columns, kinds: Ints) -> list[tuple[Ints, Ints]]:
        """As many interactions as there are with various worths of a user."""
        mean = float(np.sum(columns.rate[kinds]) / max(np.sum(columns.users[kinds]), 1e-300))
        tried = [self._packed(columns, kinds, columns.users)]
        tried += [self._packed(columns, kinds, columns.rate + trade * mean * columns.users) for trade in TRADES]
        return tried

    def _smallest(self, columns: Columns, kinds: Ints) -> list[tuple[Ints, Ints]]:
        """The fewest GPUs on which there is room for the users."""
        low, high = 0, self.room.most + 1  # no room at low, room at high
        found: list[tuple[Ints, Ints]] = []
        while high - low > 1:
            middle = (low + high) // 2
            packed = self._packed(columns, kinds, columns.users, self.room.limited(middle))
            if self._holds(composition_of(columns, *packed, self.goal)):
                high, found = middle, [packed]
            else:
                low = middle
        return found

    def _values(self, columns: Columns) -> Floats:
        """The goal of each column by itself."""
        if self.goal.name == "gpus":
            return columns.gpus.astype(np.float64)
        return 1.0 / columns.rate if self.goal.adds_up else columns.worst

    def _packed(self, columns: Columns, kinds: Ints, worth: Floats, room: Room | None = None) -> tuple[Ints, Ints]:
        """The best of each number of GPUs, packed for the most worth."""
        by_gpus, first = best_by_gpus(columns.gpus[kinds], worth[kinds])
        _, counts = (room or self.room).best(by_gpus)
        sizes = sorted(counts)
        return kinds[first[sizes]] if sizes else kinds[:0], np.array([counts[g] for g in sizes], dtype=np.int64)


def most_by_gpus(gpus: Ints, worth: Floats) -> Floats:
    """The most worth of each number of GPUs; 0 where there is none."""
    best = np.zeros(int(gpus.max(initial=0)) + 1)
    np.maximum.at(best, gpus, worth)
    return best


def best_by_gpus(gpus: Ints, worth: Floats) -> tuple[Floats, Ints]:
    """The most worth of each number of GPUs, and which row has it (0 where there is none)."""
    best, first = np.zeros(int(gpus.max(initial=0)) + 1), np.zeros(int(gpus.max(initial=0)) + 1, dtype=np.int64)
    order = np.argsort(worth, kind="stable")
    first[gpus[order]] = order
    best[gpus[order]] = np.maximum(worth[order], 0.0)
    return best, first
