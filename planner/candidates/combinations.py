"""Combinations of compression options, and what a whole space of them can reach at best.

They are for bounds, which group them into cells, for a first good plan, and for the exhaustive oracle; OR-Tools sees
only those that become columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from catalog.schema import Point, Technique
from planner.cost.compression import CompressionTable, compression_table
from planner.cost.quality import LogLoss, log_budget, z_score
from planner.problem import Problem
from planner.service import DIMENSIONS
from planner.space import Option, Space, WeightOption

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, repr=False)
class Combinations:
    """Option indices, ``(dimension, combination)``, with their stacked loss."""

    options: Ints
    loss_mean: Floats
    """On the adding scale, without weights."""
    loss_variance: Floats

    def __len__(self) -> int:
        return int(self.options.shape[1])

    def take(self, columns: Ints | Bools) -> Combinations:
        """Some of the combinations."""
        return Combinations(self.options[:, columns], self.loss_mean[columns], self.loss_variance[columns])

    def loss_at(self, confidence: float) -> Floats:
        """Relative loss that isn't exceeded with this confidence, a fraction."""
        return 1.0 - np.exp(-(self.loss_mean + z_score(confidence) * np.sqrt(self.loss_variance)))

    def table(self, space: Space) -> CompressionTable:
        """As the cost model takes them."""
        return table_of(space, self.options)

    @staticmethod
    def joined(parts: list[Combinations]) -> Combinations:
        """Several sets, one after the other."""
        if not parts:
            return Combinations(np.zeros((len(DIMENSIONS), 0), dtype=np.int64), np.zeros(0), np.zeros(0))
        return Combinations(
            np.concatenate([p.options for p in parts], axis=1),
            np.concatenate([p.loss_mean for p in parts]),
            np.concatenate([p.loss_variance for p in parts]),
        )

    def chosen(self, space: Space, column: int) -> tuple[Option, ...]:
        """The options of one combination."""
        return tuple(space.options[name][int(self.options[d, column])] for d, name in enumerate(DIMENSIONS))


def table_of(space: Space, options: Ints) -> CompressionTable:
    """Columns of option indices as the cost model takes them, put together from tables of single options."""
    singles = [_single(space, d, name) for d, name in enumerate(DIMENSIONS)]
    picked = [options[d] for d in range(len(DIMENSIONS))]

    def own(name: str) -> Floats:
        return np.stack([getattr(t, name)[d, i] for d, (t, i) in enumerate(zip(singles, picked, strict=True))])

    def product(name: str) -> Floats:
        return np.asarray(np.prod([getattr(t, name)[i] for t, i in zip(singles, picked, strict=True)], axis=0))

    token = DIMENSIONS.index("token")
    return CompressionTable(
        storage_slope=own("storage_slope"),
        storage_const=own("storage_const"),
        reads_slope=own("reads_slope"),
        reads_const=own("reads_const"),
        evicts_while_decoding=singles[token].evicts_while_decoding[picked[token]],
        prefill_linear=product("prefill_linear"),
        prefill_attention=product("prefill_attention"),
        decode_time=product("decode_time"),
        prefill_time=product("prefill_time"),
    )


def _single(space: Space, dimension: int, name: str) -> CompressionTable:
    """One row for each option of a dimension on its own."""
    rows: list[list[tuple[Technique, Point] | None]] = []
    for option in space.options[name]:
        row: list[tuple[Technique, Point] | None] = [None] * len(DIMENSIONS)
        if option.technique and option.point:
            row[dimension] = (option.technique, option.point)
        rows.append(row)
    return compression_table(rows)


def within_budget(problem: Problem, mean: Floats, variance: Floats) -> Bools:
    """Whether stacked losses satisfy the request's budget, at the mean and at its confidence."""
    budget = log_budget(problem.request.max_quality_loss)
    z = z_score(problem.request.confidence)
    slack = 1e-12
    return (mean <= budget + slack) & (mean + z * np.sqrt(variance) <= budget + slack)


def count_combinations(space: Space) -> int:
    """Size of the product of all dimensions' options."""
    return math.prod(len(options) for options in space.options.values())


def all_combinations(problem: Problem, space: Space) -> Combinations:
    """Every combination that is compatible and within the quality budget."""
    found = some_combinations(problem, space, None)
    assert found is not None  # noqa: S101 - without a limit all are listed
    return found


def some_combinations(problem: Problem, space: Space, most: int | None) -> Combinations | None:
    """Every combination that is compatible and within the quality budget; None where there are more than so many.

    Losses add up, so that what exceeds the budget in the first dimensions isn't continued in the others.
    """
    grid = np.zeros((0, 1), dtype=np.int64)
    for name in DIMENSIONS:
        count = len(space.options[name])
        grid = np.concatenate([np.repeat(grid, count, axis=1), np.tile(np.arange(count), grid.shape[1])[None]])
        grid = filtered(problem, space, grid).options
        if most is not None and grid.shape[1] > most:
            return None
    return filtered(problem, space, grid)


def losses_with(problem: Problem, space: Space, options: Ints, weights: WeightOption) -> tuple[Floats, Floats]:
    """Loss of combinations with a weight precision ``(combination,)``: the mean, and at the request's confidence."""
    mean, variance = _losses(space, options)
    extra_mean, extra_variance = weight_surcharge(space, weights, options)
    mean = mean + extra_mean + weights.loss.mean
    variance = variance + extra_variance + weights.loss.variance
    at_confidence = mean + z_score(problem.request.confidence) * np.sqrt(variance)
    return 1.0 - np.exp(-mean), 1.0 - np.exp(-at_confidence)


def filtered(problem: Problem, space: Space, grid: Ints) -> Combinations:
    """Those columns of option indices that are compatible and within the budget, with their losses.

    ``grid`` may end after any dimension; of the others nothing is known then.
    """
    keep = np.ones(grid.shape[1], dtype=np.bool_)
    for first, second in forbidden_pairs(space):
        if max(first[0], second[0]) < len(grid):
            keep &= ~((grid[first[0]] == first[1]) & (grid[second[0]] == second[1]))
    grid = grid[:, keep]
    mean, variance = _losses(space, grid)
    keep = within_budget(problem, mean, variance)
    return Combinations(grid[:, keep], mean[keep], variance[keep])


def with_weights(problem: Problem, space: Space, found: Combinations, weights: WeightOption) -> Combinations:
    """Those combinations that a weight precision leaves possible, with its loss on top."""
    keep = np.ones(len(found), dtype=np.bool_)
    name = weights.point.id if weights.point else ""
    for pair in space.compatibility.pairs:
        if name in pair:
            keep &= ~any_of(space, found.options, pair - {name})
    extra_mean, extra_variance = weight_surcharge(space, weights, found.options)
    mean = found.loss_mean + extra_mean + weights.loss.mean
    variance = found.loss_variance + extra_variance + weights.loss.variance
    keep &= within_budget(problem, mean, variance)
    return Combinations(found.options[:, keep], mean[keep], variance[keep])


def forbidden_pairs(space: Space) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Pairs of (dimension, option) that are never together."""
    place = {
        option.id: (d, o)
        for d, name in enumerate(DIMENSIONS)
        for o, option in enumerate(space.options[name])
        if option.point is not None
    }
    pairs = []
    for pair in space.compatibility.pairs:
        places = sorted(place[name] for name in pair if name in place)
        if len(places) == 2 and places[0][0] != places[1][0]:
            pairs.append((places[0], places[1]))
    return sorted(pairs)


def _losses(space: Space, grid: Ints) -> tuple[Floats, Floats]:
    mean: Floats = np.zeros(grid.shape[1])
    variance: Floats = np.zeros(grid.shape[1])
    for d, name in enumerate(DIMENSIONS[: len(grid)]):
        mean += np.array([option.loss.mean for option in space.options[name]])[grid[d]]
        variance += np.array([option.loss.variance for option in space.options[name]])[grid[d]]
    for extra in space.compatibility.surcharges:
        on_a = any_of(space, grid, extra.a)
        on_b = any_of(space, grid, extra.b)
        both = on_a & on_b
        mean += extra.loss.mean * both
        variance += extra.loss.variance * both
    return mean, variance


def any_of(space: Space, grid: Ints, ids: frozenset[str]) -> Bools:
    """Which columns of option indices have any of some options."""
    found = np.zeros(grid.shape[1], dtype=np.bool_)
    for d, name in enumerate(DIMENSIONS[: len(grid)]):
        found |= np.array([option.id in ids for option in space.options[name]])[grid[d]]
    return found


def weight_surcharge(space: Space, weights: WeightOption, grid: Ints) -> tuple[Floats, Floats]:
    """Extra loss where a weight precision is stacked with options of the columns."""
    mean: Floats = np.zeros(grid.shape[1])
    variance: Floats = np.zeros(grid.shape[1])
    name = weights.point.id if weights.point else ""
    for extra in space.compatibility.surcharges:
        for mine, other in ((extra.a, extra.b), (extra.b, extra.a)):
            if name in mine:
                both = any_of(space, grid, other)
                mean += extra.loss.mean * both
                variance += extra.loss.variance * both
    return mean, variance


def neighbours(space: Space, options: tuple[Option, ...]) -> Ints:
    """Columns that differ from a combination in at most two dimensions."""
    groups = [space.options[name] for name in DIMENSIONS]
    here = [group.index(option) for group, option in zip(groups, options, strict=True)]
    found = []
    for d in range(len(groups)):
        for e in range(d):
            grid = np.indices((len(groups[d]), len(groups[e])), dtype=np.int64).reshape(2, -1)
            columns = np.repeat(np.array(here, dtype=np.int64)[:, None], grid.shape[1], axis=1)
            columns[d], columns[e] = grid
            found.append(columns)
    # Asked for indices too, NumPy doesn't load masked arrays.
    return np.unique(np.concatenate(found, axis=1), axis=1, return_index=True)[0]


def loss_of(space: Space, options: tuple[Option, ...], weights: WeightOption) -> LogLoss:
    """Stacked loss of a combination with weights, surcharges included."""
    total = weights.loss
    for option in options:
        total = total + option.loss
    ids = [o.id for o in options if o.point] + ([weights.point.id] if weights.point else [])
    return total + space.compatibility.surcharge(ids)


def affordable(problem: Problem, space: Space) -> Space:
    """The space without options and weights that exceed the quality budget on their own."""

    def within(loss: LogLoss) -> bool:
        return bool(within_budget(problem, np.array([loss.mean]), np.array([loss.variance]))[0])

    return replace(
        space,
        options={name: tuple(o for o in options if within(o.loss)) for name, options in space.options.items()},
        weights=tuple(w for w in space.weights if within(w.loss)),
    )
