"""What compression does to stored bytes, read bytes and prefill work, for arrays of combinations.

A combination has one option in each of the dimensions layer, head, token, hidden and attention.
An option keeps ``min(1, slope + const / n)`` of a cache of n tokens; options of different dimensions
multiply. All arrays have the shape ``(dimension, combination)`` with the dimensions in the order of
`planner.plan.DIMENSIONS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.schema import Linear, Point, Technique

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LAYER, HEAD, TOKEN, HIDDEN, ATTENTION = range(5)


@dataclass(frozen=True, slots=True)
class CompressionTable:
    """Combinations of compression options, as struct of arrays."""

    storage_slope: Floats
    storage_const: Floats
    """[tokens]"""
    reads_slope: Floats
    reads_const: Floats
    """[tokens]"""
    evicts_while_decoding: Bools
    """``(combination,)``: the token option bounds generated tokens too."""
    prefill_linear: Floats
    """``(combination,)``: factor on the FLOPs of the linear layers in prefill."""
    prefill_attention: Floats
    """``(combination,)``: factor on the FLOPs of attention in prefill."""

    def __len__(self) -> int:
        return int(self.prefill_linear.shape[0])

    def stored_tokens(self, prompt_tokens: float, tokens: float) -> Floats:
        """Bytes that a growing cache takes, in tokens of the uncompressed cache ``(combination,)``.

        Parameters
        ----------
        prompt_tokens
            Tokens that token eviction may drop [tokens].
        tokens
            All tokens, the generated ones included [tokens].
        """
        return self._kept(self.storage_slope, self.storage_const, prompt_tokens, tokens)

    def read_tokens(self, prompt_tokens: float, tokens: float) -> Floats:
        """Bytes that a decode step reads of a growing cache, in uncompressed tokens ``(combination,)``."""
        return self._kept(self.reads_slope, self.reads_const, prompt_tokens, tokens)

    def attended_share(self, tokens: float) -> Floats:
        """Share of the cached entries that a decode step computes with ``(combination,)``.

        Quantised entries are read in fewer bytes but still computed with, and shared layers still
        attend, so only the head, token and attention options count.
        """
        share = np.ones(len(self))
        for dimension in (HEAD, TOKEN, ATTENTION):
            share *= _fraction(self.reads_slope[dimension], self.reads_const[dimension], tokens)
        return np.minimum(share, 1.0)

    def element_share(self) -> Floats:
        """Factor on the bytes of windowed caches, which only the hidden dimension shrinks ``(combination,)``."""
        return self.storage_slope[HIDDEN]

    def prefix_share(self) -> Floats:
        """Factor on the bytes of the prefix that a prefill chunk reads ``(combination,)``.

        Token and head eviction happen after prefill, so only narrower elements and sparse prefill
        attention shrink what a chunk reads.
        """
        return self.reads_slope[HIDDEN] * np.minimum(1.0, self.prefill_attention)

    def _kept(self, slope: Floats, const: Floats, prompt_tokens: float, tokens: float) -> Floats:
        prompt = min(prompt_tokens, tokens)
        generated = tokens - prompt
        on_prompt = _fraction(slope[TOKEN], const[TOKEN], prompt) * prompt + generated
        always = _fraction(slope[TOKEN], const[TOKEN], tokens) * tokens
        kept = np.where(self.evicts_while_decoding, always, on_prompt)
        for dimension in (LAYER, HEAD, HIDDEN, ATTENTION):
            kept = kept * _fraction(slope[dimension], const[dimension], tokens)
        return np.asarray(kept)


def _fraction(slope: Floats, const: Floats, tokens: float) -> Floats:
    """``slope + const / tokens``, at most all of it (a slope above 1 is metadata on top)."""
    return np.minimum(np.maximum(slope, 1.0), slope + const / max(tokens, 1.0))


def compression_table(combinations: Sequence[Sequence[tuple[Technique, Point] | None]]) -> CompressionTable:
    """Stack combinations of catalog points, one per dimension (None: no technique) in each.

    Weight formats and offload techniques aren't combinations of this table.
    """
    count = len(combinations)
    table = CompressionTable(
        storage_slope=np.ones((5, count)),
        storage_const=np.zeros((5, count)),
        reads_slope=np.ones((5, count)),
        reads_const=np.zeros((5, count)),
        evicts_while_decoding=np.zeros(count, dtype=np.bool_),
        prefill_linear=np.ones(count),
        prefill_attention=np.ones(count),
    )
    for column, combination in enumerate(combinations):
        for dimension, option in enumerate(combination):
            if option is None:
                continue
            technique, point = option
            _set(table.storage_slope, table.storage_const, dimension, column, point.storage)
            _set(table.reads_slope, table.reads_const, dimension, column, point.reads)
            table.prefill_linear[column] *= point.prefill.linear
            table.prefill_attention[column] *= point.prefill.attention
            if dimension == TOKEN:
                table.evicts_while_decoding[column] = technique.evicts_while_decoding
    return table


def _set(slope: Floats, const: Floats, dimension: int, column: int, effect: Linear) -> None:
    slope[dimension, column] = effect.slope
    const[dimension, column] = effect.const_tokens
