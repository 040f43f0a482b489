"""The whole story: a request becomes a plan.

resolve   the request against the catalog
open      the space of decisions
solve     choose and prove, or prove that nothing can be chosen
evaluate  price the choice
verify    is the plan what was asked? In floats, without the solver's arithmetic
compare   with the cheapest uncompressed plan at 4K tokens
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Literal

from catalog.load import Catalog, open_catalog
from planner.clusters import is_open
from planner.decision import Decision
from planner.efficiency import measurements_of
from planner.errors import PlannerError
from planner.objectives import sought
from planner.plan import Document, Objective, Provenance, SourceNote
from planner.price import Evaluation
from planner.price import evaluate as price_decision
from planner.problem import Problem, resolve
from planner.request import Request
from planner.search.services import services_of
from planner.search.solver import Settings, Solution, solve
from planner.service import DIMENSIONS, Service
from planner.short_end import parity_usd_per_interaction
from planner.space import Space, open_space
from planner.space.ready import making_warning, weights_choice
from planner.verify import verify

LEAST_EXPLAINED = 0.25
"""Share of the time limit that an explanation has, however long the proof took."""


class OutOfTimeError(PlannerError):
    """Time ran out before any plan was found; neither a plan nor a proof that there is none."""


def make_plan(
    request: Request,
    catalog: Catalog | None = None,
    *,
    solver: str = "cpsat",
    settings: Settings | None = None,
    explained: bool = True,
) -> Document:
    """Choose the best deployment for a request, prove it, and check it.

    Parameters
    ----------
    request
        The question.
    catalog
        Facts; None: the built-in ones under the user's overlay.
    solver
        ``cpsat``: bounds list the kinds of replicas that a best cluster can hold, and CP-SAT composes it of
        them; ``exhaustive``: price every cluster of one kind.
    settings
        Time limit, workers and seed of CP-SAT.
    explained
        Whether a request without a plan is told which limits clash, which takes much longer than to know it.

    Returns
    -------
    Document
        With status ``optimal``, ``feasible`` (a gap remains) or ``infeasible`` (explained; no decision).

    Raises
    ------
    InputError
        If the request can't be understood.
    OutOfTimeError
        If the time limit passed without a plan.
    """
    catalog, settings = catalog or open_catalog(), settings or Settings()
    starts_s = time.monotonic()
    problem = _resolved(request, catalog, settings)
    space = open_space(problem)
    solution = choose(problem, space, solver=solver, settings=settings)
    if solution.status == "unknown":
        raise OutOfTimeError(f"no plan within {settings.time_limit_s:g} s; give --time-limit more")
    if solution.status == "infeasible" and not explained:
        return _without_plan(problem, solver, None)
    if solution.status == "infeasible":
        from planner.explain import explain_infeasible

        left_s = max(settings.time_limit_s - (time.monotonic() - starts_s), LEAST_EXPLAINED * settings.time_limit_s)
        explanation = explain_infeasible(problem, space, replace(settings, time_limit_s=left_s))
        return _without_plan(problem, solver, explanation)
    evaluation = price_decision(problem, services_of(solution))
    verify(problem, space, evaluation, solution.value)
    return _document(problem, evaluation, solution, solution.by if solver == "cpsat" else solver)


def _resolved(request: Request, catalog: Catalog, settings: Settings) -> Problem:
    """The problem of a request; how many GPUs it takes is found first where the request leaves that open."""
    if not is_open(request):
        return resolve(request, catalog)
    from planner.sizing import sized

    request, told = sized(request, catalog, settings)
    return replace(resolve(request, catalog), cluster_choice=told or None)


def choose(problem: Problem, space: Space, *, solver: str = "cpsat", settings: Settings | None = None) -> Solution:
    """Solve a space in the way that was asked for."""
    if solver == "exhaustive":
        from planner.search.exhaustive import solve_exhaustively

        return solve_exhaustively(problem, space)
    return solve(problem, space, settings=settings, tolerance=problem.request.tolerance)


def evaluate(request: Request, decision: Decision | Service | None = None, catalog: Catalog | None = None) -> Document:
    """Price a hand-written decision for a request; what it leaves out (None: everything) is completed, and said.

    Raises
    ------
    InputError
        If the request can't be understood, or the decision makes no sense for it.
    """
    catalog = catalog or open_catalog()
    problem = resolve(request, catalog)
    evaluation = price_decision(problem, decision or Service())
    return _document(problem, evaluation, None, None)


def _document(problem: Problem, evaluation: Evaluation, solution: Solution | None, solver: str | None) -> Document:
    metrics = evaluation.metrics
    warnings = warnings_of(problem, evaluation)
    if solution is not None and solution.fault:
        warnings = (*warnings, solution.fault)
    base = parity_usd_per_interaction(problem)
    if base and metrics.usd_per_interaction is not None:
        metrics = metrics.model_copy(update={"cost_ratio_vs_4k": metrics.usd_per_interaction / base})
    return Document(
        status=_status(solution),
        request=request_document(problem),
        objective=None if solution is None else objective_of(problem, evaluation, solution),
        decision=evaluation.decision,
        metrics=metrics,
        intervals=evaluation.intervals,
        constraints=evaluation.constraints,
        warnings=warnings,
        provenance=provenance_of(problem, evaluation, solver, solution),
    )


def _status(solution: Solution | None) -> Literal["optimal", "feasible", "evaluated"]:
    if solution is None:
        return "evaluated"
    return "optimal" if solution.status == "optimal" else "feasible"


def _without_plan(problem: Problem, solver: str, explanation: Any) -> Document:
    return Document(
        status="infeasible",
        request=request_document(problem),
        infeasible=explanation,
        warnings=warnings_of(problem, None),
        provenance=provenance_of(problem, None, solver),
    )


def request_document(problem: Problem) -> dict[str, Any]:
    """The request with what it left open filled in, as a plan file keeps it."""
    filled = problem.request.model_dump(mode="json", exclude_none=True)
    filled["model"] = problem.model_name
    return filled


def objective_of(problem: Problem, evaluation: Evaluation, solution: Solution) -> Objective:
    """The objective in the user's terms, with the proved bound and the gap between both."""
    metrics = evaluation.metrics
    measure = sought(problem.request).measure(metrics)
    value = solution.value or 0.0
    bound = solution.bound or 0.0
    best = solution.best or value
    reached = measure.of(metrics, problem.request.output_tokens)
    if reached is None:
        reached = value

    def told(minimised: float) -> float:
        """As the measure has it, by its share of the value that the plan shown has."""
        ratio = minimised / value if value else 1.0
        return reached / max(ratio, 1e-12) if measure.higher else reached * ratio

    ratio = bound / best if best else 1.0
    return Objective(
        name=measure.name,
        value=reached,
        best=told(best),
        bound=told(bound),
        gap=1.0 / max(ratio, 1e-12) - 1.0 if measure.higher else 1.0 - ratio,
        chosen_by=solution.chosen_by,
    )


def provenance_of(
    problem: Problem, evaluation: Evaluation | None, solver: str | None, solution: Solution | None = None
) -> Provenance:
    """What produced a document: assumptions in words, and the sources of the facts that shaped it."""
    assumptions = [*problem.assumptions, *(evaluation.assumptions if evaluation else ())]
    if problem.request.spare and solution is not None:
        assumptions.append("--spare 1: replicas are all of one kind, or a prefill and a decode pool")
    choices = [weights_choice(problem, one.engine, one.weights) for one in _services(evaluation)]
    told = tuple(dict.fromkeys(choice for choice in choices if choice is not None))
    return Provenance(
        solver=solver,
        search=None if solution is None else {"points": solution.considered, **solution.size},
        catalog_hash=problem.catalog.content_hash,
        efficiency=problem.request.efficiency,
        bounded_by=evaluation.bounded_by if evaluation else None,
        weights_choice="; ".join(told) or None,
        cluster_choice=problem.cluster_choice,
        model_choice=problem.model_choice,
        assumptions=tuple(assumptions),
        sources=sources_of(problem, evaluation),
    )


def warnings_of(problem: Problem, evaluation: Evaluation | None) -> tuple[str, ...]:
    """What can break a stated limit or promise."""
    making = [text for one in _services(evaluation) for text in making_warning(problem, one.engine, one.weights)]
    return tuple(dict.fromkeys([*problem.warnings, *making]))


def _services(evaluation: Evaluation | None) -> tuple[Service, ...]:
    return () if evaluation is None else tuple(one.service for one in evaluation.services)


def sources_of(problem: Problem, evaluation: Evaluation | None) -> tuple[SourceNote, ...]:
    """One row for every source of the GPU, the node, the model, the price, the techniques and the measured times."""
    entries: list[Any] = [problem.cluster.hardware, problem.cluster.node]
    entries += [entry for entry in (problem.model_entry, problem.price) if entry is not None]
    for service in _services(evaluation):
        entries += [entry for entry in measurements_of(problem, service.engine) if entry not in entries]
        for name in DIMENSIONS:
            choice = getattr(service.compression, name)
            if choice.technique != "none":
                technique = problem.catalog.point(choice.point or choice.technique)[0]
                entries += [technique] if technique not in entries else []
    return tuple(
        SourceNote(entry=entry.id, ref=source.ref, provenance=source.provenance)
        for entry in entries
        for source in entry.sources
    )


def planned(document: Document, catalog: Catalog, settings: Settings) -> list[str]:
    """What the next unit of each binding limit would buy, and what published techniques would add, in words."""
    from planner.explain import gains, unused

    problem = resolve(Request.model_validate(document.request), catalog)
    return [*unused(problem, document, settings), *gains(document, catalog, settings)]
