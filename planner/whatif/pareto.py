"""The frontier of a request: every plan that no other beats in all of two or three objectives.

The whole space is decided (`planner.search.frontier`), so nothing between two points is missing and no
weights are sampled. Each point is a plan with its proof, the answer to a request that one could type.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from catalog.load import Catalog, open_catalog
from planner.candidates.dominance import cover, distinct
from planner.errors import InputError
from planner.explain import explain_infeasible
from planner.objectives import OBJECTIVES
from planner.pipeline import provenance_of, request_document, warnings_of
from planner.plan import Document, Infeasible, Metrics, Provenance
from planner.problem import Problem, resolve
from planner.request import Request
from planner.search.frontier import AXES, TIE, Axis, Found, Frontier, Progress, frontier
from planner.search.solver import Settings
from planner.space import open_space
from planner.whatif.proved import METRICS, SOLVER, ShortEnd, document_of, sizes

FRONTIER_SCHEMA_VERSION = 2

RESOLUTION = 1e-3
"""Relative: of plans that are closer than this in every objective one is listed."""

Floats = NDArray[np.float64]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class FrontierPoint(_Document):
    """One plan of a frontier."""

    values: dict[str, float]
    """The objectives, by their metric's name; each is what ``plan`` says."""
    plan: Document
    """The whole plan; its request asks for the best of one objective, with the others as limits."""


class Coverage(_Document):
    """What the listed plans stand for."""

    complete: bool
    """Whether the whole space was decided."""
    on_frontier: int
    """Plans found that no other beats."""
    listed: int
    within: float
    """Relative: each plan of the frontier found is no better than a listed one by more than this in any objective."""
    points: int
    """Operating points of the space."""
    priced: int
    """Decisions that were priced in full; bounds decided the others."""
    undecided_points: int
    """Operating points that time didn't allow to decide; 0 if complete."""
    undecided_within: float | None
    """Relative: no plan of those can be better than a listed one by more than this in every objective at once.

    None where there are none, or no such number is known.
    """


class FrontierDocument(_Document):
    """A frontier, as ``plan pareto --format json`` prints it (``planner/schema/frontier.json``)."""

    schema_version: int = FRONTIER_SCHEMA_VERSION
    status: Literal["complete", "partial", "infeasible", "unknown"]
    """``partial``: time ran out with plans; ``unknown``: time ran out without any."""
    request: dict[str, Any]
    of: tuple[Axis, ...]
    points: tuple[FrontierPoint, ...]
    """By the first objective, the best first."""
    coverage: Coverage
    infeasible: Infeasible | None = None
    warnings: tuple[str, ...] = ()
    """Whatever can break a stated limit or promise of every point."""
    provenance: Provenance


def read_axes(of: str | Iterable[str]) -> tuple[Axis, ...]:
    """Two or three objectives.

    Raises
    ------
    InputError
        If one is unknown or named twice, or their number is another.

    Examples
    --------
    >>> read_axes("throughput, tpot")
    ('throughput', 'tpot')
    """
    names = [name.strip().lower() for name in (of.split(",") if isinstance(of, str) else of)]
    known = ", ".join(AXES)
    problems = [f"--of: {name!r} is unknown; use two or three of {known}" for name in names if name not in AXES]
    problems += [f"--of: {name} is named twice" for name in sorted({n for n in names if names.count(n) > 1})]
    if not problems and len(names) not in (2, 3):
        problems.append(f"--of: name two or three of {known}, separated by commas, not {len(names)}")
    if problems:
        raise InputError(problems)
    return tuple(axis for name in names for axis in AXES if axis == name)


def pareto(
    request: Request,
    of: str | Iterable[str],
    catalog: Catalog | None = None,
    *,
    resolution: float = RESOLUTION,
    max_points: int | None = None,
    time_limit_s: float | None = None,
    progress: Progress | None = None,
) -> FrontierDocument:
    """Find the exact frontier of a request's plans.

    Parameters
    ----------
    request
        The question. Its limits hold for every point; its objective has to be ``throughput``, the default.
    of
        Two or three of throughput, tpot, ttft, quality, cost and gpus.
    catalog
        Facts; None: the built-in ones under the user's overlay.
    resolution
        Of plans that are closer than this in every objective one is listed (relative).
    max_points
        List no more than this; the document then says how far the others are. None: no limit.
    time_limit_s
        Stop then, and say what is undecided [s]. None: until it is done.
    progress
        Called now and then with the points decided, all points, and the plans found.

    Returns
    -------
    FrontierDocument
        With status ``infeasible`` and an explanation where no plan keeps the request's limits.

    Raises
    ------
    InputError
        If the request or the objectives can't be understood.

    Examples
    --------
    >>> asked = Request(ctx="50K", gpus="1xA100", model="llama-3.1-8b", efficiency="peak")
    >>> found = pareto(asked, ["throughput", "tpot"])
    >>> found.status, found.points[0].values["interactions_per_hour"] > found.points[-1].values["interactions_per_hour"]
    ('complete', True)
    """
    axes = read_axes(of)
    _check(request, resolution, max_points)
    ends_s = None if time_limit_s is None else time.monotonic() + time_limit_s
    problem = resolve(request, catalog or open_catalog())
    parts = _parts(problem, axes, ends_s, progress)
    plans = _merged(parts)
    listed, within = _listed([plan for _, plan in plans], resolution, max_points)
    chosen = [plans[row] for row in listed]
    complete = all(part.found.complete for part in parts)
    return FrontierDocument(
        status=_status(complete, bool(plans)),
        request=request_document(problem),
        of=axes,
        points=tuple(_points(axes, chosen)),
        coverage=_coverage(parts, len(plans), [plan for _, plan in chosen], within),
        infeasible=explain_infeasible(problem, open_space(problem), Settings()) if complete and not plans else None,
        warnings=warnings_of(problem, None),
        provenance=provenance_of(problem, None, SOLVER),
    )


@dataclass(frozen=True)
class _Part:
    """The question for one number of GPUs, and its frontier."""

    problem: Problem
    found: Frontier


def _parts(problem: Problem, axes: Sequence[Axis], ends_s: float | None, progress: Progress | None) -> list[_Part]:
    parts: list[_Part] = []
    problems = sizes(problem, axes)
    for number, one in enumerate(problems):

        def told(done: int, points: int, plans: int, number: int = number) -> None:
            if progress is not None:
                progress(number * points + done, len(problems) * points, sum(len(p.found.plans) for p in parts) + plans)

        try:
            space = open_space(one)
        except InputError:
            if one is problem:
                raise
            continue  # A model that so few GPUs can't hold in any way.
        parts.append(_Part(one, frontier(one, space, axes, ends_s=ends_s, progress=told)))
    return parts


def _merged(parts: Sequence[_Part]) -> list[tuple[_Part, Found]]:
    """Plans that none of any part beats, by the first objective; of equal ones that on fewer GPUs."""
    plans = [(part, plan) for part in parts for plan in part.found.plans]
    if not plans:
        return []
    return [plans[row] for row in distinct(np.array([plan.vector for _, plan in plans]), TIE)]


def _points(axes: Sequence[Axis], chosen: Sequence[tuple[_Part, Found]]) -> Iterator[FrontierPoint]:
    short_ends: dict[str, ShortEnd] = {}
    for part, plan in chosen:
        gpus = part.problem.request.gpus
        if gpus not in short_ends:
            short_ends[gpus] = ShortEnd.of(part.problem, axes)
        document = document_of(part.problem, part.found, plan, short_ends[gpus])
        if document.metrics is not None:
            yield FrontierPoint(values=dict(value_of(axis, document.metrics) for axis in axes), plan=document)


def _check(request: Request, resolution: float, max_points: int | None) -> None:
    problems = []
    if request.objective != "throughput":
        problems.append(f"--objective {request.objective}: a frontier has several objectives; name them with --of")
    if not 0.0 <= resolution < 1.0:
        problems.append(f"--resolution: must be at least 0% and below 100%, not {resolution:.6g}")
    if max_points is not None and max_points < 1:
        problems.append(f"--max-points: must be at least 1, not {max_points}")
    if problems:
        raise InputError(problems)


def _status(complete: bool, planned: bool) -> Literal["complete", "partial", "infeasible", "unknown"]:
    if complete:
        return "complete" if planned else "infeasible"
    return "partial" if planned else "unknown"


def value_of(axis: Axis, metrics: Metrics) -> tuple[str, float]:
    """An objective's name and value in a plan's metrics; GPU-hours where nobody prices the GPU."""
    if axis == "cost":
        measure = OBJECTIVES[axis].measure(metrics)
        return measure.name, measure.of(metrics, 1) or math.inf
    name = METRICS[axis]
    return name, metrics.named(name) or 0.0


def _listed(plans: Sequence[Found], resolution: float, max_points: int | None) -> tuple[list[int], float]:
    """Which plans to list, and the share by which others may be better than one of them in an objective."""
    if not plans:
        return [], 0.0
    vectors = np.array([plan.vector for plan in plans])
    slack, rows = resolution, cover(vectors, resolution)
    while max_points is not None and len(rows) > max_points:
        slack = max(slack * 1.25, 1e-4)
        rows = cover(vectors, slack)
    rest = np.delete(vectors, rows, axis=0)
    return rows.tolist(), _within(rest, vectors[rows]) or 0.0


def _within(others: Floats, listed: Floats) -> float | None:
    """The least slack with which listed vectors beat all others; None where no slack does."""
    worst = 0.0
    for vector in others:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(listed <= vector, 1.0, listed / vector)
        worst = max(worst, float(ratios.max(axis=1).min()) - 1.0)
    return worst if np.isfinite(worst) else None


def _coverage(parts: Sequence[_Part], on_frontier: int, listed: Sequence[Found], within: float) -> Coverage:
    open_bounds = np.concatenate([part.found.open_bounds[:, :-1] for part in parts])
    undecided = None
    if len(open_bounds) and listed:
        undecided = _within(open_bounds, np.array([plan.vector for plan in listed]))
    return Coverage(
        complete=not len(open_bounds),
        on_frontier=on_frontier,
        listed=len(listed),
        within=within,
        points=sum(part.found.considered for part in parts),
        priced=sum(part.found.priced for part in parts),
        undecided_points=len(open_bounds),
        undecided_within=undecided,
    )
