"""The source paper's table for a deployment: what each compression dimension does alone, and all together.

References
----------
Y. Fu 2024, arXiv 2405.08944: four metrics, four dimensions.
"""

from __future__ import annotations

from planner.plan import DIMENSIONS, Batch, Choice, Compression, Decision
from planner.pricing import evaluate
from planner.problem import Problem
from planner.whatif.explained import DimensionRow
from planner.whatif.parts import choice_text


def dimension_rows(problem: Problem, decision: Decision) -> tuple[DimensionRow, ...]:
    """The plan's four metrics uncompressed, with each of its techniques alone, and with all of them.

    Everything else stays as planned; where fewer sessions fit than the plan decodes, as many as fit
    are decoded, and the row says so.
    """
    chosen = [name for name in DIMENSIONS if getattr(decision.compression, name).technique != "none"]
    rows = [_row(problem, decision, "none", ())]
    rows += [_row(problem, decision, name, (name,)) for name in chosen]
    if len(chosen) > 1:
        rows.append(_row(problem, decision, "together", tuple(chosen)))
    return tuple(rows)


def _row(problem: Problem, decision: Decision, name: str, kept: tuple[str, ...]) -> DimensionRow:
    choices = {part: getattr(decision.compression, part) if part in kept else Choice() for part in DIMENSIONS}
    compressed = decision.model_copy(update={"compression": Compression(**choices)})
    evaluation = evaluate(problem, compressed)
    wanted = _batch(compressed).decode_sequences
    if evaluation.metrics.interactions_per_hour <= 0 and evaluation.metrics.concurrency > 0:
        compressed = _decoding(compressed, min(wanted, max(1, _fit(evaluation.metrics.concurrency, compressed) - 1)))
        evaluation = evaluate(problem, compressed)
    metrics = evaluation.metrics
    return DimensionRow(
        name=name,
        choice=" and ".join(choice_text(choices[part]) for part in kept) or "none",
        fits=metrics.interactions_per_hour > 0,
        decode_sequences=_batch(compressed).decode_sequences,
        concurrency=metrics.concurrency,
        prefill_s=metrics.prefill_s,
        decode_s=metrics.decode_s,
        switch_s=metrics.switch_s,
        interactions_per_hour=metrics.interactions_per_hour,
    )


def _batch(decision: Decision) -> Batch:
    return decision.pools.decode.batch if decision.pools else decision.batch


def _fit(concurrency: int, decision: Decision) -> int:
    """Sessions that fit one replica."""
    parallel = decision.pools.decode.parallel if decision.pools else decision.parallel
    return concurrency // parallel.replicas


def _decoding(decision: Decision, sequences: int) -> Decision:
    batch = _batch(decision).model_copy(update={"decode_sequences": sequences})
    if decision.pools is None:
        return decision.model_copy(update={"batch": batch})
    pool = decision.pools.decode.model_copy(update={"batch": batch})
    return decision.model_copy(update={"pools": decision.pools.model_copy(update={"decode": pool}), "batch": batch})
