"""Whether the weights of a plan are there: published ready, made while they are loaded, or to be made first."""

from __future__ import annotations

from catalog.ready import Ready, best_ready, format_on
from catalog.schema import Engine
from planner.problem import Problem

_OWN = ("bf16", "native")
"""Weights that are the model's own."""


def ready_checkpoint(problem: Problem, engine: Engine, point: str) -> Ready | None:
    """Return the checkpoint that an engine loads for a catalog point of weights; None: nobody publishes one.

    A checkpoint that was asked for by name is the only one.
    """
    capability = problem.cluster.hardware.compute_capability
    if problem.checkpoint is not None:
        known = format_on(engine, problem.checkpoint, capability, experts=has_experts(problem))
        found = known if problem.checkpoint.point == point else None
        return None if found is None else Ready(problem.checkpoint, found)
    if problem.model_entry is None or problem.hub_id is None:
        return None
    return best_ready(
        problem.catalog, problem.model_id, problem.hub_id, point, engine, capability, experts=has_experts(problem)
    )


def has_experts(problem: Problem) -> bool:
    """Whether the model is a mixture of experts."""
    return any(layer.experts for layer in problem.architecture.layers)


def made_at_load(problem: Problem, engine: Engine, point: str) -> bool:
    """Whether an engine makes weights of a precision from the model's own while it loads them."""
    capability = problem.cluster.hardware.compute_capability
    return any(
        known.technique_point == point and known.made_at_load and capability in known.compute_capabilities
        for known in engine.weight_formats
    )


def has_to_be_made(problem: Problem, engine: Engine, point: str) -> bool:
    """Whether somebody has to make a checkpoint of this precision before an engine can serve it."""
    return not made_at_load(problem, engine, point) and ready_checkpoint(problem, engine, point) is None


def _loading(problem: Problem, engine_id: str, weights: str) -> Engine | None:
    """Return the engine that loads other weights than the model's own; None for those, or where none is decided."""
    if weights in _OWN:
        return None
    return next((engine for engine in problem.engines if engine.id == engine_id), None)


def weights_choice(problem: Problem, engine_id: str, weights: str) -> str | None:
    """Say where a decision's weights come from; None where they are the model's own, or no engine is decided.

    Parameters
    ----------
    problem
        The question.
    engine_id
        Engine of the decision.
    weights
        Its weights: a catalog point without its ``w_``.
    """
    engine = _loading(problem, engine_id, weights)
    if engine is None:
        return None
    ready = ready_checkpoint(problem, engine, f"w_{weights}")
    if ready is not None:
        return f"{weights}, published: {ready.hub_id}"
    if made_at_load(problem, engine, f"w_{weights}"):
        return f"{weights}, made by {engine_id} while it loads the model"
    return f"{weights}, TO BE MADE FIRST: no published checkpoint is known"


def making_is_known(problem: Problem) -> bool:
    """Whether the programs that make checkpoints are known to work for a model: dense, with attention in each layer.

    llm-compressor's were run with a dense Llama only (docs/deploy.md), whose layers these models share. Mixtures,
    states and latent caches have parts that must stay as they are, and other loaders; a plan that rests on such a
    checkpoint may never start.
    """
    return not has_experts(problem) and problem.architecture.attention_kinds <= {"mha", "gqa", "mqa", "sliding"}


def making_warning(problem: Problem, engine_id: str, weights: str) -> tuple[str, ...]:
    """Say that a decision's weights have to be made first; empty where they haven't, or no engine is decided.

    Parameters
    ----------
    problem
        The question.
    engine_id
        Engine of the decision.
    weights
        Its weights: a catalog point without its ``w_``.
    """
    engine = _loading(problem, engine_id, weights)
    if engine is None or not has_to_be_made(problem, engine, f"w_{weights}"):
        return ()
    of = problem.hub_id or problem.model_name
    return (
        f"{weights}: the catalog knows no published checkpoint of {of} in this precision that {engine_id} loads here; "
        "somebody has to make it first, which takes GPU time that isn't priced (--weights names another precision)",
    )
