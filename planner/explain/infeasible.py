"""Which limits clash, and the cheapest change of each one that makes a plan possible."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from planner.ask import Asker, Question, fewest
from planner.candidates.goal import Goal
from planner.clusters import Sizes, sizes_of
from planner.explain.limits import Stated, changes_without, deployable, stated
from planner.limits import SLACK, Limit
from planner.plan import UNDECIDED, Infeasible, Relaxation
from planner.price import evaluate
from planner.problem import Problem
from planner.search.services import services_of
from planner.search.solver import Kind, Settings, Solution
from planner.space import Space

MOST_CONFLICTS = 3
MOST_GPUS = 1024
"""The largest cluster that is tried; what it can't do counts as no matter of GPUs."""
SOME_MORE = 16
"""So many times the request's GPUs are tried before `MOST_GPUS`."""
SOME_MORE_ROOM = 1.1
"""A guess at the GPUs that users take leaves so much room, as whole replicas are what there is."""
FEW_MORE = 4
"""So many times the request's GPUs are tried, again and again, for how many of them it takes."""


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
    """One request, its limits, and what is known about lifting them.

    Where fewer limits hold nothing becomes impossible: what is known of some limits answers for others.
    """

    def __init__(self, problem: Problem, space: Space, settings: Settings) -> None:
        self.problem, self.space = problem, space
        self.request = problem.request.model_copy(update={"model": problem.model_name})
        self.asker = Asker(problem, settings)
        self.sizes = sizes_of(problem)
        self.gpus = Stated("gpus", "--gpus", problem.request.gpus, self._unlimited_gpus(self.sizes))
        self.limits = [*stated(self.request), self.gpus]
        self.possible_with: list[frozenset[str]] = []
        """Fields of limits that some plan keeps, with all others lifted."""
        self.impossible_with = [frozenset(limit.field for limit in self.limits)]
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
        limits = [*self.limits[:-1], *filter(None, [deployable(self.request)]), self.gpus]
        return Infeasible(
            conflicts=tuple(found[:MOST_CONFLICTS]), relaxations=tuple(self._relaxation(limit) for limit in limits)
        )

    # ------------------------------------------------------------- conflicts

    def _possible(self, kept: Sequence[Stated]) -> bool | None:
        """Whether a plan keeps these limits, with all others lifted; None where time ran out."""
        fields = frozenset(limit.field for limit in kept)
        if "gpus" not in fields and self.sizes is not None:
            fields -= {"users"}  # Any number of users is served by as many replicas.
        if any(fields <= known for known in self.possible_with):
            return True
        if any(fields >= known for known in self.impossible_with):
            return False
        found = self._asked(fields)
        if found is not None:
            (self.possible_with if found else self.impossible_with).append(fields)
        return found

    def _asked(self, fields: frozenset[str]) -> bool | None:
        lifted = [limit for limit in self.limits if limit.field not in fields]
        changes = changes_without(lifted)
        if self.gpus in lifted and self.sizes is not None:
            # What some more GPUs can do needn't be asked of a great many.
            some = self.sizes.text(self.sizes.count * SOME_MORE)
            if self._feasible({**changes, "gpus": some}):
                return True
        elif len(lifted) == 1 and lifted[0].limit is not None:
            # The amount that would do is asked for anyway.
            best = self._best(lifted[0])
            return None if best is None or best.status == "unknown" else best.status != "infeasible"
        return self._feasible(changes)

    def _feasible(self, changes: Mapping[str, Any]) -> bool | None:
        """Whether any plan answers a changed request; whatever it is the best of."""
        question = Question({"objective": "throughput", **changes})
        if self.asker.is_answered(question):
            return True
        found = self.asker.ask(question, self._any(), first=True)
        return None if found is None or found.status == "unknown" else found.status != "infeasible"

    def _any(self) -> Goal:
        return Goal.of(self.request, "throughput")

    def _best(self, stated: Stated) -> Solution | None:
        """The plan that is furthest on the right side of a limit, without it."""
        assert stated.limit is not None  # noqa: S101
        goal = Goal.of(self.request, stated.limit.goal)  # type: ignore[arg-type]
        return self.asker.ask(Question({"objective": "throughput", **stated.lifted}), goal)

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
        return self._other_choice(limit) if limit.limit is None else self._amount(limit, limit.limit)

    def _not_alone(self, limit: Stated, clash: Sequence[Stated]) -> str:
        texts = " and ".join(other.text for other in clash)
        if not clash:
            return f"no plan without any limit either, nor on {self.gpus.lifted['gpus']}"
        impossible = f"{texts} clash" if len(clash) > 1 else f"{texts} can't hold"
        if limit is self.gpus:
            return f"{impossible} even on {self.gpus.lifted['gpus']}"
        return f"{impossible} without it, too"

    def _amount(self, stated: Stated, limit: Limit) -> Relaxation:
        """The tightest amount that makes a plan possible: what the best plan for it reaches, in printed steps."""
        best = self._best(stated)
        if best is None or not best.kinds:
            return stated.row(None, UNDECIDED)
        reached = evaluate(best.search.problem, services_of(best)).metrics.named(limit.metrics[-1]) or 0.0
        proved = best.status == "optimal"
        if limit.at_least:
            most = math.floor(reached * (1.0 + SLACK))
            if most < 1:
                return stated.row(None, "not even one user at a time is served within the other limits")
            return stated.row(limit.unit.text(most), None if proved else "more may do: " + UNDECIDED)
        step = limit.step(self.problem.cluster.hardware)
        steps = math.ceil(reached / step * (1.0 - SLACK)) * (step / limit.unit.step)
        return stated.row(limit.unit.step_text(steps), None if proved else "less may do: " + UNDECIDED)

    def _more_gpus(self, limit: Stated) -> Relaxation:
        sizes = self.sizes
        if sizes is None:
            return limit.row(None, "edit the cluster file: more nodes, or a larger GPU")
        most = max(MOST_GPUS // sizes.gpus_each, sizes.count)
        found, sure = fewest(
            *(self.problem, sizes, lambda count: self._feasible({"gpus": sizes.text(count)})),
            *((sizes.count, most), self._guess(sizes, most)),
        )
        if found is None:
            return limit.row(None, f"{most} {sizes.unit} aren't enough" if sure else UNDECIDED)
        return limit.row(sizes.text(found), None if sure else "fewer may do: " + UNDECIDED)

    def _guess(self, sizes: Sizes, most: int) -> int:
        """How many GPUs or servers it takes on a cluster that is large enough, where that is known soon."""
        count = self._as_served_here(sizes) or sizes.count * FEW_MORE
        while True:
            asked = Question({"gpus": sizes.text(min(count, most)), "objective": "throughput"})
            best = self.asker.ask(asked, Goal.of(self.request, "gpus"))
            if best is None:
                return sizes.count + 1
            if best.kinds:
                gpus = evaluate(best.search.problem, services_of(best)).metrics.gpus_used
                return min(max(-(-gpus // sizes.gpus_each), sizes.count + 1), most)
            if count >= most:
                return most
            count *= FEW_MORE

    def _as_served_here(self, sizes: Sizes) -> int | None:
        """How many GPUs or servers the users take, and some more, if each is served as on those that are there."""
        users = next((limit for limit in self.limits if limit.field == "users"), None)
        best = self._best(users) if users is not None and self.others.get("users") is None else None
        if best is None or not best.kinds:
            return None
        served = evaluate(best.search.problem, services_of(best)).metrics.users
        return math.ceil(SOME_MORE_ROOM * sizes.count * (self.request.users or 1) / max(served, 1e-9))

    def _other_choice(self, limit: Stated) -> Relaxation:
        """Techniques, engines or weights that the request leaves out, with what of them it would take."""
        (free,) = limit.lifted.values()
        wanted = "none" if free is None else str(free)
        found = self.asker.ask(Question({"objective": "throughput", **limit.lifted}), self._any(), first=True)
        if found is None or found.status == "unknown":
            return limit.row(None, UNDECIDED)
        if not found.kinds:
            return limit.row(None, f"{limit.option} {wanted} isn't enough")
        return limit.row(wanted, self._taken(limit, found, found.kinds[0]))

    def _taken(self, limit: Stated, found: Solution, kind: Kind) -> str:
        points = kind.points
        if limit.field == "techniques":
            names = {option.id for options in self.space.options.values() for option in options}
            new = sorted(option.id for option in kind.options if option.id not in names)
            return f"for example with {', '.join(new)}"
        if limit.field == "pin":
            split = found.search.units[int(points.unit[0])].split
            return f"for example with {'prefill and decode apart, ' * bool(points.pool_unit[0] >= 0)}{split.text}"
        if limit.field == "spare":
            return f"for example with {found.search.units[int(points.unit[0])].split.text}"
        if limit.field == "weights":
            return f"for example {found.search.space.weights[found.search.units[int(points.unit[0])].weights].id}"
        return f"for example {kind.engine}"
