"""Measured times of a replica, in the three questions that `planner.cost.pool.Pool` answers.

`prefill_s`, `chunk_s` and `step_s` take what the pool's methods take, and what compression leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.architecture import Architecture
from planner.cost.compute import Compressed
from planner.cost.replica import Shape, WeightFormat
from planner.measured import step
from planner.measured.interval import half_width
from planner.measured.layers import StageOperations, stage_operations
from planner.measured.machine import Machine
from planner.measured.step import Linear

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StepTimes:
    """A split model on a GPU with an engine."""

    machine: Machine
    stages: tuple[StageOperations, ...]
    linear: Linear

    @staticmethod
    def of(architecture: Architecture, shape: Shape, weights: WeightFormat, machine: Machine) -> StepTimes:
        """Split a model and find how its linear layers multiply."""
        return StepTimes(machine, stage_operations(architecture, shape, weights), Linear(linear_key(weights)))

    @property
    def shape(self) -> Shape:
        """How the model is split."""
        return self.stages[0].shape

    def prefill_s(
        self, start: Floats | float, end: Floats | float, size: Floats, left: Compressed
    ) -> tuple[Floats, Floats]:
        """GPU time and latency of tokens ``start`` to ``end``: (chunks + pp - 1) times the slowest stage [s]."""
        stages = [step.prefill_s(s, self.machine, self.linear, start, end, size, left) for s in self.stages]
        busy = np.maximum.reduce(stages)
        if self.shape.pp == 1:
            return busy, busy
        last = self.chunk_s(size, np.maximum(end - size, start), left) / self.shape.pp
        return busy, busy + (self.shape.pp - 1) * last

    def chunk_s(self, size: Floats, position: Floats | float, left: Compressed) -> Floats:
        """A chunk's time through the whole pipeline [s]."""
        stages = [step.chunk_s(s, self.machine, self.linear, size, position, left) for s in self.stages]
        return np.asarray(self.shape.pp * np.maximum.reduce(stages))

    def step_s(self, sequences: Floats, tokens: Floats | float, left: Compressed) -> Floats:
        """A quiet decode step: pp microbatches through pp stages [s]."""
        micro = np.ceil(sequences / self.shape.pp)
        stages = [step.decode_step_s(s, self.machine, self.linear, micro, tokens, left) for s in self.stages]
        return np.asarray(self.shape.pp * np.maximum.reduce(stages))

    def half_width(self, *, prefill_tokens: float = 0.0, tokens: float = 0.0, over_prefix: bool = False) -> float:
        """Half-width of the 80 % interval of these times, in the logarithm: see `interval.half_width`."""
        return half_width(self.machine, prefill_tokens=prefill_tokens, tokens=tokens, over_prefix=over_prefix)


def linear_key(weights: WeightFormat) -> str:
    """How a catalog's weight format is multiplied, as a key of `Machine.gemm`.

    >>> linear_key(WeightFormat()), linear_key(WeightFormat(bytes_ratio=0.27))
    ('bf16', 'int4')
    >>> linear_key(WeightFormat(bytes_ratio=0.5, flops_precision="int8"))
    'w8a8'
    """
    if weights.flops_precision in ("int8", "fp8"):
        return "w8a8" if weights.flops_precision == "int8" else "fp8"
    if weights.bytes_ratio >= 0.75:
        return "bf16"
    return "int8" if weights.bytes_ratio > 0.4 else "int4"
