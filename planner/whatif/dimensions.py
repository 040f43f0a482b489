"""The source paper's table for a deployment: what each compression dimension does alone, and all together.

References
----------
Y. Fu 2024, arXiv 2405.08944: four metrics, four dimensions.
"""

from __future__ import annotations

from dataclasses import replace

from planner.service import DIMENSIONS, Choice, Parallel, Service
from planner.space import Space, Split
from planner.whatif.asking import Answer, Solver
from planner.whatif.explained import DimensionRow
from planner.whatif.forbid import SIZES
from planner.whatif.parts import choice_text


def dimension_rows(solver: Solver, space: Space, decision: Service) -> tuple[DimensionRow, ...]:
    """The best plan uncompressed, with each of the plan's techniques alone, and with all of them.

    Engine, weights, splits and policy stay as planned. The decode cap, the chunk and the number of replicas are what
    is best with each: with the caps of the whole plan a compression would get credit for what smaller caps mend.
    """
    chosen = [name for name in DIMENSIONS if getattr(decision.compression, name).technique != "none"]
    asked = [("none", ()), *((name, (name,)) for name in chosen)]
    if len(chosen) > 1:
        asked.append(("together", tuple(chosen)))
    planned = _as_planned(space, decision)
    return tuple(_row(solver, planned, decision, name, kept) for name, kept in asked)


def _as_planned(space: Space, decision: Service) -> Space:
    """The space with the engine, weights, splits and policy of a plan only."""
    pools = decision.pools
    parallels = [pools.prefill.parallel, pools.decode.parallel] if pools else [decision.parallel]
    offload = decision.offload
    return replace(
        space,
        engines=tuple(engine for engine in space.engines if engine.id == decision.engine),
        weights=tuple(weights for weights in space.weights if weights.id == decision.weights),
        splits=tuple(split for split in space.splits if any(_is(split, one) for one in parallels)),
        policies=tuple(p for p in space.policies if (p.policy, p.tier) == (offload.policy, offload.tier)),
        aggregated=pools is None and space.aggregated,
        disaggregated=pools is not None and space.disaggregated,
        one_kind=True,
    )


def _is(split: Split, parallel: Parallel) -> bool:
    return all(getattr(split, size) == (getattr(parallel, size) or 1) for size in SIZES)


def _row(solver: Solver, space: Space, decision: Service, name: str, kept: tuple[str, ...]) -> DimensionRow:
    choices = {part: getattr(decision.compression, part) if part in kept else Choice() for part in DIMENSIONS}
    points = {part: choices[part].point or "none" for part in DIMENSIONS}
    options = {part: tuple(o for o in space.options[part] if o.id == points[part]) for part in DIMENSIONS}
    possible = all(options.values()) and space.engines and space.weights and space.splits and space.policies
    text = " and ".join(choice_text(choices[part]) for part in kept) or "none"
    answer = Answer("infeasible")
    if possible:
        answer = solver.solve(replace(space, options=options), f"the best plan with {text} alone")
    evaluation = answer.evaluation
    if evaluation is None:
        return DimensionRow(
            name=name,
            choice=text,
            fits=False,
            decode_sequences=0,
            concurrency=0,
            **dict.fromkeys(("prefill_s", "decode_s", "switch_s", "interactions_per_hour"), 0.0),
        )
    metrics = evaluation.metrics
    return DimensionRow(
        name=name,
        choice=text,
        fits=True,
        decode_sequences=evaluation.largest.batch.decode_sequences,
        concurrency=metrics.concurrency,
        prefill_s=metrics.prefill_s,
        decode_s=metrics.decode_s,
        switch_s=metrics.switch_s,
        interactions_per_hour=metrics.interactions_per_hour,
    )
