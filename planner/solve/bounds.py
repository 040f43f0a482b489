"""Combinations that don't exist but that no real one beats, for bounding what a point can reach.

A row of `Bounds` has the effects on prefill of one class exactly, and of storage and of reads the best
that any combination of that class reaches within the quality budget. Where combinations are too many
to look at, each dimension's best takes their place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.cost.compression import HIDDEN, TOKEN, CompressionTable, compression_table
from planner.plan import DIMENSIONS
from planner.problem import Problem
from planner.solve.classes import Classes
from planner.solve.combinations import Combinations, with_weights, within_budget
from planner.space import Space

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Bounds:
    """Rows for bounding, with the weights and the class that each is for; class -1: any."""

    table: CompressionTable
    weights: Ints
    classes: Ints


def by_weights(problem: Problem, space: Space, classes: Classes, found: Combinations | None) -> Bounds:
    """One row for each weight precision: the best of every effect, whatever the class."""
    whole = by_class(problem, space, classes, found)
    count = len(space.weights)
    owner = whole.weights
    rows = [np.flatnonzero(owner == w) for w in range(count)]
    table = whole.table

    def least(column: Floats) -> Floats:
        return np.array([column[mine].min() if len(mine) else 1.0 for mine in rows])

    best = replace(
        _blank(count),
        storage_slope=np.stack([least(column) for column in table.storage_slope]),
        reads_slope=np.stack([least(column) for column in table.reads_slope]),
        prefill_linear=least(table.prefill_linear),
        prefill_attention=least(table.prefill_attention),
        prefill_time=least(table.prefill_time),
        decode_time=least(table.decode_time),
    )
    return Bounds(best, np.arange(count), np.full(count, -1))


def by_class(problem: Problem, space: Space, classes: Classes, found: Combinations | None) -> Bounds:
    """One row for each weight precision and each class that has a combination within the budget."""
    parts = []
    for w, weights in enumerate(space.weights):
        if found is None:
            parts.append(_from_dimensions(problem, space, classes, w))
        else:
            parts.append(_from_combinations(problem, space, classes, with_weights(problem, space, found, weights), w))
    return _joined(parts)


def _blank(rows: int) -> CompressionTable:
    table = compression_table([[None] * len(DIMENSIONS)] * rows)
    return replace(table, evicts_while_decoding=np.ones(rows, dtype=np.bool_))


def _joined(parts: list[Bounds]) -> Bounds:
    return Bounds(
        CompressionTable.joined([part.table for part in parts]),
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.classes for part in parts]),
    )


def _from_combinations(problem: Problem, space: Space, classes: Classes, found: Combinations, w: int) -> Bounds:
    belongs = classes.of(found.options)
    present = np.unique(belongs)
    table, rows = found.table(space), _blank(len(present))
    work = problem.workload
    lengths = (work.prompt_tokens, work.end_tokens, work.decode_tokens, work.warm_tokens, work.last_warm_tokens)
    prompt = float(work.prompt_tokens)
    stored = np.minimum.reduce([table.stored_tokens(prompt, n) / n for n in map(float, lengths)])
    read = table.read_tokens(prompt, float(work.decode_tokens)) / work.decode_tokens
    attended = table.attended_tokens(prompt, float(work.decode_tokens)) / work.decode_tokens
    for row, k in enumerate(present):
        mine = belongs == k
        narrow, narrow_reads = table.storage_slope[HIDDEN, mine].min(), table.reads_slope[HIDDEN, mine].min()
        rows.storage_slope[HIDDEN, row], rows.reads_slope[HIDDEN, row] = narrow, narrow_reads
        rows.storage_slope[TOKEN, row] = min(1.0, stored[mine].min() / narrow)
        # Attended tokens follow the same slope, so it must be no more than either needs.
        rows.reads_slope[TOKEN, row] = min(1.0, read[mine].min() / narrow_reads, attended[mine].min())
        rows.decode_time[row] = table.decode_time[mine].min()
    _set_prefill(rows, classes, present)
    return Bounds(rows, np.full(len(present), w), present)


def _from_dimensions(problem: Problem, space: Space, classes: Classes, w: int) -> Bounds:
    weights = space.weights[w]
    count = len(classes.rows)
    rows = _blank(count)
    possible = np.ones(count, dtype=np.bool_)
    for d, name in enumerate(DIMENSIONS):
        options = space.options[name]
        mean = np.array([o.loss.mean + weights.loss.mean for o in options])
        variance = np.array([o.loss.variance + weights.loss.variance for o in options])
        keep = within_budget(problem, mean, variance)
        for index, members in enumerate(classes.members[name]):
            mine = np.array([row[d] == index for row in classes.rows])
            points = [options[o].point for o in members if keep[o]]
            possible[mine] &= bool(points)
            rows.storage_slope[d, mine] = min([1.0, *(p.storage.slope for p in points if p)])
            rows.reads_slope[d, mine] = min([1.0, *(p.reads.slope for p in points if p)])
    _set_prefill(rows, classes, np.arange(count))
    keep_rows = np.flatnonzero(possible)
    return Bounds(rows.take(keep_rows), np.full(len(keep_rows), w), keep_rows)


def _set_prefill(rows: CompressionTable, classes: Classes, which: Ints) -> None:
    rows.prefill_linear[:] = classes.table.prefill_linear[which]
    rows.prefill_attention[:] = classes.table.prefill_attention[which]
    rows.prefill_time[:] = classes.table.prefill_time[which]
