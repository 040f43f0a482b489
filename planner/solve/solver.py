"""Choose, prove: the best decision of a scope, by pricing what is left of it or by CP-SAT.

Where bounds leave few decisions each is priced. CP-SAT chooses among many, in a process of its own: a plan
that is known doesn't end with it. Ties are broken by rule, so that one request has one answer whatever the
seed, the number of workers or the order of catalog files.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from catalog.units import parse_quantity
from planner.errors import InputError
from planner.problem import Problem
from planner.service import DIMENSIONS
from planner.solve.apart import DIED, Answer, solve_apart
from planner.solve.cpsat import import_cp_model
from planner.solve.decisions import Decisions, Deployment
from planner.solve.engines import engines_of
from planner.solve.goal import Goal, Limits
from planner.solve.narrowing import MARGIN
from planner.solve.points import Points, Search, aggregated_points, open_search
from planner.solve.preference import Preference
from planner.solve.remaining import MOST_PRICED, price_remaining
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
    most_priced: int = MOST_PRICED
    """Decisions that are priced where bounds leave no more; 0: CP-SAT always chooses."""


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
    by: Literal["pricing", "cpsat"] = "pricing"
    """Who chose: bounds and exact prices of what they leave, or CP-SAT where they leave too much."""
    fault: str = ""
    """What went wrong on the way to it, for the user to know; nothing as a rule."""


def status_of(value: float, bound: float) -> Literal["optimal", "feasible"]:
    """Whether a value is proved by a bound: values within `MARGIN` are equal, as in everything that bounds drop."""
    return "optimal" if bound >= value * (1.0 - MARGIN) - 1e-15 else "feasible"


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
    left, known = len(scope.points), scope.incumbent
    if not left and scope.complete:
        return _without(scope, "infeasible")
    if settings.first and known is not None:
        return replace(_known(scope, known.value), status="feasible", bound=None)
    if left > MOST_MODELLED or not left:
        # Where bounds leave nothing better, it is the best; only what ties with it is too much to compare.
        return _known(scope, scope.bound)
    ends_s = starts_s + settings.time_limit_s
    remaining = price_remaining(scope, settings.most_priced, max(ends_s, time.monotonic() + LEAST_SECONDS))
    if not remaining.complete and time.monotonic() >= ends_s:
        return _known(scope, scope.bound)  # Writing a model down takes longer than solving it.
    if not remaining.complete:
        return _Run(scope, settings, ends_s).solution()
    chosen = remaining.chosen
    if chosen is None:
        # Of what was left out nothing is known.
        return _without(scope, "infeasible" if scope.complete else "unknown")
    return _with(scope, chosen.points, chosen.options, chosen.engine, chosen.value, chosen.best)


def _with(
    scope: Scope, row: Points, options: tuple[Option, ...], engine: str | None, value: float, best: float
) -> Solution:
    """A plan, where nothing that was left is better than ``best``; of what was left out only a bound is known."""
    bound = min(best, value) if scope.complete else min(scope.bound, best, value)
    status = status_of(value, bound)
    left = len(scope.points)
    return Solution(status, scope.search, row, options, engine, value, bound, scope.considered, left)


def _without(scope: Scope, status: Literal["infeasible", "unknown"]) -> Solution:
    return Solution(status, scope.search, None, (), None, None, None, scope.considered, len(scope.points))


def _known(scope: Scope, bound: float) -> Solution:
    """The plan that was known before anything chose."""
    known = scope.incumbent
    if known is None:
        return _without(scope, "unknown")
    engine = engines_of(scope.search, known.row, 0, known.options)[0].id
    return _with(scope, known.row, known.options, engine, known.value, bound)


class _Run:
    """One run of CP-SAT, with its tie-break."""

    def __init__(self, scope: Scope, settings: Settings, ends_s: float) -> None:
        self.cp = import_cp_model()
        self.ends_s = ends_s
        self.scope = scope
        self.search = scope.search
        self.settings = settings
        self.deaths: list[str] = []
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
        """Choose among what is left; the plan that is known where CP-SAT doesn't come to an answer."""
        answer = self._ask()
        if answer.status == DIED:
            answer = self._ask(presolve=False)
        if answer.status == "INFEASIBLE":
            # A false proof of infeasibility has been seen; another path through the solver must agree.
            answer = self._ask(linearization_level=2, random_seed=self.settings.seed + 1)
        if answer.status == "INFEASIBLE" and self.scope.incumbent is None:
            return self._told(_without(self.scope, "infeasible" if self.scope.complete else "unknown"))
        if answer.status == "INFEASIBLE" and self.scope.incumbent is not None and self._refuses_known():
            # Nothing is better than the plan that is known, if rounding against us is what refuses that one.
            return self._told(_known(self.scope, self.scope.incumbent.value))
        if not answer.found:
            return self._told(_known(self.scope, self.scope.bound))
        value, bound = round(answer.objective), math.floor(answer.bound)
        chosen = self._read(answer)
        if value <= bound:
            chosen = self._break_ties(value, chosen)
        else:
            value = self._tightened(answer, value)
        least = max(self._real(min(bound, value)), min(self.scope.bound, self._real(value)))
        return self._told(_with(self.scope, *chosen, self._real(value), least))

    def _told(self, solution: Solution) -> Solution:
        """As CP-SAT's choice, with what went wrong on the way."""
        return replace(solution, by="cpsat", fault="; ".join(dict.fromkeys(self.deaths)))

    def _ask(self, **parameters: Any) -> Answer:
        """One run of CP-SAT on the model as it stands."""
        solver = self._solver()
        for name, value in parameters.items():
            setattr(solver.parameters, {"presolve": "cp_model_presolve"}.get(name, name), value)
        answer = solve_apart(solver, self.decisions.model)
        if answer.status == DIED:
            self.deaths.append(f"a run of CP-SAT ended with {answer.death}; what it was asked was answered another way")
        return answer

    # Presolve has changed small models that are nearly fixed until CP-SAT ended over them: they are solved as they are.

    def _tightened(self, answer: Answer, value: int) -> int:
        """What the choice costs: where time ran out, the objective may still be above what its choice needs."""
        of = self.decisions
        groups = (of.deployment, of.micro, of.chunk, of.policy, of.weights, of.engine)
        literals = [x for group in groups for x in group.values()] + [x for _, __, ___, x in of.options()] + [of.alone]
        for literal in literals:
            of.model.add(literal == int(answer.holds(literal)))
        of.model.clear_hints()
        again = self._ask(presolve=False, max_time_in_seconds=TIGHTEN_S)
        return round(again.objective) if again.status == "OPTIMAL" else value

    def _refuses_known(self) -> bool:
        """Whether the model refuses the known plan by itself; if it doesn't, a proof of infeasibility was false."""
        for literal, holds in self._known_literals():
            self.decisions.model.add(literal == int(holds))
        return self._ask(presolve=False).status == "INFEASIBLE"

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
        model = self.decisions.model
        model.add(self.rules.objective.variable <= value)
        model.minimize(sum(weight * literal for weight, literal in self._preferences()))
        model.clear_hints()
        answer = self._ask(presolve=False)
        return self._read(answer) if answer.status == "OPTIMAL" else chosen

    def _preferences(self) -> list[tuple[int, Any]]:
        """Weights of literals."""
        of, preference = self.decisions, Preference(self.search)
        rows = [
            (preference.deployment(d.unit, d.replicas, d.pool, d.pool_replicas), x) for d, x in of.deployment.items()
        ]
        rows += [(preference.option(option), literal) for _, __, option, literal in of.options()]
        rows += [(preference.weights(w), literal) for w, literal in of.weights.items()]
        rows += [(preference.engine(name), literal) for name, literal in of.engine.items()]
        rows += [(preference.policy(p), literal) for p, literal in of.policy.items()]
        rows += [(preference.micro(m), literal) for m, literal in of.micro.items()]
        rows += [(preference.chunk(c), literal) for c, literal in of.chunk.items()]
        return [*rows, (preference.alone(1), of.alone)]

    def _read(self, answer: Answer) -> tuple[Points, tuple[Option, ...], str]:
        of = self.decisions
        deployment = next(d for d, x in of.deployment.items() if answer.holds(x))

        def one(value: int) -> Any:
            return np.array([value], dtype=np.int64)

        def which(literals: dict[int, Any]) -> int:
            return next(key for key, x in literals.items() if answer.holds(x))

        points = Points(
            unit=one(deployment.unit),
            micro=one(which(of.micro)),
            chunk=one(which(of.chunk)),
            policy=one(which(of.policy)),
            alone=np.array([answer.holds(of.alone)]),
            replicas=one(deployment.replicas),
            pool_unit=one(deployment.pool),
            pool_replicas=one(deployment.pool_replicas),
        )
        options = tuple(
            next(option for option, x in zip(of.space.options[name], of.option[name], strict=True) if answer.holds(x))
            for name in DIMENSIONS
        )
        engine = next(name for name, x in of.engine.items() if answer.holds(x))
        return points, options, engine


__all__ = ["Settings", "Solution", "engines_of", "solve"]
