"""DeepSeek V4: a short window of raw tokens in every layer, and beside it compressed entries.

Layers with ratio 4 (compressed sparse attention) keep one entry per 4 tokens and let an indexer pick
``index_topk`` of them; layers with ratio 128 (heavily compressed) keep one per 128 and read them all.
K and V are one shared vector of ``head_dim`` for all heads.

The shapes are those of ``transformers``' ``deepseek_v4``; the count equals its count. Entries are priced
at 2 bytes per element, indexer keys as fp8 with a 4-byte scale as in V3.2.
"""

from __future__ import annotations

from catalog.architecture.architecture import Architecture, CacheTerm, Layer
from catalog.architecture.assemble import assemble
from catalog.architecture.fields import Fields
from catalog.architecture.mla import INDEXER_SCALE_BYTES
from catalog.architecture.moe import indexer_term
from catalog.architecture.parts import Part, experts, layer, read_experts

_KINDS: dict[object, str] = {
    "sliding_attention": "0",
    "compressed_sparse_attention": "4",
    "heavily_compressed_attention": "128",
}
_RATIOS: dict[object, str] = {0: "0", 4: "4", 128: "128"}


class _Shape:
    """The dimensions that every layer shares."""

    def __init__(self, fields: Fields) -> None:
        self.hidden = fields.count("hidden_size")
        self.query = fields.count("num_attention_heads", most=100_000)
        self.dim = fields.count("head_dim", most=100_000)
        self.q_lora = fields.count("q_lora_rank")
        self.o_lora = fields.count("o_lora_rank")
        self.groups = fields.count("o_groups", most=100_000)
        self.window = fields.count("sliding_window")
        self.index_heads = fields.count("index_n_heads", most=100_000)
        self.index_dim = fields.count("index_head_dim", most=100_000)
        self.topk = fields.count("index_topk")
        self.streams = fields.count("hc_mult", most=1000)
        if fields.count("num_key_value_heads", default=1) != 1:
            fields.problem("num_key_value_heads", "is not 1", "this family shares one key and value vector")
        if self.query * self.dim % self.groups:
            fields.problem("o_groups", f"{self.groups} doesn't divide the heads' output", "correct it")


def deepseek_v4(fields: Fields) -> Architecture:
    """DeepSeek V4 Flash and Pro."""
    count = fields.layers()
    shape = _Shape(fields)
    kinds = fields.kinds("layer_types", count, _KINDS, longer=True)
    kinds = kinds or fields.kinds("compress_ratios", count, _RATIOS, longer=True)
    rates = fields.nested("compress_rates", required=False)
    if rates is not None:
        for name, kind in _KINDS.items():
            if kind != "0" and rates.count(str(name), default=int(kind)) != int(kind):
                rates.problem(str(name), f"is not {kind}", "other compression rates aren't supported")
    if kinds is None:
        fields.problem("compress_ratios", "missing", "add it, or layer_types")
        kinds = ["0"] * count
    inner = fields.count("moe_intermediate_size")
    number, active = read_experts(fields, "n_routed_experts")
    shared = fields.count("n_shared_experts", default=1, least=0) * inner
    block = experts(shape.hidden, inner, number, active, shared=shared)
    mixing = (2 + shape.streams) * shape.streams
    norms = 2 * shape.hidden + 2 * (mixing * shape.streams * shape.hidden + mixing + 3)
    made: dict[str, Layer] = {kind: layer(_attention(shape, int(kind)), block, norms=norms) for kind in set(kinds)}
    final = shape.hidden + shape.streams * shape.streams * shape.hidden + shape.streams + 1
    return assemble(fields, [made[kind] for kind in kinds], shape.hidden, shape.query, final=final)


def _attention(shape: _Shape, ratio: int) -> Part:
    wide = shape.query * shape.dim
    lora = shape.groups * shape.o_lora
    sharded = shape.q_lora * wide + lora * (wide // shape.groups) + shape.hidden * lora + shape.query
    replicated = shape.hidden * shape.q_lora + shape.q_lora + shape.hidden * shape.dim + shape.dim
    terms = [_term(shape, window=shape.window)]
    if ratio:
        # Ratio 4 compresses overlapping groups and projects twice as wide for it.
        overlap = 2 if ratio == 4 else 1
        replicated += overlap * shape.dim * (ratio + 2 * shape.hidden) + shape.dim
        terms.append(_term(shape, stride=ratio, cap=shape.topk if ratio == 4 else None))
    if ratio == 4:
        keys = 2 * shape.index_dim * (ratio + 2 * shape.hidden) + shape.index_dim
        replicated += keys + shape.index_heads * (shape.index_dim * shape.q_lora + shape.hidden)
        per_element = (shape.index_dim + INDEXER_SCALE_BYTES) / shape.index_dim
        flops = 2.0 * shape.index_heads * shape.index_dim
        terms.append(indexer_term(shape.index_dim, flops, element_bytes=per_element, stride=ratio))
    return Part(sharded=sharded, replicated=replicated, cache=tuple(terms))


def _term(shape: _Shape, *, window: int | None = None, stride: int = 1, cap: int | None = None) -> CacheTerm:
    flops = 4.0 * shape.query * shape.dim
    return CacheTerm(
        kind="sliding" if window else "sparse",
        stored_elements=float(shape.dim),
        read_elements=float(shape.dim),
        kv_heads=1,
        decode_flops=flops,
        prefill_flops=flops,
        window_tokens=window,
        stride_tokens=stride,
        read_cap_tokens=cap,
        k_dim=shape.dim,
    )
