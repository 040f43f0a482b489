"""Two pools, bounded one by one: a decode pool with the best prefill pools that the other GPUs could be.

Pairs of pools, each in any number of replicas, are too many to list. A pool's rate doesn't depend on its
partner, so that a decode pool with a cell of combinations is bounded with whatever prefill pools of the
same cell fit beside it. Only what is left of that becomes points.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from planner.candidates.each_once import each_once
from planner.candidates.points import Points
from planner.candidates.pool_points import Numbers, able_to_feed, decode_ways, pool_units
from planner.cost.compression import CompressionTable
from planner.cost.links import between_pools_bytes_per_s
from planner.cost.price import Priced
from planner.search.branch import Branch
from planner.search.columns import reached_otherwise
from planner.search.feeding import Feeding
from planner.search.known import TIE
from planner.search.narrowing import Narrowing, Pairs

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FEW_WAYS, FEW_COMBINATIONS = 60, 300
"""Ways of decode pools, and combinations with them, that are given prefill pools without narrowing them further."""
MOST_LEARNT = 4
"""Lone pairs of a wave that are given prefill pools to find a better plan."""
MOST_EXPANDED = 400_000
"""Points with two pools that are listed at most."""


class TwoPools(Narrowing):
    """Ways of decode pools with cells; their value assumes the best prefill pools beside them."""

    def __init__(self, branch: Branch) -> None:
        super().__init__(branch.search, branch.cells, branch.goal, branch.limits, (branch.ends_s, branch.most_pairs))
        self.branch = branch
        self.slack = TIE

    def narrow(self) -> None:
        """Split the most promising ways until few are left, or the work or the time is over."""
        while not self._few() and self.priced < self.most_pairs and time.monotonic() < self.ends_s:
            rows = np.flatnonzero(self.splittable())
            if not len(rows):
                break
            # Where no plan is known, what keeps the limits most easily is looked at as well.
            easiest = self.branch.known is None and (self.branch.first or self.waves % 2 == 0)
            key = self.pairs.used if easiest else self.pairs.value
            self._split(rows[np.argsort(key[rows], kind="stable")])
            if self.branch.first and self.branch.known is not None:
                break

    def drop(self) -> None:
        """Forget pairs that can't be part of a plan that is wanted."""
        self.pairs = self.pairs.take(self._promising(self.pairs))

    def _promising(self, pairs: Pairs) -> Bools:
        return self._reaches(pairs.value)

    def _reaches(self, values: Floats) -> Bools:
        """Values that are no worse than the known plan's by more than a share."""
        known = self.branch.known
        if known is None:
            return np.ones(len(values), dtype=np.bool_)
        if self.goal.most:
            return np.asarray(values <= known.value * (1.0 + self.slack) + 1e-15)
        return np.asarray(values <= known.value + self.branch.allowed(self.slack))

    def begin(self) -> int:
        """Add every way of every decode pool; returns how many points with two pools there are."""
        decode, prefill = pool_units(self.search)
        units = self.search.units
        self.feeders: dict[tuple[int, int], list[int]] = {}
        for u in prefill:
            self.feeders.setdefault((units[u].view, units[u].weights), []).append(u)
        decode = [u for u in decode if (units[u].view, units[u].weights) in self.feeders]
        if not decode:
            return 0
        self.total = self.branch.room.most
        self._feeding: dict[tuple[int, int, int], Feeding] = {}
        ways = decode_ways(self.search, decode)
        self.add(ways)
        counts = np.bincount(ways.unit, minlength=len(units))
        return sum(int(counts[u]) * self._count(u) for u in decode)

    def _count(self, decode: int) -> int:
        """Prefill pools and numbers of replicas that go with a decode pool."""
        unit = self.search.units[decode]
        others = self.feeders[unit.view, unit.weights]
        return sum(int(Numbers.of(self.search, decode, other, self.total).fit.sum()) for other in others)

    # ------------------------------------------------------------- bounds

    def _few(self) -> bool:
        if not len(self.pairs):
            return True
        if len(each_once(self.pairs.point)) > FEW_WAYS:
            return False
        return sum(len(self.cells.cells[i].members) for i in each_once(self.pairs.cell)) <= FEW_COMBINATIONS

    def _bounded(self, pairs: Pairs) -> Pairs:
        pairs = self.runnable(pairs, self.branch.pricer)
        if not len(pairs):
            return pairs
        self.priced += len(pairs)
        points = self.points.take(pairs.point)
        indices, row = np.unique(pairs.cell, return_inverse=True)
        table, slowest = self.rows_of(indices.tolist())
        roomy = self._roomy(points, row, table)
        pairs, points, row = pairs.take(roomy), points.take(roomy), row[roomy]
        self._feed(points, indices, row, table, slowest)
        fast = self._fast_enough(points, pairs.cell)
        pairs, points, row = pairs.take(fast), points.take(fast), row[fast]
        if not len(pairs):
            return pairs
        throttled = np.ones(len(pairs), dtype=np.bool_)
        longest = None if slowest is None else row + slowest
        priced = self.search.price(points, table, row, throttled, longest)
        moved = self._moved(points, row, table)
        sessions, per_gpu_s, wait_s = self._fed(points, pairs.cell, priced.sessions_per_s, moved)
        priced = self._with_least(priced, points, pairs.cell)
        keep = self.limits.hold(priced, users=False) & reached_otherwise(priced, points) & (sessions > 0)
        used = self.limits.used(priced, users=False)
        users = np.zeros(len(points))
        if self.goal.counts_users(self.limits):
            session_s = priced.users / np.maximum(priced.sessions_per_s, 1e-300)
            session_s = session_s + self._sent(points, row + (slowest or 0), table)
            users = sessions * (session_s + wait_s)
        if self.limits.users is not None:
            keep &= users >= self.limits.users * (1.0 - TIE)
            used = np.maximum(used, self.limits.users / np.maximum(users, 1e-300))
        per_hour = 3600.0 * self.search.problem.request.rounds
        with np.errstate(divide="ignore"):
            if self.goal.name == "throughput":
                value = 1.0 / (per_hour * sessions)
            elif self.goal.name == "cost":
                value = per_gpu_s / per_hour
            elif self.goal.name == "gpus":
                value = self._least_gpus(points)
            elif self.goal.name == "users":
                value = 1.0 / users
            else:
                value = self.goal.value(priced, self.losses_of(indices)[row])
        pairs = replace(pairs, value=value, used=used).take(keep)
        pairs = pairs.take(self._promising(pairs))
        self._learn_fed(pairs)
        return pairs.take(self._promising(pairs))

    def _roomy(self, points: Points, row: Ints, table: CompressionTable) -> Bools:
        """Ways whose sessions fit HBM at best."""
        fit = np.zeros(len(points))
        for u in each_once(points.unit):
            mine = points.unit == u
            fit[mine] = self.search.pools(self.search.units[int(u)].view, table)[int(u)].fit[row[mine]]
        pp = np.array([unit.split.pp for unit in self.search.units], dtype=np.int64)[points.unit]
        sequences = np.where(points.alone, 1, points.micro * pp)
        return np.asarray(fit >= np.where(sequences > 1, sequences + 1, 1))

    def _fast_enough(self, points: Points, cell: Ints) -> Bools:
        """Ways that the other GPUs could feed fast enough to beat a plan that is known, if decoding took no time."""
        keep = np.ones(len(points), dtype=np.bool_)
        known = self.branch.known
        if known is None or self.goal.name != "throughput":
            return keep
        least = 1.0 / (3600.0 * self.search.problem.request.rounds * known.value * (1.0 + self.slack))
        for rows in self._alike(points, cell):
            unit, policy = int(points.unit[rows[0]]), int(points.policy[rows[0]])
            spare = self.total - self.search.units[unit].split.gpus
            keep[rows] = spare > 0 and self._fed_by(unit, int(cell[rows[0]])).most(self.total, policy)[spare] >= least
        return keep

    def _alike(self, points: Points, cell: Ints) -> Iterator[Ints]:
        """Rows that the same prefill pools feed."""
        key = (points.unit * (len(self.cells.cells) + 1) + cell) * len(self.search.space.policies) + points.policy
        for value in each_once(key):
            yield np.flatnonzero(key == value)

    def _feed(self, points: Points, indices: Ints, row: Ints, table: CompressionTable, slowest: int | None) -> None:
        """Price the prefill pools of every cell, once."""
        units = self.search.units
        groups = sorted({(units[int(u)].view, units[int(u)].weights) for u in each_once(points.unit)})
        for view, w in groups:
            rows = [r for r, i in enumerate(indices.tolist()) if self.cells.cells[i].weights == w]
            rows = [r for r in rows if (view, w, int(indices[r])) not in self._feeding]
            if not rows:
                continue
            mine = self.feeders[view, w]
            found = np.stack([self._fed_alone(u, table, np.array(rows), slowest) for u in mine], axis=-2)
            splits = [units[u].split for u in mine]
            for column, r in enumerate(rows):
                self._feeding[view, w, int(indices[r])] = Feeding(
                    np.array(mine),
                    np.array([s.gpus for s in splits]),
                    np.array([s.replicas for s in splits]),
                    *found[..., column],
                )

    def _fed_alone(self, unit: int, table: CompressionTable, rows: Ints, slowest: int | None) -> Floats:
        """What one prefill replica reaches: the last five fields of `Feeding`, ``(field, policy, row)``."""
        shape = (len(self.search.space.policies), len(rows))
        nothing = np.zeros((5, *shape))
        pool = self.search.pools(self.search.units[unit].view, table)[unit]
        if not (pool.fit[rows] >= 1).any():
            return nothing
        best = self.search.price_prefill(unit, table, rows, throttled=True)
        rates = np.where(able_to_feed(best, self.limits), best.sessions_per_s, 0.0)
        longest = nothing[0]
        if slowest is not None:
            later = self.search.problem.workload.rounds - 1
            worst = self.search.price_prefill(unit, table, rows + slowest, throttled=False)
            longest = worst.ttft_cold_s + later * worst.ttft_warm_s
        found = (rates, best.ttft_cold_s, best.ttft_warm_s, best.switch_s, longest)
        return np.stack([column.reshape(shape) for column in found])

    def _with_least(self, priced: Priced, points: Points, cell: Ints) -> Priced:
        """Times of decode pools with what prefill pools add to them at least."""
        cold, warm, switch = (np.zeros(len(points)) for _ in range(3))
        for rows in self._alike(points, cell):
            feeding = self._fed_by(int(points.unit[rows[0]]), int(cell[rows[0]]))
            if (feeding.rates[int(points.policy[rows[0]])] > 0).any():
                cold[rows], warm[rows], switch[rows] = feeding.least(int(points.policy[rows[0]]))
        return replace(
            priced,
            ttft_cold_s=priced.ttft_cold_s + cold,
            ttft_warm_s=priced.ttft_warm_s + warm,
            switch_s=np.maximum(priced.switch_s, switch),
        )

    def _moved(self, points: Points, row: Ints, table: CompressionTable) -> Floats:
        """Bytes that one GPU of a decode pool receives in a whole session with these rows [bytes]."""
        moved = np.zeros(len(points))
        later = self.search.problem.workload.rounds - 1
        for u in each_once(points.unit):
            mine = points.unit == u
            pool = self.search.pools(self.search.units[int(u)].view, table)[int(u)]
            moved[mine] = pool.prompt_bytes[row[mine]] + later * pool.later_prompt_bytes[row[mine]]
        return np.maximum(moved, 1e-9)

    def _sent(self, points: Points, row: Ints, table: CompressionTable) -> Floats:
        """How long a session's caches are on their way to a decode pool at most, with these rows [s]."""
        view = np.array([unit.view for unit in self.search.units], dtype=np.int64)[points.unit]
        slowest = np.zeros(len(points))
        for index in each_once(view):
            setting = self.search.setting(int(index), self.cells.nothing)
            slowest[view == index] = between_pools_bytes_per_s(setting, np.array([1, self.total])).min()
        gpus = np.array([unit.split.gpus for unit in self.search.units], dtype=np.int64)[points.unit]
        return np.asarray(self._moved(points, row, table) * gpus / slowest)

    def _least_gpus(self, points: Points) -> Floats:
        """GPUs of one decode replica with the smallest prefill replica that feeds it."""
        units, least = self.search.units, np.zeros(len(points))
        for u in each_once(points.unit):
            unit = units[int(u)]
            mine = self.feeders[unit.view, unit.weights]
            others = [int((1 + self.search.lost[other]) * units[other].split.gpus) for other in mine]
            least[points.unit == u] = (1 + self.search.lost[u]) * unit.split.gpus + min(others)
        return least

    def _links(self, view: int) -> tuple[tuple[int, float], tuple[int, float]]:
        """GPUs, and bytes per second that each moves between pools in its share of time: in a server, and beyond."""
        setting = self.search.setting(view, self.cells.nothing)
        rho = setting.efficiency.gpu_utilisation
        server = min(self.search.problem.cluster.gpus_per_node, self.total)
        inside, beyond = between_pools_bytes_per_s(setting, np.array([server, self.total]))
        return (server, rho * float(inside)), (self.total, rho * float(beyond))

    def _fed(self, points: Points, cell: Ints, rate: Floats, moved: Floats) -> tuple[Floats, Floats, Floats]:
        """Sessions per second at most, GPU-seconds per session at least, and what prefilling adds to one at most."""
        sessions, gpu_s, wait_s = np.zeros(len(points)), np.full(len(points), np.inf), np.zeros(len(points))
        links = [self._links(view) for view in range(len(self.search.views))]
        for rows in self._alike(points, cell):
            unit, policy = self.search.units[int(points.unit[rows[0]])], int(points.policy[rows[0]])
            feeding = self._fed_by(int(points.unit[rows[0]]), int(cell[rows[0]]))
            feeds = feeding.rates[policy] > 0
            if not feeds.any():
                continue
            gpus, received = unit.split.gpus, float(moved[rows[0]])
            for total, bytes_per_s in links[unit.view]:
                lost = int(self.search.lost[points.unit[rows[0]]])
                replicas = np.arange(1, min(unit.split.replicas, (total - 1) // gpus) - lost + 1)
                spare = total - (replicas + lost) * gpus
                most = np.minimum(feeding.most(total, policy)[spare], bytes_per_s * spare / (received * gpus))
                each = np.minimum(rate[rows, None], bytes_per_s / received) * replicas
                sessions[rows] = np.maximum(sessions[rows], np.minimum(each, most).max(axis=1, initial=0.0))
            with np.errstate(divide="ignore"):
                gpu_s[rows] = gpus / rate[rows] + (feeding.gpus / feeding.rates[policy]).min()
            wait_s[rows] = feeding.longest_s[policy][feeds].max()
        return sessions, gpu_s, wait_s

    def _fed_by(self, unit: int, cell: int) -> Feeding:
        known = self.search.units[unit]
        return self._feeding[known.view, known.weights, cell]

    # ------------------------------------------------------------- plans that are possible, and points

    def _learn_fed(self, pairs: Pairs) -> None:
        """Give the best lone pairs prefill pools, and price what comes of it."""
        lone = np.flatnonzero(np.array([cell.lone for cell in self.cells.cells])[pairs.cell])
        best = pairs.take(lone[np.argsort(pairs.value[lone], kind="stable")][:MOST_LEARNT])
        rates = self._rates(best)
        for at in range(len(best)):
            for points, cell in self._pointed(best.take(np.array([at])), *rates[at].tolist()):
                self.branch.learn(points, self.members_of(cell))

    def expand(self) -> None:
        """Give the branch and bound points with two pools that are left, each with the cells that are left of it."""
        parts, count = [], 0
        rates = self._rates(self.pairs)
        for at in np.argsort(self.pairs.value, kind="stable").tolist():
            if count > MOST_EXPANDED or time.monotonic() > self.ends_s:
                self.branch.unlisted = float(self.pairs.value[at])
                break
            for points, cell in self._pointed(self.pairs.take(np.array([at])), *rates[at].tolist()):
                parts.append((points, cell))
                count += len(points)
        if not parts:
            return
        points, cell = Points.joined([p for p, _ in parts]), np.concatenate([c for _, c in parts])
        points, row = points.distinct()
        self.branch.add_pairs(points, row, cell)

    def _pointed(self, pair: Pairs, rate: float, moved: float, session_s: float) -> Iterator[tuple[Points, Ints]]:
        """Every prefill pool and number of replicas with which one pair could be part of a better plan."""
        way = self.points.take(pair.point)
        unit, cell = int(way.unit[0]), int(pair.cell[0])
        feeding, split = self._fed_by(unit, cell), self.search.units[unit].split
        rates, longest_s = (of[int(way.policy[0])] for of in (feeding.rates, feeding.longest_s))
        server, beyond = self._links(self.search.units[unit].view)
        for at in np.flatnonzero(rates > 0).tolist():
            if not self.search.handing_over(int(feeding.units[at]), unit):
                continue
            other = self.search.units[int(feeding.units[at])].split
            numbers = Numbers.of(self.search, unit, int(feeding.units[at]), self.total)
            r, q = (axis + 1 for axis in np.nonzero(numbers.fit))
            gpus = numbers.gpus[r - 1, q - 1]
            link = np.where(gpus <= server[0], server[1], beyond[1]) / moved
            sessions = np.minimum(
                np.minimum(rate, link * np.minimum(1.0, q * other.gpus / (r * split.gpus))) * r, rates[at] * q
            )
            users = sessions * (session_s + longest_s[at])
            keep = self._could(sessions, users, gpus, float(pair.value[0]))
            if self.limits.users is not None:
                keep &= users >= self.limits.users * (1.0 - TIE)
            r, q = r[keep], q[keep]
            if self.branch.known is None and self.goal.name not in ("cost", "gpus", "users"):
                r, q = self._most_fed(r, q, gpus[keep])
            if len(r):
                points = way.take(np.zeros(len(r), dtype=np.int64))
                pool = np.full(len(r), feeding.units[at], dtype=np.int64)
                points = replace(points, replicas=r, pool_unit=pool, pool_replicas=q)
                yield points, np.full(len(r), cell, dtype=np.int64)

    def _rates(self, pairs: Pairs) -> Floats:
        """Of each pair, at best: sessions per second of one decode replica, bytes that each GPU receives.

        And how long a session lasts at most, without its prefills [s].
        """
        if not len(pairs):
            return np.zeros((0, 3))
        indices, row = np.unique(pairs.cell, return_inverse=True)
        table, slowest = self.rows_of(indices.tolist())
        points, longest = self.points.take(pairs.point), None if slowest is None else row + slowest
        priced = self.search.price(points, table, row, np.ones(len(pairs), dtype=np.bool_), longest)
        session_s = priced.users / np.maximum(priced.sessions_per_s, 1e-300)
        session_s = session_s + self._sent(points, row + (slowest or 0), table)
        return np.stack([priced.sessions_per_s, self._moved(points, row, table), session_s], axis=1)

    def _could(self, sessions: Floats, users: Floats, gpus: Ints, value: float) -> Bools:
        """Whether so many sessions per second and users on so many GPUs could be part of a better plan."""
        values: Floats = np.full(len(sessions), value)
        if self.goal.name in ("throughput", "cost"):
            weight = gpus if self.goal.name == "cost" else 1.0
            values = weight / (3600.0 * self.search.problem.request.rounds * sessions)
        elif self.goal.name == "gpus":
            values = gpus.astype(np.float64)
        elif self.goal.name == "users":
            values = 1.0 / np.maximum(users, 1e-300)
        return self._reaches(values)

    def _most_fed(self, r: Ints, q: Ints, gpus: Ints) -> tuple[Ints, Ints]:
        """For each number of decode replicas the most prefill replicas, inside a server and beyond.

        More prefill replicas never hurt on the same side of that border.
        """
        inside = gpus <= self.search.problem.cluster.gpus_per_node
        last = {(int(i), bool(side)): int(j) for i, j, side in zip(r, q, inside, strict=True)}
        if not last:
            return r[:0], q[:0]
        rows = np.array([[i, j] for (i, _), j in last.items()])
        return rows[:, 0], rows[:, 1]
