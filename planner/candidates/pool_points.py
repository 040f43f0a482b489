"""Operating points with separate prefill and decode pools.

Pairs of pools are many, but a pool's rate doesn't depend on its partner: each is bounded on its own,
and only pairs whose slower half could still be part of a better plan become points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.candidates.goal import Goal, Limits
from planner.candidates.points import Points, Search
from planner.candidates.serving_points import aggregated_points, in_every_number
from planner.cost.candidates import PREFILLED
from planner.cost.compression import CompressionTable
from planner.cost.price import Fed
from planner.limits import SLACK
from planner.space.splits import fit_together

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


TIE = 1e-9
"""Relative: values that differ by less are equal."""
MARGIN = 1e-6
"""Relative: what is worse by more is dropped."""


@dataclass(frozen=True, eq=False, repr=False)
class Best:
    """What a plan that is known reaches."""

    value: float
    """Of the goal."""
    gpus: int


@dataclass(frozen=True, eq=False, repr=False)
class _Halves:
    """What pools reach on their own, by unit."""

    ways: dict[int, Points]
    """Decode caps, policies and services of a decode pool that keep the limits."""
    rates: dict[int, Floats]
    """Sessions per second of one decode replica, for each of its ways."""
    values: dict[int, Floats]
    """No plan with that way has a lower value of the goal, rates apart."""
    prefill: dict[int, Floats]
    """Sessions per second of one prefill replica under each policy; 0 where it breaks a limit by itself."""


def pool_points(
    search: Search, table: CompressionTable | None, goal: Goal, limits: Limits, known: Best | None
) -> Points | None:
    """Points with two pools that could beat a plan that is known; all of them where none is known.

    Parameters
    ----------
    search, goal, limits
        The space, what is minimised, and what must hold.
    table
        One bounding row for each weight precision; None: list every point without looking at rates.
    known
        The plan.
    """
    if not search.space.disaggregated:
        return None
    halves = _everything(search) if table is None else _halves(search, table, goal, limits, known)
    parts = []
    for decode, pool in _pairs(search, halves):
        found = _counted(search, goal, halves, decode, pool, known)
        if found is not None:
            parts.append(found)
    return Points.joined(parts) if parts else None


def _counted(search: Search, goal: Goal, halves: _Halves, decode: int, pool: int, known: Best | None) -> Points | None:
    """Every way of a decode pool with every number of replicas on both sides that could beat a known plan."""
    numbers = Numbers.of(search, decode, pool, search.problem.most_gpus)
    replicas, pool_replicas, gpus = numbers.decode, numbers.prefill, numbers.gpus
    ways, rates, values = halves.ways[decode], halves.rates[decode], halves.values[decode]
    fed = halves.prefill[pool][ways.policy]
    ways, rates, values, fed = ways.take(fed > 0), rates[fed > 0], values[fed > 0], fed[fed > 0]
    if not len(ways):
        return None
    rated = goal.name in ("throughput", "cost")
    per_session = (gpus if goal.name == "cost" else 1.0) / (3600.0 * search.problem.request.rounds)

    def could(rate: float, value: Floats | float, fed: float) -> Bools:
        """Whether so fast a way, with so good a value, could be part of a better plan; broadcast."""
        fits = numbers.fit
        if known is None:
            return fits
        if rated:
            with np.errstate(divide="ignore"):
                value = per_session / np.minimum(rate * replicas, fed * pool_replicas)
        better = np.asarray(value < known.value * (1.0 - TIE) - 1e-15)
        tied = np.asarray(value <= known.value * (1.0 + MARGIN) + 1e-15) & (gpus <= known.gpus)
        return fits & (better | tied)

    r, q = np.nonzero(could(float(rates.max()), float(values.min()), float(fed.max())))
    if not len(r):
        return None
    if known is None and goal.name not in ("cost", "gpus"):
        # More prefill replicas never hurt, on either side of the border of a server.
        inside = gpus <= search.problem.cluster.gpus_per_node
        last = {(int(i), bool(inside[i, j])): int(j) for i, j in zip(r, q, strict=True)}
        r, q = np.array([[i, j] for (i, _), j in last.items()]).T
    keep = np.stack([could(*way)[r, q] for way in zip(rates.tolist(), values.tolist(), fed.tolist(), strict=True)])
    way, at = np.nonzero(keep)
    if not len(way):
        return None
    return replace(
        ways.take(way),
        replicas=replicas[r[at], 0],
        pool_unit=np.full(len(way), pool, dtype=np.int64),
        pool_replicas=pool_replicas[0, q[at]],
    )


@dataclass(frozen=True)
class Numbers:
    """Numbers of replicas of a decode and a prefill split beside each other, those in reserve left out."""

    decode: Ints
    """``(replicas, 1)``."""
    prefill: Ints
    """``(1, replicas)``."""
    gpus: Ints
    """GPUs that both take, reserves included ``(decode replicas, prefill replicas)``."""
    fit: Bools
    """Whether there are as many GPUs, and pins allow it."""

    @staticmethod
    def of(search: Search, decode: int, prefill: int, total: int) -> Numbers:
        """Every number of replicas of two units that so many GPUs could hold."""
        one, other = search.units[decode].split, search.units[prefill].split
        lost, before = int(search.lost[decode]), int(search.lost[prefill])
        most = min(one.replicas, (total - other.gpus) // one.gpus) - lost
        most_before = min(other.replicas, (total - one.gpus) // other.gpus) - before
        r, q = np.arange(1, most + 1)[:, None], np.arange(1, most_before + 1)[None, :]
        every, all_before, pins = r + lost, q + before, search.space.pins
        gpus = np.asarray(every * one.gpus + all_before * other.gpus)
        fit = (gpus <= total) & fit_together(search.problem.cluster, one.gpus, every, other.gpus, all_before)
        fit &= pins.allows_replicas("decode", every) & pins.allows_replicas("prefill", all_before)
        return Numbers(r, q, gpus, fit)


def all_points(search: Search) -> Points:
    """Every operating point of a space, aggregated or with two pools.

    Where cost isn't what is asked for, only as many replicas as the GPUs allow: more never hurt.
    """
    if not search.units:
        return aggregated_points(search)
    goal, nothing = Goal.of(search.problem.request), Limits()
    split = pool_points(search, None, goal, nothing, None)
    points = aggregated_points(search)
    if goal.name == "gpus":
        points = in_every_number(search, points)
    return points if split is None else Points.joined([points, split])


def _pairs(search: Search, halves: _Halves) -> Iterator[tuple[int, int]]:
    """Decode unit and prefill unit: the same weights and engine, and together on the cluster."""
    total = search.problem.most_gpus
    for decode in halves.ways:
        for pool in halves.prefill:
            one, other = search.units[decode], search.units[pool]
            same = (one.view, one.weights) == (other.view, other.weights)
            if same and search.handing_over(pool, decode) and one.split.gpus + other.split.gpus <= total:
                yield decode, pool


def pool_units(search: Search) -> tuple[list[int], list[int]]:
    """Units for decode pools, and for prefill pools: each with the parallelism that its phase is for."""
    decode, prefill = [], []
    for index, unit in enumerate(search.units):
        split = unit.split
        if split.ep > split.tp or not any(
            search.engines(index, p, (), pools=True) for p in range(len(search.space.policies))
        ):
            continue
        pins = search.space.pins
        if split.pcp == 1 and pins.allows_split("decode", split):
            decode.append(index)
        if split.dcp == 1 and pins.allows_split("prefill", split):
            prefill.append(index)
    taken = [u for u in decode if any(_pairs_up(search, pool, u) for pool in prefill)]
    return taken, [pool for pool in prefill if any(_pairs_up(search, pool, u) for u in taken)]


def _pairs_up(search: Search, pool: int, unit: int) -> bool:
    one, other = search.units[pool], search.units[unit]
    return one.weights == other.weights and bool(search.handing_over(pool, unit))


def decode_ways(search: Search, units: list[int]) -> Points:
    """Caps, policies and services of decode pools whose first prompts come prefilled for nothing."""
    space = search.space
    allowed = [(u, p) for u in units for p in range(len(space.policies)) if search.engines(u, p, (), pools=True)]
    rows = [(u, m, p, False) for u, p in allowed for m in space.sequences] + [(u, 1, p, True) for u, p in allowed]
    rows = [row for row in rows if _allows(search, *row)]
    if not rows:
        return Points.none()
    unit, micro, policy, alone = (np.array(column) for column in zip(*rows, strict=True))
    count = len(rows)
    return Points(
        unit=unit,
        micro=micro,
        chunk=np.full(count, space.pool_chunk, dtype=np.int64),
        policy=policy,
        alone=alone.astype(np.bool_),
        replicas=np.ones(count, dtype=np.int64),
        pool_unit=np.full(count, PREFILLED, dtype=np.int64),
        pool_replicas=np.zeros(count, dtype=np.int64),
    )


def _allows(search: Search, unit: int, micro: int, policy: int, alone: bool) -> bool:
    """Whether a request's pins allow a way of a decode pool."""
    sequences = 1 if alone else micro * search.units[unit].split.pp
    return bool(search.space.pins.allows_batch("decode", sequences, alone=alone))


def _everything(search: Search) -> _Halves:
    decode, prefill = pool_units(search)
    if not decode:
        return _Halves({}, {}, {}, {})
    grid = decode_ways(search, decode)
    ways = {u: grid.take(grid.unit == u) for u in decode}
    rates = {u: np.full(len(w), np.inf) for u, w in ways.items()}
    never = np.full(len(search.space.policies), np.inf)
    return _Halves(ways, rates, {u: np.zeros(len(w)) for u, w in ways.items()}, dict.fromkeys(prefill, never))


def _halves(search: Search, table: CompressionTable, goal: Goal, limits: Limits, known: Best | None) -> _Halves:
    nothing = _Halves({}, {}, {}, {})
    decode, prefill = ([u for u in units if _has_room(search, table, u)] for units in pool_units(search))
    if not decode or not prefill:
        return nothing
    rates = _prefill_rates(search, prefill, table, limits)
    decode = [u for u in decode if _is_fed(search, goal, u, rates, known)]
    if not decode:
        return nothing
    grid = decode_ways(search, decode)
    weights = search.weights_of(grid)
    priced = search.price(grid, table, weights, np.ones(len(grid), dtype=np.bool_))
    confidence = search.problem.request.confidence
    losses = np.array(
        [
            min(0.0, o.loss.loss_at(confidence)) if confidence < 0.5 else o.loss.loss_at(confidence)
            for o in search.space.weights
        ]
    )
    keep = limits.hold(priced, users=False)
    values = goal.value(priced, losses[weights])
    if known is not None and goal.name not in ("throughput", "cost"):
        keep &= values <= known.value * (1.0 + MARGIN) + 1e-15
    grid, per_s, values = grid.take(keep), priced.sessions_per_s[keep], values[keep]
    mine = {u: grid.unit == u for u in decode if np.any(grid.unit == u)}
    return _Halves(
        {u: grid.take(rows) for u, rows in mine.items()},
        {u: per_s[rows] for u, rows in mine.items()},
        {u: values[rows] for u, rows in mine.items()},
        rates,
    )


def _has_room(search: Search, table: CompressionTable, unit: int) -> bool:
    """Whether a session fits a unit with the row of its weights."""
    known = search.units[unit]
    return bool(search.pools(known.view, table)[unit].fit[known.weights] >= 1)


def _is_fed(search: Search, goal: Goal, decode: int, rates: dict[int, Floats], known: Best | None) -> bool:
    """Whether the GPUs that a decode unit leaves can prefill fast enough to beat a known plan."""
    if known is None or goal.name not in ("throughput", "cost"):
        return True
    unit, total = search.units[decode], search.problem.most_gpus
    for pool, rate in rates.items():
        other = search.units[pool]
        if (other.view, other.weights) != (unit.view, unit.weights):
            continue
        replicas = min(other.split.replicas, (total - unit.split.gpus) // other.split.gpus)
        if replicas < 1:
            continue
        per_hour = 3600.0 * search.problem.request.rounds * float(rate.max())
        if per_hour <= 0:
            continue
        # More replicas cost as many more GPUs: what each yields at best is what counts.
        least = (other.split.gpus if goal.name == "cost" else 1.0 / replicas) / per_hour
        if least <= known.value * (1.0 + MARGIN):
            return True
    return False


def _prefill_rates(search: Search, units: list[int], table: CompressionTable, limits: Limits) -> dict[int, Floats]:
    found = {}
    for u in units:
        fed = search.price_prefill(u, table, np.array([search.units[u].weights]), throttled=True)
        found[u] = np.where(able_to_feed(fed, limits), fed.sessions_per_s, 0.0)
    return found


def able_to_feed(fed: Fed, limits: Limits) -> Bools:
    """Prefill replicas that keep the limits at best, whatever decodes."""
    able = fed.sessions_per_s > 0
    for name in ("ttft_cold_s", "ttft_warm_s", "switch_s"):
        limit = limits.most(name)
        if limit is not None:
            able &= getattr(fed, name) <= limit * (1.0 + SLACK)
    return np.asarray(able)
