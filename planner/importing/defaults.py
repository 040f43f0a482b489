"""What vLLM takes where its command line leaves a number out, by GPU and model."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.schema import Hardware
from planner.importing.decision import Imported

_GIB = 1 << 30
MEMORY_SHARE = 0.92
"""``--gpu-memory-utilization`` of vLLM 0.33."""
_LARGE_BYTES, _MIDDLE_BYTES = 160 * _GIB, 70 * _GIB


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
    """Return a server's limits; what its flags leave out is vLLM's default for an API server on this GPU.

    References
    ----------
    ``EngineArgs.get_batch_defaults`` of vLLM 0.33: by the GPU's memory, with the A100 among the small.
    """
    notes: list[str] = []
    a100 = hardware.id.lower().startswith("a100")
    large = hardware.hbm >= _LARGE_BYTES
    middle = hardware.hbm >= _MIDDLE_BYTES and not a100
    tokens = 16_384 if large else 8_192 if middle else 2_048

    def whole(flag: str, default: int) -> int:
        value = imported.flags.get(flag)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        notes.append(f"{flag} isn't given: {default}, vLLM's default on {hardware.name}")
        return default

    batched = whole("--max-num-batched-tokens", tokens)
    if imported.flags.get("--enable-chunked-prefill") is False and imported.context_tokens:
        batched = max(batched, imported.context_tokens)
    share = imported.flags.get("--gpu-memory-utilization")
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share <= 1:
        notes.append(f"--gpu-memory-utilization isn't given: {MEMORY_SHARE}, vLLM's default")
        share = MEMORY_SHARE
    fixed = imported.flags.get("--kv-cache-memory-bytes")
    return Scheduling(
        sequences=whole("--max-num-seqs", 1024 if large or middle else 256),
        batched_tokens=batched,
        memory_share=float(share),
        kv_bytes_per_gpu=fixed if isinstance(fixed, int) and not isinstance(fixed, bool) else None,
        notes=tuple(notes),
    )
