"""Operating points of replicas that serve by themselves: prefill and decode share their GPUs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from planner.candidates.points import Points, Search
from planner.cost.candidates import AGGREGATED

Ints = NDArray[np.int64]


def aggregated_points(search: Search) -> Points:
    """Every aggregated operating point, with as many replicas as the cluster holds beside those in reserve."""
    space = search.space
    grids = np.meshgrid(
        np.arange(len(search.units)),
        np.array(space.sequences),
        np.array(space.chunks),
        np.arange(len(space.policies)),
        indexing="ij",
    )
    unit, micro, chunk, policy = (grid.reshape(-1) for grid in grids)
    runs = [[bool(search.engines(u, p, ())) for p in range(len(space.policies))] for u in range(len(search.units))]
    keep = np.array(runs, dtype=np.bool_).reshape(len(search.units), len(space.policies))[unit, policy]
    keep &= space.aggregated
    unit, micro, chunk, policy = (axis[keep] for axis in (unit, micro, chunk, policy))
    first = micro == 1
    shared = _points(search, unit, micro, chunk, policy, alone=False)
    lone = _points(search, unit[first], micro[first], chunk[first], policy[first], alone=True)
    points = _allowed(search, Points.joined([shared, lone]))
    return points.take(points.replicas > 0)


def _allowed(search: Search, points: Points) -> Points:
    """Points whose serving replicas a request's pins allow."""
    pins = search.space.pins
    if not pins.pins:
        return points
    split = np.array([pins.allows_split("serve", unit.split) for unit in search.units], dtype=np.bool_)
    pp = np.array([unit.split.pp for unit in search.units], dtype=np.int64)[points.unit]
    shared = pins.allows_batch("serve", points.micro * pp, alone=False, chunk=points.chunk)
    lone = pins.allows_batch("serve", np.ones_like(pp), alone=True, chunk=points.chunk)
    return points.take(split[points.unit] & np.where(points.alone, lone, shared))


def _points(search: Search, unit: Ints, micro: Ints, chunk: Ints, policy: Ints, *, alone: bool) -> Points:
    most = search.space.pins.wanted("replicas", "serve") or np.iinfo(np.int64).max
    replicas = np.array([min(u.split.replicas, most) for u in search.units], dtype=np.int64) - search.lost
    count = len(unit)
    return Points(
        unit=unit,
        micro=micro,
        chunk=chunk,
        policy=policy,
        alone=np.full(count, alone),
        replicas=replicas[unit],
        pool_unit=np.full(count, AGGREGATED, dtype=np.int64),
        pool_replicas=np.zeros(count, dtype=np.int64),
    )


def column_points(search: Search, points: Points) -> Points:
    """Aggregated points as columns of a cluster: one step of replicas each, or all where they are counted."""
    if search.counted:
        return points
    grouped = search.in_groups(points)
    alone = points.take(~grouped)
    alone = replace(alone, replicas=search.replica_steps[alone.unit])
    return Points.joined([alone, in_every_number(search, points.take(grouped))])


def in_every_number(search: Search, points: Points) -> Points:
    """Aggregated points with every number of replicas."""
    step = search.replica_steps[points.unit]
    counts = points.replicas // step
    rows = np.repeat(np.arange(len(points)), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    number = np.arange(len(rows)) - first + 1
    return replace(points.take(rows), replicas=number * step[rows])
