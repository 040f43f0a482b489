"""Which limits clash, and the cheapest change of each one that makes a plan possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from planner.candidates.goal import Goal
from planner.explain.asking import Asker, smallest
from planner.explain.clusters import Sizes, sizes_of
from planner.explain.limits import Stated, deployable, stated, without
from planner.limits import Limit, asked
from planner.plan import UNDECIDED, Infeasible, Metrics, Relaxation
from planner.price import evaluate
from planner.problem import Problem
from planner.request import Request
from planner.search.services import services_of
from planner.search.solver import Kind, Settings, Solution
from planner.space import Space

MOST_CONFLICTS = 3
MOST_GPUS = 1024
"""The largest cluster that is tried; what it can't do counts as no matter of GPUs."""
SOME_MORE = 16
"""So many times the request's GPUs are tried before `MOST_GPUS`."""
FEW_MORE = 4
"""So many times the request's GPUs tell how many its users take."""


def explain_infeasible(problem: Problem, space: Space, settings: Settings) -> Infeasible:
    """Say which limits clash, and what the smallest sufficient change of each one alone is.

    Parameters
    ----------
    problem
        A request without a plan.
    space
        Of that request: what is tried beyond it is named where it would help.
    settings
        How the solver runs; the time limit holds for the explanation as a whole.

    Returns
    -------
    Infeasible
        Every conflict is impossible when all other limits are lifted, and possible without any one of
        its members. Every relaxation is possible with all other limits kept, and one printed unit less
        isn't; a note says so where time didn't allow to prove either.
    """
    return _Explanation(problem, space, settings).infeasible()


class _Explanation:
    """One request, its limits, and what is known about lifting them."""

    def __init__(self, problem: Problem, space: Space, settings: Settings) -> None:
        self.problem, self.space = problem, space
        self.asker = Asker(problem, settings)
        self.sizes = sizes_of(problem)
        self.gpus = Stated("gpus", "--gpus", problem.request.gpus, self._unlimited_gpus(self.sizes))
        self.limits = [*stated(self.asker.request), self.gpus]
        self.first = self._core(self.limits)
        self.others = {limit.field: self._core_without(limit) for limit in self.first}

    @staticmethod
    def _unlimited_gpus(sizes: Sizes | None) -> dict[str, Any]:
        """So many that only what no replica can do stays impossible; further replicas serve any number of users.

        Nothing for a cluster file: it stays part of every clash.
        """
        if sizes is None:
            return {}
        return {"gpus": sizes.text(max(MOST_GPUS // sizes.gpus_each, sizes.count)), "users": None}

    def infeasible(self) -> Infeasible:
        """The whole answer."""
        cores = [self.first]
        cores += [core for field, core in self.others.items() if core and field != "gpus"]
        proved = [core for core in cores if core and self._is_minimal(core)]
        if not proved and self.first and self._possible(self.first) is False:
            proved = [self.first]  # They do clash; whether all of them are needed wasn't decided in the time.
        found = list(dict.fromkeys(tuple(limit.text for limit in core) for core in proved))
        limits = [*self.limits[:-1], *filter(None, [deployable(self.asker.request)]), self.gpus]
        return Infeasible(
            conflicts=tuple(found[:MOST_CONFLICTS]), relaxations=tuple(self._relaxation(limit) for limit in limits)
        )

    # ------------------------------------------------------------- conflicts

    def _possible(self, kept: Sequence[Stated]) -> bool | None:
        """Whether a plan keeps these limits, with all others lifted."""
        lifted = [limit for limit in self.limits if limit not in kept]
        request = without(self.asker.request, lifted)
        if self.gpus in lifted and self.sizes is not None:
            # What some more GPUs can do needn't be asked of a great many.
            some = self.sizes.text(self.sizes.count * SOME_MORE)
            if self.asker.feasible(request.model_copy(update={"gpus": some})):
                return True
        return self.asker.feasible(request)

    def _core(self, kept: Sequence[Stated]) -> list[Stated]:
        """Limits of a clash that all are needed for it: what can be lifted without making a plan possible, is."""
        core = list(kept)
        for limit in kept:
            fewer = [other for other in core if other is not limit]
            if limit.lifted and self._possible(fewer) is False:
                core = fewer
        return core

    def _core_without(self, limit: Stated) -> list[Stated] | None:
        """Another clash, that this limit has no part in; None where lifting it makes a plan possible."""
        rest = [other for other in self.limits if other is not limit]
        return self._core(rest) if limit.lifted and self._possible(rest) is False else None

    def _is_minimal(self, core: Sequence[Stated]) -> bool:
        """Whether a clash is proved, and a plan known without each of its members."""
        fewer = [[other for other in core if other is not limit] for limit in core if limit.lifted]
        return self._possible(core) is False and all(self._possible(rest) for rest in fewer)

    # ------------------------------------------------------------- relaxations

    def _relaxation(self, limit: Stated) -> Relaxation:
        if limit.field == "techniques" and limit not in self.limits:
            return self._other_choice(limit)
        clash = self.others.get(limit.field, self.first)
        if clash is not None:
            return limit.row(None, self._not_alone(limit, clash))
        if not self._possible([other for other in self.limits if other is not limit]):
            return limit.row(None, UNDECIDED)
        if limit is self.gpus:
            return self._more_gpus(limit)
        if limit.limit is None:
            return self._other_choice(limit)
        return self._at_least(limit, limit.limit) if limit.limit.at_least else self._at_most(limit, limit.limit)

    def _not_alone(self, limit: Stated, clash: Sequence[Stated]) -> str:
        texts = " and ".join(other.text for other in clash)
        if not clash:
            return f"no plan without any limit either, nor on {self.gpus.lifted['gpus']}"
        impossible = f"{texts} clash" if len(clash) > 1 else f"{texts} can't hold"
        if limit is self.gpus:
            return f"{impossible} even on {self.gpus.lifted['gpus']}"
        return f"{impossible} without it, too"

    def _with(self, limit: Limit, amount: float) -> Request:
        return self.asker.request.model_copy(update={limit.field: asked(limit, amount)})

    def _at_most(self, stated: Stated, limit: Limit) -> Relaxation:
        """The smallest amount that makes a plan possible, sought from the least that a plan reaches."""
        unit, now = limit.unit, limit.amount(self.asker.request) or 0.0
        step = limit.step(self.problem.cluster.hardware)
        low = math.floor(now / step * (1.0 + 1e-12))
        metrics = self._metrics(stated, limit.goal or "throughput")
        reached = now if metrics is None else metrics.named(limit.metrics[-1]) or now
        found, sure = smallest(
            lambda count: self.asker.feasible(self._with(limit, _amount(count, step))),
            *(low, unit.most_steps, math.ceil(reached / step * (1.0 - 1e-9))),
        )
        if found is None:
            return stated.row(None, UNDECIDED)
        return stated.row(unit.step_text(found * step / unit.step), None if sure else "less may do: " + UNDECIDED)

    def _at_least(self, stated: Stated, limit: Limit) -> Relaxation:
        """The largest amount that a plan serves within the other limits."""
        wanted = math.floor(limit.amount(self.asker.request) or 1)
        metrics = self._metrics(stated, limit.goal or "throughput")
        served = 0 if metrics is None else math.floor(metrics.named(limit.metrics[-1]) or 0.0)
        # Counted down from what was wanted, so that the smallest step down is the most that is served.
        found, sure = smallest(
            lambda step: self.asker.feasible(self._with(limit, wanted - step)), 0, wanted - 1, wanted - served
        )
        if found is None:
            return stated.row(
                None, "not even one user at a time is served within the other limits" if sure else UNDECIDED
            )
        return stated.row(limit.unit.text(wanted - found), None if sure else "more may do: " + UNDECIDED)

    def _metrics(self, stated: Stated, goal: str) -> Metrics | None:
        """What the best plan for a goal gives without a limit, or any plan where the best isn't found in the time."""
        asked_for = Goal.of(self.asker.request, goal)  # type: ignore[arg-type]
        return self._best_metrics(without(self.asker.request, [stated]), asked_for)

    def _best_metrics(self, request: Request, goal: Goal) -> Metrics | None:
        best = self.asker.plan(request, goal)
        if best is None or not best.kinds:
            best = self.asker.plan(request)
        if best is None or not best.kinds:
            return None
        return evaluate(best.search.problem, services_of(best)).metrics

    def _more_gpus(self, limit: Stated) -> Relaxation:
        sizes = self.sizes
        if sizes is None:
            return limit.row(None, "edit the cluster file: more nodes, or a larger GPU")
        most = max(MOST_GPUS // sizes.gpus_each, sizes.count)
        guess = min(max(self._guess(sizes), sizes.count + 1), most)
        found, sure = smallest(
            lambda count: self.asker.feasible(self.asker.request.model_copy(update={"gpus": sizes.text(count)})),
            *(sizes.count, most, guess),
        )
        if found is None:
            return limit.row(None, f"{most} {sizes.unit} aren't enough" if sure else UNDECIDED)
        return limit.row(sizes.text(found), None if sure else "fewer may do: " + UNDECIDED)

    def _guess(self, sizes: Sizes) -> int:
        """How many GPUs or servers the users take if they are served as by the best plan of a few more."""
        request, few = self.asker.request, sizes.count * FEW_MORE
        if request.users is None:
            return sizes.count + 1
        asked = request.model_copy(update={"gpus": sizes.text(few), "users": None})
        metrics = self._best_metrics(asked, Goal.of(request, "throughput"))
        return sizes.count + 1 if metrics is None else math.ceil(few * request.users / max(metrics.users, 1e-9))

    def _other_choice(self, limit: Stated) -> Relaxation:
        """Techniques, engines or weights that the request leaves out, with what of them it would take."""
        (wanted,) = limit.lifted.values()
        found = self.asker.plan(without(self.asker.request, [limit]))
        if found is None or found.status == "unknown":
            return limit.row(None, UNDECIDED)
        if not found.kinds:
            return limit.row(None, f"{limit.option} {wanted or 'none'} isn't enough")
        return limit.row(wanted or "none", self._taken(limit, found, found.kinds[0]))

    def _taken(self, limit: Stated, found: Solution, kind: Kind) -> str:
        points = kind.points
        if limit.field == "techniques":
            names = {option.id for options in self.space.options.values() for option in options}
            new = sorted(option.id for option in kind.options if option.id not in names)
            return f"for example with {', '.join(new)}"
        if limit.field == "pin":
            split = found.search.units[int(points.unit[0])].split
            return f"for example with {'prefill and decode apart, ' * bool(points.pool_unit[0] >= 0)}{split.text}"
        if limit.field == "weights":
            return f"for example {found.search.space.weights[found.search.units[int(points.unit[0])].weights].id}"
        return f"for example {kind.engine}"


def _amount(count: int, step: float) -> float:
    """So many steps; decimal ones as one types them, without the rounding of their product."""
    return count * step if step >= 1.0 else count / round(1.0 / step)
