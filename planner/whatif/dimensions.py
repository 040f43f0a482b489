"""The source paper's table for a deployment: what each compression dimension does alone, and all together.

References
----------
Y. Fu 2024, arXiv 2405.08944: four metrics, four dimensions.
"""

from __future__ import annotations

from planner.price import evaluate
from planner.problem import Problem
from planner.service import DIMENSIONS, Choice, Compression, Service
from planner.whatif.explained import DimensionRow
from planner.whatif.parts import choice_text


def dimension_rows(problem: Problem, decision: Service) -> tuple[DimensionRow, ...]:
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


def _row(problem: Problem, decision: Service, name: str, kept: tuple[str, ...]) -> DimensionRow:
    choices = {part: getattr(decision.compression, part) if part in kept else Choice() for part in DIMENSIONS}
    compressed = decision.model_copy(update={"compression": Compression(**choices)})
    evaluation = evaluate(problem, compressed)
    metrics = evaluation.metrics
    return DimensionRow(
        name=name,
        choice=" and ".join(choice_text(choices[part]) for part in kept) or "none",
        fits=metrics.interactions_per_hour > 0,
        decode_sequences=evaluation.services[0].batch.decode_sequences,
        concurrency=metrics.concurrency,
        prefill_s=metrics.prefill_s,
        decode_s=metrics.decode_s,
        switch_s=metrics.switch_s,
        interactions_per_hour=metrics.interactions_per_hour,
    )
