"""All best trade-offs of a space at once: every plan that no other beats in all of several objectives.

Bound and price. Every operating point is priced with a combination that doesn't exist, the best of
every effect at once: no real plan of that point is smaller in any objective. Points are then priced in
full, the most promising first, and whatever a priced plan beats even at its bound is dropped. When
nothing is left, the plans that no other beats are the frontier of the whole space, exactly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planner.candidates.cells import Cells
from planner.candidates.combinations import Combinations, affordable, all_combinations
from planner.candidates.dominance import beaten_by, distinct, undominated
from planner.candidates.each_once import each_once
from planner.candidates.goal import Goal, Limits
from planner.candidates.points import Points, Search, capability_rank, open_search, roomy
from planner.candidates.pool_points import Best, pool_points
from planner.candidates.serving_points import aggregated_points
from planner.cost.compression import CompressionTable
from planner.cost.price import Priced
from planner.problem import Problem
from planner.search.menu import PLAIN, THROTTLED, Menu
from planner.search.solution import Kind, Solution
from planner.space import Option, Space

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

Axis = Literal["throughput", "tpot", "ttft", "quality", "cost", "gpus"]
AXES: tuple[Axis, ...] = ("throughput", "tpot", "ttft", "quality", "cost", "gpus")
"""What a frontier can be of."""

TIE = 1e-8
"""Relative: plans closer than this in every objective are equal; the one with more throughput is taken."""
_BITS = 2.0**33
_FIRST, _MOST_PAIRS = 256, 200_000

Progress = Callable[[int, int, int], None]
"""Called with the points decided, all points, and the plans on the frontier so far."""


@dataclass(frozen=True)
class Found:
    """One plan of the frontier."""

    points: Points
    """One row."""
    options: tuple[Option, ...]
    engine: str
    vector: Floats
    """``(objective,)``, in the order that was asked; less is better, so throughput is hours per interaction."""
    hours: float
    """Per interaction [h]."""


@dataclass(frozen=True)
class Frontier:
    """Every best trade-off, or as many as time allowed."""

    search: Search
    axes: tuple[Axis, ...]
    plans: tuple[Found, ...]
    """None beats another; by the first objective."""
    considered: int
    """Operating points of the space."""
    priced: int
    """Decisions that were priced in full; bounds decided the others."""
    open_bounds: Floats
    """What the points that nobody looked at could reach at best, no rows where the whole space is decided.

    ``(point, objective + 1)``, the last one hours per interaction.
    """

    @property
    def complete(self) -> bool:
        """Whether the whole space was decided."""
        return not len(self.open_bounds)


def frontier(
    problem: Problem,
    space: Space,
    axes: Sequence[Axis],
    *,
    ends_s: float | None = None,
    progress: Progress | None = None,
) -> Frontier:
    """Find every plan that no other beats in all objectives, within the request's limits.

    Parameters
    ----------
    problem, space
        The question, and what may be decided.
    axes
        The objectives.
    ends_s
        When to stop, by `time.monotonic` [s]; None: when it is done.
    progress
        Told now and then how far it is.

    Returns
    -------
    Frontier
        Without plans if the request is infeasible, or time ran out before one was found.
    """
    search = open_search(problem, affordable(problem, space))
    run = _Run(search, tuple(axes), ends_s, progress)
    if space.weights and search.units:
        run.decide()
    return run.found()


@dataclass(frozen=True)
class _Archive:
    """Plans that none beats so far: vectors, preference, point and combination."""

    vectors: Floats
    """As `_Run.vectors`."""
    preference: Ints
    point: Ints
    combination: Ints
    throttled: Bools

    def joined(self, other: _Archive) -> _Archive:
        """The best of both; of plans with the same objectives the one with more throughput, then by preference."""
        vectors = np.concatenate([self.vectors, other.vectors])
        preference = np.concatenate([self.preference, other.preference])
        order = np.lexsort((preference, vectors[:, -1]))
        keep = order[undominated(vectors[order, :-1])]
        return _Archive(
            vectors[keep],
            preference[keep],
            np.concatenate([self.point, other.point])[keep],
            np.concatenate([self.combination, other.combination])[keep],
            np.concatenate([self.throttled, other.throttled])[keep],
        )

    def beats(self, vectors: Floats) -> Bools:
        """Which rows can't join: beaten in the objectives, or equal to a plan without more throughput."""
        beaten = beaten_by(vectors[:, :-1], self.vectors[:, :-1])
        mine = {row[:-1].tobytes(): row[-1] for row in self.vectors}
        for row in np.flatnonzero(beaten & _equal_to_some(vectors[:, :-1], self.vectors[:, :-1])):
            beaten[row] = mine[vectors[row, :-1].tobytes()] <= vectors[row, -1]
        return beaten


def _equal_to_some(vectors: Floats, others: Floats) -> Bools:
    """Which rows equal a row of others."""
    if not len(others) or not len(vectors):
        return np.zeros(len(vectors), dtype=np.bool_)
    same = np.isin(vectors[:, 0], others[:, 0])
    for row in np.flatnonzero(same):
        same[row] = bool((vectors[row] == others).all(axis=1).any())
    return same


class _Run:
    """One search for a frontier."""

    def __init__(self, search: Search, axes: tuple[Axis, ...], ends_s: float | None, progress: Progress | None) -> None:
        self.search = search
        self.axes = axes
        self.ends_s = ends_s
        self.progress = progress
        self.limits = Limits.of(search.problem.request)
        self.menu = Menu(search, by_loss="quality" in axes)
        self.points = aggregated_points(search).take(np.zeros(0, dtype=np.int64))
        """Those whose bound keeps the limits."""
        self.bounds = np.zeros((0, len(axes) + 1))
        """What each point reaches at best."""
        self.left = np.zeros(0, dtype=np.int64)
        """Points that are neither priced nor beaten."""
        none = np.zeros(0, dtype=np.int64)
        self.archive = _Archive(self.bounds, none, none, none, none.astype(np.bool_))
        self.considered = 0
        self.priced = 0

    def decide(self) -> None:
        """Bound and price the whole space; two pools after one where a known plan says which pools are worth it."""
        search, problem = self.search, self.search.problem
        table = Cells(problem, search.space, all_combinations(problem, search.space)).by_weights()
        self._take(aggregated_points(search), table)
        # For this goal, numbers of replicas that cost more for nothing are listed too.
        goal, known = Goal("cost", 1), None
        if self.axes in (("throughput",), ("cost",)):
            self._price()
            goal, known = Goal(self.axes[0], 1), self._known()
        split = pool_points(search, table, goal, self.limits, known)
        if split is not None:
            self._take(split, table)
        self._price()

    def _known(self) -> Best | None:
        """The best plan so far for one objective."""
        archive = self.archive
        if not len(archive.point):
            return None
        row = self.points.take(archive.point[:1])
        return Best(float(archive.vectors[0, 0]), int(self.search.gpus_of(row)[0]))

    def _take(self, points: Points, best: CompressionTable) -> None:
        """Bound points, and keep those that may hold a plan."""
        search, space = self.search, self.search.space
        self.considered += len(points)
        points = points.take(roomy(search, points, best))
        if not len(points):
            return
        owner = search.weights_of(points)
        priced = search.price(points, best, owner, search.throttling[points.unit, points.policy])
        confidence = search.problem.request.confidence
        losses = np.array([weights.loss.loss_at(confidence) for weights in space.weights])
        bounds = self.vectors(priced, losses[owner])
        keep = self.limits.hold(priced, users=False) & np.isfinite(bounds).all(axis=1)
        first = len(self.points)
        self.points = Points.joined([self.points, points.take(keep)])
        self.bounds = np.concatenate([self.bounds, bounds[keep]])
        more = np.arange(first, len(self.points))
        self.left = np.concatenate([self.left, more[~self.archive.beats(self.bounds[more])]])

    def vectors(self, priced: Priced, losses: Floats) -> Floats:
        """Objectives of priced decisions, and hours per interaction for ties ``(decision, objective + 1)``."""
        columns = []
        for axis in (*self.axes, "throughput"):
            if axis == "quality":
                columns.append(1.0 + losses)
            elif axis == "gpus":
                columns.append(priced.gpus)
            else:
                goal = Goal({"tpot": "tpot_s", "ttft": "ttft_cold_s"}.get(axis, axis), 1)  # type: ignore[arg-type]
                columns.append(goal.value(priced, losses))
        return _rounded(np.stack(columns, axis=1))

    def _real(self, vector: Floats) -> Floats:
        """Objectives in their own units: a loss is kept as 1 + loss, where rounding is absolute."""
        shift = np.array([1.0 if axis == "quality" else 0.0 for axis in (*self.axes, "throughput")])
        return np.asarray(np.maximum(vector - shift, 0.0))

    def _price(self) -> None:
        """Price points in full until none is left that may hold a plan of the frontier."""
        self.left, size = self.left[_order(self.bounds[self.left, :-1])], _FIRST
        while len(self.left) and (self.ends_s is None or time.monotonic() < self.ends_s):
            batch, self.left = self.left[:size], self.left[size:]
            self._price_points(batch)
            self.left = self.left[~self.archive.beats(self.bounds[self.left])]
            size = min(size * 4, 32_768)
            if self.progress is not None:
                self.progress(self.considered - len(self.left), self.considered, len(self.archive.point))

    def found(self) -> Frontier:
        """What was found, each plan in its simplest form."""
        found = [self._simplest(self.archive, row) for row in range(len(self.archive.point))]
        kept = distinct(np.array([plan.vector for plan in found]).reshape(-1, len(self.axes)), TIE)
        left = np.array([self._real(row) for row in self.bounds[self.left]]).reshape(-1, len(self.axes) + 1)
        plans = tuple(found[row] for row in kept)
        return Frontier(self.search, self.axes, plans, self.considered, self.priced, left)

    def _price_points(self, batch: Ints) -> None:
        """Price points with every combination of their weights."""
        owner = self.search.weights_of(self.points.take(batch))
        for w in each_once(owner).tolist():
            count = len(self.menu.combinations[w])
            if not count:
                continue
            mine = batch[owner == w]
            each = max(1, _MOST_PAIRS // count)
            for start in range(0, len(mine), each):
                self._price_block(mine[start : start + each], w)

    def _price_block(self, rows: Ints, w: int) -> None:
        menu = self.menu
        able = menu.able(self.points.take(rows), w)[:, menu.kinds[w]]
        for flag in (PLAIN, THROTTLED):
            at, column = np.nonzero(able & flag)
            if not len(at):
                continue
            trial, combination = self.points.take(rows[at]), menu.offsets[w] + column
            throttled = np.full(len(at), flag == THROTTLED)
            priced = self.search.price(trial, menu.table, combination, throttled)
            self.priced += len(at)
            vectors = self.vectors(priced, menu.losses[combination])
            keep = np.flatnonzero(self.limits.hold(priced) & np.isfinite(vectors).all(axis=1))
            keep = keep[~self.archive.beats(vectors[keep])]
            preference = self._preference(trial.take(keep), priced.gpus[keep], menu.joined.take(combination[keep]))
            found = _Archive(vectors[keep], preference, rows[at[keep]], combination[keep], throttled[keep])
            self.archive = self.archive.joined(found)

    def _preference(self, points: Points, gpus: Floats, chosen: Combinations) -> Ints:
        """What decides between plans that are equal: fewer GPUs, fewer techniques, less loss, a simpler split."""
        splits = [unit.split for unit in self.search.units]
        plain = np.array([s.pp + s.dcp + s.pcp + (s.ep > 1) for s in splits], dtype=np.int64)[points.unit]
        plain = plain + (points.pool_unit >= 0)
        techniques = np.sum(chosen.options > 0, axis=0)
        loss = np.minimum(np.round(chosen.loss_mean * 1e4), 1023).astype(np.int64)
        ranks = {e.id: r for r, e in enumerate(sorted(self.search.space.engines, key=capability_rank))}
        first = np.array([min(ranks[e.id] for e in self.search.views[u.view].engines) for u in self.search.units])
        rest = (plain << 20) + (first[points.unit] << 16) + (points.policy << 14) + (points.micro << 4)
        rest = rest + (15 - np.minimum(np.log2(np.maximum(points.chunk, 1)), 15).astype(np.int64))
        return np.asarray((gpus.astype(np.int64) << 40) + (techniques << 36) + (loss << 26) + rest)

    def _simplest(self, archive: _Archive, at: int) -> Found:
        """The plan of an operating point, with the simplest combination that reaches as much."""
        search, row = self.search, self.points.take(archive.point[at : at + 1])
        throttled, vector = bool(archive.throttled[at]), archive.vectors[at]
        every = self.menu.complete[int(search.weights_of(row)[0])]
        techniques = np.sum(every.options > 0, axis=0)
        every = every.take(np.lexsort((every.loss_mean, techniques)))
        trial = row.take(np.zeros(len(every), dtype=np.int64))
        columns, throttles = np.arange(len(every)), np.full(len(every), throttled)
        priced = search.price(trial, every.table(search.space), columns, throttles)
        losses = every.loss_at(search.problem.request.confidence)
        good = (self.vectors(priced, losses) <= vector * (1.0 + TIE)).all(axis=1) & self.limits.hold(priced)
        for column in np.flatnonzero(good):
            options = every.chosen(search.space, int(column))
            engine = self.menu.engine(row, options, throttled=throttled)
            if engine is not None:
                return Found(row, options, engine.id, self._real(vector)[:-1], float(vector[-1]))
        raise ValueError("a plan of the frontier isn't among the combinations of its weights")


def _rounded(vectors: Floats) -> Floats:
    """Vectors to ten digits, so that rounding of floats doesn't make a difference."""
    part, exponent = np.frexp(vectors)
    return np.asarray(np.ldexp(np.round(part * _BITS) / _BITS, exponent))


def _order(bounds: Floats) -> Ints:
    """Points by their best rank under a few ways to weigh the objectives against each other."""
    count, axes = bounds.shape
    if not count:
        return np.zeros(0, dtype=np.int64)
    spread = np.log(np.maximum(bounds, 1e-12))
    spread = spread - spread.min(axis=0)
    spread = spread / np.maximum(spread.max(axis=0), 1e-12)
    weights = [np.eye(axes)[a] + 1e-3 for a in range(axes)] + [np.ones(axes)]
    if axes > 1:
        weights += [np.ones(axes) + 3.0 * np.eye(axes)[a] for a in range(axes)]
    ranks = np.empty((len(weights), count), dtype=np.int64)
    for index, weight in enumerate(weights):
        ranks[index, np.argsort(spread @ weight, kind="stable")] = np.arange(count)
    return np.argsort(ranks.min(axis=0), kind="stable")


def solution_of(found: Frontier, plan: Found) -> Solution:
    """A plan of a frontier as a solution of its first objective, from which a decision is made."""
    value = float(plan.vector[0])
    status: Literal["optimal", "feasible"] = "optimal" if found.complete else "feasible"
    kind = Kind(plan.points, plan.options, plan.engine)
    return Solution(status, found.search, (kind,), value, value, value, considered=found.considered, by="frontier")
