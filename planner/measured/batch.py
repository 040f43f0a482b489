"""A static batch: equal prompts that start together, answered to the end, as benchmarks run them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.cost.compute import Compressed
from planner.measured.layers import StageOperations
from planner.measured.machine import Machine
from planner.measured.step import Linear, StageTimes

Floats = NDArray[np.float64]

BATCHED_TOKENS = 8192
"""Prompt tokens that engines prefill together [tokens]."""
LENGTHS = 4
"""Lengths at which the decode steps of an answer are evaluated."""
_PLACES, _WEIGHTS = np.polynomial.legendre.leggauss(LENGTHS)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A split model on GPUs with an engine."""

    stages: tuple[StageOperations, ...]
    machine: Machine
    linear: Linear
    capacity_tokens: float
    """Tokens of KV cache that fit the replica [tokens]."""
    cache_ratio: float = 1.0
    """Bytes of the cache over those in 16 bits."""

    def timed(self) -> tuple[StageTimes, ...]:
        """The stages, ready to be asked for times."""
        return tuple(StageTimes(stage, self.machine, self.linear) for stage in self.stages)

    @property
    def pp(self) -> int:
        """Pipeline stages."""
        return self.stages[0].shape.pp


@dataclass(frozen=True, slots=True)
class Batch:
    """Equal requests that start together."""

    sequences: int
    input_tokens: int
    output_tokens: int
    chunk_tokens: int = 0
    """Prompt tokens per step; 0: whole prompts."""


def uncompressed(tokens: Floats, cache_ratio: float = 1.0) -> Compressed:
    """No compression at these lengths; ``cache_ratio`` is that of an engine's own cache format."""
    one = np.ones_like(tokens)
    return Compressed(
        read_tokens=tokens * cache_ratio,
        attended_tokens=tokens,
        element_share=one * cache_ratio,
        prefix_share=one * cache_ratio,
        prefill_linear=one,
        prefill_attention=one,
        decode_time=one,
        prefill_time=one,
    )


def prefill_batch_s(deployment: Deployment, batch: Batch) -> float:
    """Time to prefill all prompts of a batch [s]."""
    prompt = float(batch.input_tokens)
    left = uncompressed(np.array([prompt]), deployment.cache_ratio)
    timed = deployment.timed()
    chunk = batch.chunk_tokens
    if 0 < chunk < batch.input_tokens:
        size = np.array([float(chunk)])
        stages = [stage.prefill_s(0.0, prompt, size, left) for stage in timed]
        return batch.sequences * deployment.pp * max(float(t[0]) for t in stages)
    together = int(min(batch.sequences, max(1, BATCHED_TOKENS // max(1, batch.input_tokens))))
    size = np.array([prompt])
    groups, rest = divmod(batch.sequences, together)
    total = 0.0
    for sequences, times in ((together, groups), (rest, 1)):
        if sequences and times:
            stages = [stage.chunk_s(size, 0.0, left, sequences=float(sequences), whole_prompt=True) for stage in timed]
            total += times * deployment.pp * max(float(t[0]) for t in stages)
    return total


def decode_batch_s(deployment: Deployment, sequences: int, tokens: Floats) -> Floats:
    """Time of a decode step of ``sequences`` sequences at each of the lengths ``tokens`` [s]."""
    micro = np.full_like(tokens, np.ceil(sequences / deployment.pp))
    left = uncompressed(tokens, deployment.cache_ratio)
    stages = [stage.decode_step_s(micro, tokens, left) for stage in deployment.timed()]
    return np.asarray(deployment.pp * np.maximum.reduce(stages))


def answer_s(deployment: Deployment, sequences: int, start: int, output_tokens: int) -> float:
    """Time of all decode steps of an answer that begins after ``start`` tokens [s]."""
    steps = max(0, output_tokens - 1)
    if not steps:
        return 0.0
    lengths = start + steps * (_PLACES + 1.0) / 2.0
    return float(steps * np.sum(_WEIGHTS / 2.0 * decode_batch_s(deployment, sequences, lengths)))


def request_s(deployment: Deployment, batch: Batch) -> float:
    """Time until the last request of a batch is answered [s].

    Where the batch exceeds the KV cache, engines hold requests back or preempt them: the batch runs in
    waves of as many whole requests as fit.
    """
    total = 0.0
    waiting = batch.sequences
    fits = int(deployment.capacity_tokens // (batch.input_tokens + batch.output_tokens))
    while waiting > 0:
        wave = max(1, min(waiting, fits))
        repeats = waiting // wave
        total += repeats * _wave_s(deployment, replace(batch, sequences=wave))
        waiting -= repeats * wave
        if waiting:
            total += _wave_s(deployment, replace(batch, sequences=waiting))
            break
    return total


def _wave_s(deployment: Deployment, batch: Batch) -> float:
    answer = answer_s(deployment, batch.sequences, batch.input_tokens, batch.output_tokens)
    return prefill_batch_s(deployment, batch) + answer
