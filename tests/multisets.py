"""The oracle of clusters of several kinds: every column priced, every multiset of columns that fits compared.

Columns are named by the space and priced by the cost model, as the search's are. Of how the search bounds, rounds,
scales and drops there is nothing here: sums are floats, what fits on servers is tried, and a column is passed over only
where another is as good in every number, by definition.

`tests.multiset_comparison` compares it with the search.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.candidates.combinations import affordable, all_combinations, with_weights
from planner.candidates.goal import Goal, Limits
from planner.candidates.points import open_search
from planner.problem import Problem
from planner.search.solution import Kind, Solution
from planner.search.ties import formats_of
from planner.space import Space
from tests.multiset_columns import Counts, Priced, fillings, fits, price_some, priced_columns, servers_of

Floats = NDArray[np.float64]

STRICT, LOOSE = 0.3e-9, 4e-9
"""Relative: clusters nearer to the best are tied for certain, those further aren't (the search: 1e-9 to 2e-9)."""
MOST_CANDIDATES = 400
"""Columns of which pairs are tried to break a tie."""

Key = tuple[float, ...]
"""What is less of clusters that are as good: GPUs, kinds with engines, stages, techniques, the later answer [s]."""


@dataclass(frozen=True)
class Best:
    """The best cluster of a space."""

    value: float | None
    """Of the goal; None: there is none."""
    least: Key | None = None
    """No cluster that may count as tied is simpler; None where that wasn't sought."""
    most: Key | None = None
    """A cluster so simple is tied for certain."""


class Oracle:
    """Every cluster of a space."""

    def __init__(self, problem: Problem, space: Space) -> None:
        self.problem, self.goal, limits = problem, Goal.of(problem.request), Limits.of(problem.request)
        self.floor = limits.users or 0.0
        self.search = open_search(problem, affordable(problem, space))
        self.servers = servers_of(problem.cluster)
        found = priced_columns(self.search, self.goal, limits)
        self.columns = found.take(np.lexsort((found.gpus,))) if found is not None else None
        self.one_kind = space.one_kind

    def best(self) -> Best:
        """The best value, and what the simplest of the tied clusters is like."""
        if self.columns is None or not len(self.columns):
            return Best(None)
        value = self._value()
        if value is None:
            return Best(None)
        return Best(value, self._simplest(value, LOOSE), self._simplest(value, STRICT))

    def _needed(self) -> float:
        return self.floor * (1.0 - 1e-9)

    def _value(self) -> float | None:
        c = self.columns
        assert c is not None
        alone = c.take(c.service & (c.users >= self._needed()))
        values = [self._of(int(alone.gpus[r]), float(alone.rate[r]), float(alone.worst[r])) for r in range(len(alone))]
        several = c.take(~c.service)
        if self.one_kind:
            values += [self._of(n * g, n * r, w) for g, r, w, n, _ in self._copies(several)]
            return min(values, default=None)
        if self.goal.adds_up:
            fronts = self._fronts(several)
            for counts in fillings(sorted(fronts), self.servers, self.problem.most_gpus):
                rate, users = self._front_of(fronts, counts)
                enough = users >= self._needed()
                if enough.any():
                    gpus = sum(size * count for size, count in counts)
                    values.append(self._of(gpus, float(rate[enough].max()), 0.0))
            return min(values, default=None)
        worst = np.unique(several.worst)
        low, high = -1, len(worst)
        while high - low > 1:
            middle = (low + high) // 2
            if self._room(several.take(several.worst <= worst[middle])):
                high = middle
            else:
                low = middle
        return min([*values, *worst[high : high + 1].tolist()], default=None)

    def _of(self, gpus: int, rate: float, worst: float) -> float:
        if not self.goal.adds_up:
            return worst
        return float(gpus) if self.goal.name == "gpus" else 1.0 / rate

    def _copies(self, several: Priced) -> Iterator[tuple[int, float, float, int, int]]:
        """Every number of every column that serves enough users: its GPUs, rate, worst value, number and row."""
        for row in range(len(several)):
            gpus = int(several.gpus[row])
            for count in range(1, self.problem.most_gpus // gpus + 1):
                if not fits(((gpus, count),), self.servers):
                    break
                if count * several.users[row] >= self._needed():
                    yield gpus, float(several.rate[row]), float(several.worst[row]), count, row

    def _room(self, several: Priced) -> bool:
        """Whether these columns serve enough users."""
        most = {int(g): float(several.users[several.gpus == g].max()) for g in np.unique(several.gpus)}
        return any(
            sum(most[size] * count for size, count in counts) >= self._needed()
            for counts in fillings(sorted(most), self.servers, self.problem.most_gpus)
        )

    def _fronts(self, several: Priced) -> dict[int, tuple[Floats, Floats]]:
        """Interactions and users of the columns of each size that no other of it beats in both."""
        found = {}
        for gpus in np.unique(several.gpus).tolist():
            mine = several.take(several.gpus == gpus)
            found[gpus] = _front(mine.rate, mine.users)
        return found

    def _front_of(self, fronts: dict[int, tuple[Floats, Floats]], counts: Counts) -> tuple[Floats, Floats]:
        """Interactions and users of every choice of so many columns of each size."""
        rate, users = np.zeros(1), np.zeros(1)
        for size, count in counts:
            for _ in range(count):
                more_rate, more_users = fronts[size]
                rate = (rate[:, None] + more_rate[None, :]).reshape(-1)
                users = (users[:, None] + more_users[None, :]).reshape(-1)
                rate, users = _front(rate, users)
        return rate, users

    # --------------------------------------------------------- of equals the simplest

    def _simplest(self, value: float, tie: float) -> Key | None:
        """The least key of clusters that are within a share of a value; None where that is too much to try."""
        c = self.columns
        assert c is not None
        adds = self.goal.name == "throughput"
        most = value if self.goal.name == "gpus" else value * (1.0 + tie) + 1e-15
        tied = c.take(c.worst <= most) if not self.goal.adds_up else c
        rate = (1.0 - tie) / value if adds else 0.0
        alone = tied.take(tied.service & (tied.users >= self._needed()) & (tied.rate >= rate))
        keys = [self._key(alone.take(np.array([row]))) for row in range(len(alone))]
        several = tied.take(~tied.service)
        for _, each, _, count, row in self._copies(several):
            if count * each >= rate:
                keys.append(self._key(several.take(np.array([row])), count))
        if self.one_kind or not len(several):
            return min(keys, default=None)
        gpus = self._fewest(several, rate, int(min((key[0] for key in keys), default=self.problem.most_gpus)))
        if gpus is None:
            return min(keys)
        keys = [key for key in keys if key[0] <= gpus]
        several = self._candidates(several, gpus, rate)
        if len(several) > MOST_CANDIDATES:
            return None
        kinds = 2
        while not keys or kinds + 1 <= min(keys)[1]:
            if kinds > 2 and math.comb(len(several), kinds) > 200_000:
                return None
            keys += self._of_several(several, kinds, gpus, rate)
            kinds += 1
            if kinds > gpus:
                break
        return min(keys, default=None)

    def _fewest(self, several: Priced, rate: float, most: int) -> int | None:
        """The fewest GPUs that reach a rate with enough users."""
        fronts = self._fronts(several)
        every = sorted(
            fillings(sorted(fronts), self.servers, min(most, self.problem.most_gpus)),
            key=lambda counts: sum(size * count for size, count in counts),
        )
        for counts in every:
            rates, users = self._front_of(fronts, counts)
            if ((users >= self._needed()) & (rates >= rate)).any():
                return sum(size * count for size, count in counts)
        return None

    def _candidates(self, several: Priced, gpus: int, rate: float) -> Priced:
        """Columns that may be part of a cluster of so many GPUs, without what another is as good as in every number."""
        fronts = self._fronts(several)
        keep = np.zeros(len(several), dtype=np.bool_)
        for counts in fillings(sorted(fronts), self.servers, gpus):
            if sum(size * count for size, count in counts) != gpus:
                continue
            for size, _ in counts:
                rest = tuple((s, n - (s == size)) for s, n in counts)
                rates, users = self._front_of(fronts, rest)
                mine = several.gpus == size
                keep |= mine & (several.rate + rates.max() >= rate) & (several.users + users.max() >= self._needed())
        found = several.take(keep)
        found = found.take(np.lexsort((found.warm_s, found.techniques, found.stages, -found.users, -found.rate)))
        chosen: list[int] = []
        for row in range(len(found)):
            if not any(_as_good(found, other, row) for other in chosen):
                chosen.append(row)
        return found.take(np.array(chosen, dtype=np.int64))

    def _of_several(self, several: Priced, kinds: int, gpus: int, rate: float) -> list[Key]:
        """Keys of clusters of so many kinds."""
        keys = []
        for rows in itertools.combinations(range(len(several)), kinds):
            some = several.take(np.array(rows))
            for counts in _numbers(some.gpus.tolist(), gpus):
                number = np.array(counts)
                if number @ some.rate < rate or number @ some.users < self._needed():
                    continue
                sizes: dict[int, int] = {}
                for size, count in zip(some.gpus.tolist(), counts, strict=True):
                    sizes[size] = sizes.get(size, 0) + count
                if fits(tuple(sorted(sizes.items(), reverse=True)), self.servers):
                    keys.append(self._key(some, number))
        return keys

    def _key(self, some: Priced, counts: Any = 1) -> Key:
        engines = len(set(some.engine.tolist()))
        return (
            float(np.sum(some.gpus * counts)),
            float(some.kinds.sum() + engines),
            float(some.stages.sum()),
            float(some.techniques.sum()),
            float(some.warm_s.max()),
        )

    # --------------------------------------------------------- what the search says

    def key_of(self, solution: Solution) -> Key:
        """The key of a solution's cluster."""
        return self._key(Priced.joined([self._kind(kind) for kind in solution.kinds]))

    def value_of(self, solution: Solution) -> float:
        """The goal of a solution's cluster, priced column by column."""
        parts = Priced.joined([self._kind(kind) for kind in solution.kinds])
        return self._of(int(parts.gpus.sum()), float(parts.rate.sum()), float(parts.worst.max()))

    def _kind(self, kind: Kind) -> Priced:
        search, space = self.search, self.search.space
        engine = [engine.id for engine in space.engines].index(kind.engine)
        listed = zip(space.options.values(), kind.options, strict=True)
        options = np.array([[[one.id for one in group].index(option.id)] for group, option in listed])
        w = int(search.weights_of(kind.points)[0])
        found = with_weights(search.problem, space, all_combinations(search.problem, space), space.weights[w])
        at = np.flatnonzero((found.options == options).all(axis=0))
        chosen = found.take(at)
        throttled = space.engines[engine].long_prefill_throttle is not None
        named = np.array([sum(o.point is not None for o in kind.options)]) + formats_of(space)[w]
        losses = chosen.loss_at(search.problem.request.confidence)
        priced = price_some(
            *(search, self.goal, Limits(), kind.points, chosen.table(space), np.zeros(1, dtype=np.int64)),
            *(losses, [kind.options], named, throttled),
        )
        return replace(priced, engine=np.array([engine]))


def _front(rate: Floats, users: Floats) -> tuple[Floats, Floats]:
    """Pairs that no other beats in both."""
    order = np.lexsort((-users, -rate))
    rate, users = rate[order], users[order]
    keep = users > np.concatenate([[-np.inf], np.maximum.accumulate(users)[:-1]])
    return rate[keep], users[keep]


def _as_good(columns: Priced, one: int, other: int) -> bool:
    """Whether a column is as good as another in everything that counts."""
    c = columns
    return bool(
        (c.gpus[one], c.engine[one], c.kinds[one]) == (c.gpus[other], c.engine[other], c.kinds[other])
        and c.rate[one] >= c.rate[other]
        and c.users[one] >= c.users[other]
        and (c.stages[one], c.techniques[one]) <= (c.stages[other], c.techniques[other])
        and c.stages[one] <= c.stages[other]
        and c.techniques[one] <= c.techniques[other]
        and c.warm_s[one] <= c.warm_s[other]
    )


def _numbers(sizes: list[int], gpus: int) -> Iterator[tuple[int, ...]]:
    """How often each of some sizes may be there, at least once, so that they take so many GPUs."""
    if len(sizes) == 1:
        if gpus >= sizes[0] and gpus % sizes[0] == 0:
            yield (gpus // sizes[0],)
        return
    for count in range(1, gpus // sizes[0] + 1):
        for rest in _numbers(sizes[1:], gpus - count * sizes[0]):
            yield (count, *rest)
