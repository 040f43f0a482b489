"""What an engine takes where its command line leaves a number out, by GPU and model."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.schema import Hardware
from planner.emit.tables import TABLES, VLLM
from planner.importing.decision import Imported
from planner.importing.flags import NAMES

MEMORY_SHARE: float = VLLM.row("memory_share").default
"""``--gpu-memory-utilization`` of vLLM 0.33."""


@dataclass(frozen=True, slots=True)
class Scheduling:
    """How much a server works on at a time, given or by default."""

    sequences: int
    """``--max-num-seqs``."""
    batched_tokens: int
    """``--max-num-batched-tokens`` [tokens]."""
    memory_share: float
    """``--gpu-memory-utilization``, of 1."""
    kv_bytes_per_gpu: int | None
    """``--kv-cache-memory-bytes``; None: what the share leaves [bytes]."""
    notes: tuple[str, ...]
    """What wasn't given, in words."""


def scheduling(imported: Imported, hardware: Hardware) -> Scheduling:
    """Return a server's limits; what its flags leave out is the engine's default for an API server on this GPU.

    References
    ----------
    The engines' tables in `planner.emit.tables`.
    """
    notes: list[str] = []
    engine = imported.decision.engine
    table, said = TABLES.get(engine, VLLM), imported.said
    name = NAMES.get(engine, engine)

    def whole(field: str, fallback: int) -> int:
        value = said.get(field)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        row = table.row(field) if table.has(field) else None
        default = None if row is None else row.absent(hardware)
        if default is None:
            notes.append(f"{name} says no {field.replace('_', ' ')} here: priced with {fallback}, as vLLM would take")
            return fallback
        notes.append(f"{row.flag if row else field} isn't given: {default}, {name}'s default on {hardware.name}")
        return int(default)

    field = "batched_tokens" if table.has("batched_tokens") else "chunk_tokens"
    batched = whole(field, int(VLLM.row("batched_tokens").absent(hardware)))
    if said.get("chunked") is False and imported.context_tokens:
        batched = max(batched, imported.context_tokens)
    sequences_field = "slots" if table.has("slots") else "sequences"
    sequences = whole(sequences_field, int(VLLM.row("sequences").absent(hardware)))
    fixed = said.get("kv_bytes")
    return Scheduling(
        sequences=sequences,
        batched_tokens=batched,
        memory_share=_memory_share(imported, name, notes),
        kv_bytes_per_gpu=fixed if isinstance(fixed, int) and not isinstance(fixed, bool) else None,
        notes=tuple(notes),
    )


def _memory_share(imported: Imported, name: str, notes: list[str]) -> float:
    """Return the share of HBM that a server may take, where its flag means that; else vLLM's own."""
    share = imported.said.get("memory_share")
    given = isinstance(share, int | float) and not isinstance(share, bool) and 0 < share <= 1
    if imported.decision.engine == "vllm" and given and isinstance(share, int | float):
        return float(share)
    if imported.decision.engine == "vllm":
        notes.append(f"--gpu-memory-utilization isn't given: {MEMORY_SHARE}, vLLM's default")
    else:
        notes.append(f"{name} counts its share of HBM otherwise: priced with {MEMORY_SHARE} of it")
    return MEMORY_SHARE
