"""A space without one of its options, so that the solver must do without it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner.service import DIMENSIONS, UNCOMPRESSED, Choice, Service
from planner.space import Space
from planner.whatif.parts import parallel_text

SIZES = ("tp", "pp", "dcp", "pcp", "ep")


@dataclass(frozen=True)
class Forbidden:
    """A choice of a plan, and the space without it."""

    part: str
    """Part of the decision, as `planner.whatif.parts` names it."""
    choice: str
    """``engine vllm``"""
    without: str
    space: Space
    technique: str | None = None
    """Set where every strength of a technique is forbidden, not only the one that was chosen."""


def without_choices(space: Space, decision: Service) -> list[Forbidden]:
    """Each of a decision's choices that the space has an alternative to, with the space without it.

    Parameters
    ----------
    space
        Without options that exceed the quality budget on their own (`planner.candidates.scope.affordable`).
    decision
        As planned.
    """
    found = [
        *_named(space, decision),
        *(row for name in DIMENSIONS for row in _dimension(space, name, getattr(decision.compression, name))),
        *_splits(space, decision),
        *_batch(space, decision),
        *_serving(space, decision),
    ]
    return [row for row in found if _holds_something(row.space)]


def _holds_something(space: Space) -> bool:
    groups = (space.engines, space.weights, space.splits, space.sequences, space.chunks, space.policies)
    return all(groups) and all(space.options.values()) and (space.aggregated or space.disaggregated)


def _named(space: Space, decision: Service) -> list[Forbidden]:
    engines = tuple(engine for engine in space.engines if engine.id != decision.engine)
    weights = tuple(option for option in space.weights if option.id != decision.weights)
    rows = []
    if len(engines) < len(space.engines):
        rows.append(Forbidden("engine", f"engine {decision.engine}", decision.engine, replace(space, engines=engines)))
    if len(weights) < len(space.weights):
        text = f"{decision.weights} weights"
        rows.append(Forbidden("weights", f"weights {decision.weights}", text, replace(space, weights=weights)))
    return rows


def _dimension(space: Space, name: str, choice: Choice) -> list[Forbidden]:
    """Without the point; without any strength of its technique, where it has several."""
    options = space.options[name]
    nothing = choice.technique in ("none", UNCOMPRESSED[name])
    chosen = "none" if nothing else choice.point or choice.technique

    def left(names: set[str]) -> Space:
        rest = tuple(option for option in options if option.id not in names)
        return replace(space, options={**space.options, name: rest})

    if nothing:
        return [Forbidden(name, f"{name} none", f"no {name} technique", left({"none"}))]
    rows = [Forbidden(name, f"{name} {chosen}", chosen, left({chosen}))]
    strengths = {o.id for o in options if o.technique is not None and o.technique.id == choice.technique}
    if len(strengths) > 1:
        text = f"{choice.technique} at any strength"
        rows.append(Forbidden(name, f"{name} {chosen}", text, left(strengths), choice.technique))
    return rows


def _splits(space: Space, decision: Service) -> list[Forbidden]:
    if decision.pools is not None:
        pools = {"prefill": decision.pools.prefill.parallel, "decode": decision.pools.decode.parallel}
        rows = []
        for name, parallel in pools.items():
            sizes = tuple(getattr(parallel, size) or 1 for size in SIZES)
            rest = tuple(s for s in space.splits if tuple(getattr(s, size) for size in SIZES) != sizes)
            text = parallel_text(parallel).split(",")[0]
            rows.append(Forbidden("serving", f"{name} pool {text}", f"{text} in any pool", replace(space, splits=rest)))
        return rows
    rows = []
    for size in SIZES:
        value = getattr(decision.parallel, size) or 1
        rest = tuple(split for split in space.splits if getattr(split, size) != value)
        if rest:
            rows.append(Forbidden("parallel", f"{size} {value}", f"{size} {value}", replace(space, splits=rest)))
    return rows


def _batch(space: Space, decision: Service) -> list[Forbidden]:
    pool = decision.pools.decode if decision.pools else decision
    micro = max(pool.batch.decode_sequences // pool.parallel.pp, 1)
    rest = tuple(size for size in space.sequences if size != micro)
    rows = []
    if len(rest) < len(space.sequences):
        text = f"{pool.batch.decode_sequences} decoding"
        rows.append(Forbidden("decode_batch", text, text, replace(space, sequences=rest)))
    chunk = pool.batch.prefill_chunk_tokens
    chunks = tuple(size for size in space.chunks if size != chunk)
    if decision.pools is None and len(chunks) < len(space.chunks):
        text = f"chunks of {chunk} tokens"
        rows.append(Forbidden("prefill_chunk", text, text, replace(space, chunks=chunks)))
    return rows


def _serving(space: Space, decision: Service) -> list[Forbidden]:
    rows = []
    if decision.serving == "aggregated" and space.disaggregated:
        rows.append(Forbidden("serving", "aggregated serving", "pools that do both", replace(space, aggregated=False)))
    if decision.serving == "disaggregated":
        rows.append(
            Forbidden("serving", "disaggregated serving", "separate pools", replace(space, disaggregated=False))
        )
    offload = decision.offload
    rest = tuple(p for p in space.policies if (p.policy, p.tier) != (offload.policy, offload.tier))
    if len(rest) < len(space.policies):
        text = {"none": "caches in HBM between rounds"}.get(
            offload.policy, f"{offload.policy} between rounds" + (f" to {offload.tier}" if offload.tier else "")
        )
        rows.append(Forbidden("offload", text, text, replace(space, policies=rest)))
    return rows
