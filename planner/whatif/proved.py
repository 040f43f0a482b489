"""Plans of a frontier as documents: each the proved answer to a request that one could type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from planner.clusters import sizes_of
from planner.errors import InputError
from planner.limits import BY_METRIC
from planner.pipeline import objective_of, provenance_of, request_document, warnings_of
from planner.plan import Document, Metrics
from planner.price import evaluate
from planner.problem import Problem
from planner.request import Request, resolve_cluster
from planner.search.frontier import Axis, Found, Frontier, frontier, solution_of
from planner.search.services import services_of
from planner.search.solver import Solution
from planner.short_end import at_short_end
from planner.space import open_space
from planner.verify import verify

SOLVER = "frontier"
"""How such plans are proved: every operating point is bounded, and priced where its bound leaves it possible."""

ONE_KIND = "a frontier compares clusters of one kind of replicas; with several kinds more may be possible"
"""What its proof doesn't cover."""

METRICS: dict[Axis, str] = {
    "throughput": "interactions_per_hour",
    "tpot": "itl_full_s",
    "ttft": "ttft_full_s",
    "quality": "quality_loss_at_confidence",
    "cost": "usd_per_interaction",
    "gpus": "gpus_used",
}
"""Objective -> the metric of a plan that it is."""

LIMITS: dict[Axis, str] = {axis: BY_METRIC[name].field for axis, name in METRICS.items() if name in BY_METRIC}
"""Objective -> the field of a request that limits it."""

_SLACK = 1e-9


def lead(axes: Sequence[Axis], request: Request) -> Axis:
    """The objective of the requests that a frontier's plans answer; the others become limits.

    With users, cost is that of the cluster and not of an interaction, which a frontier is of.
    """
    return "cost" if "cost" in axes and "throughput" not in axes and request.users is None else "throughput"


def limited(problem: Problem, axes: Sequence[Axis], metrics: Metrics) -> Problem:
    """The question to which a plan of a frontier is the answer: the best of `lead`, no worse in what can be limited."""
    # A frontier's plans are the best to the last digit, and none is simpler but a little worse.
    changes: dict[str, object] = {"objective": lead(axes, problem.request), "tolerance": 0.0}
    changes.update({field: metrics.named(METRICS[axis]) for axis, field in LIMITS.items() if axis in axes})
    return replace(problem, request=problem.request.model_copy(update=changes))


def sizes(problem: Problem, axes: Sequence[Axis]) -> list[Problem]:
    """The question for every number of GPUs, fewest first, where that matters; else as it is.

    Fewer GPUs are another cluster: they share uplinks and host memory with nobody. Numbers that can't
    be asked for (part of a node of the catalog) are left out.
    """
    if "gpus" not in axes and not {"throughput", "cost"} <= set(axes):
        return [problem]
    found = []
    for gpus in range(1, problem.cluster.gpus):
        text = gpus_text(problem, gpus)
        if text is not None:
            cluster = resolve_cluster(text, problem.catalog)
            request = problem.request.model_copy(update={"gpus": text})
            found.append(replace(problem, request=request, cluster=cluster))
    return [*found, problem]


def gpus_text(problem: Problem, gpus: int) -> str | None:
    """So many of a request's GPUs, as one would ask for them; None where that can't be written."""
    cluster = problem.cluster
    each, name = cluster.gpus_per_node, cluster.hardware.id
    tried = [f"{gpus}x{name}"]
    own = sizes_of(problem)
    if own is not None and gpus % own.gpus_each == 0:
        tried.insert(0, own.text(gpus // own.gpus_each))
    if gpus % each == 0:
        tried += [f"{gpus // each}x{each}x{name}", f"{gpus // each}x{cluster.node.id}"]
    for text in tried:
        try:
            found = resolve_cluster(text, problem.catalog)
        except InputError:
            continue
        same = (found.hardware, found.node) == (cluster.hardware, cluster.node)
        if same and found.gpus == gpus and found.gpus_per_node == min(each, gpus):
            return text
    return None


@dataclass(frozen=True)
class ShortEnd:
    """What an interaction costs uncompressed at 4K tokens, for requests that differ in their limits only."""

    found: Frontier
    axes: tuple[Axis, ...]

    @staticmethod
    def of(problem: Problem, axes: Sequence[Axis] = ()) -> ShortEnd:
        """Plan the short end for every limit on some objectives at once."""
        limited = tuple(axis for axis in axes if axis in LIMITS)
        short = at_short_end(problem)
        return ShortEnd(frontier(short, open_space(short), ("cost", *limited)), limited)

    def gpu_hours(self, most: Mapping[Axis, float]) -> float | None:
        """GPU-hours per interaction of the cheapest plan within some limits; None if there is none."""
        reach = np.array([most.get(axis, np.inf) for axis in self.axes])
        for plan in self.found.plans:  # Cheapest first.
            if (plan.vector[1:] <= reach * (1.0 + _SLACK)).all():
                return float(plan.vector[0])
        return None

    def usd(self, problem: Problem, most: Mapping[Axis, float]) -> float | None:
        """The same in USD; None where nobody offers the GPU."""
        hours = self.gpu_hours(most)
        return None if hours is None or problem.usd_per_gpu_hour is None else hours * problem.usd_per_gpu_hour


def document_of(problem: Problem, found: Frontier, plan: Found, short: ShortEnd) -> Document:
    """A plan of a frontier, priced and verified, with the request that it answers and the proof.

    Raises
    ------
    VerificationError
        If the plan isn't what the search took it for.
    """
    services = services_of(solution_of(found, plan))
    asked = limited(problem, found.axes, evaluate(problem, services).metrics)
    evaluation = evaluate(asked, services)
    solution = _solution(found, plan, evaluation.metrics.gpus_used)
    verify(asked, found.search.space, evaluation, solution.value)
    metrics = evaluation.metrics
    most = {axis: metrics.named(METRICS[axis]) or 0.0 for axis in short.axes}
    base = short.usd(problem, most)
    if base and metrics.usd_per_interaction is not None:
        metrics = metrics.model_copy(update={"cost_ratio_vs_4k": metrics.usd_per_interaction / base})
    provenance = provenance_of(asked, evaluation, SOLVER)
    return Document(
        status="optimal" if solution.status == "optimal" else "feasible",
        request=request_document(asked),
        objective=objective_of(asked, evaluation, solution),
        decision=evaluation.decision,
        metrics=metrics,
        intervals=evaluation.intervals,
        constraints=evaluation.constraints,
        warnings=warnings_of(asked, evaluation),
        provenance=provenance.model_copy(update={"assumptions": (*provenance.assumptions, ONE_KIND)}),
    )


def _solution(found: Frontier, plan: Found, gpus: int) -> Solution:
    """The plan as a solution of `lead` under its limits, with the best that is possible within them."""
    first = lead(found.axes, found.search.problem.request)
    value = plan.hours * (gpus if first == "cost" else 1)
    column = found.axes.index(first) if first in found.axes else len(found.axes)
    others = [a for a, axis in enumerate(found.axes) if axis in LIMITS]
    rows = np.array([np.append(one.vector, one.hours) for one in found.plans])
    rows = np.concatenate([rows, found.open_bounds])
    within = (rows[:, others] <= plan.vector[others] * (1.0 + _SLACK) + _SLACK).all(axis=1)
    bound = min(value, float(rows[within, column].min()))
    proved = bound >= value * (1.0 - _SLACK)
    status: Literal["optimal", "feasible"] = "optimal" if proved else "feasible"
    return replace(solution_of(found, plan), status=status, value=value, bound=value if proved else bound)
