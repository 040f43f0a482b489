"""Which of an engine's formats of KV and weights is the plan's, and what of a model it isn't made for."""

from __future__ import annotations

from catalog.architecture import Architecture
from catalog.schema import Engine, KvFormat, WeightFormat


def kv_format_of(point: str, engine: Engine, capability: str, architecture: Architecture) -> KvFormat | None:
    """Return the engine's format of a catalog point; one that doesn't fit only where none does, to be refused."""
    matching = [f for f in engine.kv_formats if f.technique_point == point]
    return max(
        matching,
        key=lambda f: (capability in f.compute_capabilities, not format_misfits(f, architecture)),
        default=None,
    )


def format_misfits(kv_format: KvFormat, architecture: Architecture) -> list[str]:
    """Say what of a model's attention a KV format isn't made for."""
    terms = [t for layer in architecture.layers for t in layer.cache if t.compressible]
    found = []
    kinds = sorted({t.kind for t in terms} - set(kv_format.attention)) if kv_format.attention else []
    if kinds:
        found.append(f"is for {', '.join(kv_format.attention)} attention, not for {', '.join(kinds)}")
    dims = sorted({t.k_dim for t in terms if t.v_dim} - set(kv_format.head_dims)) if kv_format.head_dims else []
    if dims:
        found.append(f"is for heads of {', '.join(map(str, kv_format.head_dims))}, not of {', '.join(map(str, dims))}")
    if architecture.attention_sinks and not kv_format.attention_sinks:
        found.append("isn't for attention sinks")
    return found


def weight_format_of(point: str | None, engine: Engine, capability: str) -> WeightFormat | None:
    """Return the engine's format of a catalog point of weights, of this GPU if it has one; None for none."""
    matching = [f for f in engine.weight_formats if f.technique_point == point]
    return max(matching, key=lambda f: capability in f.compute_capabilities, default=None)
