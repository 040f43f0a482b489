"""Price a whole decision: its services side by side on the servers of one cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.decision import WEIGHING_ROUTER, Decision, Group, Router
from planner.errors import InputError
from planner.plan import Constraint, Intervals, Metrics
from planner.price.constraints import of_all
from planner.price.metrics import intervals_of, metrics_of
from planner.price.price_service import PricedService, price_service
from planner.problem import Problem
from planner.service import Service


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A priced decision."""

    decision: Decision
    """As completed: nothing left out."""
    services: tuple[PricedService, ...]
    metrics: Metrics
    intervals: Intervals | None
    """80 % intervals of metrics; None at theoretical peak."""
    constraints: tuple[Constraint, ...]
    """Of the whole: the worst service's, and of GPUs and users the sum."""
    assumptions: tuple[str, ...]

    @property
    def violated(self) -> tuple[Constraint, ...]:
        """Limits that the decision breaks."""
        return tuple(c for c in self.constraints if c.slack < 0)

    @property
    def service(self) -> Service:
        """The only service of the decision.

        Raises
        ------
        InputError
            If there are several.
        """
        return self.decision.service if len(self.services) > 1 else self.services[0].service

    @property
    def largest(self) -> PricedService:
        """The service that serves most."""
        return max(self.services, key=lambda one: one.figures.interactions_per_hour)

    @property
    def bounded_by(self) -> str:
        """The bound that throughput meets first, of the service that serves most."""
        return self.largest.bounded_by


def evaluate(
    problem: Problem, decision: Decision | Service | Sequence[Service], *, as_written: bool = False
) -> Evaluation:
    """Price a decision, or its services; what it leaves out is completed and said.

    Where its replicas stand, and which share of new sessions each kind gets, is computed. Decoding sequences and
    resident sessions are caps: what fits under them is priced, and said where it is less.

    Parameters
    ----------
    problem, decision
        What is asked, and what is priced.
    as_written
        Price so many sequences and sessions as the decision says, and nothing where they don't fit.

    Raises
    ------
    InputError
        With every reason why it makes no sense for this model and these GPUs. One that makes sense but
        breaks a limit, or doesn't fit, is priced.
    """

    def priced(services: Sequence[Service]) -> list[PricedService]:
        return [price_service(problem, one, as_written=as_written) for one in services]

    if isinstance(decision, Decision):
        _check_gpus(problem, decision.groups)
        names = [group.id for groups in decision.groups_of_services for group in groups]
        return joined(problem, priced(decision.services), names, decision.router)
    return joined(problem, priced([decision] if isinstance(decision, Service) else decision))


def joined(
    problem: Problem,
    priced: Sequence[PricedService],
    names: Sequence[str] | None = None,
    router: Router | None = None,
) -> Evaluation:
    """Return priced services as one decision.

    Raises
    ------
    InputError
        If they need more GPUs than the cluster has.
    """
    cluster = problem.cluster
    used = sum(one.figures.gpus_used for one in priced)
    if used > cluster.gpus:
        raise InputError(f"decision: groups: tp x pp x pcp x replicas is {used} GPUs of {cluster.gpus}; use fewer")
    decision = Decision.of(
        [one.service for one in priced], cluster.hardware.id, cluster.gpus, cluster.gpus_per_node, names
    )
    decision = decision.model_copy(update={"router": _router(decision, priced, router)})
    metrics = metrics_of(decision, [one.figures for one in priced])
    ends = [one.ends for one in priced]
    at_ends = [metrics_of(decision, figures) for figures in zip(*ends, strict=True)] if all(ends) else []
    return Evaluation(
        decision=decision,
        services=tuple(priced),
        metrics=metrics,
        intervals=intervals_of(metrics, at_ends),
        constraints=of_all(problem, [one.constraints for one in priced], [one.figures for one in priced]),
        assumptions=_assumptions(decision, priced),
    )


def _router(decision: Decision, priced: Sequence[PricedService], given: Router | None) -> Router:
    """Return the router: before several kinds of replicas one that gives each new sessions by the users it promises."""
    found = decision.router
    users = [one.figures.users for one in priced]
    if len(users) > 1 and sum(users) > 0:
        first = [groups[0].id for groups in decision.groups_of_services]
        weights = {name: own / sum(users) for name, own in zip(first, users, strict=True)}
        serves = all(group.role == "serve" for group in decision.groups)
        found = found.model_copy(update={"id": WEIGHING_ROUTER if serves else None, "weights": weights})
    if given is None:
        return found
    return Router(id=given.id or found.id, policy=given.policy or found.policy, weights=found.weights)


def _assumptions(decision: Decision, priced: Sequence[PricedService]) -> tuple[str, ...]:
    """Return what was assumed, once; with the group's name where it isn't assumed of all."""
    if len(priced) == 1:
        return priced[0].assumptions
    told: dict[str, None] = {}
    for groups, one in zip(decision.groups_of_services, priced, strict=True):
        for text in one.assumptions:
            of_all = all(text in other.assumptions for other in priced)
            told[text if of_all else f"group {groups[-1].id}: {text}"] = None
    return tuple(told)


def _check_gpus(problem: Problem, groups: Sequence[Group]) -> None:
    here = problem.cluster.hardware.id
    problems = [
        f"decision: group {group.id}: gpu {group.gpu} isn't the cluster's {here}; leave gpu out, or ask with --gpus"
        for group in groups
        if group.gpu not in (None, here)
    ]
    if problems:
        raise InputError(problems)
