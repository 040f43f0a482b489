"""HBM that an engine reserves for one step, where it grows with the longest session.

An engine that builds its graph at start reserves an attention mask over the longest session for every token
of a step, activations, and, where caches are quantised, one layer's cache in 16 bits.
"""

from __future__ import annotations

from catalog.architecture import Architecture
from catalog.schema import StepMemory

MASK_SHARE = 0.05
"""Share of HBM that the mask may take; a step has fewer tokens where it would take more."""
LEAST_TOKENS = 128
"""No step is made smaller than this, however long the session [tokens]."""


def step_tokens(memory: StepMemory, session_tokens: int, hbm_bytes: float) -> int:
    """Tokens of a step for sessions of this length: the engine's most, halved until its mask fits [tokens].

    >>> from catalog.schema import StepMemory
    >>> memory = StepMemory(most_tokens=2048, mask_bytes=2, hidden_widths=5, element_bytes=4)
    >>> step_tokens(memory, 100_000, 80e9), step_tokens(memory, 1_000_000, 24e9)
    (2048, 512)
    """
    tokens = memory.most_tokens
    while tokens > LEAST_TOKENS and memory.mask_bytes * tokens * session_tokens > MASK_SHARE * hbm_bytes:
        tokens //= 2
    return tokens


def step_bytes(memory: StepMemory, architecture: Architecture, tokens: int, session_tokens: int) -> float:
    """HBM of one GPU for a step of so many tokens over a session of so many, unsharded [bytes]."""
    hidden = architecture.hidden_size
    widest = max(
        (layer.sharded_params + (layer.experts.active * layer.experts.params_each if layer.experts else 0)) / hidden
        for layer in architecture.layers
    )
    activations = memory.element_bytes * (memory.hidden_widths * hidden + widest)
    cache = max((term.stored_elements for layer in architecture.layers for term in layer.cache), default=0.0)
    return (
        tokens * (memory.mask_bytes * session_tokens + activations) + memory.unpacked_kv_bytes * cache * session_tokens
    )
