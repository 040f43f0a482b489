"""Operating points: everything of a decision but its compression, as struct of arrays.

A point is a split with weights, a decode cap, a chunk, a policy between rounds, and whether
sessions are served one at a time; for a disaggregated deployment also the prefill pool. The search
bounds points with cells of combinations, and the exhaustive oracle prices every one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from catalog.schema import Engine
from planner.candidates.each_once import each_once
from planner.cost.candidates import AGGREGATED
from planner.cost.compression import CompressionTable
from planner.cost.efficiency import Efficiency
from planner.cost.price import Candidates, Fed, Pools, Priced, Setting, price, price_prefill
from planner.cost.replica import Shape
from planner.efficiency import efficiency_of, timer_of
from planner.price import POLICIES, TIERS, setting_of
from planner.problem import Problem
from planner.reserve import lost_replicas
from planner.space import Option, Space, Split, WeightOption

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MOST_OPENED = 16
"""Views with a table whose pools are kept."""


@dataclass(frozen=True)
class Unit:
    """A split with weights under one view of efficiency: what a replica's cost depends on."""

    view: int
    """Index into `Search.views`."""
    weights: int
    split: Split

    def shape(self, weights: WeightOption) -> Shape:
        """As the cost model names it."""
        return self.split.shape(weights.id)


@dataclass(frozen=True, eq=False, repr=False)
class Points:
    """Operating points, ``(point,)`` each."""

    unit: Ints
    """Index into `Search.units`: the replica, or the decode pool's replica."""
    micro: Ints
    """Decode cap of one pipeline stage."""
    chunk: Ints
    policy: Ints
    """Index into `Space.policies`."""
    alone: Bools
    """Sessions are served one at a time although more might fit."""
    replicas: Ints
    """Whose service is promised; those in reserve stand beside them (`Search.lost`)."""
    pool_unit: Ints
    """The prefill pool's replica, or a code of `planner.cost.candidates` for none."""
    pool_replicas: Ints

    def __len__(self) -> int:
        return int(self.unit.shape[0])

    def take(self, rows: Ints | Bools) -> Points:
        """Some of the points."""
        return Points(*(getattr(self, field.name)[rows] for field in fields(self)))

    def distinct(self) -> tuple[Points, Ints]:
        """Each point once, and for every point which of those it is."""
        columns = np.stack([getattr(self, f.name) for f in fields(self)], axis=1)
        _, first, row = np.unique(columns, axis=0, return_index=True, return_inverse=True)
        return self.take(first), row.reshape(-1)

    @staticmethod
    def none() -> Points:
        """No points."""
        return Points(*(np.zeros(0, dtype=np.bool_ if f.name == "alone" else np.int64) for f in fields(Points)))

    @staticmethod
    def joined(parts: list[Points]) -> Points:
        """Several sets of points, one after the other."""
        if not parts:
            return Points.none()
        return Points(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Points)))


@dataclass(frozen=True)
class Taken:
    """What points take of a cluster where they are columns of it, ``(point,)`` each."""

    gpus: Ints
    """As often as it is there."""
    reserve: Ints
    """Beside them once, for replicas in reserve; a whole service has them in its own GPUs [GPUs]."""
    services: Bools
    """Which are a whole service, that nothing stands beside: two pools, or a given number of replicas."""

    def take(self, rows: Ints | Bools) -> Taken:
        """Some of them."""
        return Taken(self.gpus[rows], self.reserve[rows], self.services[rows])


@dataclass(frozen=True)
class View:
    """Engines that cost the same: one pricing serves them all."""

    efficiency: Efficiency
    engines: tuple[Engine, ...]


@dataclass(frozen=True)
class Search:
    """A space with its views and units, ready to be priced."""

    problem: Problem
    space: Space
    views: tuple[View, ...]
    units: tuple[Unit, ...]
    whole: bool = False
    """Whether points have all replicas of a service: none is counted more than once."""
    _opened: dict[tuple[int, int], tuple[CompressionTable, Pools]] = field(default_factory=dict, repr=False)
    """Pools by view and table; the table is kept, so that nothing else takes its id."""
    _pairs: dict[tuple[int, Split, Split], frozenset[str]] = field(default_factory=dict, repr=False)
    """Engines that hand caches over, by view and the splits of a prefill and a decode pool."""

    @cached_property
    def throttling(self) -> Bools:
        """Whether any engine that runs a unit with a policy yields to short prefills ``(unit, policy)``."""
        count = len(self.space.policies)
        able = [
            [any(e.long_prefill_throttle for e in self.engines(u, p, ())) for p in range(count)]
            for u in range(len(self.units))
        ]
        return np.array(able, dtype=np.bool_).reshape(len(self.units), count)

    @cached_property
    def replica_steps(self) -> Ints:
        """Of each unit, what its replicas are a multiple of."""
        return np.array([unit.split.replica_step for unit in self.units], dtype=np.int64)

    def weights_of(self, points: Points) -> Ints:
        """Index of each point's weights."""
        return np.array([unit.weights for unit in self.units], dtype=np.int64)[points.unit]

    @cached_property
    def lost(self) -> Ints:
        """Of each unit, the replicas in reserve: those that the worst single loss takes; 0 without ``--spare``."""
        cluster, spare = self.problem.cluster, self.problem.request.spare
        splits = [unit.split for unit in self.units]
        lost = [lost_replicas(cluster, split.gpus, split.replica_step) if spare else 0 for split in splits]
        return np.array(lost, dtype=np.int64)

    def gpus_of(self, points: Points) -> Ints:
        """GPUs that points take, those in reserve included."""
        each = np.array([unit.split.gpus for unit in self.units], dtype=np.int64)
        pool = np.where(points.pool_unit >= 0, each[np.maximum(points.pool_unit, 0)] * points.pool_replicas, 0)
        return np.asarray(each[points.unit] * points.replicas + pool) + self.reserve_gpus_of(points)

    def reserve_gpus_of(self, points: Points) -> Ints:
        """GPUs of the replicas in reserve beside points."""
        each = np.array([unit.split.gpus for unit in self.units], dtype=np.int64) * self.lost
        return np.asarray(each[points.unit] + np.where(points.pool_unit >= 0, each[np.maximum(points.pool_unit, 0)], 0))

    @property
    def counted(self) -> bool:
        """Whether replicas that serve are counted beforehand: columns have all of them."""
        return self.whole or self.space.pins.wanted("replicas", "serve") is not None

    def in_groups(self, points: Points) -> Bools:
        """Which points have groups of replicas over which experts spread, one of them in reserve.

        A group may stand on parts of several servers, so that columns have all groups.
        """
        return np.asarray((self.replica_steps[points.unit] > 1) & (self.lost[points.unit] > 0))

    def taken_by(self, points: Points) -> Taken:
        """What points take as columns of a cluster."""
        services = (points.pool_unit >= 0) | self.counted | self.in_groups(points)
        reserve = np.where(services, 0, self.reserve_gpus_of(points))
        return Taken(self.gpus_of(points) - reserve, reserve, services)

    def pools(self, view: int, table: CompressionTable) -> Pools:
        """The pools of a view with these combinations, kept for as long as few others are asked for."""
        key = (view, id(table))
        if key not in self._opened:
            while len(self._opened) >= MOST_OPENED:
                self._opened.pop(next(iter(self._opened)))
            self._opened[key] = (table, Pools(self.setting(view, table)))
        return self._opened[key][1]

    def setting(self, view: int, table: CompressionTable) -> Setting:
        """For pricing candidates of one view with these combinations."""
        weights = {option.id: option.format for option in self.space.weights}
        shapes = tuple(unit.shape(self.space.weights[unit.weights]) for unit in self.units)
        return setting_of(self.problem, shapes, weights, table, self.views[view].engines[0].id)

    def price(
        self,
        points: Points,
        table: CompressionTable,
        combination: Ints,
        throttled: Bools,
        slowest: Ints | None = None,
    ) -> Priced:
        """Price points with a combination each, whatever their view; ``slowest``: see `planner.cost.price.price`."""
        view = np.array([unit.view for unit in self.units], dtype=np.int64)[points.unit]
        candidates = self._candidates(points, combination, throttled)
        parts: list[tuple[Ints, Priced]] = []
        for index in each_once(view):
            rows = np.flatnonzero(view == index)
            pools = self.pools(int(index), table)
            longest = None if slowest is None else slowest[rows]
            parts.append((rows, price(pools.setting, candidates.take(rows), pools, longest)))
        if len(parts) == 1:
            return parts[0][1]
        order = np.argsort(np.concatenate([rows for rows, _ in parts]), kind="stable")
        return Priced(
            *(np.concatenate([getattr(part, field.name) for _, part in parts])[order] for field in fields(Priced))
        )

    def price_prefill(self, unit: int, table: CompressionTable, rows: Ints, *, throttled: bool) -> Fed:
        """Price one prefill replica of a unit under every policy with some rows of a table, policy by policy."""
        policies = self.space.policies
        count, size = len(policies), len(rows)
        zero = np.zeros(count * size, dtype=np.int64)
        candidates = Candidates(
            shape=zero + unit,
            compression=np.tile(rows, count),
            replicas=zero + 1,
            decode_sequences=zero + 1,
            resident_limit=zero,
            prefill_chunk=zero + self.space.pool_chunk,
            throttled=np.full(count * size, throttled),
            policy=np.repeat(np.array([POLICIES[p.policy] for p in policies]), size),
            tier=np.repeat(np.array([TIERS[p.tier or "ddr"] for p in policies]), size),
            prefill_shape=zero + AGGREGATED,
            prefill_replicas=zero,
            prefill_pool_chunk=zero,
            reserve_gpus=zero,
        )
        pools = self.pools(self.units[unit].view, table)
        return price_prefill(pools.setting, candidates, pools)

    def _candidates(self, points: Points, combination: Ints, throttled: Bools) -> Candidates:
        pp = np.array([unit.split.pp for unit in self.units], dtype=np.int64)[points.unit]
        policies = self.space.policies
        return Candidates(
            shape=points.unit,
            compression=combination,
            replicas=points.replicas,
            decode_sequences=np.where(points.alone, 1, points.micro * pp),
            resident_limit=self._resident(points),
            prefill_chunk=points.chunk,
            throttled=throttled,
            policy=np.array([POLICIES[p.policy] for p in policies])[points.policy],
            tier=np.array([TIERS[p.tier or "ddr"] for p in policies])[points.policy],
            prefill_shape=points.pool_unit,
            prefill_replicas=points.pool_replicas,
            prefill_pool_chunk=np.where(points.pool_unit >= 0, self.space.pool_chunk, 0),
            reserve_gpus=self.reserve_gpus_of(points),
        )

    def _resident(self, points: Points) -> Ints:
        """Sessions that a replica may hold; 0: as many as fit."""
        pins = self.space.pins
        most = np.where(points.pool_unit == AGGREGATED, pins.resident("serve"), pins.resident("decode"))
        return np.where(points.alone, 1, most)

    def handing_over(self, pool: int, unit: int) -> frozenset[str]:
        """Engines with which a prefill unit hands caches over to a decode unit, of one view."""
        one, other = self.units[pool], self.units[unit]
        key = (one.view, one.split, other.split)
        if key not in self._pairs:
            engines = self.views[one.view].engines if one.view == other.view else ()
            able = (e.id for e in engines if self.space.hands_over(e, one.split, other.split))
            self._pairs[key] = frozenset(able)
        return self._pairs[key]

    def engines(
        self, unit: int, policy: int, options: tuple[Option, ...], *, pools: bool = False
    ) -> tuple[Engine, ...]:
        """Engines of a unit's view that run it with this policy and these options, the most capable first."""
        chosen = self.units[unit]
        weights = self.space.weights[chosen.weights]
        ids = frozenset(o.id for o in options if o.point) | (
            frozenset((weights.point.id,)) if weights.point else frozenset()
        )
        rules = self.space.compatibility
        return tuple(
            engine
            for engine in self.views[chosen.view].engines
            if self.space.runs(engine, weights, chosen.split)
            and self.space.offers(engine, self.space.policies[policy])
            and (not pools or self.space.has_pools(engine))
            and all(self.space.option_runs(option, engine) for option in options)
            and not any(pair <= ids for pair, name in rules.engine_pairs if name == engine.id)
        )


def open_search(problem: Problem, space: Space, *, whole: bool = False) -> Search:
    """Group engines that cost the same, and list the units; ``whole``: see `Search.whole`."""
    views: dict[tuple[Efficiency, object], list[Engine]] = {}
    for engine in sorted(space.engines, key=capability_rank):
        timer = timer_of(problem, engine.id)
        key = (efficiency_of(problem, engine.id), timer.costs if timer else None)
        views.setdefault(key, []).append(engine)
    found = tuple(View(efficiency, tuple(engines)) for (efficiency, _), engines in views.items())
    units = tuple(
        Unit(v, w, split)
        for v, view in enumerate(found)
        for w, weights in enumerate(space.weights)
        for split in space.splits
        if any(space.runs(engine, weights, split) for engine in view.engines)
    )
    return Search(problem, space, found, units, whole)


def capability_rank(engine: Engine) -> tuple[int, str]:
    """Order among engines that cost the same: the one that can do more first, then by name."""
    has = engine.parallelism
    can = sum((has.tensor, has.pipeline, has.decode_context, has.prefill_context, has.expert, has.attention_data))
    can += (engine.long_prefill_throttle is not None) + (engine.disaggregated is not None)
    return (-(can + len({offload.tier for offload in engine.offload})), engine.id)


def roomy(search: Search, points: Points, table: CompressionTable) -> Bools:
    """Points whose sessions fit HBM with the row of their weights, before anything is priced."""
    most = np.zeros(len(search.units))
    for unit in each_once(np.concatenate([points.unit, points.pool_unit[points.pool_unit >= 0]])):
        known = search.units[int(unit)]
        most[unit] = search.pools(known.view, table).fit(int(unit))[known.weights]
    pp = np.array([unit.split.pp for unit in search.units], dtype=np.int64)
    sequences = np.where(points.alone, 1, points.micro * pp[points.unit])
    fits = most[points.unit] >= np.where(sequences > 1, sequences + 1, 1)
    return fits & ((points.pool_unit < 0) | (most[np.maximum(points.pool_unit, 0)] >= 1))
