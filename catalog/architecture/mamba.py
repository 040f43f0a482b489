"""State-space hybrids: Nemotron-H, Bamba, Granite 4, Jamba, Falcon-H1, and pure Mamba 2.

A Mamba layer keeps a state of constant size: the last inputs of its convolution, and one matrix per head.
Only the attention layers have a KV cache.

References
----------
Mamba, arXiv 2312.00752; Mamba 2, arXiv 2405.21060. Shapes and counts: ``transformers`` 5.24. Precision of
the states: vLLM 0.33, ``mamba_cache_dtype`` and ``mamba_ssm_cache_dtype`` at their default ``auto``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from catalog.architecture.architecture import Architecture, Layer
from catalog.architecture.assemble import assemble
from catalog.architecture.dense import combine
from catalog.architecture.fields import MAX_LAYERS, Fields
from catalog.architecture.parts import Heads, Part, attention, experts, feed_forward, layer, read_experts, read_heads

SCAN_FLOPS_PER_ELEMENT = 5.0
"""FLOPs per token and element of an SSM state: decay, input (2) and output (2) [FLOP]."""
_CONV_BYTES = 2
"""Engines keep convolution states in the model's own 16 bits [bytes]."""

_NEMOTRON: dict[object, str] = {
    "mamba": "mamba",
    "linear_attention": "mamba",
    "attention": "attention",
    "full_attention": "attention",
    "mlp": "mlp",
    "moe": "moe",
}
_LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
_MIXERS: dict[object, str] = {
    "mamba": "mamba",
    "linear_attention": "mamba",
    "attention": "attention",
    "full_attention": "attention",
}
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Mamba2:
    """The shape of one Mamba 2 layer."""

    hidden: int
    heads: int
    head_dim: int
    groups: int
    state: int
    kernel: int
    conv_bias: bool
    in_bias: bool
    out_bias: bool
    normed: bool
    """Whether the gated output is normalised."""
    state_bytes_each: int
    """Bytes per element of the SSM state [bytes]."""


def mamba2_layer(shape: Mamba2) -> Part:
    """A Mamba 2 mixer: its projections, its convolution and its state."""
    inner = shape.heads * shape.head_dim
    conv = inner + 2 * shape.groups * shape.state
    into = inner + conv + shape.heads
    params = into * (shape.hidden + int(shape.in_bias)) + conv * (shape.kernel + int(shape.conv_bias))
    params += 3 * shape.heads + (inner if shape.normed else 0)
    params += inner * shape.hidden + (shape.hidden if shape.out_bias else 0)
    conv_bytes = float((shape.kernel - 1) * conv * _CONV_BYTES)
    return Part(
        sharded=params,
        state_bytes=conv_bytes + float(inner * shape.state * shape.state_bytes_each),
        conv_state_bytes=conv_bytes,
        state_heads=shape.heads,
        state_groups=shape.groups,
        group_state_bytes=float((shape.kernel - 1) * 2 * shape.state * _CONV_BYTES),
        scan_flops=SCAN_FLOPS_PER_ELEMENT * inner * shape.state + 2.0 * conv * shape.kernel,
    )


def state_element_bytes(fields: Fields, default: int, *names: str) -> int:
    """Bytes per element of a recurrent state that the config asks for in one of these fields [bytes]."""
    value = fields.raw(*names)
    if value is None or value == "auto":
        return default
    if isinstance(value, str) and value in _DTYPE_BYTES:
        return _DTYPE_BYTES[value]
    fields.problem(names[0], "is no known precision", f"write one of {', '.join(_DTYPE_BYTES)}")
    return default


def nemotron_h(fields: Fields) -> Architecture:
    """Nemotron-H and Nemotron 3: each layer is one of Mamba 2, attention, feed-forward or (latent) experts.

    Their SSM states are kept in 4 bytes per element.
    """
    hidden = fields.count("hidden_size")
    kinds = _nemotron_kinds(fields)
    heads = read_heads(fields, hidden, kv_default=True, dim=128, dim_names=("head_dim", "attention_head_dim"))
    bias = fields.flag("mlp_bias")
    parts: dict[str, Part] = {}
    for kind in dict.fromkeys(kinds):
        if kind == "mamba":
            parts[kind] = mamba2_layer(_nemotron_mamba(fields, hidden))
        elif kind == "attention":
            # The library has no bias here, whatever attention_bias says.
            fields.ignore("attention_bias")
            parts[kind] = attention(heads)
        elif kind == "mlp":
            parts[kind] = feed_forward(hidden, fields.count("intermediate_size"), gated=False, bias=bias)
        else:
            parts[kind] = _nemotron_experts(fields, hidden)
    made = {kind: layer(part, norms=hidden) for kind, part in parts.items()}
    return assemble(fields, [made[kind] for kind in kinds], hidden, heads.query)


def _nemotron_kinds(fields: Fields) -> list[str]:
    pattern = fields.raw("hybrid_override_pattern")
    listed = fields.raw("layers_block_type", "layer_types")
    declared = fields.layers() if fields.has("num_hidden_layers") else None
    if listed is not None:
        count = len(listed) if isinstance(listed, Sequence) and not isinstance(listed, str) else 1
        name = "layers_block_type" if fields.has("layers_block_type") else "layer_types"
        return fields.kinds(name, declared or min(count, MAX_LAYERS) or 1, _NEMOTRON) or ["mamba"]
    if not isinstance(pattern, str) or not pattern or len(pattern) > MAX_LAYERS or set(pattern) - set(_LETTERS):
        what = "missing" if pattern is None else "is no row of M, *, - and E"
        fields.problem("hybrid_override_pattern", what, "write one letter per layer, or layers_block_type")
        return ["mamba"]
    if declared not in (None, len(pattern)):
        fields.problem(
            "num_hidden_layers",
            f"{declared}, but hybrid_override_pattern has {len(pattern)} letters",
            "make both agree",
        )
    return [_LETTERS[letter] for letter in pattern]


def _nemotron_mamba(fields: Fields, hidden: int) -> Mamba2:
    bias = fields.flag("use_bias")
    return Mamba2(
        hidden=hidden,
        heads=fields.count("mamba_num_heads", most=100_000),
        head_dim=fields.count("mamba_head_dim", most=100_000),
        groups=fields.count("n_groups", "mamba_n_groups", most=100_000),
        state=fields.count("ssm_state_size", most=100_000),
        kernel=fields.count("conv_kernel", "mamba_d_conv", most=1000),
        conv_bias=fields.flag("use_conv_bias", "mamba_conv_bias", default=True),
        in_bias=bias,
        out_bias=bias,
        normed=True,
        state_bytes_each=state_element_bytes(fields, 4, "mamba_ssm_cache_dtype"),
    )


def _nemotron_experts(fields: Fields, hidden: int) -> Part:
    number, active = read_experts(fields, "n_routed_experts", "num_local_experts")
    latent = fields.count("moe_latent_size", default=0, least=0)
    return experts(
        hidden,
        fields.count("moe_intermediate_size"),
        number,
        active,
        shared=fields.count("moe_shared_expert_intermediate_size"),
        gated=False,
        width=latent or None,
    )


def _expanded_mamba(fields: Fields, hidden: int, inner: int, *, out_bias: bool, normed: bool = True) -> Mamba2:
    """Bamba's spelling: the inner width is given, and the heads must divide it."""
    heads = fields.count("mamba_n_heads", most=100_000)
    if inner % heads:
        fields.problem("mamba_n_heads", f"{heads} doesn't divide the inner width {inner}", "correct it or mamba_expand")
    dim = max(1, inner // heads)
    if fields.raw("mamba_d_head") not in (None, "auto"):
        stated = fields.count("mamba_d_head", most=MAX_LAYERS)
        if stated != dim:
            fields.problem("mamba_d_head", f"{stated}, but inner width / heads is {dim}", "make them agree")
    return Mamba2(
        hidden=hidden,
        heads=heads,
        head_dim=dim,
        groups=fields.count("mamba_n_groups", default=1, most=100_000),
        state=fields.count("mamba_d_state", most=100_000),
        kernel=fields.count("mamba_d_conv", default=4, most=1000),
        conv_bias=fields.flag("mamba_conv_bias", default=True),
        in_bias=fields.flag("mamba_proj_bias"),
        out_bias=out_bias,
        normed=normed,
        state_bytes_each=state_element_bytes(fields, 2, "mamba_ssm_cache_dtype"),
    )


def _inner_width(fields: Fields, hidden: int) -> int:
    return fields.count("mamba_expand", default=2, most=1000) * hidden


def bamba(fields: Fields) -> Architecture:
    """Bamba: Mamba 2 layers, attention on the layers of ``attn_layer_indices``, a feed-forward in all."""
    count, hidden = fields.layers(), fields.count("hidden_size")
    heads = read_heads(fields, hidden, kv_default=True)
    at = fields.indices("attn_layer_indices", count)
    bias = fields.flag("attention_bias")
    out_bias = fields.flag("mamba_proj_bias")
    mixer = mamba2_layer(_expanded_mamba(fields, hidden, _inner_width(fields, hidden), out_bias=out_bias))
    softmax = attention(heads, qkv_bias=bias, out_bias=bias)
    block = feed_forward(hidden, fields.count("intermediate_size"), bias=fields.flag("mlp_bias"))
    mixers = [softmax if i in at else mixer for i in range(count)]
    return assemble(fields, combine(mixers, [block] * count, 2 * hidden), hidden, heads.query)


def granite_hybrid(fields: Fields) -> Architecture:
    """Granite 4: Mamba 2 or attention, then a shared feed-forward beside routed experts (or alone)."""
    count, hidden = fields.layers(), fields.count("hidden_size")
    heads = read_heads(fields, hidden, kv_default=True)
    kinds = fields.kinds("layer_types", count, _MIXERS) or fields.kinds("layers_block_type", count, _MIXERS)
    if kinds is None:
        fields.problem("layer_types", "missing", "add one entry per layer: mamba or attention")
        kinds = ["mamba"] * count
    bias = fields.flag("attention_bias")
    made: dict[str, Part] = {}
    if "attention" in kinds:
        made["attention"] = attention(heads, qkv_bias=bias, out_bias=bias)
    if "mamba" in kinds:
        out_bias = fields.flag("mamba_proj_bias")
        shape = _expanded_mamba(fields, hidden, _inner_width(fields, hidden), out_bias=out_bias)
        made["mamba"] = mamba2_layer(shape)
    shared = fields.count("shared_intermediate_size")
    block = feed_forward(hidden, shared)
    if fields.count("num_local_experts", default=0, least=0, most=1_000_000):
        number, active = read_experts(fields, "num_local_experts")
        block = experts(hidden, fields.count("intermediate_size"), number, active, shared=shared)
    layers = combine([made[kind] for kind in kinds], [block] * count, 2 * hidden)
    return assemble(fields, layers, hidden, heads.query)


def falcon_h1(fields: Fields) -> Architecture:
    """Falcon-H1: attention and Mamba 2 side by side in every layer."""
    count, hidden = fields.layers(), fields.count("hidden_size")
    heads = read_heads(fields, hidden, kv_default=True)
    inner = fields.count("mamba_d_ssm", default=_inner_width(fields, hidden))
    mixer = mamba2_layer(
        _expanded_mamba(
            fields,
            hidden,
            inner,
            out_bias=fields.flag("projectors_bias"),
            normed=fields.flag("mamba_rms_norm"),
        )
    )
    bias = fields.flag("attention_bias")
    softmax = attention(heads, qkv_bias=bias, out_bias=bias)
    block = feed_forward(hidden, fields.count("intermediate_size"), bias=fields.flag("mlp_bias"))
    layers = [layer(softmax, mixer, block, norms=2 * hidden)] * count
    return assemble(fields, layers, hidden, heads.query)


def mamba2(fields: Fields) -> Architecture:
    """Pure Mamba 2: no KV cache at all, and so no window either; the training length must be given."""
    count, hidden = fields.layers(), fields.count("hidden_size")
    heads = fields.count("num_heads", most=100_000)
    bias = fields.flag("use_bias")
    shape = Mamba2(
        hidden=hidden,
        heads=heads,
        head_dim=fields.count("head_dim", most=100_000),
        groups=fields.count("n_groups", most=100_000),
        state=fields.count("state_size", most=100_000),
        kernel=fields.count("conv_kernel", most=1000),
        conv_bias=fields.flag("use_conv_bias", default=True),
        in_bias=bias,
        out_bias=bias,
        normed=True,
        state_bytes_each=state_element_bytes(fields, 2, "mamba_ssm_cache_dtype"),
    )
    return assemble(fields, [layer(mamba2_layer(shape), norms=hidden)] * count, hidden, heads)


def jamba(fields: Fields) -> Architecture:
    """Jamba: Mamba 1, attention on one layer per period, experts on every other layer."""
    count, hidden = fields.layers(), fields.count("hidden_size")
    heads = read_heads(fields, hidden, kv_default=True)
    attending = _periodic(fields, "attn_layer", count, period=8, offset=4)
    routed = _periodic(fields, "expert_layer", count, period=2, offset=1)
    mixers = [attention(Heads(hidden, heads.query, heads.kv, heads.k_dim, heads.v_dim)), _mamba1(fields, hidden)]
    inner = fields.count("intermediate_size")
    blocks = [feed_forward(hidden, inner)] * 2
    if fields.count("num_experts", default=16, most=1_000_000) > 1:
        blocks[0] = experts(hidden, inner, *read_experts(fields, "num_experts"))
    made: dict[tuple[bool, bool], Layer] = {}
    layers = []
    for i in range(count):
        key = (i in attending, i in routed)
        if key not in made:
            made[key] = layer(mixers[0 if key[0] else 1], blocks[0 if key[1] else 1], norms=2 * hidden)
        layers.append(made[key])
    return assemble(fields, layers, hidden, heads.query)


def _periodic(fields: Fields, name: str, count: int, *, period: int, offset: int) -> set[int]:
    every = fields.count(f"{name}_period", default=period, most=MAX_LAYERS)
    first = fields.count(f"{name}_offset", default=offset, least=0, most=MAX_LAYERS)
    if first >= every:
        fields.problem(f"{name}_offset", f"{first} isn't below {name}_period {every}", "correct either")
    return {i for i in range(count) if i % every == first}


def _mamba1(fields: Fields, hidden: int) -> Part:
    inner = _inner_width(fields, hidden)
    state = fields.count("mamba_d_state", default=16, most=100_000)
    kernel = fields.count("mamba_d_conv", default=4, most=1000)
    rank = -(-hidden // 16)
    if fields.raw("mamba_dt_rank") not in (None, "auto"):
        rank = fields.count("mamba_dt_rank")
    bias = fields.flag("mamba_proj_bias")
    params = 2 * inner * (hidden + int(bias)) + inner * (kernel + int(fields.flag("mamba_conv_bias", default=True)))
    params += inner * (rank + 2 * state) + inner * (rank + 1) + inner * state + inner
    params += inner * hidden + (hidden if bias else 0)
    conv_bytes = float((kernel - 1) * inner * _CONV_BYTES)
    return Part(
        sharded=params,
        replicated=rank + 2 * state,
        state_bytes=conv_bytes + float(inner * state * state_element_bytes(fields, 2, "mamba_ssm_cache_dtype")),
        conv_state_bytes=conv_bytes,
        state_heads=inner,
        scan_flops=SCAN_FLOPS_PER_ELEMENT * inner * state + 2.0 * inner * kernel,
    )
