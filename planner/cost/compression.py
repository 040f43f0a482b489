"""What compression does to stored bytes, read bytes and prefill work, for arrays of combinations.

A combination has one option in each of the dimensions layer, head, token, hidden and attention.
An option keeps ``min(n, slope n + const)`` of n tokens. Options of different dimensions apply one
after the other (token, head, attention, layer, hidden): slopes multiply, later slopes also shrink
earlier budgets, and a budget isn't cut by another one (2048 of 1024 kept tokens are 1024 tokens).
All arrays have the shape ``(dimension, combination)`` with the dimensions in the order of
`planner.plan.DIMENSIONS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from catalog.schema import Linear, Point, Technique

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LAYER, HEAD, TOKEN, HIDDEN, ATTENTION = range(5)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
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
    decode_time: Floats
    """``(combination,)``: factor on the time of a decode step: dequantising, scoring, gathering."""
    prefill_time: Floats
    """``(combination,)``: factor on the time of prefill."""
    _stored: dict[tuple[float, float], Floats] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `stored_tokens` was asked before: every replica of a pricing asks the same lengths."""

    def take(self, columns: NDArray[np.int64] | Bools) -> CompressionTable:
        """Some of the combinations."""
        return CompressionTable(*(getattr(self, f.name)[..., columns] for f in fields(self) if f.init))

    @staticmethod
    def joined(tables: Sequence[CompressionTable]) -> CompressionTable:
        """Several tables, one after the other."""
        names = [f.name for f in fields(CompressionTable) if f.init]
        return CompressionTable(*(np.concatenate([getattr(t, name) for t in tables], axis=-1) for name in names))

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
        key = (prompt_tokens, tokens)
        if key not in self._stored:
            self._stored[key] = self._kept(self.storage_slope, self.storage_const, prompt_tokens, tokens)
        return self._stored[key]

    def read_tokens(self, prompt_tokens: float, tokens: float) -> Floats:
        """Bytes that a decode step reads of a growing cache, in uncompressed tokens ``(combination,)``."""
        return self._kept(self.reads_slope, self.reads_const, prompt_tokens, tokens)

    def attended_tokens(self, prompt_tokens: float, tokens: float) -> Floats:
        """Cached entries that a decode step computes with ``(combination,)`` [tokens].

        Quantised entries are read in fewer bytes but still computed with, and shared layers still
        attend, so only the token, head and attention options count.
        """
        attended = self._kept_of_tokens(self.reads_slope, self.reads_const, prompt_tokens, tokens)
        for dimension in (HEAD, ATTENTION):
            attended = _kept(self.reads_slope[dimension], self.reads_const[dimension], attended)
        return np.asarray(np.minimum(attended, tokens))

    def element_share(self) -> Floats:
        """Factor on the stored bytes of windowed caches, which only the hidden dimension shrinks ``(combination,)``."""
        return np.asarray(self.storage_slope[HIDDEN])

    def element_reads_share(self) -> Floats:
        """Factor on the bytes read of windowed and top-k caches ``(combination,)``."""
        return np.asarray(self.reads_slope[HIDDEN])

    def prefix_share(self) -> Floats:
        """Factor on the bytes of the prefix that a prefill chunk reads ``(combination,)``.

        Token and head eviction happen after prefill, so only narrower elements and sparse prefill
        attention shrink what a chunk reads.
        """
        return np.asarray(self.reads_slope[HIDDEN] * np.minimum(1.0, self.prefill_attention))

    def _kept(self, slope: Floats, const: Floats, prompt_tokens: float, tokens: float) -> Floats:
        kept = self._kept_of_tokens(slope, const, prompt_tokens, tokens)
        for dimension in (HEAD, ATTENTION, LAYER, HIDDEN):
            kept = _kept(slope[dimension], const[dimension], kept)
        return kept

    def _kept_of_tokens(self, slope: Floats, const: Floats, prompt_tokens: float, tokens: float) -> Floats:
        prompt = min(prompt_tokens, tokens)
        on_prompt = _kept(slope[TOKEN], const[TOKEN], prompt) + (tokens - prompt)
        return np.where(self.evicts_while_decoding, _kept(slope[TOKEN], const[TOKEN], tokens), on_prompt)


def _kept(slope: Floats, const: Floats, tokens: Floats | float) -> Floats:
    """What an option leaves of so many tokens: at most all of them (a slope above 1 is metadata on top)."""
    return np.asarray(np.minimum(np.maximum(slope, 1.0) * tokens, slope * tokens + const))


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
        decode_time=np.ones(count),
        prefill_time=np.ones(count),
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
            if point.overhead is not None:
                # What is saved is in the bytes and FLOPs already: a technique by itself only costs time.
                table.decode_time[column] *= max(1.0, point.overhead.decode or 1.0)
                table.prefill_time[column] *= max(1.0, point.overhead.prefill or 1.0)
            if dimension == TOKEN:
                table.evicts_while_decoding[column] = technique.evicts_while_decoding
    return table


def _set(slope: Floats, const: Floats, dimension: int, column: int, effect: Linear) -> None:
    slope[dimension, column] = effect.slope
    const[dimension, column] = effect.const_tokens
