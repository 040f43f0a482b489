"""Combinations in ever smaller groups, each with effects that no member beats and none falls behind.

A cell's best row has the best of every effect that any member reaches, its worst row the worst: neither
exists, but every member lies between them. A cell is split where its members differ most. Cells are
for bounds; single combinations become columns, and OR-Tools chooses among those.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.candidates.combinations import Combinations, any_of, filtered, with_weights, within_budget
from planner.candidates.each_once import each_once
from planner.cost.compression import HIDDEN, TOKEN, CompressionTable, compression_table
from planner.cost.quality import z_score
from planner.problem import Problem
from planner.service import DIMENSIONS
from planner.space import Space, WeightOption
from planner.space.compatibility import CONDITIONS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MOST_LISTED = 1_000_000
"""Combinations that are listed; where there are more, whole dimensions are bounded at once."""
SAMPLED = 50_000
"""Combinations that are tried where there are more than can be listed."""
PARTS = 8
"""Into which a cell is split."""
ALMOST = 1e-9
"""Relative: effects that differ by less are the same."""


@dataclass(frozen=True, eq=False, repr=False)
class Cell:
    """Some combinations with weights."""

    weights: int
    members: Ints
    """Indices into `Cells.found`; none where combinations are too many to list."""
    loss: float
    """The least loss at the request's confidence, weights included, a fraction."""
    best: Floats
    """The best of every effect that a member has."""
    worst: Floats
    able: int
    """Engines that run a member, a bit each in the order of the space; the same for all members but in a root."""
    forbids: int
    """Conditions under which no member runs, a bit each in the order of `CONDITIONS`."""

    @property
    def lone(self) -> bool:
        """One member, so that its effects are exact."""
        return len(self.members) == 1


class Cells:
    """The cells of a space, split when asked."""

    def __init__(self, problem: Problem, space: Space, found: Combinations | None) -> None:
        self.problem, self.space = problem, space
        self.found = filtered(problem, space, _sample(space)) if found is None else found
        self.listed = found is not None
        self._table = self.found.table(space)
        self._effects = _effects(problem, self._table)
        self._losses: dict[int, Floats] = {}
        self._able: dict[int, Ints] = {}
        self._forbids = forbidding_conditions(space, self.found.options)
        self.cells: list[Cell] = []
        self._children: dict[int, list[int]] = {}
        self.nothing = blank(1)
        """One row without any effect."""
        self.roots = [self._root(w) for w in range(len(space.weights))]

    def _root(self, w: int) -> int | None:
        """The cell of everything with one weight precision; None where nothing is within the budget."""
        weights = self.space.weights[w]
        if not self.listed:
            # Below even odds variance lowers a loss, so that nothing is known.
            least = weights.loss.loss_at(self._confidence) if self._confidence >= 0.5 else -1.0
            nothing = np.zeros(0)
            every = (1 << len(self.space.engines)) - 1
            return self._add(Cell(w, np.zeros(0, dtype=np.int64), least, nothing, nothing, every, 0))
        mine, losses = _with_weights(self.problem, self.space, self.found, w)
        self._able[w] = engines_able(self.space, self.found.options, weights)
        self._losses[w] = losses
        return self._cell(w, mine, self._effects[:, mine]) if len(mine) else None

    @property
    def _confidence(self) -> float:
        return self.problem.request.confidence

    def _cell(self, w: int, members: Ints, effects: Floats) -> int:
        least = float(self._losses[w][members].min())
        able = int(np.bitwise_or.reduce(self._able[w][members]))
        forbids = int(np.bitwise_and.reduce(self._forbids[members]))
        return self._add(Cell(w, members, least, effects.min(axis=1), effects.max(axis=1), able, forbids))

    def _add(self, cell: Cell) -> int:
        self.cells.append(cell)
        return len(self.cells) - 1

    def by_weights(self) -> CompressionTable:
        """The best row of each weight precision; without any effect where nothing is within the budget."""
        there = [root for root in self.roots if root is not None]
        if not there:
            return blank(len(self.roots))
        table = CompressionTable.joined([self.rows(there, worst=False), blank(1)])
        return table.take(np.array([len(there) if root is None else there.index(root) for root in self.roots]))

    def splits(self, index: int) -> bool:
        """Whether a cell has smaller ones in it."""
        return len(self.cells[index].members) > 1

    def children(self, index: int) -> list[int]:
        """The cells that a cell falls into."""
        if index not in self._children:
            cell = self.cells[index]
            effects = self._effects[:, cell.members]
            kinds = self._able[cell.weights][cell.members] * (1 << len(CONDITIONS)) + self._forbids[cell.members]
            if (kinds != kinds[0]).any():
                # What runs on the same engines stays together.
                parts = [np.flatnonzero(kinds == kind) for kind in each_once(kinds)]
            elif len(cell.members) <= PARTS:
                parts = list(np.arange(len(cell.members))[:, None])
            else:
                parts = self._parts(cell, effects)
            self._children[index] = [self._cell(cell.weights, cell.members[p], effects[:, p]) for p in parts]
        return self._children[index]

    def _parts(self, cell: Cell, effects: Floats) -> list[Ints]:
        """Which members go where if a cell is cut where they differ most."""
        spread = SENSITIVITY * np.log(cell.worst / cell.best)
        alike = spread.max() <= ALMOST
        key = self._losses[cell.weights][cell.members] if alike else effects[int(np.argmax(spread))]
        order = np.argsort(key, kind="stable")
        ranked = key[order]
        # Cut at even shares, but never between equal ones.
        cuts = {int(np.searchsorted(ranked, ranked[len(order) * i // PARTS])) for i in range(1, PARTS)} - {0}
        if not cuts:
            first = int(np.searchsorted(ranked, ranked[0], side="right"))
            cuts = {first if first < len(order) else len(order) // 2}
        return [np.sort(part) for part in np.split(order, sorted(cuts))]

    def rows(self, indices: list[int], *, worst: bool) -> CompressionTable:
        """A row for each cell: the best of every effect, or the worst; a lone member's own."""
        if not self.listed:
            return _from_dimensions(self.problem, self.space, [self.cells[i].weights for i in indices], worst=worst)
        cells = [self.cells[i] for i in indices]
        effects = np.stack([cell.worst if worst else cell.best for cell in cells], axis=1)
        table = _row(*effects, worst=worst)
        lone = [row for row, cell in enumerate(cells) if cell.lone]
        if lone:
            exact = self._table.take(np.array([int(cells[row].members[0]) for row in lone]))
            joined = CompressionTable.joined([table, exact])
            order = np.arange(len(cells))
            order[lone] = len(cells) + np.arange(len(lone))
            table = joined.take(order)
        return table

    def options(self, indices: list[int]) -> list[set[int]]:
        """Options of each dimension that any member of some cells has."""
        if not self.listed:
            return [set(range(len(self.space.options[name]))) for name in DIMENSIONS]
        members = each_once(np.concatenate([self.cells[i].members for i in indices]))
        return [set(each_once(self.found.options[d, members]).tolist()) for d in range(len(DIMENSIONS))]


SENSITIVITY = np.array([2.0, 2.0, 2.0, 1.0, 0.0, 1.0, 0.0, 0.5, 0.5, 1.0])
"""How much times and bytes depend on each effect, roughly: which one is split first."""


def _effects(problem: Problem, table: CompressionTable) -> Floats:
    """What bounds are made of, ``(effect, combination)``: prefill, shares of storage and of reads, time of a step."""
    work = problem.workload
    lengths = (work.prompt_tokens, work.end_tokens, work.decode_tokens, work.warm_tokens, work.last_warm_tokens)
    prompt, decode = float(work.prompt_tokens), float(work.decode_tokens)
    stored = np.stack([table.stored_tokens(prompt, n) / n for n in dict.fromkeys(map(float, lengths))])
    return np.stack(
        [
            table.prefill_linear,
            table.prefill_attention,
            table.prefill_time,
            stored.min(axis=0),
            stored.max(axis=0),
            table.read_tokens(prompt, decode) / decode,
            table.attended_tokens(prompt, decode) / decode,
            table.storage_slope[HIDDEN],
            table.reads_slope[HIDDEN],
            table.decode_time,
        ]
    )


def _row(
    linear: Floats,
    attention: Floats,
    time: Floats,
    stored_least: Floats,
    stored_most: Floats,
    read: Floats,
    attended: Floats,
    narrow: Floats,
    narrow_reads: Floats,
    decode_time: Floats,
    *,
    worst: bool,
) -> CompressionTable:
    """Rows whose slopes reproduce these effects at every length of a session."""
    rows = blank(len(linear))
    rows.storage_slope[HIDDEN], rows.reads_slope[HIDDEN] = narrow, narrow_reads
    rows.storage_slope[TOKEN] = (stored_most if worst else stored_least) / narrow
    # Attended tokens follow the same slope as tokens read, so it must do for both.
    rows.reads_slope[TOKEN] = (np.maximum if worst else np.minimum)(read / narrow_reads, attended)
    rows.prefill_linear[:], rows.prefill_attention[:], rows.prefill_time[:] = linear, attention, time
    rows.decode_time[:] = decode_time
    return rows


def blank(rows: int) -> CompressionTable:
    """Rows without any effect, whose token slopes apply to all tokens."""
    table = compression_table([[None] * len(DIMENSIONS)] * rows)
    return replace(table, evicts_while_decoding=np.ones(rows, dtype=np.bool_))


def _with_weights(problem: Problem, space: Space, found: Combinations, w: int) -> tuple[Ints, Floats]:
    """Combinations that a weight precision leaves possible, and the loss of all of them with it."""
    numbered = replace(found, options=np.concatenate([found.options, np.arange(len(found))[None]]))
    left = with_weights(problem, space, numbered, space.weights[w])
    mine = left.options[-1]
    losses = np.full(len(found), np.inf)
    z = z_score(problem.request.confidence)
    losses[mine] = 1.0 - np.exp(-(left.loss_mean + z * np.sqrt(left.loss_variance)))
    return mine, losses


def engines_able(space: Space, options: Ints, weights: WeightOption) -> Ints:
    """Engines that run each combination with some weights, a bit each."""
    able: Ints = np.zeros(options.shape[1], dtype=np.int64)
    for bit, engine in enumerate(space.engines):
        runs = np.ones(options.shape[1], dtype=np.bool_)
        for d, name in enumerate(DIMENSIONS):
            runs &= np.array([space.option_runs(option, engine) for option in space.options[name]])[options[d]]
        for pair, where in space.compatibility.engine_pairs:
            if where == engine.id:
                both = [any_of(space, options, frozenset((name,))) for name in pair if not _is(weights, name)]
                runs &= ~np.logical_and.reduce(both) if both else True
        able |= runs.astype(np.int64) << bit
    return able


def _is(weights: WeightOption, name: str) -> bool:
    return weights.point is not None and weights.point.id == name


def forbidding_conditions(space: Space, options: Ints) -> Ints:
    """Conditions that exclude each combination, a bit each."""
    forbids: Ints = np.zeros(options.shape[1], dtype=np.int64)
    for bit, condition in enumerate(CONDITIONS):
        names = frozenset(name for name, where in space.compatibility.conditions if where == condition)
        forbids |= any_of(space, options, names).astype(np.int64) << bit
    return forbids


def _sample(space: Space) -> Ints:
    """Columns of option indices drawn evenly, always the same ones."""
    generator = np.random.default_rng(0)
    return np.stack([generator.integers(0, len(options), SAMPLED) for options in space.options.values()])


def _from_dimensions(problem: Problem, space: Space, weights: list[int], *, worst: bool) -> CompressionTable:
    """Rows of the best or the worst option of every dimension, where combinations are too many to list."""
    rows = blank(len(weights))
    pick = max if worst else min
    for row, w in enumerate(weights):
        loss = space.weights[w].loss
        for d, name in enumerate(DIMENSIONS):
            options = space.options[name]
            mean = np.array([o.loss.mean + loss.mean for o in options])
            variance = np.array([o.loss.variance + loss.variance for o in options])
            keep = within_budget(problem, mean, variance)
            points = [o.point for o, kept in zip(options, keep, strict=True) if kept and o.point]
            # A budget of tokens is at most all of them, and at least its slope.
            whole = 1.0 if worst else 0.0
            storage = [max(p.storage.slope, whole if p.storage.const_tokens > 0 else 0.0) for p in points]
            reads = [max(p.reads.slope, whole if p.reads.const_tokens > 0 else 0.0) for p in points]
            rows.storage_slope[d, row] = pick([1.0, *storage])
            rows.reads_slope[d, row] = pick([1.0, *reads])
            rows.prefill_linear[row] *= pick([1.0, *(p.prefill.linear for p in points)])
            rows.prefill_attention[row] *= pick([1.0, *(p.prefill.attention for p in points)])
            overheads = [max(1.0, p.overhead.prefill or 1.0) for p in points if p.overhead]
            rows.prefill_time[row] *= pick([1.0, *overheads])
            slower = [max(1.0, p.overhead.decode or 1.0) for p in points if p.overhead]
            rows.decode_time[row] *= pick([1.0, *slower])
    return rows


__all__ = ["MOST_LISTED", "Cell", "Cells", "blank", "engines_able", "forbidding_conditions"]
