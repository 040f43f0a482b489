"""Why this plan? Everything that ``plan explain`` tells of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from catalog.load import Catalog, open_catalog
from planner.ask import Question
from planner.errors import InputError
from planner.plan import Document
from planner.price import Evaluation, evaluate
from planner.problem import resolve
from planner.request import read_request
from planner.search.solver import Settings
from planner.space import open_space
from planner.whatif.alternatives import TIE, alternatives
from planner.whatif.asking import Answer, Solver
from planner.whatif.attribution import metric_of, metric_value
from planner.whatif.budget import budget_of
from planner.whatif.dimensions import dimension_rows
from planner.whatif.explained import Alternative, Explanation, LimitPrice
from planner.whatif.levers import levers
from planner.whatif.prices import lifted, price_of
from planner.whatif.roofline import roofline
from planner.whatif.stale import freshness

SECONDS = 60.0
"""Time for all questions of one explanation [s]."""


def explain_plan(
    document: Document,
    catalog: Catalog | None = None,
    *,
    seconds: float = SECONDS,
    settings: Settings | None = None,
    talk: Callable[[str], None] = lambda text: None,
) -> Explanation:
    """Tell why a plan is as it is, by asking the solver what would be without each of its choices and limits.

    Parameters
    ----------
    document
        A plan, or a priced decision.
    catalog
        Facts; None: the built-in ones under the user's overlay.
    seconds
        For all questions together; what isn't decided by then is said [s].
    settings
        Workers and seed of the solver.
    talk
        Told what is asked, one line each.

    Returns
    -------
    Explanation
        Of the decision as the facts of today price it; whether that is what the plan says is part of it.

    Raises
    ------
    InputError
        If the document has no decision, or its decision can't be priced any more.
    """
    catalog = catalog or open_catalog()
    if document.decision is None:
        raise InputError("the plan holds no decision, since its request is infeasible; explain another")
    problem = resolve(read_request(document.request, "request"), catalog)
    try:
        evaluation = evaluate(problem, document.decision)
    except InputError as error:
        told = "; ".join(text.removeprefix("decision: ") for text in error.problems)
        raise InputError(f"the plan's decision can't be priced any more ({told}); plan again") from None
    metrics, priced = evaluation.metrics, evaluation.largest
    service, several = priced.service, len(evaluation.services) > 1
    metric = metric_of(problem.request, metrics)
    now = metric_value(metric, problem.request, metrics)
    if now is None or metrics.interactions_per_hour <= 0:
        raise InputError("the plan's decision doesn't fit the GPUs any more; plan again")
    fresh = freshness(document, catalog)
    solver = Solver(problem, metric, replace(settings or Settings(), time_limit_s=seconds), talk)
    best = _best(solver, document, evaluation, now, fresh.holds)
    choices = alternatives(solver, service, best.value or now)
    limits = _limits(solver, document, best)
    better = solver.gain(now, best.value)
    notes = fresh.notes
    if better is not None and better > TIE:
        why = f": this one is simpler, within --tolerance {problem.request.tolerance:.3g}" * (
            document.status == "optimal" and fresh.holds
        )
        notes = (*notes, f"another decision is {better:.2%} better for this request{why}; gains are told from there")
    if several:
        notes = (*notes, f"of {len(evaluation.services)} services side by side that which serves most is looked into")
    return Explanation(
        plan=document,
        holds=fresh.holds,
        notes=notes,
        metric=metric,
        value=now,
        choices=tuple(choices),
        limits=tuple(limits),
        roofline=roofline(problem, service, priced.figures),
        quality=budget_of(problem, open_space(problem), service),
        dimensions=dimension_rows(solver, open_space(problem), service),
        undecided=tuple(_undecided(choices, limits)),
    )


def _best(solver: Solver, document: Document, evaluation: Evaluation, now: float, holds: bool) -> Answer:
    """The best plan with every limit as it is: this one, where it is proved and still holds."""
    best = document.objective is not None and document.objective.chosen_by == "optimum"
    mine = Answer("optimal" if document.status == "optimal" and best and holds else "feasible", now, evaluation)
    if mine.proved:
        return mine
    found = solver.ask(Question(), "the best plan for this request")
    gain = solver.gain(now, found.value)
    return found if found.proved or (gain is not None and gain > 0) else mine


def _limits(solver: Solver, document: Document, best: Answer) -> list[LimitPrice]:
    found = lifted(solver, levers(solver.problem, document))
    return [price_of(solver, one, found, best) for one in found]


def _undecided(choices: list[Alternative], limits: list[LimitPrice]) -> list[str]:
    told = [f"the best plan without {row.without}" for row in choices if row.status == "undecided"]
    for row in limits:
        if row.status == "undecided":
            told.append(f"what lifting {row.now} gains")
        elif row.status == "helps" and row.amount is not None:
            if not row.followed:
                told.append(f"where {row.now} stops helping")
            if not row.next_decided:
                told.append(f"what binds after {row.now}")
    return told
