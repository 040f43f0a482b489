"""The GPT generation: LayerNorm with biases, ungated feed-forward, mostly one KV head per query head."""

from __future__ import annotations

from catalog.architecture.architecture import Architecture
from catalog.architecture.assemble import assemble, read_context
from catalog.architecture.fields import Fields
from catalog.architecture.parts import Heads, Part, attention, feed_forward, layer, read_heads

_HIDDEN = ("hidden_size", "n_embd", "n_embed")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
_QUERY = ("num_attention_heads", "n_head")
_ALIBI_CONTEXT = 2048


def _one_kv_per_head(fields: Fields, hidden: int, query: int) -> Heads:
    if hidden % query and fields.sound(*_HIDDEN, *_QUERY):
        fields.problem(_QUERY[0], f"{query} doesn't divide hidden_size {hidden}", "correct either")
    dim = max(1, hidden // query)
    return Heads(hidden, query, query, dim, dim)


def gpt2(fields: Fields) -> Architecture:
    """GPT-2 and GPT-3: learned positions, biases everywhere, tied embeddings."""
    hidden, count = fields.count(*_HIDDEN), fields.layers(*_LAYERS)
    heads = _one_kv_per_head(fields, hidden, fields.count(*_QUERY, most=100_000))
    inner = fields.count("n_inner", default=4 * hidden)
    part = attention(heads, qkv_bias=True, out_bias=True)
    block = feed_forward(hidden, inner, gated=False, bias=True)
    positions = read_context(fields) * hidden
    layers = [layer(part, block, norms=4 * hidden)] * count
    return assemble(fields, layers, hidden, heads.query, tied=True, final=2 * hidden, extra_embedding=positions)


def opt(fields: Fields) -> Architecture:
    """OPT: learned positions with an offset of two; the 350M variant's projections are refused."""
    hidden, count = fields.count("hidden_size"), fields.layers()
    heads = _one_kv_per_head(fields, hidden, fields.count("num_attention_heads", most=100_000))
    if fields.count("word_embed_proj_dim", default=hidden) != hidden:
        fields.problem("word_embed_proj_dim", "differs from hidden_size", "this variant (OPT-350M) isn't supported")
    bias = fields.flag("enable_bias", default=True)
    affine = 2 if fields.flag("layer_norm_elementwise_affine", default=True) else 0
    last = affine if fields.flag("do_layer_norm_before", default=True) else 0
    part = attention(heads, qkv_bias=bias, out_bias=bias)
    block = feed_forward(hidden, fields.count("ffn_dim"), gated=False, bias=bias)
    positions = (read_context(fields) + 2) * hidden
    layers = [layer(part, block, norms=2 * affine * hidden)] * count
    return assemble(fields, layers, hidden, heads.query, tied=True, final=last * hidden, extra_embedding=positions)


def gptj(fields: Fields) -> Architecture:
    """GPT-J: one LayerNorm per layer, no attention biases, a head with a bias."""
    hidden, count = fields.count(*_HIDDEN), fields.layers(*_LAYERS)
    heads = _one_kv_per_head(fields, hidden, fields.count(*_QUERY, most=100_000))
    block = feed_forward(hidden, fields.count("n_inner", default=4 * hidden), gated=False, bias=True)
    layers = [layer(attention(heads), block, norms=2 * hidden)] * count
    return assemble(fields, layers, hidden, heads.query, final=2 * hidden, head_bias=True)


def gpt_neox(fields: Fields) -> Architecture:
    """GPT-NeoX and Pythia."""
    hidden, count = fields.count("hidden_size"), fields.layers()
    heads = _one_kv_per_head(fields, hidden, fields.count("num_attention_heads", most=100_000))
    bias = fields.flag("attention_bias", default=True)
    part = attention(heads, qkv_bias=bias, out_bias=bias)
    block = feed_forward(hidden, fields.count("intermediate_size"), gated=False, bias=True)
    layers = [layer(part, block, norms=4 * hidden)] * count
    return assemble(fields, layers, hidden, heads.query, final=2 * hidden)


def bloom(fields: Fields) -> Architecture:
    """BLOOM: ALiBi, hence no declared window (trained at 2048), and a LayerNorm on the embedding."""
    hidden, count = fields.count(*_HIDDEN), fields.layers(*_LAYERS)
    heads = _one_kv_per_head(fields, hidden, fields.count(*_QUERY, most=100_000))
    part = attention(heads, qkv_bias=True, out_bias=True)
    block = feed_forward(hidden, 4 * hidden, gated=False, bias=True)
    layers = [layer(part, block, norms=4 * hidden)] * count
    return assemble(
        fields,
        layers,
        hidden,
        heads.query,
        tied=True,
        final=2 * hidden,
        extra_embedding=2 * hidden,
        context=_ALIBI_CONTEXT,
    )


def falcon(fields: Fields) -> Architecture:
    """Falcon: one KV head with ``multi_query``, groups with ``new_decoder_architecture``, else MHA."""
    hidden, count = fields.count(*_HIDDEN), fields.layers(*_LAYERS)
    query = fields.count(*_QUERY, most=100_000)
    grouped = fields.flag("new_decoder_architecture")
    multi_query = fields.flag("multi_query", default=True)
    one = _one_kv_per_head(fields, hidden, query)
    kv = query
    if grouped:
        kv = fields.count("num_kv_heads", "n_head_kv", default=query, most=100_000)
        if query % kv:
            fields.problem("num_kv_heads", f"{kv} KV heads don't divide {query} query heads", "correct either")
    elif multi_query:
        kv = 1
    bias = fields.flag("bias")
    parallel = fields.flag("parallel_attn", default=True)
    norms = fields.count("num_ln_in_parallel_attn", default=2, most=2) if grouped else (1 if parallel else 2)
    part = attention(Heads(hidden, query, kv, one.k_dim, one.v_dim), qkv_bias=bias, out_bias=bias)
    inner = fields.count("ffn_hidden_size", default=4 * hidden)
    block = feed_forward(hidden, inner, gated=False, bias=bias)
    layers = [layer(part, block, norms=2 * norms * hidden)] * count
    return assemble(fields, layers, hidden, query, tied=True, final=2 * hidden, context=_ALIBI_CONTEXT)


def nemotron_nas(fields: Fields) -> Architecture:
    """Llama-Nemotron found by architecture search: each layer has its own KV heads and width, or none.

    The width is 2/3 of ``ffn_mult`` hidden sizes, rounded up to 256, as in the model's own code.
    """
    hidden, count = fields.count("hidden_size"), fields.layers()
    query = fields.count("num_attention_heads", most=100_000)
    heads = read_heads(fields, hidden, kv_default=True)
    blocks = fields.raw("block_configs")
    if not isinstance(blocks, list) or len(blocks) != count:
        fields.problem("block_configs", f"is no list of {count} objects", "copy it from the model's config.json")
        blocks = []
    layers = []
    for index, block in enumerate(blocks):
        here = Fields(
            block if isinstance(block, dict) else {}, fields.problems, f"{fields.path}block_configs[{index}]."
        )
        parts, norms = [], 0
        mixer, ffn = here.nested("attention"), here.nested("ffn")
        for sub in (mixer, ffn):
            if sub is not None and sub.flag("replace_with_linear"):
                sub.problem("replace_with_linear", "true isn't supported", "plan this model by its own engine")
        if mixer is not None and not mixer.flag("no_op"):
            if mixer.has("window_length", "sparsify"):
                mixer.problem("window_length", "a window isn't supported here", "plan this model by its own engine")
            group = mixer.count("n_heads_in_group", most=100_000)
            if query % group:
                mixer.problem("n_heads_in_group", f"{group} doesn't divide {query} query heads", "correct either")
            parts.append(attention(Heads(hidden, query, max(1, query // group), heads.k_dim, heads.v_dim)))
            norms += hidden
        if ffn is not None and not ffn.flag("no_op"):
            width = int(2 * ffn.ratio("ffn_mult", 1.0, 1e-3, 1e3) * hidden / 3)
            parts.append(feed_forward(hidden, -(-width // 256) * 256))
            norms += hidden
        layers.append(layer(*parts, norms=norms) if parts else layer(attention_free()))
    return assemble(fields, layers, hidden, query)


def attention_free() -> Part:
    """A layer that does nothing."""
    return Part()
