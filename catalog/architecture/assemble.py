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
