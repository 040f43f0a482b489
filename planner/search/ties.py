"""Which of clusters that are equally good is taken, so that one request has one answer.

Fewer GPUs, fewer kinds, fewer pipeline stages, fewer techniques, the sooner answer to a later question; last a
fixed order of everything else: a plainer split, a smaller loss, the more capable engine, smaller caps, larger
chunks, and a hash of the names.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from planner.candidates.each_once import each_once
from planner.candidates.points import Search, capability_rank
from planner.search.columns import Columns
from planner.service import DIMENSIONS
from planner.space import Space

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MADE = 2
"""Techniques that weights count for which no engine has ready."""
_DIGITS = 9
"""Times that agree in so many digits are equal."""


@dataclass(frozen=True)
class Ties:
    """What decides between equals, of each column ``(column,)``."""

    kinds: Ints
    """Kinds of replicas: two of a service with two pools."""
    stages: Ints
    """Pipeline stages of its kinds."""
    techniques: Ints
    """Compression techniques and weight formats."""
    late: Ints
    """Rank of the time to a later question's first token."""
    order: Ints
    """Rank of everything else."""

    @staticmethod
    def of(search: Search, columns: Columns) -> Ties:
        """What decides between some columns of a search."""
        splits = [unit.split for unit in search.units]
        pp = np.array([s.pp for s in splits], dtype=np.int64)
        plain = np.array([s.dcp + s.pcp + (s.ep > 1) for s in splits], dtype=np.int64)
        unit, pool = columns.points.unit, columns.points.pool_unit
        paired = pool >= 0
        weights = search.weights_of(columns.points)
        techniques = formats_of(search.space)[weights]
        for d, name in enumerate(DIMENSIONS):
            techniques = (
                techniques + np.array([o.point is not None for o in search.space.options[name]])[columns.options[d]]
            )
        warm_s = np.where(np.isfinite(columns.warm_s), columns.warm_s, 0.0)
        keys = (
            _names(search, columns),
            -columns.points.chunk,
            columns.points.micro,
            columns.points.alone,
            columns.points.policy,
            _engine_ranks(search, columns),
            np.round(columns.loss, 4),
            plain[unit] + np.where(paired, plain[pool], 0),
        )
        order = np.empty(len(columns), dtype=np.int64)
        order[np.lexsort(keys)] = np.arange(len(columns))
        return Ties(
            kinds=1 + paired.astype(np.int64),
            stages=pp[unit] + np.where(paired, pp[pool], 0),
            techniques=techniques,
            late=_ranks(_rounded(warm_s)),
            order=order,
        )


def formats_of(space: Space) -> Ints:
    """For how many techniques each weight format counts ``(weights,)``: more where a checkpoint must be made."""
    rows = [0 if w.point is None else 1 + MADE * (not w.engines - w.made_for) for w in space.weights]
    return np.array(rows, dtype=np.int64)


def engine_of(search: Search, engines: int) -> str:
    """The most capable of some engines, which are a bit each."""
    able = [engine for bit, engine in enumerate(search.space.engines) if engines >> bit & 1]
    return min(able, key=capability_rank).id


def _engine_ranks(search: Search, columns: Columns) -> Ints:
    ranks = {e.id: rank for rank, e in enumerate(sorted(search.space.engines, key=capability_rank))}
    found = {int(bits): ranks[engine_of(search, int(bits))] for bits in each_once(columns.engines)}
    return np.array([found[int(bits)] for bits in columns.engines], dtype=np.int64)


def _names(search: Search, columns: Columns) -> Ints:
    """24 bits of the names of each column, the same on every machine."""
    found = []
    for row in range(len(columns)):
        points = columns.points
        units = [search.units[int(u)] for u in (points.unit[row], points.pool_unit[row]) if u >= 0]
        names = [(unit.split.tp, unit.split.pp, search.space.weights[unit.weights].id) for unit in units]
        counts = (int(points.replicas[row]), int(points.pool_replicas[row]))
        options = [option.id for option in columns.chosen(search, row)]
        found.append(crc32(f"{names}:{options}:{counts}".encode()) & 0xFFFFFF)
    return np.array(found, dtype=np.int64)


def _rounded(values: Floats) -> Floats:
    digits = np.power(10.0, _DIGITS - np.ceil(np.log10(np.maximum(values, 1e-12))))
    return np.asarray(np.round(values * digits) / digits)


def _ranks(values: Floats) -> Ints:
    return np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int64)
