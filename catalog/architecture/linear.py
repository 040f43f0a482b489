"""Linear-attention hybrids: Qwen3-Next and Qwen3.5, Kimi Linear, MiniMax-Text-01, LFM2.

A linear layer keeps one matrix per head (and a short convolution's last inputs), whatever the context;
the others keep an ordinary KV cache, or Kimi's MLA latent.

References
----------
Gated DeltaNet, arXiv 2412.06464; Kimi Linear, arXiv 2510.26692; MiniMax-01, arXiv 2501.08313. Shapes and
counts: ``transformers`` 5.24.
"""

from __future__ import annotations

from dataclasses import replace

from catalog.architecture.architecture import Architecture
from catalog.architecture.assemble import assemble
from catalog.architecture.dense import combine
from catalog.architecture.fields import Fields
from catalog.architecture.mamba import SCAN_FLOPS_PER_ELEMENT, state_element_bytes
from catalog.architecture.mla import deepseek_ffn, latent_attention, read_latent
from catalog.architecture.moe import by_kind, qwen_ffn
from catalog.architecture.parts import Part, attention, experts, feed_forward, read_experts, read_heads

DELTA_FLOPS_PER_ELEMENT = 7.0
"""FLOPs per token and element of a delta-rule state: decay, recall (2), update (2) and output (2) [FLOP]."""
_STATE_BYTES = 4
"""Linear states are kept in fp32 where the config doesn't say otherwise: as their kernels accumulate them,
and never too few [bytes]."""
_CONV_BYTES = 2

_KINDS: dict[object, str] = {"full_attention": "full", "linear_attention": "linear"}


def qwen3_next(fields: Fields) -> Architecture:
    """Qwen3-Next: three gated delta-rule layers, then one of gated attention; a shared expert."""
    return _qwen(fields, mixture=True)


def qwen3_5(fields: Fields) -> Architecture:
    """Qwen3.5 and 3.6, dense: Qwen3-Next's layers with one feed-forward."""
    return _qwen(fields, mixture=False)


def _qwen(fields: Fields, *, mixture: bool) -> Architecture:
    count, hidden = fields.layers(), fields.count("hidden_size")
    heads = read_heads(fields, hidden, dim=256)
    kinds = fields.kinds("layer_types", count, _KINDS)
    if kinds is None:
        every = fields.count("full_attention_interval", default=4)
        kinds = ["full" if (i + 1) % every == 0 else "linear" for i in range(count)]
    bias = fields.flag("attention_bias")
    gate = heads.query * heads.k_dim * (hidden + int(bias)) if fields.flag("attn_output_gate", default=True) else 0
    mixers = by_kind(
        kinds,
        {
            "linear": lambda: _gated_delta(fields, hidden),
            "full": lambda: attention(
                heads, qkv_bias=bias, out_bias=bias, q_norm=heads.k_dim, k_norm=heads.k_dim, gate=gate
            ),
        },
    )
    if mixture:
        blocks = qwen_ffn(fields, hidden, count, shared=True)
    else:
        blocks = [feed_forward(hidden, fields.count("intermediate_size"))] * count
    return assemble(fields, combine(mixers, blocks, 2 * hidden), hidden, heads.query)


def _gated_delta(fields: Fields, hidden: int) -> Part:
    k_heads = fields.count("linear_num_key_heads", most=100_000)
    v_heads = fields.count("linear_num_value_heads", most=100_000)
    k_dim = fields.count("linear_key_head_dim", most=100_000)
    v_dim = fields.count("linear_value_head_dim", most=100_000)
    kernel = fields.count("linear_conv_kernel_dim", most=1000)
    if v_heads % k_heads:
        fields.problem("linear_num_value_heads", f"{v_heads} isn't a multiple of {k_heads} key heads", "correct either")
    keys, values = k_heads * k_dim, v_heads * v_dim
    conv = 2 * keys + values
    params = hidden * (conv + values + 2 * v_heads) + conv * kernel + 2 * v_heads + values * hidden
    return linear_part(
        params=params,
        norm=v_dim,
        elements=v_heads * k_dim * v_dim,
        heads=k_heads,
        conv=conv,
        kernel=kernel,
        element_bytes=state_element_bytes(fields, _STATE_BYTES, "mamba_ssm_dtype", "mamba_ssm_cache_dtype"),
        flops=DELTA_FLOPS_PER_ELEMENT,
    )


def linear_part(
    *, params: int, norm: int, elements: int, heads: int, conv: int, kernel: int, element_bytes: int, flops: float
) -> Part:
    """A linear-attention layer.

    Parameters
    ----------
    params, norm
        Parameters that shard over heads, and those that every rank holds.
    elements, heads, element_bytes
        State of the layer [elements], heads over which it shards, bytes per element [bytes].
    conv, kernel
        Channels and taps of the convolution; 0 channels for none.
    flops
        FLOPs per token and element of the state [FLOP].
    """
    conv_bytes = float((kernel - 1) * conv * _CONV_BYTES)
    return Part(
        sharded=params,
        replicated=norm,
        state_bytes=conv_bytes + float(elements * element_bytes),
        conv_state_bytes=conv_bytes,
        state_heads=heads,
        scan_flops=flops * elements + 2.0 * conv * kernel,
    )


def kimi_linear(fields: Fields) -> Architecture:
    """Kimi Linear and K3: three delta-attention layers (decay per channel), then one of MLA.

    K3 adds output gates, experts in a latent space and attention residuals; its shapes are those of vLLM
    0.33 (``vllm/models/kimi_k3``), and its vision tower isn't counted.
    """
    count, hidden = fields.layers(), fields.count("hidden_size")
    shape = read_latent(fields, hidden)
    if fields.flag("mla_use_output_gate"):
        shape = replace(shape, gate=hidden * shape.query * shape.v_dim)
    setup = fields.nested("linear_attn_config")
    if setup is None:
        setup = Fields({}, [])
    full = setup.indices("full_attn_layers", count, first=1)
    if setup.indices("kda_layers", count, first=1) != set(range(count)) - full:
        setup.problem("kda_layers", "and full_attn_layers don't cover every layer once", "correct them")
    mixers = by_kind(
        ["full" if i in full else "linear" for i in range(count)],
        {"full": lambda: latent_attention(shape), "linear": lambda: _delta_attention(setup, hidden)},
    )
    width = fields.count("routed_expert_hidden_size", default=0, least=0)
    blocks = _latent_ffn(fields, hidden, count, width) if width else deepseek_ffn(fields, hidden, count)
    # Attention residuals: a norm and a projection to one weight, twice per layer and once at the end.
    residual = 2 * hidden if fields.has("attn_res_block_size") else 0
    layers = combine(mixers, blocks, 2 * hidden + 2 * residual)
    return assemble(fields, layers, hidden, shape.query, final=hidden + residual)


def _latent_ffn(fields: Fields, hidden: int, count: int, width: int) -> list[Part]:
    """Kimi K3: dense first layers, then experts that work at a smaller width, and shared ones at the full."""
    inner = fields.count("moe_intermediate_size")
    number, active = read_experts(fields, "num_experts")
    shared = fields.count("num_shared_experts", default=0, least=0) * inner
    norm = width if fields.flag("latent_moe_use_norm") else 0
    sparse = experts(hidden, inner, number, active, shared=shared, width=width, router_extra=norm)
    dense = feed_forward(hidden, fields.count("intermediate_size"))
    first = fields.count("first_k_dense_replace", least=0)
    if fields.count("moe_layer_freq", default=1) != 1:
        fields.problem("moe_layer_freq", "is not 1", "other patterns aren't known for this family")
    return [dense if i < first else sparse for i in range(count)]


def _delta_attention(setup: Fields, hidden: int) -> Part:
    heads = setup.count("num_heads", most=100_000)
    dim = setup.count("head_dim", most=100_000)
    kernel = setup.count("short_conv_kernel_size", default=4, most=1000)
    wide = heads * dim
    params = 4 * wide * hidden + 3 * wide * kernel + hidden * heads + dim * wide + wide + heads
    full_gate = setup.flag("use_full_rank_gate")
    params += wide * hidden if full_gate else dim * wide
    return linear_part(
        params=params,
        norm=dim + (1 if full_gate else 2) * hidden * dim,
        elements=wide * dim,
        heads=heads,
        conv=3 * wide,
        kernel=kernel,
        element_bytes=_STATE_BYTES,
        flops=DELTA_FLOPS_PER_ELEMENT,
    )


def minimax(fields: Fields) -> Architecture:
    """MiniMax-Text-01 and M1: seven lightning-attention layers, then one of softmax; experts in all."""
    count, hidden = fields.layers(), fields.count("hidden_size")
    heads = read_heads(fields, hidden)
    kinds = fields.kinds("layer_types", count, _KINDS)
    kinds = kinds or fields.kinds("attn_type_list", count, {0: "linear", 1: "full"})
    if kinds is None:
        fields.problem("attn_type_list", "missing", "add one entry per layer: 0 lightning, 1 softmax")
        kinds = ["full"] * count
    if fields.count("shared_intermediate_size", default=0, least=0):
        fields.problem("shared_intermediate_size", "shared experts aren't known for this family", "set it to 0")
    wide = heads.query * heads.k_dim
    mixers = by_kind(
        kinds,
        {
            "full": lambda: attention(heads),
            "linear": lambda: linear_part(
                params=5 * hidden * wide + wide,
                norm=0,
                elements=wide * heads.k_dim,
                heads=heads.query,
                conv=0,
                kernel=1,
                element_bytes=_STATE_BYTES,
                flops=SCAN_FLOPS_PER_ELEMENT,
            ),
        },
    )
    block = experts(hidden, fields.count("intermediate_size"), *read_experts(fields, "num_local_experts"))
    return assemble(fields, combine(mixers, [block] * count, 2 * hidden), hidden, heads.query)


def lfm2(fields: Fields) -> Architecture:
    """LFM2: gated short convolutions, and attention with normalised heads on some layers."""
    count, hidden = fields.layers(), fields.count("hidden_size")
    heads = read_heads(fields, hidden, kv_default=True)
    kinds = fields.kinds("layer_types", count, {"full_attention": "full", "conv": "conv"})
    if kinds is None:
        full = fields.indices("full_attn_idxs", count) if fields.has("full_attn_idxs") else set(range(count))
        kinds = ["full" if i in full else "conv" for i in range(count)]
    fields.ignore("full_attn_idxs")
    bias = fields.flag("conv_bias")

    def convolution() -> Part:
        kernel = fields.count("conv_L_cache", most=1000)
        state = float((kernel - 1) * hidden * _CONV_BYTES)
        params = hidden * (kernel + 4 * hidden) + (5 * hidden if bias else 0)
        flops = 2.0 * kernel * hidden
        return Part(sharded=params, state_bytes=state, conv_state_bytes=state, state_heads=hidden, scan_flops=flops)

    mixers = by_kind(
        kinds, {"full": lambda: attention(heads, q_norm=heads.k_dim, k_norm=heads.k_dim), "conv": convolution}
    )
    inner = fields.count("block_ff_dim", "intermediate_size")
    if fields.flag("block_auto_adjust_ff_dim", default=True):
        step = fields.count("block_multiple_of", default=256)
        width = int(fields.ratio("block_ffn_dim_multiplier", 1.0, 1e-3, 1e3) * int(2 * inner / 3))
        inner = max(1, -(-width // step)) * step
    layers = combine(mixers, [feed_forward(hidden, inner)] * count, 2 * hidden)
    tied = fields.flag("tie_embedding", default=True)
    return assemble(fields, layers, hidden, heads.query, tied=tied)
