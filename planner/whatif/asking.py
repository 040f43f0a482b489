"""Solve changed questions within a time, and price what comes out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from planner.errors import InputError
from planner.objectives import MEASURES
from planner.price import Evaluation, evaluate
from planner.problem import Problem, resolve
from planner.search.services import services_of
from planner.search.solver import Settings, solve
from planner.space import Space, open_space
from planner.whatif.attribution import metric_value

MOST_SECONDS = 8.0
"""Time for one question [s]."""
GENEROUS = 2.0
"""A question may take so many times its share of the time that is left; most take less."""


@dataclass(frozen=True)
class Question:
    """A request's changes, and how much more memory the hardware has."""

    changes: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    """``hbm``, ``ddr`` or ``nvme`` -> factor."""

    def also(self, other: Question) -> Question:
        """Both changes."""
        return Question({**self.changes, **other.changes}, {**self.memory, **other.memory})

    def about(self, problem: Problem) -> Problem:
        """The problem so changed.

        Raises
        ------
        InputError
            If the changes don't go together.
        """
        found = problem
        if self.changes:
            request = problem.request.model_copy(update={"model": problem.model_name, **self.changes})
            found = resolve(request, problem.catalog)
        return replace(found, cluster=_with_memory(found, self.memory)) if self.memory else found


def _with_memory(problem: Problem, factors: dict[str, float]) -> Any:
    cluster = problem.cluster
    hardware, node = cluster.hardware, cluster.node
    if "hbm" in factors:
        hardware = hardware.model_copy(update={"hbm": hardware.hbm * factors["hbm"]})
    if "ddr" in factors:
        node = node.model_copy(update={"host_memory": node.host_memory * factors["ddr"]})
    if "nvme" in factors and node.nvme is not None:
        disks = node.nvme.model_copy(update={"capacity": node.nvme.capacity * factors["nvme"]})
        node = node.model_copy(update={"nvme": disks})
    return replace(cluster, hardware=hardware, node=node)


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
    """Answers questions until the time is over."""

    def __init__(self, problem: Problem, metric: str, settings: Settings, talk: Callable[[str], None]) -> None:
        self.problem, self.metric, self.settings, self.talk = problem, metric, settings, talk
        self.higher = MEASURES[metric].higher
        self.ends_s, self.waiting = 0.0, 1

    def until(self, ends_s: float, questions: int) -> None:
        """Answer about so many questions until this moment of the monotonic clock."""
        self.ends_s, self.waiting = ends_s, questions

    def ask(self, question: Question, about: str) -> Answer:
        """The best plan for a changed request or cluster."""
        try:
            problem = question.about(self.problem)
            space = open_space(problem)
        except InputError:
            return Answer("infeasible")
        return self.solve(problem, space, about)

    def solve(self, problem: Problem, space: Space, about: str) -> Answer:
        """The best plan of a space."""
        left = self.ends_s - time.monotonic()
        if left <= 0:
            return UNDECIDED
        self.talk(about)
        share = GENEROUS * left / max(self.waiting, 1)
        self.waiting -= 1
        found = solve(problem, space, None, replace(self.settings, time_limit_s=min(left, share, MOST_SECONDS)))
        if found.status == "unknown":
            return UNDECIDED
        if found.status == "infeasible" or not found.kinds:
            return Answer("infeasible")
        evaluation = evaluate(problem, services_of(found))
        value = metric_value(self.metric, problem.request, evaluation.metrics)
        return Answer(found.status, value, evaluation)

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
