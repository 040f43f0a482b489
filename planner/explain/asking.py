"""Ask the solver whether changed requests have a plan."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from planner.candidates.goal import Goal
from planner.errors import InputError
from planner.problem import Problem, resolve
from planner.request import Request
from planner.search.solver import Settings, Solution, solve
from planner.space import open_space

ASK_SECONDS = 6.0
"""Time for one question; without an answer the request counts as undecided [s]."""
MOST_SECONDS = 30.0
"""Time for all questions about one request [s]."""


class Asker:
    """Asks within a time, and remembers the answers.

    Whether there is a plan doesn't depend on the objective, so that all questions are asked with the
    same one.
    """

    def __init__(self, problem: Problem, settings: Settings) -> None:
        self.request = problem.request.model_copy(update={"model": problem.model_name, "objective": "throughput"})
        self.catalog = problem.catalog
        self.settings = settings
        self.ends_s = time.monotonic() + min(settings.time_limit_s, MOST_SECONDS)
        self._known: dict[str, bool | None] = {}

    def feasible(self, request: Request) -> bool | None:
        """Whether any plan keeps a request's limits; None where time ran out before that was proved."""
        key = request.model_dump_json()
        if key not in self._known:
            found = self.plan(request)
            self._known[key] = None if found is None or found.status == "unknown" else found.status != "infeasible"
        return self._known[key]

    def plan(self, request: Request, goal: Goal | None = None) -> Solution | None:
        """Any plan, or the best for a goal; None where time ran out, or the request names what doesn't go together."""
        left = self.ends_s - time.monotonic()
        if left <= 0:
            return None
        settings = replace(self.settings, first=goal is None, time_limit_s=min(ASK_SECONDS, left))
        try:
            problem = resolve(request, self.catalog)
            space = open_space(problem)
        except InputError:
            return None
        return solve(problem, space, goal or Goal.of(request, "throughput"), settings)


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
