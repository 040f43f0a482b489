"""The 80 % interval of a predicted time: as wide as the errors on points that no fit had seen.

Errors are close to log-normal, so an interval is a factor either way. Its half-width is that of the
engine's era, widened in squares for what was transferred or extrapolated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.measured.batch import Batch, Deployment
from planner.measured.machine import Machine

PREFILL_TOKENS, DECODE_TOKENS = 16_384, 131_072
"""Longest sequences on which attention kernels were measured [tokens]."""
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
    over_prefix: bool = False,
    prefill_tokens: float = 0.0,
    tokens: float = 0.0,
) -> float:
    """Half-width of the 80 % interval, in the logarithm.

    Parameters
    ----------
    machine
        The GPU with its engine.
    in_waves
        Whether the batch exceeds the KV cache.
    over_prefix
        Whether the time is that of prefill chunks over a longer prefix.
    prefill_tokens, tokens
        Longest prompt that is prefilled and longest cache that is attended to [tokens].
    """
    more = machine.widening
    beyond = max(prefill_tokens / PREFILL_TOKENS, tokens / DECODE_TOKENS, 1.0)
    parts = (
        machine.runtime.spread,
        more.gpu,
        more.engine,
        more.waves if in_waves else 0.0,
        more.prefix if over_prefix else 0.0,
        more.length * math.log2(beyond) / DOUBLINGS,
    )
    return math.sqrt(sum(part * part for part in parts))


def with_interval(value_s: float, half: float) -> Predicted:
    """The value with its interval.

    >>> round(with_interval(1.0, 0.1).high_s, 3)
    1.105
    """
    return Predicted(value_s, value_s * math.exp(-half), value_s * math.exp(half))


def batch_half_width(deployment: Deployment, batch: Batch, metric: str) -> float:
    """Half-width for a metric of a static batch, in the logarithm."""
    length = batch.input_tokens + batch.output_tokens
    return half_width(
        deployment.machine,
        in_waves=metric == "e2e_s" and batch.sequences * length > deployment.capacity_tokens,
        prefill_tokens=batch.input_tokens if metric != "tpot_s" else 0.0,
        tokens=float(length),
    )
