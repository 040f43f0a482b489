"""What was imported, for people."""

from __future__ import annotations

from planner.importing.decision import Imported
from planner.importing.flags import NAMES
from planner.service import DIMENSIONS, Batch, Parallel


def summary(imported: Imported) -> str:
    """Return the decision in a few lines, then what is open and what was noticed."""
    decision = imported.decision
    engine = f"{NAMES.get(decision.engine, decision.engine)} {imported.version}"
    lines = [f"model       {imported.model or 'not named'} on {imported.gpus}, {engine}"]
    if imported.context_tokens:
        lines.append(f"sessions    up to {imported.context_tokens} tokens")
    lines.append(f"weights     {decision.weights}")
    choices = [(d, getattr(decision.compression, d)) for d in DIMENSIONS]
    used = [
        f"{dimension} {choice.point or choice.technique}" for dimension, choice in choices if choice.technique != "none"
    ]
    lines.append(f"compression {', '.join(used) or 'none'}")
    if decision.pools is None:
        lines += _pool("serving", decision.parallel, decision.batch, "", imported.undetermined)
    else:
        for role in ("prefill", "decode"):
            pool = getattr(decision.pools, role)
            lines += _pool(role, pool.parallel, pool.batch, f"pools.{role}.", imported.undetermined)
    tier = f" to {decision.offload.tier}" if decision.offload.tier else ""
    lines.append(f"offload     {decision.offload.policy}{tier}")
    lines += [f"from plan.json: {', '.join(imported.from_stamp)}"] if imported.from_stamp else []
    lines += [f"undetermined: {', '.join(imported.undetermined)}"] if imported.undetermined else []
    lines += [f"note: {note}" for note in imported.notes]
    return "\n".join(lines)


def _pool(name: str, parallel: Parallel, batch: Batch, prefix: str, undetermined: tuple[str, ...]) -> list[str]:
    def said(field: str, value: int | None, absent: str) -> str:
        return "as the engine's default" if f"{prefix}batch.{field}" in undetermined else str(value or absent)

    split = f"tp {parallel.tp}, pp {parallel.pp}, dcp {parallel.dcp}, pcp {parallel.pcp}, ep {parallel.ep}"
    decoding = said("decode_sequences", batch.decode_sequences, "")
    chunk = said("prefill_chunk_tokens", batch.prefill_chunk_tokens, "whole prompts")
    resident = batch.resident_sessions or "as many as fit"
    return [
        f"{name:<11} {split}, replicas {parallel.replicas}",
        f"{'':<11} decoding {decoding}, resident {resident}, prefill chunk {chunk}",
    ]
