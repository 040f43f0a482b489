"""Which engines run a point with some options, and what of the rules' conditions holds for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from catalog.schema import Engine
from planner.candidates.points import Points, Search
from planner.cost.candidates import AGGREGATED
from planner.space import Option
from planner.space.compatibility import CONDITIONS

Ints = NDArray[np.int64]


class Surroundings:
    """Engines and conditions of points, as bits in the order of the space's engines and of `CONDITIONS`."""

    def __init__(self, search: Search) -> None:
        count = len(search.space.policies)
        bits = {engine.id: 1 << bit for bit, engine in enumerate(search.space.engines)}
        self._search, self._bits = search, bits
        self._engines = np.zeros((2, len(search.units), count), dtype=np.int64)
        for u in range(len(search.units)):
            for p in range(count):
                for pools in (False, True):
                    found = search.engines(u, p, (), pools=pools)
                    self._engines[int(pools), u, p] = sum(bits[engine.id] for engine in found)
        self._several = np.array([unit.split.tp > 1 for unit in search.units], dtype=np.bool_)
        self._swaps = np.array([policy.policy == "swap" for policy in search.space.policies], dtype=np.bool_)

    def of(self, points: Points) -> tuple[Ints, Ints]:
        """Engines that run each point, and conditions that hold for it; a pool without a unit is any."""
        split = points.pool_unit != AGGREGATED
        paired = points.pool_unit >= 0
        engines = self._engines[split.astype(np.int64), points.unit, points.policy]
        engines = np.where(paired, engines & self._engines[1, np.maximum(points.pool_unit, 0), points.policy], engines)
        if paired.any():
            codes = points.pool_unit[paired] * len(self._several) + points.unit[paired]
            pairs, row = np.unique(codes, return_inverse=True)
            able = [
                sum(self._bits[name] for name in self._search.handing_over(*divmod(pair, len(self._several))))
                for pair in pairs.tolist()
            ]
            engines[paired] &= np.array(able, dtype=np.int64)[row]
        several = self._several[points.unit] | (paired & self._several[np.maximum(points.pool_unit, 0)])
        holds = {"tensor_parallel": several, "offload": self._swaps[points.policy], "disaggregated": split}
        bits = [holds[name].astype(np.int64) << bit for bit, name in enumerate(CONDITIONS)]
        return engines, np.bitwise_or.reduce(bits)


def both_run(
    search: Search, engines: tuple[Engine, ...], unit: int, policy: int, pool: int, options: tuple[Option, ...] = ()
) -> tuple[Engine, ...]:
    """Those of a decode unit's engines that run its prefill unit too, and get caches from there."""
    also, able = search.engines(pool, policy, options, pools=True), search.handing_over(pool, unit)
    return tuple(engine for engine in engines if engine in also and engine.id in able)


def conditions_of(search: Search, unit: int, policy: int, pool: int) -> set[str]:
    """Which of the conditions that rules speak of hold for a point."""
    holds = set()
    if search.units[unit].split.tp > 1 or (pool >= 0 and search.units[pool].split.tp > 1):
        holds.add("tensor_parallel")
    if search.space.policies[policy].policy == "swap":
        holds.add("offload")
    if pool >= 0:
        holds.add("disaggregated")
    return holds
