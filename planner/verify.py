"""Is the plan what was asked? Every limit once more, in floats, with none of the solver's arithmetic.

A plan that fails here is never shown. For a file from anywhere, `verify_document` prices its decision
again and compares every number that it claims.
"""

from __future__ import annotations

import math
from typing import Any

from catalog.load import Catalog
from catalog.schema import Engine
from planner.errors import InputError, PlannerError
from planner.limits import is_floor
from planner.objectives import OBJECTIVES, figures_of
from planner.plan import DIMENSIONS, Decision, Document, Interval, Parallel
from planner.pricing import Evaluation, evaluate
from planner.problem import Problem, resolve
from planner.request import read_request
from planner.space import Space, open_space
from planner.space.pools import handover_problem
from planner.space.splits import Split, engine_runs

LIMIT_TOLERANCE = 1e-9
"""Relative: rounding of floats, not of a plan."""
OBJECTIVE_TOLERANCE = 1e-4
"""Relative: how far an objective in integers may be from the cost model's floats."""
CLAIM_TOLERANCE = 1e-6
"""Relative: how far a number in a file may be from the one computed again."""


class VerificationError(PlannerError):
    """A plan isn't what it claims: each problem with its numbers."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(["the plan doesn't hold:", *(f"  {text}" for text in problems)]))


def verify(problem: Problem, space: Space, evaluation: Evaluation, claimed: float | None = None) -> None:
    """Check a priced decision against its request and its space.

    Parameters
    ----------
    claimed
        What the solver says that the objective is, in the unit of `objective_value`; None: no claim.

    Raises
    ------
    VerificationError
        With every limit that is broken, and every claim that isn't so.
    """
    problems = broken_limits(evaluation) + unavailable(problem, space, evaluation)
    if claimed is not None:
        real = objective_value(problem, evaluation)
        if not math.isclose(real, claimed, rel_tol=OBJECTIVE_TOLERANCE, abs_tol=1e-7):
            problems.append(f"objective: the solver claims {claimed:.9g}, the cost model says {real:.9g}")
    if problems:
        raise VerificationError(problems)


def objective_value(problem: Problem, evaluation: Evaluation) -> float:
    """The number that a request minimises: hours or GPU-hours per interaction, seconds, or a loss."""
    request = problem.request
    return float(OBJECTIVES[request.objective].minimised(figures_of(evaluation.metrics, request.output_tokens)))


def broken_limits(evaluation: Evaluation) -> list[str]:
    """Limits that a decision breaks, with amounts."""
    broken = []
    for row in evaluation.constraints:
        if row.slack < -LIMIT_TOLERANCE * max(abs(row.limit), 1e-12):
            side = "below" if is_floor(row.name) else "above"
            broken.append(f"{row.name}: {row.value:.6g} is {side} the limit {row.limit:.6g}")
    if evaluation.metrics.concurrency < 1:
        broken.append("hbm_bytes_per_gpu: not one session fits beside the weights")
    return broken


def unavailable(problem: Problem, space: Space, evaluation: Evaluation) -> list[str]:
    """Choices that the request's space doesn't hold: what the request leaves out, the engine or the GPU doesn't run."""
    decision, request = evaluation.decision, problem.request
    engine = next((e for e in space.engines if e.id == decision.engine), None)
    if engine is None:
        if request.engine != "any":
            return [f"engine: {decision.engine} isn't the --engine {request.engine} that was asked for"]
        known = ", ".join(e.id for e in space.engines)
        return [f"engine: {decision.engine} doesn't serve {problem.model_name} on these GPUs; {known} do"]
    problems = []
    ids = set()
    for name in DIMENSIONS:
        choice = getattr(decision.compression, name)
        wanted = choice.point or choice.technique
        option = next(
            (o for o in space.options[name] if wanted in (o.id, o.technique.id if o.technique else "none")), None
        )
        if option is None or not space.option_runs(option, engine):
            problems.append(f"compression.{name}: {wanted}: {_why_not(problem, space, engine, wanted)}")
        elif option.point is not None:
            ids.add(option.id)
    weights = next((w for w in space.weights if w.id == decision.weights), None)
    if weights is None and request.weights not in ("any", decision.weights):
        problems.append(f"weights: {decision.weights} aren't the --weights {request.weights} that were asked for")
    elif weights is None or engine.id not in weights.engines:
        problems.append(f"weights: {engine.id} doesn't load {decision.weights} on {problem.cluster.hardware.name}")
    elif weights.point is not None:
        ids.add(weights.point.id)
    problems += [f"{text}, which the request fixes" for text in space.pins.broken(decision, problem.catalog)]
    return problems + _not_together(space, engine, ids) + _not_deployed(space, engine, decision, ids)


def _why_not(problem: Problem, space: Space, engine: Engine, wanted: str) -> str:
    named = problem.request.techniques
    if named == "none":
        return "--techniques none asks for no compression"
    if named not in ("deployable", "published") and wanted not in space.dropped:
        return f"isn't among the --techniques {named} that were asked for"
    return space.dropped.get(wanted, f"{engine.id} doesn't run it here")


def _not_together(space: Space, engine: Engine, ids: set[str]) -> list[str]:
    """Options that exclude each other."""
    rules = space.compatibility
    problems = [f"compression: {' and '.join(sorted(pair))} exclude each other" for pair in rules.pairs if pair <= ids]
    return problems + [
        f"compression: {' and '.join(sorted(pair))} exclude each other on {name}"
        for pair, name in rules.engine_pairs
        if name == engine.id and pair <= ids
    ]


def _not_deployed(space: Space, engine: Engine, decision: Decision, ids: set[str]) -> list[str]:
    """What the engine can't do with several GPUs and between rounds."""
    pools, offload = decision.pools, decision.offload
    places = {"parallel": decision.parallel}
    holds = set()
    problems = []
    if pools is not None:
        places = {"pools.prefill.parallel": pools.prefill.parallel, "pools.decode.parallel": pools.decode.parallel}
        holds.add("disaggregated")
        if engine.disaggregated is None:
            problems.append(f"serving: {engine.id} has no separate prefill and decode pools")
        else:
            sides = (_split(pools.prefill.parallel), _split(pools.decode.parallel))
            apart = handover_problem(engine, *sides, space.latent)
            problems += [f"pools: {apart}"] if apart else []
    for where, parallel in places.items():
        split = _split(parallel)
        if not engine_runs(engine, split):
            sizes = [f"{name} {getattr(split, name)}" for name in ("tp", "pp", "dcp", "pcp", "ep")]
            problems.append(f"{where}: {engine.id} can't split by {', '.join(s for s in sizes if s[-2:] != ' 1')}")
        if split.tp > 1:
            holds.add("tensor_parallel")
    if offload.policy == "swap":
        holds.add("offload")
        if not any(o.tier == offload.tier for o in engine.offload):
            problems.append(f"offload: {engine.id} has no {offload.tier} tier")
    clashes = sorted((point, kind) for point, kind in space.compatibility.conditions if point in ids and kind in holds)
    words = {"tensor_parallel": "tensor parallelism", "offload": "offload", "disaggregated": "separate pools"}
    return problems + [f"compression: {point} doesn't go with {words[kind]}" for point, kind in clashes]


def _split(parallel: Parallel) -> Split:
    return Split(parallel.tp or 1, parallel.pp, parallel.dcp, parallel.pcp, parallel.ep)


def verify_document(document: Document, catalog: Catalog) -> Evaluation:
    """Price a plan file's decision again and compare everything that it claims.

    Raises
    ------
    InputError
        If the file holds no decision, or its request can't be understood.
    VerificationError
        With every broken limit, and every number that isn't what the cost model says.
    """
    if document.decision is None or document.metrics is None:
        raise InputError("the plan holds no decision; there is nothing to verify in an infeasible request")
    problem = resolve(read_request(document.request, "request"), catalog)
    evaluation = evaluate(problem, document.decision)
    problems = broken_limits(evaluation)
    if document.decision.engine != "any":
        problems += unavailable(problem, open_space(problem), evaluation)
    claimed = document.metrics.model_dump(exclude_unset=True)
    problems += _other_numbers(claimed, evaluation.metrics.model_dump(), "metrics")
    problems += _other_intervals(document.intervals or {}, evaluation.intervals or {})
    if problems:
        raise VerificationError(problems)
    return evaluation


def _other_intervals(claimed: dict[str, Interval], real: dict[str, Interval]) -> list[str]:
    problems = []
    for name, ends in claimed.items():
        for end, value, other in zip(("low", "high"), ends, real.get(name, (math.nan, math.nan)), strict=True):
            if not math.isclose(value, other, rel_tol=CLAIM_TOLERANCE, abs_tol=1e-9):
                problems.append(f"intervals.{name}: {end} end: the plan says {value:.9g}, the cost model {other:.9g}")
    return problems


def _other_numbers(claimed: dict[str, Any], real: dict[str, Any], where: str) -> list[str]:
    problems = []
    for name, value in claimed.items():
        other = real.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            problems += _other_numbers(value, other, f"{where}.{name}")
        elif name == "cost_ratio_vs_4k":
            continue  # A comparison with another plan, not a property of this one.
        elif isinstance(value, int | float) and isinstance(other, int | float):
            if not math.isclose(value, other, rel_tol=CLAIM_TOLERANCE, abs_tol=1e-9):
                problems.append(f"{where}.{name}: the plan says {value:.9g}, the cost model {other:.9g}")
        elif value != other:
            problems.append(f"{where}.{name}: the plan says {value}, the cost model {other}")
    return problems
