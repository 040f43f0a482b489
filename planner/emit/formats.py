"""Which of an engine's formats of KV and weights is the plan's."""

from __future__ import annotations

from catalog.schema import Engine, KvFormat, WeightFormat
from planner.problem import Problem
from planner.space import Run


def kv_format_of(point: str, run: Run, problem: Problem) -> KvFormat | None:
    """Return the engine's format of a catalog point; one that doesn't fit only where none does, to be refused."""
    matching = [f for f in run.engine.kv_formats if f.technique_point == point]
    return min(matching, key=lambda f: len(run.misfits(f, problem)), default=None)


def weight_format_of(point: str | None, engine: Engine, capability: str) -> WeightFormat | None:
    """Return the engine's format of a catalog point of weights, of this GPU if it has one; None for none."""
    matching = [f for f in engine.weight_formats if f.technique_point == point]
    return max(matching, key=lambda f: capability in f.compute_capabilities, default=None)
