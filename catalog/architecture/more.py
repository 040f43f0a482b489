"""Decoders that differ from Llama in a norm, an activation or a bias; and mixtures of their layers."""

from __future__ import annotations

from catalog.architecture.architecture import Architecture
from catalog.architecture.assemble import assemble
from catalog.architecture.dense import Style, attention_layers, combine, decoder
from catalog.architecture.fields import Fields
from catalog.architecture.parts import Part, attention, experts, feed_forward, layer, read_experts, read_heads


def phi(fields: Fields) -> Architecture:
    """Phi-1 and 2: attention and feed-forward side by side below one LayerNorm, biases everywhere, in the head too."""
    count, hidden = fields.layers(), fields.count("hidden_size")
    heads = read_heads(fields, hidden, kv_default=True)
    style = Style(qkv_bias=True, out_bias=True)
    if fields.flag("qk_layernorm"):
        fields.problem("qk_layernorm", "true isn't known for this family", "set it to false")
    (part, *_) = attention_layers(fields, style, heads, count)
    block = feed_forward(hidden, fields.count("intermediate_size"), gated=False, bias=True)
    layers = [layer(part, block, norms=2 * hidden)] * count
    return assemble(fields, layers, hidden, heads.query, final=2 * hidden, head_bias=True)


def apertus_extra(fields: Fields) -> int:
    """Parameters of xIELU, the activation of Apertus: two per layer."""
    return 2 if fields.raw("hidden_act") in (None, "xielu") else 0


def apertus(fields: Fields) -> Architecture:
    """Apertus: no gate, normalised heads, an activation with two parameters."""
    style = Style(kv_default=True, qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head", gated=False)
    extra = apertus_extra(fields)

    def ffn(hidden: int, count: int) -> list[Part]:
        plain = feed_forward(hidden, fields.count("intermediate_size"), gated=False)
        return [Part(sharded=plain.sharded, replicated=plain.replicated + extra)] * count

    return decoder(fields, style, ffn)


def arcee(fields: Fields) -> Architecture:
    """Arcee: Llama without a gate."""
    return decoder(
        fields,
        Style(kv_default=True, qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias", gated=False),
    )


def nemotron(fields: Fields) -> Architecture:
    """Nemotron 3 and 4, Minitron: no gate, LayerNorm with bias."""
    style = Style(
        kv_default=True,
        qkv_bias="attention_bias",
        out_bias="attention_bias",
        mlp_bias="mlp_bias",
        gated=False,
        norm_vectors=2,
    )
    return decoder(fields, style)


def phimoe(fields: Fields) -> Architecture:
    """Phi-3.5-MoE: LayerNorm with bias, biases in attention, experts in every layer, a bias in the head."""
    count, hidden = fields.layers(), fields.count("hidden_size")
    heads = read_heads(fields, hidden)
    style = Style(qkv_bias="attention_bias", out_bias="attention_bias", norm_vectors=2, window="all")
    parts = attention_layers(fields, style, heads, count)
    number, active = read_experts(fields, "num_local_experts")
    block = experts(hidden, fields.count("intermediate_size"), number, active)
    layers = combine(parts, [block] * count, 2 * 2 * hidden)
    return assemble(fields, layers, hidden, heads.query, final=2 * hidden, head_bias=fields.flag("lm_head_bias"))


_ERNIE = Style(kv_default=False, qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", tied=True)


def ernie4_5(fields: Fields) -> Architecture:
    """ERNIE 4.5 of one feed-forward a layer: Llama with tied embeddings."""
    return decoder(fields, _ERNIE)


def ernie4_5_moe(fields: Fields) -> Architecture:
    """ERNIE 4.5 mixtures: experts from one layer to another, shared ones beside them, a correction bias per expert."""

    def ffn(hidden: int, count: int) -> list[Part]:
        dense = feed_forward(hidden, fields.count("intermediate_size"))
        first = fields.count("moe_layer_start_index", default=1, least=0)
        last = fields.raw("moe_layer_end_index")
        end = count - 1 if last in (None, -1) else fields.count("moe_layer_end_index")
        every = fields.count("moe_layer_interval", default=1)
        inner = fields.count("moe_intermediate_size")
        number = fields.count("moe_num_experts", most=1_000_000)
        active = fields.count("moe_k", default=2, most=1_000_000)
        shared = fields.count("moe_num_shared_experts", default=0, least=0) * inner
        sparse = experts(hidden, inner, number, active, shared=shared, router_extra=number)
        return [sparse if first <= i <= end and (i + 1) % every == 0 else dense for i in range(count)]

    return decoder(fields, _ERNIE, ffn)


def hunyuan_dense(fields: Fields) -> Architecture:
    """Hunyuan of one feed-forward a layer: normalised heads."""
    style = Style(kv_default=True, qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head")
    return decoder(fields, style)


def hunyuan_moe(fields: Fields) -> Architecture:
    """Hunyuan mixtures: one shared feed-forward beside experts of the same width, in every layer."""

    def ffn(hidden: int, count: int) -> list[Part]:
        inner = fields.count("intermediate_size")
        number = _one_for_all(fields, "num_experts", count)
        active = _one_for_all(fields, "moe_topk", count)
        return [experts(hidden, inner, number, active, shared=inner)] * count

    style = Style(kv_default=True, qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head")
    return decoder(fields, style, ffn)


def _one_for_all(fields: Fields, name: str, count: int) -> int:
    """Return a number that a config writes once, or once per layer."""
    value = fields.raw(name)
    if isinstance(value, list) and len(value) == count and len(set(map(str, value))) == 1 and isinstance(value[0], int):
        return int(value[0])
    return fields.count(name, most=1_000_000)


def olmo(fields: Fields) -> Architecture:
    """OLMo 1: its LayerNorms have no parameters."""
    style = Style(kv_default=True, qkv_bias="attention_bias", out_bias="attention_bias", norm_vectors=0)
    return decoder(fields, style)


def olmoe(fields: Fields) -> Architecture:
    """OLMoE: queries and keys normalised over the whole projection, experts in every layer."""

    def ffn(hidden: int, count: int) -> list[Part]:
        number, active = read_experts(fields, "num_experts")
        return [experts(hidden, fields.count("intermediate_size"), number, active)] * count

    style = Style(kv_default=True, qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="full")
    return decoder(fields, style, ffn)


def granitemoe(fields: Fields) -> Architecture:
    """Granite 3 mixtures: experts in every layer."""

    def ffn(hidden: int, count: int) -> list[Part]:
        number, active = read_experts(fields, "num_local_experts")
        return [experts(hidden, fields.count("intermediate_size"), number, active)] * count

    style = Style(kv_default=True, qkv_bias="attention_bias", out_bias="attention_bias")
    return decoder(fields, style, ffn)


def dots1(fields: Fields) -> Architecture:
    """dots.llm1: normalised heads, dense first layers, ungated shared experts."""

    def ffn(hidden: int, count: int) -> list[Part]:
        first = fields.count("first_k_dense_replace", default=0, least=0)
        inner = fields.count("moe_intermediate_size")
        number, active = read_experts(fields, "n_routed_experts")
        shared = fields.count("n_shared_experts", default=0, least=0) * inner
        dense = feed_forward(hidden, fields.count("intermediate_size"))
        sparse = experts(hidden, inner, number, active, shared=shared)
        return [dense if i < first else sparse for i in range(count)]

    style = Style(kv_default=True, qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head", window="upper")
    return decoder(fields, style, ffn)


def stablelm(fields: Fields) -> Architecture:
    """StableLM 2: LayerNorm with bias, a gate, biases on Q, K and V where the config has them."""
    if fields.flag("qk_layernorm") or fields.flag("use_parallel_residual"):
        fields.problem("qk_layernorm", "true isn't known for this family", "set it to false")
    return decoder(fields, Style(kv_default=True, qkv_bias="use_qkv_bias", norm_vectors=2))


def mllama(fields: Fields) -> Architecture:
    """Llama 3.2 Vision: some layers attend to the image alone, and cache it instead of the text.

    What they cache is one image's, whatever the text's length, and isn't counted: sessions are priced as text.
    """
    count, hidden = fields.layers(), fields.count("hidden_size")
    heads = read_heads(fields, hidden)
    crossing = fields.indices("cross_attention_layers", count)
    own = attention(heads)
    image = attention(heads, q_norm=heads.k_dim, k_norm=heads.k_dim)
    gates = 2
    crossed = Part(sharded=image.sharded, kv=image.kv, replicated=image.replicated + gates, kv_heads=image.kv_heads)
    block = feed_forward(hidden, fields.count("intermediate_size"))
    layers = combine([crossed if i in crossing else own for i in range(count)], [block] * count, 2 * hidden)
    image_tokens = 8
    return assemble(fields, layers, hidden, heads.query, extra_embedding=image_tokens * hidden)
