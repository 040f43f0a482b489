"""Classes of combinations that share their effect on prefill.

Most options change prefill not at all, and those that do change it by a few factors. A class is one
choice of factors in each dimension; the cost model prices classes, not combinations.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.cost.compression import CompressionTable, compression_table
from planner.service import DIMENSIONS
from planner.space import Option

Ints = NDArray[np.int64]

Factors = tuple[float, float, float, float]
"""Factors on prefill's linear layers, its attention, its time, and on the prefix that it reads."""


@dataclass(frozen=True)
class Classes:
    """Distinct effects on prefill."""

    by_dimension: dict[str, tuple[Factors, ...]]
    """Distinct factors in each dimension."""
    members: dict[str, tuple[tuple[int, ...], ...]]
    """Options of each dimension, by index, for each of its factors."""
    rows: tuple[tuple[int, ...], ...]
    """Each class as an index into every dimension's factors."""
    table: CompressionTable
    """One row per class: some combination of it."""

    def of(self, options: Ints) -> Ints:
        """Class of each combination, given as option indices ``(dimension, combination)``."""
        found = np.zeros(options.shape[1], dtype=np.int64)
        for d, name in enumerate(DIMENSIONS):
            factor = np.empty(sum(len(members) for members in self.members[name]), dtype=np.int64)
            for index, members in enumerate(self.members[name]):
                factor[list(members)] = index
            found = found * len(self.members[name]) + factor[options[d]]
        return found


def classes_of(options: dict[str, tuple[Option, ...]]) -> Classes:
    """Group the options of each dimension by their effect on prefill."""
    by_dimension: dict[str, tuple[Factors, ...]] = {}
    members: dict[str, tuple[tuple[int, ...], ...]] = {}
    for name in DIMENSIONS:
        groups: dict[Factors, list[int]] = {}
        for index, option in enumerate(options[name]):
            groups.setdefault(factors(option), []).append(index)
        by_dimension[name] = tuple(groups)
        members[name] = tuple(tuple(group) for group in groups.values())
    rows = tuple(itertools.product(*(range(len(by_dimension[name])) for name in DIMENSIONS)))
    return Classes(by_dimension, members, rows, _table(options, members, rows))


def factors(option: Option) -> Factors:
    """What an option does to prefill."""
    point = option.point
    if point is None:
        return (1.0, 1.0, 1.0, 1.0)
    time = max(1.0, (point.overhead.prefill if point.overhead else None) or 1.0)
    prefix = float(point.reads.slope) if option.dimension == "hidden" else 1.0
    return (point.prefill.linear, point.prefill.attention, time, prefix)


def _table(
    options: dict[str, tuple[Option, ...]],
    members: dict[str, tuple[tuple[int, ...], ...]],
    rows: tuple[tuple[int, ...], ...],
) -> CompressionTable:
    combinations = []
    for row in rows:
        chosen = [options[name][members[name][i][0]] for name, i in zip(DIMENSIONS, row, strict=True)]
        combinations.append([(o.technique, o.point) if o.technique and o.point else None for o in chosen])
    return compression_table(combinations)


def distinct_columns(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[list[int], list[int]]:
    """First column of each distinct one of an array, and for each column which of those it equals."""
    first: dict[tuple[float, ...], int] = {}
    chosen: list[int] = []
    belongs = []
    for column in range(values.shape[1]):
        key = tuple(float(f"{value:.12g}") for value in values[:, column])
        if key not in first:
            first[key] = len(chosen)
            chosen.append(column)
        belongs.append(first[key])
    return chosen, belongs
