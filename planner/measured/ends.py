"""The ends of the 80 % interval of measured times, as times: whoever prices with them has the ends of a price.

Errors of prefill and decode are taken to go together, as they come from one GPU and one engine: the
interval of a sum is the sum of the intervals, which covers rather more than 80 %.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.architecture import Architecture
from planner.cost.compute import Compressed
from planner.cost.replica import Shape, WeightFormat
from planner.measured.interval import half_width
from planner.measured.times import MeasuredTimer, StepTimes

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EndTimer:
    """One end of the interval of every measured time."""

    timer: MeasuredTimer
    sign: int
    """-1: the low end; 1: the high end."""

    def times(self, architecture: Architecture, shape: Shape, weights: WeightFormat) -> EndTimes:
        """Times of a model split so."""
        machine = self.timer.machine
        splitting = replace(machine, prefill=replace(machine.prefill, chain=0.0))
        return EndTimes(
            self.timer.times(architecture, shape, weights),
            StepTimes.of(architecture, shape, weights, splitting, self.timer.fabric),
            self.sign,
        )


@dataclass(frozen=True, eq=False)
class EndTimes:
    """A split model at one end of the interval."""

    middle: StepTimes
    splitting: StepTimes
    """With a prefill kernel that splits the keys of few queries over the whole GPU."""
    sign: int
    known: dict[Hashable, Any] = field(default_factory=dict)

    def prefill_s(
        self, start: Floats | float, end: Floats | float, size: Floats, left: Compressed
    ) -> tuple[Floats, Floats]:
        """GPU time and latency of a prefill [s]."""
        times = self.middle.prefill_s(start, end, size, left)
        others = self.splitting.prefill_s(start, end, size, left)
        pieces = np.ceil((end - start) / size)
        over = (pieces > 1) | (np.asarray(start) > 0)
        busy, latency = (
            time * self._factor(end, end, np.where(over, other / time, 1.0))
            for time, other in zip(times, others, strict=True)
        )
        return busy, latency

    def chunk_s(self, size: Floats, position: Floats | float, left: Compressed) -> Floats:
        """A chunk's time through the whole pipeline, at worst [s]."""
        time = self.middle.chunk_s(size, position, left)
        other = self.splitting.chunk_s(size, position, left)
        ratio = np.where(np.asarray(position) > 0, other / time, 1.0)
        return time * self._factor(position + size, position + size, ratio)

    def step_parts(self, sequences: Floats, tokens: float, left: Compressed) -> tuple[Floats, ...]:
        """What a quiet decode step takes at least [s]."""
        factor = self._factor(0.0, tokens, 1.0)
        return tuple(part * factor for part in self.middle.step_parts(sequences, tokens, left))

    def _factor(self, prefill_tokens: Floats | float, tokens: Floats | float, splitting: Floats | float) -> Floats:
        """From a time to its end; ``splitting``: time of a kernel that splits keys, over the predicted one."""
        machine = self.middle.stages[0].machine
        # Where few queries over many keys weren't measured, the interval reaches from one kind of kernel to the other.
        prefix = 0.0 if machine.reach.over_prefix else -np.log(np.minimum(splitting, 1.0)) / 2.0
        half = half_width(machine, prefill_tokens=prefill_tokens, tokens=tokens, prefix=prefix)
        return np.asarray(np.exp(self.sign * half))
