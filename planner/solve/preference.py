"""Which of plans that are equally good is taken, so that one request has one answer.

Fewer GPUs, fewer techniques, a smaller loss, a simpler split, the more capable engine, last a hash of the
names. Each choice has a weight, and the plan whose weights add up to the least is preferred.
"""

from __future__ import annotations

from typing import TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from planner.solve.points import Search, capability_rank
from planner.space import Option

Ints = NDArray[np.int64]
Number = TypeVar("Number", int, Ints)

_MOST_LOSS = 1023
"""In hundredths of a percent; larger losses count as equal."""


class Preference:
    """Weights of the choices of one search."""

    def __init__(self, search: Search) -> None:
        self._search = search
        ranked = sorted(search.space.engines, key=capability_rank)
        self._rank = {engine.id: rank for rank, engine in enumerate(ranked)}

    def deployment(self, unit: int, replicas: int, pool: int, pool_replicas: int) -> int:
        """Of replicas of a unit with their prefill pool; -1: none."""
        units = self._search.units
        split = units[unit].split
        gpus = split.gpus * replicas + (units[pool].split.gpus * pool_replicas if pool >= 0 else 0)
        plain = split.pp + split.dcp + split.pcp + (split.ep > 1) + (pool >= 0)
        parts = [units[u] for u in (unit, pool) if u >= 0]
        names = [(part.split, self._search.space.weights[part.weights].id) for part in parts]
        return (gpus << 44) + (plain << 36) + _hash(f"{names}:{replicas}:{pool_replicas}")

    def option(self, option: Option) -> int:
        """Of an option of any dimension; nothing for no technique."""
        return _technique(option.loss.mean, option.id) if option.point else 0

    def weights(self, index: int) -> int:
        """Of a weight precision of the space."""
        weights = self._search.space.weights[index]
        made = _MADE if weights.point and not weights.engines - weights.made_for else 0
        return made + _technique(weights.loss.mean, weights.id) - (0 if weights.point else _ONE_TECHNIQUE)

    def engine(self, name: str) -> int:
        """Of an engine."""
        return self._rank[name] << 26

    def policy(self, index: int) -> int:
        """Of what happens to a cache between rounds."""
        return (index << 30) + _hash(self._search.space.policies[index].id)

    @staticmethod
    def micro(cap: Number) -> Number:
        """Of a decode cap: small ones first."""
        return cap << 16

    @staticmethod
    def chunk(tokens: Number) -> Number:
        """Of a prefill chunk: large ones first."""
        return -(tokens << 8)

    @staticmethod
    def alone(holds: Number) -> Number:
        """Of service one at a time, 1 where it is so."""
        return holds << 20


_ONE_TECHNIQUE = 1 << 42
_MADE = 1 << 43
"""Of weights that no engine has ready: more than of another technique, less than of another GPU."""


def _technique(loss: float, name: str) -> int:
    return _ONE_TECHNIQUE + (min(round(loss * 1e4), _MOST_LOSS) << 28) + _hash(name)


def _hash(name: str) -> int:
    """24 bits that are the same on every machine."""
    return crc32(name.encode()) & 0xFFFFFF
