"""Every limit of a request and of the hardware, with its slack; the unit is in the name."""

from __future__ import annotations

from collections.abc import Sequence

from planner.limits import BY_METRIC, Limit, limits_of
from planner.plan import Constraint
from planner.price.figures import Figures
from planner.problem import Problem
from planner.service import Service

BINDING_SHARE = 0.005
"""A limit with less than this share of slack is called binding."""


def constraints_of(problem: Problem, service: Service, figures: Figures, bounded_by: str) -> tuple[Constraint, ...]:
    """Return the limits of one service, as if it were alone on the cluster."""
    request, hbm = problem.request, figures.hbm_bytes_per_gpu
    rows = [
        _at_most("gpus", problem.cluster.gpus, figures.gpus_used),
        _at_most("hbm_bytes_per_gpu", hbm.limit, hbm.used, bounded_by in ("hbm", "memory")),
    ]
    tier = service.offload.tier
    if tier is not None:
        node = problem.cluster.node
        capacity = node.host_memory if tier == "ddr" or node.nvme is None else node.nvme.capacity
        share = (figures.gpus_used - figures.reserve.gpus) / node.gpus
        rows.append(
            _at_most(f"{tier}_bytes", capacity * share, figures.ddr_bytes + figures.nvme_bytes, bounded_by == "ddr")
        )
    rows += [
        _row(limit, name, amount, getattr(figures, name) or 0.0)
        for limit, amount in limits_of(request)
        for name in limit.metrics
    ]
    return tuple(rows)


def of_all(
    problem: Problem, rows: Sequence[Sequence[Constraint]], figures: Sequence[Figures]
) -> tuple[Constraint, ...]:
    """Return the limits of several services: what adds up over the cluster of the sum, else the tightest service's."""
    if len(rows) == 1:
        return tuple(rows[0])
    found: dict[str, Constraint] = {}
    for row in (row for service in rows for row in service):
        if row.name not in found or _left(row) < _left(found[row.name]):
            found[row.name] = row
    found["gpus"] = _at_most("gpus", problem.cluster.gpus, sum(one.gpus_used for one in figures))
    for limit, amount in limits_of(problem.request):
        for name in limit.metrics if limit.holds_in == "cluster" else ():
            found[name] = _row(limit, name, amount, sum(getattr(one, name) or 0.0 for one in figures))
    return tuple(found.values())


def by_itself(row: Constraint) -> bool:
    """Whether each service keeps a limit by itself; the others are kept by all together."""
    limit = BY_METRIC.get(row.name)
    return row.name != "gpus" and (limit is None or limit.holds_in == "service")


def _left(row: Constraint) -> float:
    return row.slack / row.limit if row.limit else row.slack


def _row(limit: Limit, name: str, amount: float, value: float) -> Constraint:
    if not limit.at_least:
        return _at_most(name, amount, value)
    slack = limit.slack(amount, value)
    return Constraint(name=name, limit=amount, value=value, slack=slack, binding=slack <= BINDING_SHARE * amount)


def _at_most(name: str, limit: float, value: float, binding: bool | None = None) -> Constraint:
    slack = limit - value
    tight = slack <= BINDING_SHARE * limit if binding is None else binding
    return Constraint(name=name, limit=limit, value=value, slack=slack, binding=tight and value > 0)
