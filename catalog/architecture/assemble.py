"""From a family's layers to the whole `Architecture`: embeddings, head, context, quantisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from catalog.architecture.architecture import Architecture, Layer
from catalog.architecture.fields import MAX_TOKENS, Fields

CONTEXT_NAMES = ("model_max_length", "max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
"""Spellings of the window, the decisive one first: Cohere declares its window as ``model_max_length``."""
_STRETCHED = ("linear", "dynamic")


def assemble(
    fields: Fields,
    layers: Sequence[Layer],
    hidden: int,
    query_heads: int,
    *,
    tied: bool = False,
    final: int | None = None,
    extra_embedding: int = 0,
    head_bias: bool = False,
    context: int | None = None,
) -> Architecture:
    """The whole text model.

    Parameters
    ----------
    fields
        The (text) config.
    layers, hidden, query_heads
        What the family's reader found.
    tied
        The family's default of ``tie_word_embeddings``.
    final
        Parameters of the final norm; None: one vector of the hidden size.
    extra_embedding
        Parameters looked up beside the token embedding: positions, per-layer inputs.
    head_bias
        Whether the output projection has a bias.
    context
        Window where the file has none; None: it must have one.
    """
    vocab = fields.count("vocab_size", "padded_vocab_size", most=100_000_000)
    return Architecture(
        model_type="",
        layers=tuple(layers),
        hidden_size=hidden,
        vocab_size=vocab,
        query_heads=query_heads,
        embedding_params=vocab * hidden + extra_embedding,
        head_params=vocab * hidden + (vocab if head_bias else 0),
        tied=fields.flag("tie_word_embeddings", default=tied),
        other_params=0,
        final_params=hidden if final is None else final,
        context_tokens=read_context(fields, context),
    )


def read_context(fields: Fields, default: int | None = None) -> int:
    """Window that the config declares [tokens].

    ``max_position_embeddings`` already includes the factor of the rope types ``yarn``, ``llama3`` and
    ``longrope``, or the model's authors ask to raise it by hand; ``linear`` and ``dynamic`` multiply it,
    as vLLM 0.33 reads it.
    """
    names: tuple[str, ...] = CONTEXT_NAMES
    limit = fields.raw("model_max_length")
    if not isinstance(limit, int) or limit > MAX_TOKENS:
        # Tokenizers' 1e30 finds its way into configs, and means: not stated.
        names = tuple(name for name in names if name != "model_max_length")
    tokens = fields.count(*names, default=default, most=MAX_TOKENS)
    rope = fields.raw("rope_parameters", "rope_scaling")
    if rope is None:
        return tokens
    if not isinstance(rope, Mapping):
        fields.problem("rope_scaling", "is no object", "copy it from the model's config.json, or write null")
        return tokens
    stretched = rope.get("rope_type", rope.get("type")) in _STRETCHED
    if stretched and not str(fields.raw("model_type")).startswith("gemma3"):
        factor = Fields(rope, fields.problems, f"{fields.path}rope_scaling.").ratio("factor", 1.0, 1.0, 1e6)
        return int(tokens * factor)
    return tokens


def native_weight_bits(config: Mapping[str, object]) -> float | None:
    """Bits per quantised weight of the checkpoint, block scales included; None if it isn't quantised.

    Formats with a scale per small block count it: MXFP4 has 8 bits per 32 weights (4.25), NVFP4 8 bits
    per 16 (4.5), integer formats 16 bits per group. A ``quantization_config`` that isn't understood gives
    None, which plans the weights at 16 bits: too many, never too few.
    """
    text = config.get("text_config")
    nested = text.get("quantization_config") if isinstance(text, Mapping) else None
    quant = config.get("quantization_config") or nested
    if not isinstance(quant, Mapping):
        return None
    method = str(quant.get("quant_method", "")).lower()
    algorithm = str(quant.get("moe_quant_algo") or quant.get("quant_algo") or "").upper()
    if method == "mxfp4" or (config.get("expert_dtype") == "fp4" and "NVFP4" not in algorithm):
        return 4.25
    if "NVFP4" in algorithm:
        return 4.5
    if algorithm == "FP8" or method == "fp8":
        return 8.0
    if method in ("awq", "gptq", "auto-round"):
        return _grouped(quant.get("bits"), quant.get("group_size"))
    groups = quant.get("config_groups")
    found = [_group_bits(group) for group in groups.values()] if isinstance(groups, Mapping) else []
    known = [bits for bits in found if bits is not None]
    # Several groups mean layers of several precisions: the widest, so that the weights fit.
    return max(known) if known and len(known) == len(found) else None


def _group_bits(group: object) -> float | None:
    weights = group.get("weights") if isinstance(group, Mapping) else None
    return _grouped(weights.get("num_bits"), weights.get("group_size")) if isinstance(weights, Mapping) else None


def _grouped(bits: object, group: object) -> float | None:
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 16:
        return None
    if isinstance(group, bool) or not isinstance(group, int) or group < 1:
        return float(bits)
    return bits + 16 / group
