"""A changed question, answered from what is known already, within a deadline.

Whoever asks what another request, cluster or space would give asks here: why there is no plan, what one unit more
of a limit buys, what a plan is without one of its choices.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from planner.candidates.goal import Goal
from planner.clusters import Sizes
from planner.errors import InputError
from planner.price import evaluate
from planner.problem import Problem, resolve
from planner.search.services import services_of
from planner.search.solver import Settings, Solution, solve
from planner.service import Service
from planner.space import Space, open_space
from planner.verify import VerificationError, verify

MOST_PAIRS = 1_000_000
"""Work of one question: it is left undecided beyond, on a busy machine as on a quiet one."""
_LEAST_S = 0.05


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


class Asker:
    """Asks until the time is over, and remembers the answers."""

    def __init__(self, problem: Problem, settings: Settings, talk: Callable[[str], None] | None = None) -> None:
        self.problem = problem
        self.settings = replace(settings, most_pairs=min(settings.most_pairs, MOST_PAIRS))
        self.ends_s = time.monotonic() + settings.time_limit_s
        self._talk = talk
        self._known: dict[str, Solution] = {}
        self._plans: list[tuple[Service, ...]] = []
        """Plans that were found, each once, the last one first."""

    def ask(
        self, question: Question, goal: Goal | None = None, *, first: bool = False, about: str = ""
    ) -> Solution | None:
        """The best plan for a question, or any; None where time ran out or the changes don't go together."""
        key = repr((sorted(question.changes.items()), sorted(question.memory.items()), goal, first))
        if key not in self._known:
            try:
                problem = question.about(self.problem)
                space = open_space(problem)
            except InputError:
                return None
            found = self.solve(problem, space, goal, first=first, about=about)
            if found is None:
                return None
            self._known[key] = found
            if found.kinds and (plan := services_of(found)) not in self._plans:
                self._plans.insert(0, plan)
        return self._known[key]

    def is_answered(self, question: Question) -> bool:
        """Whether a plan that is known already keeps the limits of a question."""
        try:
            problem = question.about(self.problem)
            space = open_space(problem)
        except InputError:
            return False
        return any(_holds(problem, space, plan) for plan in self._plans)

    def solve(
        self, problem: Problem, space: Space, goal: Goal | None = None, *, first: bool = False, about: str = ""
    ) -> Solution | None:
        """The best plan of a space, or any; None where time ran out."""
        left = self.ends_s - time.monotonic()
        if left <= _LEAST_S:
            return None
        if self._talk is not None and about:
            self._talk(about)
        return solve(problem, space, goal, replace(self.settings, first=first, time_limit_s=left))


def _holds(problem: Problem, space: Space, plan: tuple[Service, ...]) -> bool:
    """Whether a plan is one of a space and keeps the limits."""
    try:
        verify(problem, space, evaluate(problem, plan))
    except (InputError, VerificationError):
        return False
    return True


def fewest(
    problem: Problem, sizes: Sizes, holds: Callable[[int], bool | None], span: tuple[int, int], guess: int
) -> tuple[int | None, bool]:
    """The fewest GPUs or servers for which something holds, as `smallest` does.

    With replicas in reserve a second server takes as many of them as it holds, so that fewer GPUs of one server may
    do where more on two don't: those are tried first.
    """
    (low, high), server = span, problem.cluster.node.gpus
    reserve = problem.request.spare and sizes.gpus_each == 1
    if reserve and low < server < high and holds(server):
        high, guess = server, min(guess, server)
    return smallest(holds, low, high, guess)


def smallest(holds: Callable[[int], bool | None], low: int, high: int, guess: int) -> tuple[int | None, bool]:
    """The smallest number for which something holds that holds for all larger ones.

    Parameters
    ----------
    holds
        None counts as no; the answer is then only known to hold itself.
    low
        It doesn't hold here.
    high
        The largest number that is tried.
    guess
        Where to look first; right at once where the guess is right.

    Returns
    -------
    tuple
        The number, and whether it is known not to hold one below. None: it holds nowhere up to ``high``,
        or isn't known to.

    Examples
    --------
    >>> smallest(lambda k: k >= 37, 1, 100, guess=36), smallest(lambda k: k >= 37, 1, 20, guess=5)
    ((37, True), (None, True))
    """
    known: dict[int, bool | None] = {low: False}

    def asked(number: int) -> bool:
        if number not in known:
            known[number] = holds(number)
        return known[number] is True

    step, at = 1, min(max(guess, low + 1), high)
    if asked(at):
        high = at
        while at - step > low and asked(at - step):
            high, step = at - step, step * 2
        low = max(low, at - step)
    else:
        while not asked(at):
            if at >= high:
                return None, known[at] is False
            low, at, step = at, min(at + step, high), step * 2
        high = at
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if asked(middle) else (middle, high)
    return high, known[low] is False
