"""OR-Tools composes the cluster: how many of which columns, under linear rows with the user's names.

Interactions and users are scaled once and rounded so that the model is a relaxation: nothing that holds in
floats is lost. What it answers is checked in floats; an answer that doesn't hold is cut off, and the model is
asked again. Where the library fails, or is worse than what rules composed, theirs is taken, and that is said.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.candidates.each_once import each_once
from planner.limits import SLACK as FLOAT_SLACK
from planner.search.apart import DIED, Answer, solve_apart
from planner.search.columns_found import Found
from planner.search.cpsat import import_cp_model
from planner.search.known import TIE, Composer, Composition, composition_of
from planner.search.servers import Row, server_rows
from planner.search.ties import Ties, engine_of

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SCALE = 2.0**40
"""The largest sum of scaled numbers."""
MOST_ASKED = 40
"""Answers that are cut off before the model is given up."""
MOST_KINDS = 31
"""Kinds of replicas in one cluster."""
LEAST_SECONDS = 0.05
"""For a run of CP-SAT, whatever is left of the time."""


@dataclass(frozen=True)
class Asked:
    """How CP-SAT is run, and what for."""

    workers: int
    seed: int
    ends_s: float
    tolerance: float
    """A plan that is worse by such a share may be taken for its simplicity."""


@dataclass(frozen=True)
class Composed:
    """A cluster, and what is known of better ones."""

    composition: Composition
    """That is shown."""
    best: float
    """Value of the best that was found."""
    bound: float
    """No composition of these columns has a lower value."""
    fault: str
    """What went wrong on the way; nothing as a rule."""
    by_rules: bool
    """Whether rules composed it because CP-SAT gave no answer."""
    size: dict[str, int] = field(default_factory=dict)
    """Columns, variables and rows of the model."""


def compose(found: Found, asked: Asked) -> Composed | None:
    """Compose the best cluster of columns; None where there is none."""
    if not len(found.columns):
        return None
    return _Master(found, asked).composed()


class _Master:
    """The model, asked once for the best and then for the simplest that is as good."""

    def __init__(self, found: Found, asked: Asked) -> None:
        self.found, self.asked = found, asked
        self.columns, self.goal, self.floor = found.columns, found.goal, found.limits.users
        self.faults: list[str] = []
        self.status = "UNKNOWN"
        self.cp = import_cp_model()
        self.ranked = each_once(self.columns.worst)
        self._build()

    # ------------------------------------------------------------- the model

    def _build(self) -> None:
        """Variables and the rows that every answer keeps."""
        c, room = self.columns, self.found.room
        self.model = self.cp.CpModel()
        most = np.where(c.services, 1, np.maximum((room.most - c.reserve) // c.gpus, 0)).tolist()
        self.counts = [self.model.new_int_var(0, copies, f"replicas_{row}") for row, copies in enumerate(most)]
        self.used = [self.model.new_bool_var(f"kind_{row}") for row in range(len(c))]
        for count, used, copies in zip(self.counts, self.used, most, strict=True):
            self.model.add(count <= copies * used)
            self.model.add(count >= used)
        self.model.add(sum(self.used) <= MOST_KINDS)
        self.model.add(sum(self.counts) >= 1)
        services = np.flatnonzero(c.services).tolist()
        others = np.flatnonzero(~c.services).tolist()
        if services:
            alone = sum(self.used[row] for row in services)
            self.model.add(alone <= 1)
            for row in others:
                self.model.add(self.used[row] + alone <= 1)
        if self.found.search.space.one_kind:
            self.model.add(sum(self.used) <= 1)
        self._add_servers(others, services)
        if self.floor is not None:
            unit = SCALE / max(self._largest(c.users), self.floor)
            self.model.add(
                self._sum(np.floor(c.users * unit) + 1.0) >= math.floor(self.floor * (1.0 - FLOAT_SLACK) * unit)
            )

    def _largest(self, worth: Floats) -> float:
        """What a sum over a cluster can't exceed."""
        return float((worth / self.columns.gpus).max()) * self.found.room.most + float(worth.max())

    def _sum(self, weights: Floats | Ints) -> Any:
        return self.cp.LinearExpr.weighted_sum(self.counts, [int(w) for w in weights])

    def _gpus(self) -> Any:
        """GPUs of a cluster, those in reserve included."""
        return self._sum(self.columns.gpus) + self.cp.LinearExpr.weighted_sum(self.used, self.columns.reserve.tolist())

    def _add_servers(self, others: list[int], services: list[int]) -> None:
        gpus = self.columns.gpus
        rows = server_rows(self.found.room, sorted({int(gpus[row]) for row in others}))
        ways = {way: None for row in rows for way in row.ways}
        filled = {way: self.model.new_int_var(0, self.found.room.servers + 1, f"servers_{way}") for way in ways}
        for row in rows:
            self._add_row(row, others, filled)
        for at in services:
            self.model.add(int(gpus[at]) * self.counts[at] <= self.found.room.most)

    def _add_row(self, row: Row, others: list[int], filled: dict[tuple[int, ...], Any]) -> None:
        weights = [row.weights.get(int(self.columns.gpus[at]), 0) for at in others]
        taken = self.cp.LinearExpr.weighted_sum([self.counts[at] for at in others], weights)
        reserves = [int(self.columns.reserve[at] // self.columns.gpus[at]) for at in others]
        beside = [weight * reserve for weight, reserve in zip(weights, reserves, strict=True)]
        taken = taken + self.cp.LinearExpr.weighted_sum([self.used[at] for at in others], beside)
        for way, weight in row.ways.items():
            taken = taken + weight * filled[way]
        self.model.add(taken <= row.most).with_name(row.name)

    # ------------------------------------------------------------- the best

    def composed(self) -> Composed | None:
        """The best cluster, and of those as good as it the simplest."""
        best, bound = self._best()
        known = self.found.known
        by_rules = known is not None and (best is None or known.value < best.value * (1.0 - 2.0 * TIE) - 1e-15)
        if by_rules:
            if self.status in ("OPTIMAL", "INFEASIBLE"):
                said = "a worse cluster the best" if best is not None else "no cluster possible"
                self.faults.append(f"CP-SAT called {said}; the cluster was composed another way")
            best = known
        if best is None:
            return None
        if by_rules:
            composer = Composer(self.goal, self.found.room, self.floor, alike=self.found.search.space.one_kind)
            bound = composer.least(self.columns, best)
        shown = best
        if not by_rules and not self._over():
            shown = self._simplest(best) or best
        size = {
            "columns": len(self.columns),
            "variables": len(self.model.proto.variables),
            "rows": len(self.model.proto.constraints),
        }
        return Composed(
            shown, best.value, min(bound, best.value), "; ".join(dict.fromkeys(self.faults)), by_rules, size
        )

    def _best(self) -> tuple[Composition | None, float]:
        """The best composition and its bound; none where CP-SAT gave no answer."""
        if not self.goal.adds_up:
            return self._least_worst()
        if self.goal.name == "gpus":
            found, answer = self._ask(lambda: self.model.minimize(self._gpus()))
            return found, float(math.ceil(answer.bound - 1e-6))
        weights, unit = self._rates()
        found, answer = self._ask(lambda: self.model.maximize(self._sum(weights)))
        return found, 1.0 / max(answer.bound / unit, 1e-300) if found else 0.0

    def _rates(self) -> tuple[Floats, float]:
        """Interactions of each column, scaled and rounded up; and the scale."""
        unit = SCALE / self._largest(self.columns.rate)
        return np.floor(self.columns.rate * unit) + 1.0, unit

    def _least_worst(self) -> tuple[Composition | None, float]:
        ranks = np.searchsorted(self.ranked, self.columns.worst)
        worst = self.model.new_int_var(0, len(self.ranked), "worst")
        for used, rank in zip(self.used, ranks.tolist(), strict=True):
            self.model.add(worst >= rank * used)
        self.worst = worst
        found, answer = self._ask(lambda: self.model.minimize(worst))
        if found is None:
            return None, 0.0
        least = min(max(math.ceil(answer.bound - 1e-6), 0), len(self.ranked) - 1)
        return found, float(self.ranked[least])

    # ------------------------------------------------------------- the simplest

    def _simplest(self, best: Composition) -> Composition | None:
        """Of compositions as good as the best the one with the least to run, then by order."""
        ties = Ties.of(self.found.search, self.columns)
        tolerance = max(self.asked.tolerance, TIE)
        self._keep_value(best, tolerance)
        each = (ties.kinds << 23) + (ties.stages << 10) + ties.techniques
        size = (1 << 30) * self._gpus() + self.cp.LinearExpr.weighted_sum(self.used, each.tolist())
        # An engine more is as much more to run as a kind more.
        size = size + (1 << 23) * sum(self._engines_used())
        found, answer = self._ask(lambda: self.model.minimize(size), best, tolerance)
        if found is None or answer.status != "OPTIMAL":
            return found
        self.model.add(size <= round(answer.objective))
        late = self.model.new_int_var(0, int(ties.late.max()), "late")
        for used, rank in zip(self.used, ties.late.tolist(), strict=True):
            self.model.add(late >= rank * used)
        order = self.cp.LinearExpr.weighted_sum(self.used, ties.order.tolist())
        last, _ = self._ask(lambda: self.model.minimize(late * (1 << 20) + order), best, tolerance)
        return last or found

    def _engines_used(self) -> list[Any]:
        """Whether each engine serves any kind."""
        found: dict[str, Any] = {}
        for used, engines in zip(self.used, self.columns.engines.tolist(), strict=True):
            name = engine_of(self.found.search, engines)
            if name not in found:
                found[name] = self.model.new_bool_var(f"engine_{name}")
            self.model.add(used <= found[name])
        return list(found.values())

    def _keep_value(self, best: Composition, tolerance: float) -> None:
        """The row that the value stays within a tolerance of the best."""
        if not self.goal.adds_up:
            most = best.value + allowed(self.goal.name, best.value, tolerance)
            self.model.add(self.worst <= int(np.searchsorted(self.ranked, most, side="right")) - 1)
        elif self.goal.most:
            weights, unit = self._rates()
            self.model.add(self._sum(weights) >= math.floor((1.0 - tolerance) / best.value * unit))
        else:
            self.model.add(self._gpus() <= math.floor(best.gpus * (1.0 + tolerance)))

    # ------------------------------------------------------------- asking

    def _over(self) -> bool:
        return time.monotonic() >= self.asked.ends_s

    def _ask(
        self, aim: Any, best: Composition | None = None, tolerance: float = 0.0
    ) -> tuple[Composition | None, Answer]:
        """An answer that holds in floats; those that don't are cut off."""
        answer = Answer("UNKNOWN")
        for _ in range(MOST_ASKED):
            aim()
            answer = solve_apart(self._solver(), self.model)
            self.status = answer.status
            if answer.status == DIED:
                self.faults.append(f"a run of CP-SAT ended with {answer.death}; the cluster was composed another way")
                return None, answer
            if not answer.found:
                return None, answer
            counts = np.array([answer.values[count.index] for count in self.counts], dtype=np.int64)
            rows = np.flatnonzero(counts)
            found = composition_of(self.columns, rows, counts[rows], self.goal)
            if self._holds(found, best, tolerance):
                return found, answer
            self._cut_off(counts)
        return None, answer

    def _holds(self, found: Composition, best: Composition | None, tolerance: float) -> bool:
        if self.floor is not None and found.users < self.floor * (1.0 - FLOAT_SLACK):
            return False
        if best is None:
            return True
        if not self.goal.adds_up:
            return found.value <= best.value + allowed(self.goal.name, best.value, tolerance)
        return found.value <= best.value / (1.0 - tolerance) * (1.0 + TIE)

    def _cut_off(self, counts: Ints) -> None:
        """Another number of replicas of some column."""
        others = []
        for count, number in zip(self.counts, counts.tolist(), strict=True):
            other = self.model.new_bool_var("")
            self.model.add(count != number).only_enforce_if(other)
            others.append(other)
        self.model.add_bool_or(others)

    def _solver(self) -> Any:
        solver = self.cp.CpSolver()
        solver.parameters.max_time_in_seconds = max(self.asked.ends_s - time.monotonic(), LEAST_SECONDS)
        solver.parameters.num_workers = self.asked.workers
        # One worker has one strategy, which may hang where another is done at once: let it take turns.
        solver.parameters.interleave_search = self.asked.workers == 1
        solver.parameters.random_seed = self.asked.seed
        return solver


def allowed(goal: str, value: float, tolerance: float) -> float:
    """How much worse a worst value may be within a tolerance: a share, but of a loss a tenth of a point for 1 %."""
    if goal == "quality":
        return max(0.1 * tolerance if tolerance > TIE else 0.0, value * TIE) + 1e-15
    return value * tolerance + 1e-15
