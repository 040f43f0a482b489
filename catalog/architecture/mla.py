"""Multi-head latent attention: DeepSeek V2, V3, V3.2, Kimi K2, GLM-5.

References
----------
DeepSeek-V2, arXiv 2405.04434, section 2.1: K and V are projections of one latent of ``kv_lora_rank``
per token; ``qk_rope_head_dim`` more elements carry the position, shared by all heads. DeepSeek-V3.2,
arXiv 2512.02556: an indexer scores every token and lets a query attend to ``index_topk`` of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from catalog.architecture.architecture import Architecture, CacheTerm
from catalog.architecture.assemble import assemble
from catalog.architecture.dense import combine
from catalog.architecture.fields import Fields
from catalog.architecture.moe import MLP_KINDS, by_kind, indexer_term
from catalog.architecture.parts import Part, experts, feed_forward, read_experts

INDEXER_SCALE_BYTES = 4
"""Engines keep indexer keys as fp8 with one fp32 scale per token (vLLM 0.33: 132 bytes at 128 elements)."""


@dataclass(frozen=True, slots=True)
class Latent:
    """The shape of one MLA layer."""

    hidden: int
    query: int
    q_lora: int
    """Rank of the query's low-rank projection, 0 for a full one."""
    kv_lora: int
    nope: int
    rope: int
    v_dim: int
    bias: bool = False
    gate: int = 0
    """Parameters of an output gate."""


@dataclass(frozen=True, slots=True)
class Indexer:
    """The sparse indexer beside an MLA layer."""

    heads: int
    dim: int
    topk: int


def read_latent(fields: Fields, hidden: int) -> Latent:
    """Read the shape of the MLA layers."""
    fields.ignore("num_key_value_heads", "head_dim")
    return Latent(
        hidden=hidden,
        query=fields.count("num_attention_heads", most=100_000),
        q_lora=fields.count("q_lora_rank", default=0, least=0),
        kv_lora=fields.count("kv_lora_rank"),
        nope=fields.count("qk_nope_head_dim", most=100_000),
        rope=fields.count("qk_rope_head_dim", most=100_000),
        v_dim=fields.count("v_head_dim", most=100_000),
        bias=fields.flag("attention_bias"),
    )


def latent_attention(shape: Latent, indexer: Indexer | None = None, *, owns_indexer: bool = True) -> Part:
    """MLA as engines run it.

    Decoding absorbs the up-projections into query and output: 2 * heads * ((kv_lora + rope) + kv_lora)
    FLOPs per attended token. Prefill expands the latents of the prefix once per chunk
    (2 * kv_lora * heads * (nope + v) FLOPs per token) and then attends at 2 * heads * (nope + rope + v).
    With an indexer each query gathers its own tokens, so prefill runs absorbed too and expands nothing.

    Parameters
    ----------
    shape
        Of the layer.
    indexer
        Sparse indexer, if any.
    owns_indexer
        False where the layer uses an earlier layer's choice: it has neither indexer weights nor keys.
    """
    width = shape.kv_lora + shape.rope
    absorbed = 2.0 * shape.query * (2 * shape.kv_lora + shape.rope)
    term = CacheTerm(
        kind="mla",
        stored_elements=float(width),
        read_elements=float(width),
        kv_heads=1,
        decode_flops=absorbed,
        prefill_flops=absorbed if indexer else 2.0 * shape.query * (shape.nope + shape.rope + shape.v_dim),
        read_cap_tokens=indexer.topk if indexer else None,
        expand_flops=0.0 if indexer else 2.0 * shape.kv_lora * shape.query * (shape.nope + shape.v_dim),
        k_dim=width,
    )
    q_out = shape.query * (shape.nope + shape.rope)
    down = shape.hidden * shape.q_lora + shape.q_lora + (shape.q_lora if shape.bias else 0)
    query = q_out * (shape.q_lora or shape.hidden)
    sharded = query + shape.kv_lora * shape.query * (shape.nope + shape.v_dim)
    sharded += shape.query * shape.v_dim * shape.hidden + shape.gate
    replicated = (down if shape.q_lora else 0) + shape.hidden * width + shape.kv_lora
    replicated += width + shape.hidden if shape.bias else 0
    terms: tuple[CacheTerm, ...] = (term,)
    if indexer and owns_indexer:
        replicated += indexer.heads * indexer.dim * shape.q_lora + indexer.dim * shape.hidden
        replicated += 2 * indexer.dim + indexer.heads * shape.hidden
        per_element = (indexer.dim + INDEXER_SCALE_BYTES) / indexer.dim
        flops = 2.0 * indexer.heads * indexer.dim
        terms = (term, indexer_term(indexer.dim, flops, element_bytes=per_element))
    return Part(sharded=sharded, replicated=replicated, cache=terms)


def deepseek_ffn(fields: Fields, hidden: int, count: int) -> list[Part]:
    """Dense first layers, then routed experts with ungated shared ones."""
    frequency = fields.raw("moe_layer_freq")
    if frequency not in (None, 1):
        fields.problem("moe_layer_freq", "is not 1", "list the layers in mlp_layer_types instead")
    kinds = fields.kinds("mlp_layer_types", count, MLP_KINDS)
    if kinds is None:
        first = fields.count("first_k_dense_replace", least=0)
        kinds = ["dense" if i < first else "sparse" for i in range(count)]

    def sparse() -> Part:
        inner = fields.count("moe_intermediate_size")
        number, active = read_experts(fields, "n_routed_experts", "num_experts", "num_local_experts")
        shared = fields.count("n_shared_experts", "num_shared_experts", default=0, least=0) * inner
        return experts(hidden, inner, number, active, shared=shared)

    return by_kind(kinds, {"sparse": sparse, "dense": lambda: feed_forward(hidden, fields.count("intermediate_size"))})


def deepseek(fields: Fields) -> Architecture:
    """DeepSeek V2, V3, R1, Kimi K2: MLA in every layer."""
    count, hidden = fields.layers(), fields.count("hidden_size")
    shape = read_latent(fields, hidden)
    layers = combine([latent_attention(shape)] * count, deepseek_ffn(fields, hidden, count), 2 * hidden)
    return assemble(fields, layers, hidden, shape.query)


def deepseek_sparse(fields: Fields) -> Architecture:
    """DeepSeek V3.2 and GLM-5: MLA with a sparse indexer; in GLM-5.2 most layers share one layer's choice."""
    count, hidden = fields.layers(), fields.count("hidden_size")
    shape = read_latent(fields, hidden)
    if not shape.q_lora:
        fields.problem("q_lora_rank", "missing", "the indexer reads the low-rank query; add it")
    fields.kinds("layer_types", count, {"indexed_attention": "indexed", "deepseek_sparse_attention": "indexed"})
    indexer = Indexer(
        heads=fields.count("index_n_heads", most=100_000),
        dim=fields.count("index_head_dim", most=100_000),
        topk=fields.count("index_topk"),
    )
    owns = _indexer_owners(fields, count)
    made = {own: latent_attention(shape, indexer, owns_indexer=own) for own in set(owns)}
    blocks = deepseek_ffn(fields, hidden, count)
    layers = combine([made[own] for own in owns], blocks, 2 * hidden)
    return assemble(fields, layers, hidden, shape.query)


def _indexer_owners(fields: Fields, count: int) -> list[bool]:
    """Per layer whether it has an indexer of its own."""
    letters: dict[object, str] = {"full": "own", "shared": "shared", "F": "own", "S": "shared"}
    pattern = fields.raw("index_topk_pattern")
    if isinstance(pattern, str) and len(pattern) == count and set(pattern) <= set("FS"):
        return [letter == "F" for letter in pattern]
    if isinstance(pattern, str):
        fields.problem("index_topk_pattern", "is no row of F and S, one per layer", "correct it")
    kinds = fields.kinds("indexer_types", count, letters)
    if kinds is None and not isinstance(pattern, str):
        kinds = fields.kinds("index_topk_pattern", count, letters)
    if kinds is not None:
        return [kind == "own" for kind in kinds]
    every = fields.count("index_topk_freq", default=1)
    offset = fields.count("index_skip_topk_offset", default=2, least=0)
    return [max(i - offset + 1, 0) % every == 0 for i in range(count)]
