"""Measured times of a replica, as `planner.cost.pool.Pool` asks for them (`planner.cost.times`)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.architecture import Architecture
from planner.cost.compute import Compressed
from planner.cost.replica import Shape, WeightFormat
from planner.measured.fabric import INSIDE, Fabric
from planner.measured.layers import stage_operations
from planner.measured.machine import Machine, Reach, Widening
from planner.measured.step import Linear, StageTimes

Floats = NDArray[np.float64]

MOST_SPLITS = 1024
"""Splits of models whose times a timer remembers."""


@dataclass(frozen=True, eq=False)
class MeasuredTimer:
    """Measured times of one GPU with one engine, for any split."""

    machine: Machine
    fabric: Fabric = INSIDE
    _known: dict[tuple[int, Shape, WeightFormat], tuple[Architecture, StepTimes]] = field(default_factory=dict)

    @property
    def costs(self) -> object:
        """Equal for machines that cost the same, whatever was measured of them and however well."""
        nothing = replace(self.machine.runtime, spread=0.0)
        return repr(
            replace(
                self.machine, engine="", version="", runtime=nothing, widening=Widening(), transferred=(), reach=Reach()
            )
        )

    def times(self, architecture: Architecture, shape: Shape, weights: WeightFormat) -> StepTimes:
        """Times of a model split so; made once."""
        key = (id(architecture), shape, weights)
        if key not in self._known:
            if len(self._known) >= MOST_SPLITS:
                self._known.clear()  # A sweep over models would keep them all.
            # The architecture is kept, so that nothing else takes its id.
            found = StepTimes.of(architecture, shape, weights, self.machine, self.fabric)
            self._known[key] = (architecture, found)
        return self._known[key][1]


@dataclass(frozen=True, eq=False)
class StepTimes:
    """A split model on a GPU with an engine."""

    shape: Shape
    stages: tuple[StageTimes, ...]
    known: dict[Hashable, Any] = field(default_factory=dict)
    """What `planner.cost.phases` asked before and its answer."""

    @staticmethod
    def of(
        architecture: Architecture, shape: Shape, weights: WeightFormat, machine: Machine, fabric: Fabric = INSIDE
    ) -> StepTimes:
        """Split a model and find how its linear layers multiply."""
        linear = Linear(linear_key(weights))
        stages = stage_operations(architecture, shape, weights)
        return StepTimes(shape, tuple(StageTimes(stage, machine, linear, fabric) for stage in stages))

    def prefill_s(
        self, start: Floats | float, end: Floats | float, size: Floats, left: Compressed
    ) -> tuple[Floats, Floats]:
        """GPU time and latency of tokens ``start`` to ``end``: (chunks + pp - 1) times the slowest stage [s]."""
        busy = np.maximum.reduce([stage.prefill_s(start, end, size, left) for stage in self.stages])
        if self.shape.pp == 1:
            return busy, busy
        last = self.chunk_s(size, np.maximum(end - size, start), left) / self.shape.pp
        return busy, busy + (self.shape.pp - 1) * last

    def chunk_s(self, size: Floats, position: Floats | float, left: Compressed) -> Floats:
        """A chunk's time through the whole pipeline, at worst [s]."""
        stages = [stage.chunk_s(size, position, left, worst=True) for stage in self.stages]
        return np.asarray(self.shape.pp * np.maximum.reduce(stages))

    def step_s(self, sequences: Floats, tokens: Floats | float, left: Compressed) -> Floats:
        """A quiet decode step: pp microbatches through pp stages [s]."""
        return np.asarray(np.maximum.reduce(self.step_parts(sequences, tokens, left)) * left.decode_time)

    def step_parts(self, sequences: Floats, tokens: Floats | float, left: Compressed) -> tuple[Floats, ...]:
        """What a quiet decode step takes at least, for several reasons, techniques' own time apart [s]."""
        micro = np.ceil(sequences / self.shape.pp)
        parts = [part for stage in self.stages for part in stage.decode_parts(micro, tokens, left)]
        return tuple(self.shape.pp * part for part in parts)


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
