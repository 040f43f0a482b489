"""What the next unit of each binding limit would buy, and what published techniques would."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from catalog.load import Catalog
from planner.clusters import sizes_of
from planner.errors import InputError
from planner.limits import asked, limits_of
from planner.plan import Document
from planner.price import evaluate
from planner.problem import Problem, resolve
from planner.request import Request
from planner.search.solver import Settings, solve
from planner.space import open_space
from planner.verify import objective_value

GAIN_PAIRS = 300_000
"""Work of one line; what it doesn't decide is told with its bound."""
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
    most: float | None
    """By which it gets better at most; None where nothing is known."""
    proved: bool
    """False: at least ``share`` and at most ``most``."""

    @property
    def text(self) -> str:
        """One line for a person."""
        if self.proved and self.share < SMALLEST_GAIN:
            return f"With {self.change}: no better"
        if self.proved:
            return f"With {self.change}: {self.share:.1%} better"
        most = "how much isn't decided" if self.most is None else f"at most {self.most:.1%}"
        return f"With {self.change}: at least {self.share:.1%} better, {most}"


def gains(document: Document, catalog: Catalog, settings: Settings) -> list[str]:
    """Every line: published techniques first, then each binding limit."""
    if document.decision is None or document.objective is None:
        return []
    problem = resolve(Request.model_validate(document.request), catalog)
    return [gain.text for gain in binding_gains(problem, document, settings)]


def binding_gains(problem: Problem, document: Document, settings: Settings, *, published: bool = True) -> list[Gain]:
    """What one unit more of each binding limit adds to the objective.

    Parameters
    ----------
    problem
        Of the plan.
    document
        The plan: it keeps every limit that is loosened, too.
    settings
        How the search runs.
    published
        Whether the published techniques are asked about too, where the request plans deployable ones.

    Returns
    -------
    list of Gain
        By planning anew: other limits stay as they are.
    """
    if document.decision is None:
        return []
    now = best_value(problem, document)
    ends_s = time.monotonic() + settings.time_limit_s
    rows = []
    for constraint, change, changed in _changes(problem, document):
        left = ends_s - time.monotonic()
        if left <= 0 or (constraint == "techniques" and not published):
            continue
        try:
            space = open_space(changed)
        except InputError:
            continue
        found = solve(changed, space, None, replace(settings, time_limit_s=left, most_pairs=GAIN_PAIRS))
        proved = found.status in ("optimal", "infeasible")
        share = 0.0 if found.best is None else max(better(problem, now, found.best), 0.0)
        most = None if found.bound is None else max(better(problem, now, found.bound), share)
        rows.append(Gain(constraint, change, share, most, proved))
    return rows


def best_value(problem: Problem, document: Document) -> float:
    """The number that the request minimises, of the best plan that was found."""
    assert document.decision is not None  # noqa: S101
    now = objective_value(problem, evaluate(problem, document.decision))
    if document.objective is None or not document.objective.value:
        return now
    # The plan that is shown may be a little worse than the best, for its simplicity: gains are over the best.
    ratio = document.objective.best / document.objective.value
    return now / ratio if problem.request.objective == "throughput" else now * ratio


def better(problem: Problem, now: float, value: float) -> float:
    """The share by which a value of the goal is better."""
    if problem.request.objective == "throughput":
        return now / value - 1.0 if value else math.inf
    return 1.0 - value / now if now else 0.0


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
