"""How a plan spends its quality budget."""

from __future__ import annotations

import math

from planner.cost.quality import LogLoss, log_budget, prior_loss, z_score
from planner.problem import Problem
from planner.service import DIMENSIONS, Service
from planner.space import Option, Space, WeightOption
from planner.space.compatibility import compatibility
from planner.whatif.explained import Budget, Spent
from planner.whatif.parts import choice_text


def budget_of(problem: Problem, space: Space, decision: Service) -> Budget:
    """What each choice takes of the budget; together with what is left they add up to it.

    Losses add as ``-ln(1 - loss)``. The spread ``z sqrt(sum of variances)`` isn't a sum: each choice
    is given its share by variance.
    """
    rows = _losses(problem, space, decision)
    variance = math.fsum(loss.variance for _, _, loss in rows)
    z = z_score(problem.request.confidence)
    budget = log_budget(problem.request.max_quality_loss)
    spent = []
    for part, choice, loss in rows:
        spread = z * loss.variance / math.sqrt(variance) if variance > 0 else 0.0
        share = (loss.mean + spread) / budget if budget > 0 else None
        spent.append(Spent(part=part, choice=choice, mean=loss.mean, spread=spread, share=share))
    left = budget - math.fsum(row.mean + row.spread for row in spent)
    return Budget(budget=budget, spent=tuple(spent), unspent=left)


def _losses(problem: Problem, space: Space, decision: Service) -> list[tuple[str, str, LogLoss]]:
    request = problem.request
    rows: list[tuple[str, str, LogLoss]] = []
    options: list[Option] = []
    for name in DIMENSIONS:
        choice = getattr(decision.compression, name)
        if choice.technique == "none":
            continue
        technique, point = problem.catalog.point(choice.point or choice.technique)
        if point.prior is None:
            continue
        loss = prior_loss(point.prior, request.task, request.rounds, request.ctx)
        options.append(Option(name, technique, point, loss, frozenset()))
        rows.append((name, choice_text(choice), loss))
    weights = [option for option in space.weights if option.id == decision.weights]
    rows += [("weights", option.id, option.loss) for option in weights if option.point is not None]
    return rows + _together(problem, options, weights)


def _together(problem: Problem, options: list[Option], weights: list[WeightOption]) -> list[tuple[str, str, LogLoss]]:
    """What pairs of choices cost on top of each."""
    rules = compatibility(problem, options, weights, ())
    ids = {option.id for option in options} | {option.point.id for option in weights if option.point}
    return [("together", extra.rule, extra.loss) for extra in rules.surcharges if ids & extra.a and ids & extra.b]
