"""Decoders of one repeated layer with plain attention and a dense feed-forward, Llama and its kin.

Parameter counts equal those of ``transformers`` on the meta device; see ``tests/golden/param_counts.json``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from catalog.architecture.architecture import Architecture, Layer
from catalog.architecture.assemble import assemble
from catalog.architecture.fields import Fields
from catalog.architecture.parts import Heads, Part, attention, feed_forward, layer, read_heads
from catalog.architecture.windows import Rule, read_windows


@dataclass(frozen=True, slots=True)
class Style:
    """How a family differs from Llama. A string stands for the config's flag of that name."""

    kv_default: bool = False
    """A missing ``num_key_value_heads`` means one per query head."""
    dim: int | None = None
    """Head dimension if the file has none; None: hidden size / query heads."""
    qkv_bias: bool | str = False
    bias_default: bool = False
    """What the flags of `qkv_bias` and, for LayerNorm families, of all biases mean where they are absent."""
    out_bias: bool | str = False
    mlp_bias: bool | str = False
    gated: bool = True
    qk_norm: Literal["", "head", "heads", "full"] = ""
    """One vector per head dimension (head), per query or KV head and dimension (heads: a matrix of the
    same size as full), or over the whole projection (full)."""
    qk_norm_flag: str = ""
    """Flag that switches `qk_norm` on."""
    norms: int = 2
    norm_vectors: int = 1
    """2: LayerNorm with bias. 1: RMSNorm, or LayerNorm without."""
    tied: bool = False
    window: Rule = "none"
    period: int = 0


DENSE: dict[str, Style] = {
    "llama": Style(kv_default=True, qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias"),
    "helium": Style(dim=128, qkv_bias="attention_bias", mlp_bias="mlp_bias"),
    "cwm": Style(window="pattern", period=4),
    "mistral": Style(window="all"),
    "qwen2": Style(qkv_bias=True, window="upper"),
    "qwen3": Style(dim=128, qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head", window="upper"),
    "mimo": Style(qkv_bias="attention_bias", window="upper"),
    "gemma": Style(dim=256, qkv_bias="attention_bias", out_bias="attention_bias", tied=True),
    "gemma2": Style(
        dim=256, qkv_bias="attention_bias", out_bias="attention_bias", norms=4, tied=True, window="pattern", period=2
    ),
    "gemma3": Style(
        dim=256,
        qkv_bias="attention_bias",
        out_bias="attention_bias",
        qk_norm="head",
        norms=4,
        tied=True,
        window="pattern",
        period=6,
    ),
    "phi3": Style(kv_default=True, window="all"),
    "cohere": Style(
        kv_default=True,
        qkv_bias="attention_bias",
        out_bias="attention_bias",
        qk_norm="heads",
        qk_norm_flag="use_qk_norm",
        norms=1,
        tied=True,
    ),
    "cohere2": Style(
        kv_default=True,
        qkv_bias="attention_bias",
        out_bias="attention_bias",
        norms=1,
        tied=True,
        window="pattern",
        period=4,
    ),
    "starcoder2": Style(
        qkv_bias="use_bias",
        bias_default=True,
        out_bias="use_bias",
        mlp_bias="use_bias",
        gated=False,
        norm_vectors=2,
        tied=True,
        window="all",
    ),
    "granite": Style(kv_default=True, qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias"),
    "olmo2": Style(kv_default=True, qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="full"),
    "olmo3": Style(
        kv_default=True,
        qkv_bias="attention_bias",
        out_bias="attention_bias",
        qk_norm="full",
        window="pattern",
        period=4,
    ),
    "exaone4": Style(qk_norm="head", window="pattern", period=4),
    "smollm3": Style(
        qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias", tied=True, window="no_rope"
    ),
    "seed_oss": Style(
        dim=128, qkv_bias="attention_bias", bias_default=True, out_bias="attention_out_bias", mlp_bias="mlp_bias"
    ),
    "glm": Style(dim=128, qkv_bias="attention_bias", bias_default=True),
    "glm4": Style(dim=128, qkv_bias="attention_bias", bias_default=True, norms=4),
}
"""Families whose config says everything under the usual names."""


def _switch(fields: Fields, value: bool | str, default: bool = False) -> bool:
    return fields.flag(value, default=default) if isinstance(value, str) else value


def attention_layers(fields: Fields, style: Style, heads: Heads, layers: int) -> list[Part]:
    """The attention of each layer in this style; layers that are alike share one `Part`."""
    q_norm = k_norm = 0
    if style.qk_norm and (not style.qk_norm_flag or fields.flag(style.qk_norm_flag)):
        wide = style.qk_norm != "head"
        q_norm = heads.k_dim * (heads.query if wide else 1)
        k_norm = heads.k_dim * (heads.kv if wide else 1)
    qkv_bias = _switch(fields, style.qkv_bias, style.bias_default)
    out_bias = _switch(fields, style.out_bias, style.bias_default and style.out_bias == style.qkv_bias)
    made: dict[int | None, Part] = {}
    for window in set(windows := read_windows(fields, layers, style.window, period=style.period)):
        made[window] = attention(
            heads, qkv_bias=qkv_bias, out_bias=out_bias, q_norm=q_norm, k_norm=k_norm, window=window
        )
    return [made[window] for window in windows]


def decoder(fields: Fields, style: Style, ffn: Callable[[int, int], list[Part]] | None = None) -> Architecture:
    """A decoder in this style.

    Parameters
    ----------
    fields
        The config.
    style
        How the family differs from Llama.
    ffn
        (hidden size, layers) -> the feed-forward of each layer; None: one dense feed-forward in all.
    """
    count = fields.layers()
    hidden = fields.count("hidden_size")
    heads = read_heads(fields, hidden, kv_default=style.kv_default, dim=style.dim)
    parts = attention_layers(fields, style, heads, count)
    if ffn is None:
        inner = fields.count("intermediate_size")
        bias = _switch(fields, style.mlp_bias, style.bias_default and style.mlp_bias == style.qkv_bias)
        blocks = [feed_forward(hidden, inner, gated=style.gated, bias=bias)] * count
    else:
        blocks = ffn(hidden, count)
    norm = hidden * style.norm_vectors
    layers = combine(parts, blocks, style.norms * norm)
    return assemble(fields, layers, hidden, heads.query, tied=style.tied, final=norm)


def combine(mixers: list[Part], blocks: list[Part], norms: int) -> list[Layer]:
    """Layers of one mixer and one feed-forward each; equal layers are one object."""
    made: dict[tuple[int, int], Layer] = {}
    found = []
    for mixer, block in zip(mixers, blocks, strict=True):
        key = (id(mixer), id(block))
        if key not in made:
            made[key] = layer(mixer, block, norms=norms)
        found.append(made[key])
    return found


def reader(name: str) -> Callable[[Fields], Architecture]:
    """The reader of a family in `DENSE`."""
    return lambda fields: decoder(fields, DENSE[name])


def internlm2(fields: Fields) -> Architecture:
    """InternLM2: Llama with a fused ``wqkv`` and the flag ``bias``."""
    return decoder(fields, Style(kv_default=True, qkv_bias="bias", out_bias="bias"))


def chatglm(fields: Fields) -> Architecture:
    """ChatGLM3 and GLM-4 in their own code's spelling: RMSNorm, fused QKV with a bias, gated feed-forward."""
    layers = fields.layers("num_layers", "num_hidden_layers")
    hidden = fields.count("hidden_size")
    query = fields.count("num_attention_heads", most=100_000)
    grouped = fields.flag("multi_query_attention")
    kv = fields.count("multi_query_group_num", most=100_000) if grouped else query
    if query % kv:
        fields.problem("multi_query_group_num", f"{kv} doesn't divide {query} query heads", "correct either")
    dim = fields.count("kv_channels", default=max(1, hidden // query), most=100_000)
    bias = fields.flag("add_bias_linear")
    qkv_bias = fields.flag("add_qkv_bias") or bias
    part = attention(Heads(hidden, query, kv, dim, dim), qkv_bias=qkv_bias, out_bias=bias)
    block = feed_forward(hidden, fields.count("ffn_hidden_size"), bias=bias)
    return assemble(fields, [layer(part, block, norms=2 * hidden)] * layers, hidden, query)
