"""What a decision on an engine means beside its price: what it refuses, needs, and runs attention in."""

from __future__ import annotations

from catalog.schema import Engine
from planner.efficiency import measurements_of
from planner.problem import Problem
from planner.service import UNCOMPRESSED, Service
from planner.space.runs import Run, runs


def run_notes(problem: Problem, decision: Service) -> list[str]:
    """Say what the engine of a decision does with the model here; nothing where the decision leaves it open."""
    if decision.engine == "any":
        return []
    run = runs(problem, problem.catalog.get(Engine, decision.engine))
    choice = decision.compression.hidden
    point = choice.point or (UNCOMPRESSED["hidden"] if choice.technique == "none" else choice.technique)
    notes = [f"{run.who} doesn't run this: it {refusal}" for refusal in run.refusals]
    notes += [f"{run.who}: {text}" for text in run.told]
    formats = [f for f in run.engine.kv_formats if f.technique_point == point]
    fitting = run.kv_formats(point, problem)
    if formats and not fitting:
        misfit = "; ".join(run.misfits(formats[0], problem))
        notes.append(f"{run.who} can't keep this KV: its {formats[0].option} {misfit}")
    if problem.request.efficiency != "peak" and fitting:
        notes += _backend_note(problem, run, run.backend_of(fitting[0]))
    return notes


def _backend_note(problem: Problem, run: Run, backend: str | None) -> list[str]:
    """Where attention runs in other kernels than those that were measured."""
    entries = measurements_of(problem, run.engine.id)
    measured = sorted({name for entry in entries for name in entry.attention_backends if entry.engine == run.engine.id})
    if backend is None or not measured or backend in measured:
        return []
    return [
        f"attention of {run.engine.id} runs in {backend} here, and its times are those of {' and '.join(measured)}: "
        "nobody measured these kernels, so it may be slower"
    ]
