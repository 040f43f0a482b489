"""The 80 % interval of a predicted time: as wide as the errors on points that no fit had seen.

Errors are close to log-normal, so an interval is a factor either way. Its half-width is that of the
engine's era, widened in squares for what was transferred or extrapolated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from planner.measured.machine import Machine

if TYPE_CHECKING:
    from planner.measured.batch import Batch, Deployment

Floats = NDArray[np.float64]

DOUBLINGS = 3.0
"""Doublings beyond the measured lengths over which an interval widens by its full length part."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """A predicted time with its 80 % interval [s]."""

    value_s: float
    low_s: float
    high_s: float


def half_width(
    machine: Machine,
    *,
    in_waves: bool = False,
    prefix: Floats | float = 0.0,
    prefill_tokens: Floats | float = 0.0,
    tokens: Floats | float = 0.0,
) -> Floats:
    """Half-width of the 80 % interval, in the logarithm; arguments may be arrays.

    Parameters
    ----------
    machine
        The GPU with its engine.
    in_waves
        Whether the batch exceeds the KV cache.
    prefix
        Widening for chunks over a longer prefix, by how much depends on the kernel.
    prefill_tokens, tokens
        Longest prompt that is prefilled and longest cache that is attended to [tokens].
    """
    more = machine.widening
    reach = machine.reach
    beyond = np.maximum(np.maximum(prefill_tokens / reach.prefill_tokens, tokens / reach.decode_tokens), 1.0)
    length = more.length * np.log2(beyond) / DOUBLINGS
    fixed = (machine.runtime.spread, more.gpu, more.engine, more.waves if in_waves else 0.0)
    return np.asarray(np.sqrt(sum(part * part for part in fixed) + prefix * prefix + length * length))


def with_interval(value_s: float, half: float) -> Predicted:
    """The value with its interval.

    >>> round(with_interval(1.0, 0.1).high_s, 3)
    1.105
    """
    return Predicted(value_s, value_s * math.exp(-half), value_s * math.exp(half))


def batch_half_width(deployment: Deployment, batch: Batch, metric: str) -> float:
    """Half-width for a metric of a static batch, in the logarithm."""
    length = batch.input_tokens + batch.output_tokens
    return float(
        half_width(
            deployment.machine,
            in_waves=metric == "e2e_s" and batch.sequences * length > deployment.capacity_tokens,
            prefill_tokens=batch.input_tokens if metric != "tpot_s" else 0.0,
            tokens=float(length),
        )
    )
