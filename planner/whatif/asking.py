"""Answers to changed questions, priced, in the terms of a plan's objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from planner.ask import Asker, Question
from planner.errors import InputError
from planner.objectives import MEASURES
from planner.price import Evaluation, evaluate
from planner.problem import Problem
from planner.search.services import services_of
from planner.search.solver import Settings, Solution
from planner.space import Space
from planner.whatif.attribution import metric_value


@dataclass(frozen=True)
class Answer:
    """What the solver found."""

    status: Literal["optimal", "feasible", "infeasible", "undecided"]
    value: float | None = None
    """Of the objective, as the cost model prices the decision."""
    evaluation: Evaluation | None = None

    @property
    def proved(self) -> bool:
        """Whether nothing is better, or there is nothing."""
        return self.status in ("optimal", "infeasible")


UNDECIDED = Answer("undecided")


class Solver:
    """Answers questions in the terms of a plan's objective."""

    def __init__(self, problem: Problem, metric: str, settings: Settings, talk: Callable[[str], None]) -> None:
        self.problem, self.metric = problem, metric
        self.higher = MEASURES[metric].higher
        self._asker = Asker(problem, settings, talk)

    def ask(self, question: Question, about: str) -> Answer:
        """The best plan for a changed request or cluster."""
        try:
            problem = question.about(self.problem)
        except InputError:
            return Answer("infeasible")
        return self._told(problem, self._asker.ask(question, about=about))

    def solve(self, space: Space, about: str) -> Answer:
        """The best plan of another space."""
        return self._told(self.problem, self._asker.solve(self.problem, space, about=about))

    def _told(self, problem: Problem, found: Solution | None) -> Answer:
        if found is None or found.status == "unknown":
            return UNDECIDED
        if not found.kinds:
            return Answer("infeasible")
        evaluation = evaluate(problem, services_of(found))
        value = metric_value(self.metric, problem.request, evaluation.metrics)
        return Answer("optimal" if found.status == "optimal" else "feasible", value, evaluation)

    def gain(self, now: float, value: float | None) -> float | None:
        """Share by which a value is better than now; negative where it is worse. None where there is no ratio."""
        if value is None or now == 0.0:
            return 0.0 if value == now else None
        return value / now - 1.0 if self.higher else 1.0 - value / now

    def loss(self, now: float, value: float | None) -> float | None:
        """Share of the objective that is lost."""
        if value is None or now == 0.0:
            return 0.0 if value == now else None
        return 1.0 - value / now if self.higher else value / now - 1.0
