"""Operating points with separate prefill and decode pools.

Pairs of pools are many, but a pool's rate doesn't depend on its partner: each is bounded on its own,
and only pairs whose slower half could still be part of a better plan become points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.cost.candidates import PREFILLED
from planner.cost.compression import CompressionTable
from planner.solve.goal import Goal, Limits
from planner.solve.points import Points, Search, aggregated_points
from planner.space.space import POOL_CHUNK

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Halves:
    """What pools reach on their own, by unit."""

    ways: dict[int, Points]
    """Decode caps, policies and services of a decode pool that keep the limits."""
    rates: dict[int, Floats]
    """Sessions per second of one decode replica, for each of its ways."""
    prefill: dict[int, float]
    """Sessions per second of one prefill replica."""


def pool_points(
    search: Search, table: CompressionTable | None, goal: Goal, limits: Limits, known: float | None
) -> Points | None:
    """Points with two pools that could beat a known value of the goal; all of them where none is known.

    Parameters
    ----------
    table
        One bounding row for each weight precision; None: list every point without looking at rates.
    known
        Value of the goal that a plan is known to reach.
    """
    if not search.space.disaggregated:
        return None
    halves = _everything(search) if table is None else _halves(search, table, limits)
    parts = []
    for decode, replicas, pool, pool_replicas in _pairs(search, halves):
        ways, rates = halves.ways[decode], halves.rates[decode]
        sessions = np.minimum(rates * replicas, halves.prefill[pool] * pool_replicas)
        if known is not None and goal.name in ("throughput", "cost"):
            gpus = _gpus(search, decode) * replicas + _gpus(search, pool) * pool_replicas
            weight = float(gpus) if goal.name == "cost" else 1.0
            per_hour = 3600.0 * search.problem.request.rounds * sessions
            ways = ways.take(weight <= known * (1.0 + 1e-6) * per_hour)
        if len(ways):
            parts.append(_placed(ways, replicas, pool, pool_replicas))
    return Points.joined(parts) if parts else None


def all_points(search: Search) -> Points:
    """Every operating point of a space, aggregated or with two pools."""
    if not search.units:
        return aggregated_points(search)
    goal, nothing = Goal("throughput", 1), Limits()
    split = pool_points(search, None, goal, nothing, None)
    points = aggregated_points(search)
    return points if split is None else Points.joined([points, split])


def _gpus(search: Search, unit: int) -> int:
    return search.units[unit].split.gpus


def _placed(ways: Points, replicas: int, pool: int, pool_replicas: int) -> Points:
    count = len(ways)
    return replace(
        ways,
        replicas=np.full(count, replicas, dtype=np.int64),
        pool_unit=np.full(count, pool, dtype=np.int64),
        pool_replicas=np.full(count, pool_replicas, dtype=np.int64),
    )


def _pairs(search: Search, halves: _Halves) -> Iterator[tuple[int, int, int, int]]:
    """Decode unit and replicas, prefill unit and replicas: the same weights and engine, on at most all GPUs."""
    total = search.problem.cluster.gpus
    for decode in halves.ways:
        for pool in halves.prefill:
            one, other = search.units[decode], search.units[pool]
            if (one.view, one.weights) != (other.view, other.weights):
                continue
            for replicas in range(1, min(one.split.replicas, (total - other.split.gpus) // one.split.gpus) + 1):
                rest = (total - replicas * one.split.gpus) // other.split.gpus
                for pool_replicas in range(1, min(other.split.replicas, rest) + 1):
                    yield decode, replicas, pool, pool_replicas


def _units(search: Search) -> tuple[list[int], list[int]]:
    """Units for decode pools, and for prefill pools: each with the parallelism that its phase is for."""
    decode, prefill = [], []
    for index, unit in enumerate(search.units):
        split = unit.split
        if split.ep > split.tp or not any(
            search.engines(index, p, (), pools=True) for p in range(len(search.space.policies))
        ):
            continue
        if split.pcp == 1:
            decode.append(index)
        if split.dcp == 1:
            prefill.append(index)
    return decode, prefill


def _grid(search: Search, units: list[int]) -> Points:
    space = search.space
    allowed = [(u, p) for u in units for p in range(len(space.policies)) if search.engines(u, p, (), pools=True)]
    rows = [(u, m, p, False) for u, p in allowed for m in space.sequences] + [(u, 1, p, True) for u, p in allowed]
    unit, micro, policy, alone = (np.array(column) for column in zip(*rows, strict=True))
    count = len(rows)
    return Points(
        unit=unit,
        micro=micro,
        chunk=np.full(count, POOL_CHUNK, dtype=np.int64),
        policy=policy,
        alone=alone.astype(np.bool_),
        replicas=np.ones(count, dtype=np.int64),
        pool_unit=np.full(count, PREFILLED, dtype=np.int64),
        pool_replicas=np.zeros(count, dtype=np.int64),
    )


def _everything(search: Search) -> _Halves:
    decode, prefill = _units(search)
    if not decode:
        return _Halves({}, {}, {})
    grid = _grid(search, decode)
    ways = {u: grid.take(grid.unit == u) for u in decode}
    return _Halves(ways, {u: np.full(len(w), np.inf) for u, w in ways.items()}, dict.fromkeys(prefill, np.inf))


def _halves(search: Search, table: CompressionTable, limits: Limits) -> _Halves:
    decode, prefill = _units(search)
    if not decode:
        return _Halves({}, {}, {})
    grid = _grid(search, decode)
    weights = np.array([unit.weights for unit in search.units], dtype=np.int64)
    priced = search.price(grid, table, weights[grid.unit], np.ones(len(grid), dtype=np.bool_))
    keep = limits.hold(priced, users=False)
    grid, rates = grid.take(keep), priced.sessions_per_s[keep]
    ways = {u: grid.take(grid.unit == u) for u in decode if np.any(grid.unit == u)}
    return _Halves(ways, {u: rates[grid.unit == u] for u in ways}, _prefill_rates(search, prefill, table))


def _prefill_rates(search: Search, units: list[int], table: CompressionTable) -> dict[int, float]:
    found = {}
    work = search.problem.workload
    start = float(work.shared_prefix_tokens)
    size = np.array([min(float(POOL_CHUNK), max(work.prompt_tokens - start, 1.0))])
    for view in range(len(search.views)):
        pools = search.pools(view, table)
        for u in units:
            if search.units[u].view == view:
                pool = pools[u].take(np.array([search.units[u].weights]))
                busy = float(pool.prefill_s(start, float(work.prompt_tokens), size)[0][0])
                if pool.fit[0] >= 1:
                    found[u] = pools.setting.efficiency.gpu_utilisation / busy
    return found
