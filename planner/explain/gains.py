"""What the next unit of each binding limit would buy, and what published techniques would."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from catalog.load import Catalog
from planner.errors import InputError
from planner.explain.clusters import sizes_of
from planner.limits import asked, limits_of
from planner.plan import Document
from planner.price import evaluate
from planner.problem import Problem, resolve
from planner.request import Request
from planner.search.solver import Settings, solve
from planner.space import open_space
from planner.verify import objective_value

GAIN_SECONDS = 1.2
"""Time for all lines of a plan together [s]."""
SMALLEST_GAIN = 0.005
"""Relative gains below this are told as none."""
MORE_MEMORY = 1.1
"""Memory isn't sold by the unit: what a tenth more would do tells what it is worth."""


@dataclass(frozen=True, slots=True)
class Gain:
    """A change, and the best plan under it."""

    constraint: str
    """Name of the binding constraint; ``techniques`` for the published ones."""
    change: str
    """As one would type it, or in words."""
    share: float
    """By which the objective gets better; 0.05 is 5 % more throughput, or 5 % less of what is minimised."""
    proved: bool
    """False: at least so much."""

    @property
    def text(self) -> str:
        """One line for a person."""
        if self.share < SMALLEST_GAIN:
            return f"With {self.change}: no better" + ("" if self.proved else " plan found in the time")
        least = "" if self.proved else "at least "
        return f"With {self.change}: {least}{self.share:.1%} better"


def gains(document: Document, catalog: Catalog, settings: Settings, seconds: float = GAIN_SECONDS) -> list[str]:
    """Every line that fits the time: published techniques first, then each binding limit."""
    if document.decision is None or document.objective is None:
        return []
    problem = resolve(Request.model_validate(document.request), catalog)
    return [gain.text for gain in binding_gains(problem, document, settings, seconds)]


def binding_gains(
    problem: Problem,
    document: Document,
    settings: Settings,
    seconds: float = GAIN_SECONDS,
    *,
    published: bool = True,
) -> list[Gain]:
    """What one unit more of each binding limit adds to the objective.

    Parameters
    ----------
    problem
        Of the plan.
    document
        The plan.
    settings
        How the solver runs.
    seconds
        Time for all rows together; what doesn't fit is left out [s].
    published
        Whether the published techniques are asked about too, where the request plans deployable ones.

    Returns
    -------
    list of Gain
        By re-solving: other limits stay as they are.
    """
    if document.decision is None:
        return []
    ends_s = time.monotonic() + seconds
    now = objective_value(problem, evaluate(problem, document.decision))
    if document.objective is not None and document.objective.value:
        # The plan that is shown may be a little worse than the best, for its simplicity: gains are over the best.
        ratio = document.objective.best / document.objective.value
        now = now / ratio if problem.request.objective == "throughput" else now * ratio
    rows = []
    changes = [row for row in _changes(problem, document) if published or row[0] != "techniques"]
    for index, (constraint, change, changed) in enumerate(changes):
        left = ends_s - time.monotonic()
        if left <= 0:
            break
        share_s = left / (len(changes) - index)
        try:
            found = solve(changed, open_space(changed), None, replace(settings, time_limit_s=share_s))
        except InputError:
            continue
        if found.value is None:
            continue
        if problem.request.objective == "throughput":
            share = now / found.value - 1.0
        else:
            share = 1.0 - found.value / now if now else 0.0
        rows.append(Gain(constraint, change, max(share, 0.0), found.status == "optimal"))
    return rows


def _changes(problem: Problem, document: Document) -> Iterator[tuple[str, str, Problem]]:
    """The next unit of everything that binds: constraint, words, the problem with it."""
    request, binding = problem.request, {row.name for row in document.constraints if row.binding}
    if request.techniques == "deployable":
        yield "techniques", "--techniques published", _asked(problem, {"techniques": "published"})
    for limit, amount in limits_of(request):
        more = limit.more(amount, problem.cluster.hardware)
        if more is not None and binding & {*limit.metrics}:
            yield limit.metrics[-1], limit.typed(more), _asked(problem, {limit.field: asked(limit, more)})
    sizes = sizes_of(problem)
    if "gpus" in binding and sizes is not None:
        text = sizes.text(sizes.count + 1)
        yield "gpus", f"--gpus {text}", _asked(problem, {"gpus": text})
    yield from _more_memory(problem, binding)


def _asked(problem: Problem, change: dict[str, Any]) -> Problem:
    request = problem.request.model_copy(update={"model": problem.model_name, **change})
    return resolve(request, problem.catalog)


def _more_memory(problem: Problem, binding: set[str]) -> Iterator[tuple[str, str, Problem]]:
    cluster = problem.cluster
    hardware, node = cluster.hardware, cluster.node
    if "hbm_bytes_per_gpu" in binding:
        larger = hardware.model_copy(update={"hbm": hardware.hbm * MORE_MEMORY})
        yield "hbm_bytes_per_gpu", "10 % more HBM per GPU", replace(problem, cluster=replace(cluster, hardware=larger))
    if "ddr_bytes" in binding:
        roomy = node.model_copy(update={"host_memory": node.host_memory * MORE_MEMORY})
        yield "ddr_bytes", "10 % more host memory", replace(problem, cluster=replace(cluster, node=roomy))
    if "nvme_bytes" in binding and node.nvme is not None:
        disks = node.nvme.model_copy(update={"capacity": node.nvme.capacity * MORE_MEMORY})
        roomy = node.model_copy(update={"nvme": disks})
        yield "nvme_bytes", "10 % more NVMe", replace(problem, cluster=replace(cluster, node=roomy))
