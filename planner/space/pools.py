"""Which prefill and decode servers of an engine can hand caches over."""

from __future__ import annotations

from catalog.schema import Engine
from planner.space.splits import Split


def handover_problem(engine: Engine, prefill: Split, decode: Split, latent: bool) -> str | None:
    """Say why caches can't get from one server to another; None where they can.

    Parameters
    ----------
    engine
        Of both.
    prefill, decode
        How they split the model.
    latent
        Whether the model's caches are latents (MLA), which every rank holds whole.
    """
    rules = engine.transfer
    if max(prefill.tp, decode.tp) % min(prefill.tp, decode.tp):
        return f"tp {prefill.tp} and tp {decode.tp}: one must divide the other"
    if rules is None:
        return None
    if prefill.pp > 1 and not rules.prefill_pipeline:
        return f"{engine.id}'s prefill pool can't be a pipeline"
    if decode.pp > 1 and not (rules.decode_pipeline and decode.pp == prefill.pp):
        also = f", but of {prefill.pp} stages as its prefill pool" if rules.decode_pipeline and prefill.pp > 1 else ""
        return f"{engine.id}'s decode pool can't be a pipeline of {decode.pp} stages{also}"
    if decode.dcp > 1 and rules.decode_context != "any":
        if not latent or rules.decode_context == "none":
            return f"{engine.id}'s decode pool can't spread a session's tokens over ranks"
        if decode.dcp != decode.tp:
            return f"{engine.id}'s decode pool spreads a session's tokens over all ranks or none: dcp {decode.tp} or 1"
    if decode.dcp > 1 and prefill.pcp > 1:
        return "prefill context parallelism (pcp) hands nothing over to decode context parallelism (dcp)"
    return None
