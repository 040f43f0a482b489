"""What a service keeps in reserve where a request promises to outlive a loss."""

from __future__ import annotations

from dataclasses import dataclass

from planner.limits import SPARE_REPLICAS
from planner.plan import Constraint
from planner.problem import Problem
from planner.reserve import lost_replicas
from planner.service import Parallel, Service


@dataclass(frozen=True, slots=True)
class Reserve:
    """Replicas of a service that the worst single loss takes; none where nothing would be left, and without --spare."""

    main: int = 0
    """Of those that serve or decode."""
    prefill: int = 0
    gpus: int = 0
    """Of both."""
    broken: tuple[Constraint, ...] = ()
    """Groups of which nothing would be left: replicas that are needed against those that are there."""


def reserve_of(problem: Problem, service: Service) -> Reserve:
    """Return what a complete service has in reserve."""
    if not problem.request.spare:
        return Reserve()
    pools = service.pools
    groups = [pools.decode.parallel, pools.prefill.parallel] if pools else [service.parallel]
    lost = [_lost(problem, parallel) for parallel in groups]
    broken = [
        Constraint(
            name=SPARE_REPLICAS,
            limit=taken + _step(parallel),
            value=parallel.replicas,
            slack=parallel.replicas - taken - _step(parallel),
            binding=False,
        )
        for parallel, taken in zip(groups, lost, strict=True)
        if parallel.replicas <= taken
    ]
    if broken:
        return Reserve(broken=(min(broken, key=lambda row: row.slack),))
    gpus = sum(taken * _gpus(parallel) for parallel, taken in zip(groups, lost, strict=True))
    return Reserve(lost[0], lost[1] if pools else 0, gpus)


def reserve_notes(problem: Problem, service: Service, reserve: Reserve) -> list[str]:
    """Say what is in reserve, and what loss it is for."""
    if not problem.request.spare:
        return []
    several = problem.cluster.gpus > problem.cluster.gpus_per_node
    loss = "one server" if several else "one replica of each group"
    if reserve.broken:
        return [f"--spare 1: the loss of {loss} would leave nothing; priced as if nothing were in reserve"]
    pools = service.pools
    told = [(reserve.main, pools.decode.parallel if pools else service.parallel)]
    told = [(reserve.prefill, pools.prefill.parallel), *told] if pools else told
    kinds = [f"{count} of {parallel.replicas}" for count, parallel in told]
    whose = " prefill and ".join(kinds) + " decode" if pools else kinds[0]
    one = whose.startswith("1 ") and not pools
    text = (
        f"--spare 1: {whose} replicas {'is' if one else 'are'} in reserve for the loss of {loss}: "
        f"{'its' if one else 'their'} users aren't promised"
    )
    return [text if several else f"{text}; the loss of the only server isn't covered"]


def _lost(problem: Problem, parallel: Parallel) -> int:
    return lost_replicas(problem.cluster, _gpus(parallel), _step(parallel))


def _gpus(parallel: Parallel) -> int:
    return (parallel.tp or 1) * parallel.pp * parallel.pcp


def _step(parallel: Parallel) -> int:
    """Replicas that experts spread over."""
    return max(1, parallel.ep // (parallel.tp or 1))
