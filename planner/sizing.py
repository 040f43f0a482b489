"""How many GPUs a demand takes, and which: a constructive answer first, its proof after.

``--gpus H100 --users 200`` leaves the number open, ``--gpus any`` the GPU as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from catalog.load import Catalog
from catalog.schema import Hardware
from planner.ask import Asker, Question, fewest
from planner.candidates.goal import Goal
from planner.clusters import ANY, Sizes, sizes_of
from planner.errors import InputError
from planner.price import evaluate
from planner.problem import Problem, resolve
from planner.request import Request
from planner.search.services import services_of
from planner.search.solver import Settings, Solution

MOST_GPUS = 1024
"""No larger cluster is tried."""
SOME_MORE_ROOM = 1.1
"""A guess at the GPUs that users take leaves so much room, as whole replicas are what there is."""
MOST_SIZED = 3
"""GPUs of which the number is proved; of the others a number that does is known."""


@dataclass(frozen=True)
class Sized:
    """A cluster for a demand."""

    gpus: str
    """As ``--gpus`` takes it."""
    count: int
    """GPUs."""
    usd_per_hour: float | None
    """None where nobody offers the GPU."""
    fewest: bool
    """Whether one GPU or server fewer is proved not to do."""


def sized(
    request: Request, catalog: Catalog, settings: Settings, talk: Callable[[str], None] = lambda text: None
) -> tuple[Request, str]:
    """The request with the number of GPUs that its users take, and a sentence on how sure that is.

    Where no number of GPUs does, the request for one server of them: its explanation says what is in the way.

    Raises
    ------
    InputError
        If the request makes no sense.
    """
    if request.gpus.strip().lower() != ANY:
        problem = resolve(request, catalog)
        found = _Sizing(problem, settings, talk).proved()
        if found is None:
            return request.model_copy(update={"gpus": _one_server(problem)}), ""
        return request.model_copy(update={"gpus": found.gpus}), f"{_told(found)} for {request.users} users"
    return _of_any(request, catalog, settings, talk)


def _told(found: Sized) -> str:
    price = "" if found.usd_per_hour is None else f", {found.usd_per_hour:.2f} USD/h"
    return f"{found.gpus}{price}, " + ("the fewest" if found.fewest else "fewer aren't ruled out,")


def _of_any(request: Request, catalog: Catalog, settings: Settings, talk: Callable[[str], None]) -> tuple[Request, str]:
    """The cheapest cluster of any one GPU that has a price."""
    rough: list[tuple[float, str, _Sizing]] = []
    for hardware in catalog.all(Hardware):
        asked = request.model_copy(update={"gpus": hardware.id})
        try:
            problem = resolve(asked, catalog)
            sizing = _Sizing(problem, settings, talk)
            guess = sizing.constructed() if problem.usd_per_gpu_hour is not None else None
        except InputError:
            continue
        if guess is not None and guess.usd_per_hour is not None:
            rough.append((guess.usd_per_hour, hardware.id, sizing))
    if not rough:
        raise InputError(
            "--gpus any: no GPU that has a price in the catalog serves so many users within the limits; "
            "name one, and the answer says what is in the way"
        )
    rough.sort(key=lambda row: row[:2])
    proved = [found for _, _, sizing in rough[:MOST_SIZED] if (found := sizing.proved()) is not None]
    best = min(proved, key=lambda one: (one.usd_per_hour or math.inf, one.gpus))
    others = [_told(one) for one in proved if one is not best]
    others += [f"{name} about {usd:.2f} USD/h" for usd, name, _ in rough[MOST_SIZED:]]
    told = f"{_told(best)} for {request.users} users, and the cheapest of {len(rough)} GPUs"
    return request.model_copy(update={"gpus": best.gpus}), f"{told}: {'; '.join(others)}" if others else told


def _one_server(problem: Problem) -> str:
    sizes = sizes_of(problem)
    return problem.request.gpus if sizes is None else sizes.text(_per_server(problem, sizes))


def _per_server(problem: Problem, sizes: Sizes) -> int:
    return problem.cluster.node.gpus if sizes.gpus_each == 1 else 1


class _Sizing:
    """One GPU in any number."""

    def __init__(self, problem: Problem, settings: Settings, talk: Callable[[str], None]) -> None:
        sizes = sizes_of(problem)
        if sizes is None:
            raise InputError(f"--gpus {problem.request.gpus}: say how many")
        self.problem, self.sizes = problem, sizes
        self.asker = Asker(problem, settings, talk)
        self.users = problem.request.users or 1
        self.most = max(MOST_GPUS // sizes.gpus_each, 1)

    def constructed(self) -> Sized | None:
        """A number that does, as one server serves: its users times servers. None where no number does."""
        found = self._served()
        if found is None:
            return None
        count, served = found
        gpus = _gpus_of(served)
        each = evaluate(served.search.problem, services_of(served)).metrics.users
        copies = math.ceil(self.users / max(each, 1e-9) * (1.0 - 1e-9))
        if copies > 1 and self.problem.request.spare:
            copies += 1  # A server may be away.
        per_copy = gpus if copies == 1 else count * self.sizes.gpus_each
        number = -(-per_copy * copies // self.sizes.gpus_each)
        return self._sized(number, fewest=False) if number <= self.most else None

    def proved(self) -> Sized | None:
        """The smallest number that does, as far as that is decided. None where no number does."""
        rough = self.constructed()
        if rough is None:
            return None
        high = min(rough.count // self.sizes.gpus_each, self.most)
        large = self._ask(high, Goal.of(self.problem.request, "gpus"))
        guess = high if large is None or not large.kinds else -(-_gpus_of(large) // self.sizes.gpus_each)
        number, sure = fewest(self.problem, self.sizes, self._does, (0, max(high, guess)), guess)
        if number is None:
            return rough
        return self._sized(number, fewest=sure)

    def _served(self) -> tuple[int, Solution] | None:
        """The fewest servers that serve anybody, and their plan with the most users."""
        count = _per_server(self.problem, self.sizes)
        while count <= self.most:
            question = Question({"gpus": self.sizes.text(count), "users": None, "objective": "throughput"})
            found = self.asker.ask(question, Goal.of(self.problem.request, "users"), about=f"what {count} serve")
            if found is None or found.kinds:
                return None if found is None else (count, found)
            count *= 2
        return None

    def _ask(self, count: int, goal: Goal) -> Solution | None:
        question = Question({"gpus": self.sizes.text(count), "objective": "throughput"})
        return self.asker.ask(question, goal, about=f"how few of {count} do")

    def _does(self, count: int) -> bool | None:
        question = Question({"gpus": self.sizes.text(count), "objective": "throughput"})
        if self.asker.is_answered(question):
            return True
        found = self.asker.ask(question, Goal.of(self.problem.request, "throughput"), first=True)
        return None if found is None or found.status == "unknown" else found.status != "infeasible"

    def _sized(self, number: int, *, fewest: bool) -> Sized:
        count = number * self.sizes.gpus_each
        price = self.problem.usd_per_gpu_hour
        return Sized(self.sizes.text(number), count, None if price is None else price * count, fewest)


def _gpus_of(solution: Solution) -> int:
    return evaluate(solution.search.problem, services_of(solution)).metrics.gpus_used
