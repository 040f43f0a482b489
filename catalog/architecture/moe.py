"""Mixtures of experts with plain attention: Mixtral, Qwen, gpt-oss, Llama 4, Gemma 4, MiniMax, MiMo, Step."""

from __future__ import annotations

from collections.abc import Callable

from catalog.architecture.architecture import Architecture, CacheTerm
from catalog.architecture.assemble import assemble
from catalog.architecture.dense import DENSE, Style, combine, decoder
from catalog.architecture.fields import Fields
from catalog.architecture.parts import (
    Heads,
    Part,
    attention,
    check_groups,
    experts,
    feed_forward,
    layer,
    read_experts,
    read_heads,
)
from catalog.architecture.windows import ATTENTION, no_rope_layers, read_windows

MLP_KINDS: dict[object, str] = {"dense": "dense", "sparse": "sparse"}


def by_kind(kinds: list[str], made: dict[str, Callable[[], Part]]) -> list[Part]:
    """One `Part` per layer, equal kinds sharing one; only the kinds that occur are read."""
    parts = {kind: made[kind]() for kind in set(kinds)}
    return [parts[kind] for kind in kinds]


def mixtral(fields: Fields) -> Architecture:
    """Mixtral: experts in every layer."""

    def ffn(hidden: int, count: int) -> list[Part]:
        number, active = read_experts(fields, "num_local_experts")
        return [experts(hidden, fields.count("intermediate_size"), number, active)] * count

    return decoder(fields, DENSE["mistral"], ffn)


def qwen_kinds(fields: Fields, count: int) -> list[str]:
    """Which layers of a Qwen mixture have experts: every ``decoder_sparse_step``-th, but ``mlp_only_layers``."""
    dense = fields.indices("mlp_only_layers", count)
    step = fields.count("decoder_sparse_step", default=1)
    return ["sparse" if i not in dense and (i + 1) % step == 0 else "dense" for i in range(count)]


def qwen_ffn(fields: Fields, hidden: int, count: int, *, shared: bool) -> list[Part]:
    """Feed-forward of a Qwen mixture, with or without its gated shared expert."""

    def sparse() -> Part:
        number, active = read_experts(fields, "num_experts", "num_local_experts")
        width = fields.count("shared_expert_intermediate_size") if shared else 0
        inner = fields.count("moe_intermediate_size")
        return experts(hidden, inner, number, active, shared=width, shared_gate=shared)

    kinds = qwen_kinds(fields, count)
    return by_kind(kinds, {"sparse": sparse, "dense": lambda: feed_forward(hidden, fields.count("intermediate_size"))})


def qwen2_moe(fields: Fields) -> Architecture:
    """Qwen1.5/2 mixtures: biases on Q, K and V, one gated shared expert."""
    style = Style(qkv_bias="qkv_bias", bias_default=True, window="switch")
    return decoder(fields, style, lambda hidden, count: qwen_ffn(fields, hidden, count, shared=True))


def qwen3_moe(fields: Fields) -> Architecture:
    """Qwen3 mixtures (also Qwen3-VL's text model): normalised heads, no shared expert."""
    style = Style(qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head", window="switch")
    return decoder(fields, style, lambda hidden, count: qwen_ffn(fields, hidden, count, shared=False))


def glm4_moe(fields: Fields) -> Architecture:
    """GLM-4.5 and its kin: dense first layers, ungated shared experts."""

    def ffn(hidden: int, count: int) -> list[Part]:
        first = fields.count("first_k_dense_replace", least=0)
        inner = fields.count("moe_intermediate_size")
        number, active = read_experts(fields, "n_routed_experts")
        shared = fields.count("n_shared_experts", least=0) * inner
        dense = feed_forward(hidden, fields.count("intermediate_size"))
        sparse = experts(hidden, inner, number, active, shared=shared)
        return [dense if i < first else sparse for i in range(count)]

    style = Style(qkv_bias="attention_bias", qk_norm="head", qk_norm_flag="use_qk_norm")
    return decoder(fields, style, ffn)


def minimax_m2(fields: Fields) -> Architecture:
    """MiniMax M2: queries and keys normalised over the whole projection."""
    if fields.count("shared_intermediate_size", default=0, least=0):
        fields.problem("shared_intermediate_size", "shared experts aren't known for this family", "set it to 0")
    fields.kinds("attn_type_list", fields.layers(), {1: "full"}, longer=True)

    def ffn(hidden: int, count: int) -> list[Part]:
        number, active = read_experts(fields, "num_local_experts")
        return [experts(hidden, fields.count("intermediate_size"), number, active)] * count

    return decoder(fields, Style(qk_norm="full"), ffn)


def gpt_oss(fields: Fields) -> Architecture:
    """gpt-oss: biases everywhere, a sink per head, every other layer with a window."""
    count, hidden = fields.layers(), fields.count("hidden_size")
    heads = read_heads(fields, hidden, dim=64)
    bias = fields.flag("attention_bias", default=True)
    windows = read_windows(fields, count, "pattern", period=2)
    made = {
        window: attention(heads, qkv_bias=bias, out_bias=bias, gate=heads.query, window=window)
        for window in set(windows)
    }
    number, active = read_experts(fields, "num_local_experts", "num_experts")
    block = experts(hidden, fields.count("intermediate_size"), number, active, bias=True)
    layers = combine([made[window] for window in windows], [block] * count, 2 * hidden)
    return assemble(fields, layers, hidden, heads.query)


def llama4(fields: Fields) -> Architecture:
    """Llama 4: layers with rotary embedding attend within aligned chunks, every fourth to everything."""
    count, hidden = fields.layers(), fields.count("hidden_size")
    heads = read_heads(fields, hidden, dim=128)
    bias = fields.flag("attention_bias")
    kinds = fields.kinds("layer_types", count, {"full_attention": "full", "chunked_attention": "chunked"})
    if kinds is None:
        kinds = ["chunked" if rope else "full" for rope in no_rope_layers(fields, count)]
    fields.ignore("attention_chunk_size")
    chunk = fields.window("attention_chunk_size")
    mixers = by_kind(
        kinds,
        {
            "full": lambda: attention(heads, qkv_bias=bias, out_bias=bias),
            "chunked": lambda: attention(heads, qkv_bias=bias, out_bias=bias, chunk=chunk),
        },
    )
    step = fields.count("interleave_moe_layer_step", default=1)
    listed = fields.indices("moe_layers", count)
    sparse = listed or {i for i in range(count) if (i + 1) % step == 0}
    inner = fields.count("intermediate_size")
    number, active = read_experts(fields, "num_local_experts")
    routed = experts(hidden, inner, number, active, shared=inner)
    dense = feed_forward(hidden, fields.count("intermediate_size_mlp")) if len(sparse) < count else routed
    blocks = [routed if i in sparse else dense for i in range(count)]
    return assemble(fields, combine(mixers, blocks, 2 * hidden), hidden, heads.query)


def mimo_v2_flash(fields: Fields) -> Architecture:
    """MiMo-V2-Flash: K wider than V, windowed layers with more KV heads and sinks."""
    count, hidden = fields.layers(), fields.count("hidden_size")
    kinds = fields.kinds("layer_types", count, ATTENTION) or fields.kinds(
        "hybrid_layer_pattern", count, {0: "full", 1: "sliding"}
    )
    if kinds is None:
        fields.problem("layer_types", "missing", "add it, or hybrid_layer_pattern")
        kinds = ["full"] * count
    # The chunk size repeats the window; the window is what is served.
    fields.ignore("attention_chunk_size")
    bias = fields.flag("attention_bias")
    full_sinks = fields.flag("add_full_attention_sink_bias")
    window_sinks = fields.flag("add_swa_attention_sink_bias", default=True)

    def heads(prefix: str) -> Heads:
        names = [("num_attention_heads",), ("num_key_value_heads",), ("head_dim",), ("v_head_dim",)]
        spelled = [(f"{prefix}{name[0]}", *name) for name in names] if prefix else names
        query, kv, k_dim, v_dim = (fields.count(*spelling, most=100_000) for spelling in spelled)
        if prefix and not fields.has("swa_num_key_value_heads"):
            kv *= 2  # transformers' own form: windowed layers have twice the KV heads
        check_groups(fields, query, kv, f"{prefix}num_key_value_heads")
        return Heads(hidden, query, kv, k_dim, v_dim)

    def full() -> Part:
        shape = heads("")
        return attention(shape, qkv_bias=bias, gate=shape.query if full_sinks else 0)

    def sliding() -> Part:
        shape, window = heads("swa_"), fields.window("sliding_window_size") or fields.window()
        if window is None:
            fields.problem("sliding_window", "missing, but layers use one", "add its length in tokens")
        return attention(shape, qkv_bias=bias, gate=shape.query if window_sinks else 0, window=window)

    fields.ignore("sliding_window")
    mixers = by_kind(kinds, {"full": full, "sliding": sliding})
    mlp = fields.kinds("mlp_layer_types", count, MLP_KINDS) or fields.kinds(
        "moe_layer_freq", count, {0: "dense", 1: "sparse"}
    )

    def sparse() -> Part:
        inner = fields.count("moe_intermediate_size")
        shared = fields.count("n_shared_experts", default=0, least=0) * inner
        return experts(hidden, inner, *read_experts(fields, "n_routed_experts"), shared=shared)

    blocks = by_kind(
        mlp or ["dense"] + ["sparse"] * (count - 1),
        {"sparse": sparse, "dense": lambda: feed_forward(hidden, fields.count("intermediate_size"))},
    )
    query = fields.count("num_attention_heads", most=100_000)
    return assemble(fields, combine(mixers, blocks, 2 * hidden), hidden, query)


def minimax_m3(fields: Fields) -> Architecture:
    """MiniMax M3: GQA in which most layers read only blocks of tokens that an indexer picks.

    The indexer keeps one key of ``sparse_index_dim`` per token [2 bytes per element] and scores every one
    of them with each of its query heads; ``sparse_topk_blocks`` blocks are then attended.
    """
    count, hidden = fields.layers(), fields.count("hidden_size")
    heads = read_heads(fields, hidden, dim=128)
    sparse = fields.nested("sparse_attention_config", required=False) or fields
    kinds = fields.kinds("layer_types", count, {"full_attention": "full", "minimax_m3_sparse": "sparse"})
    kinds = kinds or sparse.kinds("sparse_attention_freq", count, {0: "full", 1: "sparse"}) or ["full"] * count
    norm = heads.k_dim

    def indexed() -> Part:
        number = sparse.count("sparse_num_index_heads", "index_n_heads", most=100_000)
        dim = sparse.count("sparse_index_dim", "index_head_dim", most=100_000)
        block = sparse.count("sparse_block_size", "index_block_size")
        blocks = sparse.count("sparse_topk_blocks", "index_topk_blocks")
        main = attention(heads, q_norm=norm, k_norm=norm, read_cap=block * blocks)
        term = indexer_term(dim, 2.0 * number * dim, element_bytes=2.0)
        return Part(
            sharded=main.sharded,
            kv=main.kv,
            replicated=main.replicated + hidden * (number + 1) * dim + 2 * dim,
            cache=(*main.cache, term),
            kv_heads=main.kv_heads,
        )

    mixers = by_kind(kinds, {"full": lambda: attention(heads, q_norm=norm, k_norm=norm), "sparse": indexed})
    mlp = fields.kinds("mlp_layer_types", count, MLP_KINDS) or fields.kinds(
        "moe_layer_freq", count, {0: "dense", 1: "sparse"}
    )

    def routed() -> Part:
        shared = fields.count("n_shared_experts", default=0, least=0)
        width = fields.count("shared_intermediate_size") * shared if shared else 0
        number, active = read_experts(fields, "num_local_experts")
        return experts(hidden, fields.count("intermediate_size"), number, active, shared=width)

    blocks_ = by_kind(
        mlp or ["sparse"] * count,
        {"sparse": routed, "dense": lambda: feed_forward(hidden, fields.count("dense_intermediate_size"))},
    )
    return assemble(fields, combine(mixers, blocks_, 2 * hidden), hidden, heads.query)


def indexer_term(dim: int, flops: float, *, element_bytes: float, stride: int = 1) -> CacheTerm:
    """The keys of a sparse indexer: one per token (or per `stride` tokens), each scored by every query.

    Parameters
    ----------
    dim
        Elements of a key.
    flops
        FLOPs per query token and key.
    element_bytes
        Bytes per element as engines keep it [bytes].
    stride
        Tokens per key.
    """
    return CacheTerm(
        kind="sparse",
        stored_elements=float(dim),
        read_elements=float(dim),
        kv_heads=1,
        decode_flops=flops,
        prefill_flops=flops,
        element_bytes=element_bytes,
        stride_tokens=stride,
        compressible=False,
        k_dim=dim,
    )


def step3p7(fields: Fields) -> Architecture:
    """Step-3.7: normalised heads, one gate per query head, windows on three of four layers.

    Sliding layers may have head counts of their own (``attention_other_setting``).
    """
    count, hidden = fields.layers(), fields.count("hidden_size")
    heads = read_heads(fields, hidden, dim=128)
    windows = read_windows(fields, count, "pattern", period=4)
    if fields.has("attention_other_setting"):
        fields.problem("attention_other_setting", "head counts per kind of layer aren't supported", "remove it")
    made = {
        window: attention(heads, q_norm=heads.k_dim, k_norm=heads.k_dim, gate=heads.query * hidden, window=window)
        for window in set(windows)
    }
    first = fields.count("first_k_dense_replace", default=3, least=0)
    number, active = read_experts(fields, "num_experts", "moe_num_experts", "n_routed_experts")
    inner = fields.count("moe_intermediate_size")
    routed = experts(hidden, inner, number, active, shared=fields.count("share_expert_dim"))
    dense = feed_forward(hidden, fields.count("intermediate_size"))
    blocks = [dense if i < first else routed for i in range(count)]
    layers = combine([made[window] for window in windows], blocks, 2 * hidden)
    return assemble(fields, layers, hidden, heads.query)


def gemma4(fields: Fields) -> Architecture:
    """Gemma 4: wider heads on global layers, where V may use K's weights; experts beside the dense block.

    The last ``num_kv_shared_layers`` layers attend to the cache of the last earlier layer of their kind:
    they store nothing and have no K and V weights. Per-layer input embeddings are looked up, not multiplied.
    """
    count, hidden = fields.layers(), fields.count("hidden_size")
    local = read_heads(fields, hidden, dim=256)
    same = fields.flag("attention_k_eq_v")
    kv = fields.count("num_global_key_value_heads", default=local.kv, most=100_000) if same else local.kv
    check_groups(fields, local.query, kv, "num_global_key_value_heads")
    dim = fields.count("global_head_dim", default=512, most=100_000)
    wide = Heads(hidden, local.query, kv, dim, dim)
    shared = fields.count("num_kv_shared_layers", default=0, least=0, most=max(0, count - 1))
    window = fields.window()
    kinds = fields.kinds("layer_types", count, ATTENTION)
    if kinds is None:
        kinds = ["full" if (i + 1) % 6 == 0 else "sliding" for i in range(count)]
    kinds[-1] = "full"
    if window is None and "sliding" in kinds:
        fields.problem("sliding_window", "missing, but layers use one", "add its length in tokens")
    if shared and set(kinds[count - shared :]) - set(kinds[: count - shared]):
        fields.problem("num_kv_shared_layers", f"{shared} leaves a kind of layer without a cache", "correct it")
    bias = fields.flag("attention_bias")
    per_layer = fields.count("hidden_size_per_layer_input", default=0, least=0)
    moe = fields.flag("enable_moe_block")
    inner = fields.count("intermediate_size")
    double = fields.flag("use_double_wide_mlp")
    routed = _gemma4_experts(fields, hidden) if moe else Part()
    norms = (4 + (3 if moe else 0)) * hidden + (2 * hidden * per_layer + hidden if per_layer else 0)

    def one(kind: str, reuses: bool) -> tuple[Part, Part]:
        heads = wide if kind == "full" else local
        mixer = attention(
            heads,
            qkv_bias=bias,
            out_bias=bias,
            q_norm=heads.k_dim,
            k_norm=heads.k_dim,
            window=window if kind == "sliding" else None,
            v_weights=not (same and kind == "full"),
            reuses_cache=reuses,
        )
        return mixer, feed_forward(hidden, inner * (2 if double and reuses else 1))

    made = {}
    layers = []
    for i, kind in enumerate(kinds):
        key = (kind, i >= count - shared)
        if key not in made:
            made[key] = layer(*one(*key), routed, norms=norms)
        layers.append(made[key])
    extra = final = 0
    if per_layer:
        vocab = fields.count("vocab_size_per_layer_input", default=fields.count("vocab_size"), most=100_000_000)
        extra = vocab * count * per_layer
        final = hidden * count * per_layer + per_layer
    return assemble(fields, layers, hidden, local.query, tied=True, final=hidden + final, extra_embedding=extra)


def _gemma4_experts(fields: Fields, hidden: int) -> Part:
    number, active = read_experts(fields, "num_experts")
    inner = fields.count("moe_intermediate_size", "expert_intermediate_size")
    return experts(hidden, inner, number, active, router_extra=hidden + number)
