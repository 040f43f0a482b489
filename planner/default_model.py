"""Which model is planned when nobody names one: a fact of the catalog, per length and GPU."""

from __future__ import annotations

from collections.abc import Sequence

from catalog.engine_models import models_of
from catalog.load import Catalog
from catalog.schema import DefaultFor, Engine, Model
from catalog.units import format_tokens
from planner.errors import InputError
from planner.request import Cluster


def default_model(ctx: int, catalog: Catalog, cluster: Cluster, engines: Sequence[Engine]) -> tuple[Model, DefaultFor]:
    """Return the model that the catalog takes for a length on these GPUs, and the fact that says why.

    Of several facts that fit, one for every engine counts first, then the one with the shortest context, then the one
    for the largest cluster. Beyond every default's context, the longest one is taken: the plan then warns.

    Raises
    ------
    InputError
        If none of the engines has any default model.
    """
    rows = [
        (default, model)
        for model in catalog.all(Model)
        for default in model.default_for
        if _on_gpus(default, cluster) and any(_serves(engine, model, default) for engine in engines)
    ]
    if not rows:
        names = ", ".join(engine.id for engine in engines)
        raise InputError(f"--model: the catalog has no default for {cluster.hardware.name} with {names}; name a model")
    longest = max(default.context_tokens for default, _ in rows)
    fitting = [row for row in rows if row[0].context_tokens >= min(ctx, longest)]
    default, model = min(fitting, key=_rank)
    return model, default


def choice_text(model: Model, default: DefaultFor, ctx: int) -> str:
    """Say which model was taken and why."""
    text = f"{model.id} ({model.hf_id}), as no --model was given: {default.reason}"
    if ctx > default.context_tokens:
        text += f"; {format_tokens(ctx)} tokens are beyond every default, so name a model that holds them"
    return text


def _rank(row: tuple[DefaultFor, Model]) -> tuple[bool, int, float, str]:
    default, model = row
    return bool(default.engines), default.context_tokens, -(default.cluster_hbm or 0.0), model.id


def _on_gpus(default: DefaultFor, cluster: Cluster) -> bool:
    if default.compute_capabilities and cluster.hardware.compute_capability not in default.compute_capabilities:
        return False
    return default.cluster_hbm is None or cluster.gpus * cluster.hardware.hbm >= default.cluster_hbm


def _serves(engine: Engine, model: Model, default: DefaultFor) -> bool:
    if default.engines and engine.id not in default.engines:
        return False
    known = models_of(engine.id, engine.version)
    return known is None or known.implementation(tuple(model.config.get("architectures", ()))) is not None
