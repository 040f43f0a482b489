"""Choose, prove: a scope becomes a CP-SAT model, its best solution a decision.

The objective is locked before ties are broken, so that one request has one answer whatever the seed,
the number of workers or the order of catalog files: fewer GPUs, fewer techniques, a smaller loss, the
more capable engine, last a hash of the names.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any, Literal
from zlib import crc32

import numpy as np

from catalog.units import parse_quantity
from planner.errors import InputError
from planner.plan import DIMENSIONS
from planner.problem import Problem
from planner.solve.cpsat import import_cp_model
from planner.solve.decisions import Decisions, Deployment
from planner.solve.engines import engines_of
from planner.solve.goal import Goal, Limits
from planner.solve.narrowing import TIE
from planner.solve.points import Points, Search, aggregated_points, capability_rank, open_search
from planner.solve.rules import Rules
from planner.solve.scope import MOST_MODELLED, Scope, affordable, scope_of
from planner.space import Option, Space

WORKERS = 2
SEED = 0
NARROWING_SHARE = 0.7
"""Of the time limit, for bounds."""
LEAST_SECONDS = 0.05
"""For a run of CP-SAT, whatever is left of the time."""
TIGHTEN_S = 5.0
"""At most, for what a choice costs that is made already: it takes a fraction of this."""


@dataclass(frozen=True)
class Settings:
    """How CP-SAT runs."""

    time_limit_s: float = 60.0
    workers: int = WORKERS
    seed: int = SEED
    first: bool = False
    """Any plan will do: only whether there is one is asked."""


def read_settings(time_limit: str, workers: int, seed: int) -> Settings:
    """Settings as the command line gives them.

    Raises
    ------
    InputError
        If the time limit is no duration.
    """
    try:
        seconds = parse_quantity(time_limit, "seconds")
    except ValueError as error:
        raise InputError(f"--time-limit: {error}") from None
    if seconds <= 0:
        raise InputError("--time-limit: must be more than nothing; write for example 10s")
    return Settings(seconds, workers, seed)


@dataclass(frozen=True)
class Solution:
    """What was chosen, and how sure that is."""

    status: Literal["optimal", "feasible", "infeasible", "unknown"]
    search: Search
    points: Points | None
    """One row: the chosen operating point."""
    options: tuple[Option, ...]
    engine: str | None
    value: float | None
    """Of the goal, as the cost model prices the choice."""
    bound: float | None
    """No decision of the space has a lower value."""
    considered: int
    """Operating points of the space."""
    left: int
    """Operating points that bounds alone didn't decide."""


def solve(problem: Problem, space: Space, goal: Goal | None = None, settings: Settings | None = None) -> Solution:
    """Choose the best decision of a space.

    Raises nothing for an infeasible request: that is an answer, ``status`` says so.
    """
    goal = goal or Goal(problem.request.objective, problem.request.output_tokens)
    settings = settings or Settings()
    starts_s = time.monotonic()
    search = open_search(problem, affordable(problem, space))
    points = aggregated_points(search)
    if not len(points) and (space.aggregated or not space.disaggregated):
        return Solution("infeasible", search, None, (), None, None, None, 0, 0)
    narrowed_s = starts_s + NARROWING_SHARE * settings.time_limit_s
    scope = scope_of(search, points, goal, Limits.of(problem.request), first=settings.first, ends_s=narrowed_s)
    left = len(scope.points)
    known = scope.incumbent
    if not left and scope.complete:
        return Solution("infeasible", search, None, (), None, None, None, scope.considered, 0)
    if settings.first and known is not None:
        return Solution("feasible", search, known.row, known.options, None, known.value, None, scope.considered, left)
    if left > MOST_MODELLED or not left:
        if known is None:
            return Solution("unknown", search, None, (), None, None, None, scope.considered, left)
        engine = engines_of(search, known.row, 0, known.options)[0].id
        values = (known.value, min(scope.bound, known.value))
        # Where bounds leave nothing better, it is the best; only what ties with it is too much to compare.
        proved = scope.complete and scope.bound >= known.value * (1.0 - TIE) - 1e-15
        status: Literal["optimal", "feasible"] = "optimal" if proved else "feasible"
        return Solution(status, search, known.row, known.options, engine, *values, scope.considered, left)
    found = _Run(scope, settings, starts_s + settings.time_limit_s).solution()
    if scope.complete or found.status in ("feasible", "unknown"):
        return found
    # Of what was left out only a bound is known.
    bound = None if found.value is None else min(scope.bound, found.value)
    return replace(found, status="unknown" if found.value is None else "feasible", bound=bound)


class _Run:
    """One run of CP-SAT, with its tie-break."""

    def __init__(self, scope: Scope, settings: Settings, ends_s: float) -> None:
        self.cp = import_cp_model()
        self.ends_s = ends_s
        self.scope = scope
        self.search = scope.search
        self.settings = settings
        known = scope.incumbent.value if scope.incumbent else None
        self.decisions = Decisions(self.cp, scope)
        self.rules = Rules(self.decisions, scope.goal, scope.limits, known)
        self._hint()

    def _hint(self) -> None:
        """Start from the plan that is known."""
        for literal, holds in self._known_literals():
            self.decisions.model.add_hint(literal, holds)

    def _known_literals(self) -> list[tuple[Any, bool]]:
        """Every decision with whether the plan that is known takes it."""
        incumbent = self.scope.incumbent
        if incumbent is None:
            return []
        points, of, row = incumbent.row, self.decisions, 0
        deployment = Deployment(
            *(int(getattr(points, n)[row]) for n in ("unit", "replicas", "pool_unit", "pool_replicas"))
        )
        rows: list[tuple[Any, bool]] = [(x, d == deployment) for d, x in of.deployment.items()]
        for literals, name in ((of.micro, "micro"), (of.chunk, "chunk"), (of.policy, "policy")):
            rows += [(x, key == int(getattr(points, name)[row])) for key, x in literals.items()]
        rows.append((of.alone, bool(points.alone[row])))
        chosen = {(option.dimension, option.id) for option in incumbent.options}
        rows += [(x, (option.dimension, option.id) in chosen) for _, __, option, x in of.options()]
        return rows

    def solution(self) -> Solution:
        solver = self._solver()
        status = solver.status_name(solver.solve(self.decisions.model))
        considered, left = self.scope.considered, len(self.scope.points)
        if status == "INFEASIBLE":
            # A false proof of infeasibility has been seen; another path through the solver must agree.
            solver = self._solver()
            solver.parameters.random_seed = self.settings.seed + 1
            solver.parameters.linearization_level = 2
            status = solver.status_name(solver.solve(self.decisions.model))
        if status == "INFEASIBLE":
            known = self.scope.incumbent
            if known is None:
                return Solution("infeasible", self.search, None, (), None, None, None, considered, left)
            # Nothing is better than the plan that is known, if rounding against us is what refuses that one.
            return self._known(considered, left, proved=self._refuses_known())
        if status not in ("OPTIMAL", "FEASIBLE") and self.scope.incumbent is not None:
            return self._known(considered, left, proved=False)
        if status not in ("OPTIMAL", "FEASIBLE"):
            return Solution("unknown", self.search, None, (), None, None, None, considered, left)
        value, bound = round(solver.objective_value), math.floor(solver.best_objective_bound)
        proved = value <= bound
        chosen = self._read(solver)
        if proved:
            chosen = self._break_ties(value, chosen)
        else:
            value = self._tightened(solver, value)
        points, options, engine = chosen
        return Solution(
            "optimal" if proved else "feasible",
            self.search,
            points,
            options,
            engine,
            self._real(value),
            max(self._real(min(bound, value)), min(self.scope.bound, self._real(value))),
            considered,
            left,
        )

    def _tightened(self, solver: Any, value: int) -> int:
        """What the choice costs: where time ran out, the objective may still be above what its choice needs."""
        of = self.decisions
        groups = (of.deployment, of.micro, of.chunk, of.policy, of.weights, of.engine)
        literals = [x for group in groups for x in group.values()] + [x for _, __, ___, x in of.options()] + [of.alone]
        for literal in literals:
            of.model.add(literal == int(solver.boolean_value(literal)))
        of.model.clear_hints()
        again = self._solver()
        again.parameters.max_time_in_seconds = TIGHTEN_S
        return round(again.objective_value) if again.status_name(again.solve(of.model)) == "OPTIMAL" else value

    def _refuses_known(self) -> bool:
        """Whether the model refuses the known plan by itself; if it doesn't, a proof of infeasibility was false."""
        for literal, holds in self._known_literals():
            self.decisions.model.add(literal == int(holds))
        solver = self._solver()
        status: str = solver.status_name(solver.solve(self.decisions.model))
        return status == "INFEASIBLE"

    def _known(self, considered: int, left: int, *, proved: bool) -> Solution:
        """The plan that the search started from; unless it is proved, with the bound that it started from."""
        known = self.scope.incumbent
        if known is None:
            raise ValueError("no plan is known")
        row = known.row
        engine = engines_of(self.search, row, 0, known.options)[0].id
        bound = known.value if proved else min(self.scope.bound, known.value)
        status: Literal["optimal", "feasible"] = "optimal" if proved else "feasible"
        return Solution(status, self.search, row, known.options, engine, known.value, bound, considered, left)

    def _real(self, value: int) -> float:
        """An objective of the model in the goal's own unit."""
        seconds = value * self.rules.objective.unit
        if self.scope.goal.name in ("throughput", "cost"):
            return seconds / (3600.0 * self.search.problem.request.rounds)
        if self.scope.goal.name == "quality":
            return 1.0 - math.exp(-seconds)
        return seconds

    def _solver(self) -> Any:
        solver = self.cp.CpSolver()
        solver.parameters.max_time_in_seconds = max(self.ends_s - time.monotonic(), LEAST_SECONDS)
        solver.parameters.num_workers = self.settings.workers
        # One worker has one strategy, which may hang where another is done at once: let it take turns.
        solver.parameters.interleave_search = self.settings.workers == 1
        solver.parameters.random_seed = self.settings.seed
        solver.parameters.stop_after_first_solution = self.settings.first
        return solver

    def _break_ties(self, value: int, chosen: tuple[Points, tuple[Option, ...], str]) -> Any:
        of, model = self.decisions, self.decisions.model
        model.add(self.rules.objective.variable <= value)
        model.minimize(sum(weight * literal for weight, literal in self._preferences()))
        model.clear_hints()
        solver = self._solver()
        if solver.status_name(solver.solve(of.model)) == "OPTIMAL":
            return self._read(solver)
        return chosen

    def _preferences(self) -> list[tuple[int, Any]]:
        """Weights of literals: GPUs first, then techniques, loss, the engine's rank, a hash of the name."""
        of, space = self.decisions, self.search.space
        ranked = sorted(space.engines, key=capability_rank)
        rows: list[tuple[int, Any]] = []
        for d, literal in of.deployment.items():
            gpus = self.rules.gpus(d)
            split = self.search.units[d.unit].split
            plain = split.pp + split.dcp + split.pcp + (split.ep > 1) + (d.pool >= 0)
            rows.append(((gpus << 44) + (plain << 36) + _hash(self._unit_name(d)), literal))
        for _, __, option, literal in of.options():
            if option.point:
                rows.append(((1 << 42) + (min(round(option.loss.mean * 1e4), 1023) << 28) + _hash(option.id), literal))
        for w, literal in of.weights.items():
            weights = space.weights[w]
            quantised = (1 << 42) if weights.point else 0
            rows.append((quantised + (min(round(weights.loss.mean * 1e4), 1023) << 28) + _hash(weights.id), literal))
        rows += [((ranked.index(engine) << 26) + 0, of.engine[engine.id]) for engine in space.engines]
        rows += [(_hash(space.policies[p].id) + (p << 30), literal) for p, literal in of.policy.items()]
        rows += [(m << 16, literal) for m, literal in of.micro.items()]
        rows += [(-(c << 8), literal) for c, literal in of.chunk.items()]
        rows.append((1 << 20, of.alone))
        return rows

    def _unit_name(self, d: Deployment) -> str:
        parts = [self.search.units[d.unit], self.search.units[d.pool] if d.pool >= 0 else None]
        return (
            f"{[(p.split, self.search.space.weights[p.weights].id) for p in parts if p]}:{d.replicas}:{d.pool_replicas}"
        )

    def _read(self, solver: Any) -> tuple[Points, tuple[Option, ...], str]:
        of = self.decisions
        deployment = next(d for d, x in of.deployment.items() if solver.boolean_value(x))

        def one(value: int) -> Any:
            return np.array([value], dtype=np.int64)

        def which(literals: dict[int, Any]) -> int:
            return next(key for key, x in literals.items() if solver.boolean_value(x))

        points = Points(
            unit=one(deployment.unit),
            micro=one(which(of.micro)),
            chunk=one(which(of.chunk)),
            policy=one(which(of.policy)),
            alone=np.array([bool(solver.boolean_value(of.alone))]),
            replicas=one(deployment.replicas),
            pool_unit=one(deployment.pool),
            pool_replicas=one(deployment.pool_replicas),
        )
        options = tuple(
            next(
                option
                for option, x in zip(of.space.options[name], of.option[name], strict=True)
                if solver.boolean_value(x)
            )
            for name in DIMENSIONS
        )
        engine = next(name for name, x in of.engine.items() if solver.boolean_value(x))
        return points, options, engine


def _hash(name: str) -> int:
    """24 bits that are the same on every machine."""
    return crc32(name.encode()) & 0xFFFFFF


__all__ = ["Settings", "Solution", "engines_of", "solve"]
