"""A transformer as the cost model sees it: layers that cache, attend and multiply.

All counts are for the whole layer, unsharded; the cost model divides them over GPUs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AttentionKind = Literal["mha", "gqa", "mqa", "mla", "sliding", "chunked", "sparse", "linear"]


@dataclass(frozen=True, slots=True)
class CacheTerm:
    """One cached tensor family of one layer: what it keeps per token, and what attending to it costs.

    A plain attention layer has one term (its K and V). MLA has one (the latent and the rope key).
    A layer with a sparse indexer has two: what is attended, capped by ``read_cap_tokens``, and the
    indexer's keys, which every query scans. A compressing layer keeps one entry per
    ``stride_tokens``. Layers without a cache (linear attention) have none.
    """

    kind: AttentionKind
    stored_elements: float
    """Cached elements per token [elements]; 0 where the layer attends to another layer's cache."""
    read_elements: float
    """Elements that a decode step reads per attended token [elements]."""
    kv_heads: int
    """KV heads: tensor parallelism shards over at most so many ranks and replicates beyond; 1 for MLA."""
    decode_flops: float
    """FLOPs per query token and attended entry in a decode step [FLOP]."""
    prefill_flops: float
    """FLOPs per query token and attended entry in prefill [FLOP]."""
    element_bytes: float = 2.0
    """Bytes per element as the engine keeps it without compression [bytes]."""
    window_tokens: int | None = None
    """At most so many of the latest tokens are kept and attended (sliding), or the aligned chunk (chunked)."""
    stride_tokens: int = 1
    """One cached entry per so many tokens."""
    read_cap_tokens: int | None = None
    """Top-k: a query attends to at most so many entries, though all are kept."""
    expand_flops: float = 0.0
    """FLOPs per prefix token to re-expand a latent, once per prefill chunk [FLOP]."""
    compressible: bool = True
    """False where KV techniques don't apply (indexer keys)."""
    k_dim: int = 0
    """Key elements per token and KV head; with ``v_dim`` it gives engines' storage formulas."""
    v_dim: int = 0


@dataclass(frozen=True, slots=True)
class Experts:
    """Routed experts of one layer."""

    count: int
    active: int
    """Experts per token."""
    params_each: int


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer: its caches, its recurrent state and its parameters."""

    cache: tuple[CacheTerm, ...]
    sharded_params: int
    """Parameters that tensor parallelism splits: q, o, dense FFN, shared experts, ...; without K and V."""
    kv_params: int
    """K and V projections: split over at most ``kv_heads`` ranks, replicated beyond."""
    replicated_params: int
    """Parameters that every rank holds whole: norms, routers, MLA down-projections."""
    kv_heads: int = 1
    experts: Experts | None = None
    state_bytes: float = 0.0
    """Constant recurrent state per session: convolution and SSM or delta-rule state [bytes]."""
    conv_state_bytes: float = 0.0
    """The convolution's part of ``state_bytes`` [bytes]."""
    state_heads: int = 1
    """Heads over which the recurrent state shards."""
    state_groups: int = 0
    """Groups of a Mamba 2 state that share B and C; vLLM copies them where they don't divide over the ranks."""
    group_state_bytes: float = 0.0
    """One group's part of ``conv_state_bytes`` [bytes]."""
    scan_flops: float = 0.0
    """FLOPs per token of the recurrence itself, beyond its projections [FLOP]."""

    @property
    def params(self) -> int:
        """All parameters of the layer."""
        experts = self.experts.count * self.experts.params_each if self.experts else 0
        return self.sharded_params + self.kv_params + self.replicated_params + experts

    @property
    def active_params(self) -> int:
        """Parameters that one token passes through."""
        experts = self.experts.active * self.experts.params_each if self.experts else 0
        return self.sharded_params + self.kv_params + self.replicated_params + experts


WITH_SINKS = frozenset({"gpt_oss", "mimo_v2_flash"})
"""Model types with attention sinks (transformers: ``sinks``; MiMo: ``add_swa_attention_sink_bias``)."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A whole model, layer by layer, in order."""

    model_type: str
    layers: tuple[Layer, ...]
    hidden_size: int
    vocab_size: int
    query_heads: int
    embedding_params: int
    head_params: int
    """Output projection; equal to ``embedding_params`` but not counted twice when ``tied``."""
    tied: bool
    other_params: int
    """What is loaded but no text token passes through: vision towers and projectors."""
    final_params: int
    """Final norm and the like."""
    context_tokens: int
    """Window that the config declares."""
    native_weight_bits: float | None = None
    """Bits per quantised weight if the checkpoint itself is quantised (fp8, mxfp4, ...)."""
    quantised_by: str | None = None
    """Method of a checkpoint that is quantised; without `native_weight_bits` it isn't understood."""

    def __hash__(self) -> int:
        """Of a few fields: every split of a model is looked up by it."""
        return hash((self.model_type, len(self.layers), self.hidden_size, self.vocab_size, self.context_tokens))

    @property
    def total_params(self) -> int:
        """Every parameter of the checkpoint, as ``transformers`` counts them."""
        head = 0 if self.tied else self.head_params
        return (
            self.embedding_params + head + self.other_params + self.final_params + sum(la.params for la in self.layers)
        )

    @property
    def active_params(self) -> int:
        """Parameters that one token uses, the embedding and the head included."""
        head = 0 if self.tied else self.head_params
        return self.embedding_params + head + self.final_params + sum(la.active_params for la in self.layers)

    @property
    def attention_kinds(self) -> frozenset[AttentionKind]:
        """The kinds of attention in this model; recurrent layers count as ``linear``."""
        kinds: set[AttentionKind] = {term.kind for layer in self.layers for term in layer.cache}
        if any(layer.state_bytes for layer in self.layers):
            kinds.add("linear")
        return frozenset(kinds)

    @property
    def attention_sinks(self) -> bool:
        """Whether heads have a learnt sink, which not every attention kernel knows."""
        return self.model_type in WITH_SINKS

    @property
    def dense(self) -> bool:
        """Whether every token passes through every parameter: no layer has routed experts."""
        return all(layer.experts is None for layer in self.layers)

    def kv_bytes(self, tokens: int) -> float:
        """KV bytes of one session of ``tokens`` tokens, uncompressed, unsharded, states included [bytes]."""
        total = 0.0
        for layer in self.layers:
            total += layer.state_bytes
            for term in layer.cache:
                kept = tokens if term.window_tokens is None else min(tokens, term.window_tokens)
                total += term.stored_elements * term.element_bytes * (kept // term.stride_tokens)
        return total

    @property
    def kv_bytes_per_token(self) -> float:
        """Marginal bf16 KV bytes of one more token far beyond every window [bytes]."""
        return sum(
            term.stored_elements * term.element_bytes / term.stride_tokens
            for layer in self.layers
            for term in layer.cache
            if term.window_tokens is None
        )
